"""Looking inside: what is shown is what the model computes, and what cannot be shown is a sentence that says how to get it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.command_line import cli
from support.perceptual_networks import LAYERS, write_perceptual
from support.small_models import picture

import impasto
from impasto.errors import ModelNotFound, OptionError
from impasto.export.inside.feature_maps import CHANNELS
from impasto.export.inside.look import LONGEST, look_inside
from impasto.package.manifest import MANIFEST
from impasto.runtime import StyleMeter


@pytest.fixture
def photo(tmp_path) -> Path:
    Image.fromarray(picture(48, 64)).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


@pytest.fixture
def stylizer(make_package) -> Path:
    return make_package(task="stylize", thumbnail=8, border=8)


def with_quality(package: Path, quality: dict[str, object], recipe: dict[str, object] | None = None) -> None:
    path = package / MANIFEST
    data = json.loads(path.read_text())
    data["quality"], data["recipe"] = quality, recipe or {}
    path.write_text(json.dumps(data))


def test_stages_are_the_networks_own_values(stylizer, photo):
    found = look_inside(stylizer, photo)
    first, second = found.stages
    assert (first.name, first.channels, first.stride, len(first.maps)) == ("w1", 32, 4, CHANNELS)
    assert [one.shape for one in first.maps] == [(12, 16)] * CHANNELS  # the border is not shown
    assert 0.2 < first.zeros < 0.8 and second.zeros < 0.05  # a ReLU stands behind the first alone
    assert (
        first.radius == second.radius == 4
    )  # 3 x 3 cells of 4 pixels; the second convolution looks at its own place alone
    with impasto.load(stylizer, backend="onnxruntime-cpu") as model:
        assert np.array_equal(found.drawing, model(picture(48, 64)))


def test_a_large_photo_is_scaled_down_and_layers_are_counted_for_it(make_package, tmp_path):
    Image.fromarray(picture(400, 1200)).save(tmp_path / "large.png")
    found = look_inside(make_package(), tmp_path / "large.png")
    assert max(found.height, found.width) == LONGEST and found.photo.shape[:2] == (found.height, found.width)
    assert found.padded == (172, 512)  # of 171 rows, a multiple of 4
    assert found.layers[0].shape[-2:] == found.padded


def test_gram_distances_are_those_of_the_meter(stylizer, photo, tmp_path):
    painting = tmp_path / "painting.png"
    Image.fromarray(picture(64, 64, 5)).save(painting)
    network = write_perceptual(tmp_path / "small")
    found = look_inside(stylizer, photo, painting, network=str(network))
    with StyleMeter(painting, network) as meter:
        drawn, before = meter(found.drawing), meter(picture(48, 64))
    assert [layer.name for layer in found.style] == list(LAYERS)
    for layer in found.style:
        assert layer.distance == pytest.approx(drawn.layers[layer.name], rel=1e-3)
        assert layer.photo_distance == pytest.approx(before.layers[layer.name], rel=1e-3)
        assert layer.painting.shape == layer.drawing.shape == (LAYERS[layer.name],) * 2
        assert (np.diff(np.diag(layer.painting)) <= 0).all()  # the strongest first


def test_what_is_not_there_is_said(stylizer, photo, monkeypatch):
    found = look_inside(stylizer)
    assert found.drawing is None and found.stages == ()
    assert "--painting" in found.style and "--photo" in found.steering
    assert "before they were kept" in found.curves
    assert "impasto quantize" in found.sensitivity and "--sensitivity" in found.sensitivity
    assert "does not hold it" in look_inside(stylizer, photo).steering
    monkeypatch.setitem(sys.modules, "impasto.training.input_gradient", None)
    steering = look_inside(stylizer, photo).steering
    assert "torch" in steering and "pip install" in steering and "[train]" in steering


def test_sensitivity_comes_from_the_package_or_from_a_file(make_package, tmp_path):
    package = make_package()
    known = {"spared": ["w2"], "losses": {"w1": 40.5, "w2": 30.0}}
    with_quality(package, {"precision": {"int8-openvino": known, "fp16": {"spared": []}}})
    (found,) = look_inside(package).sensitivity
    assert (found.graph, dict(found.psnr), found.excluded) == ("int8 for openvino", known["losses"], ("w2",))
    path = tmp_path / "q.json"
    losses = [{"layer": "c1", "label": "w1", "psnr": 41.0, "levels": 2.3}]
    path.write_text(json.dumps({"made": [{"precision": "int8", "family": "tensorrt", "spared": [], "losses": losses}]}))
    (other,) = look_inside(package, sensitivity=path).sensitivity
    assert (other.graph, dict(other.psnr)) == ("int8 for tensorrt", {"w1": 41.0})
    for content in ("[]", "{", '{"made": []}'):
        path.write_text(content)
        with pytest.raises(OptionError, match="impasto quantize"):
            look_inside(package, sensitivity=path)


def test_curves_come_from_the_recipe(make_package):
    package = make_package()
    curves = {"losses": {"steps": [25, 50], "charbonnier": [0.2, 0.1]}}
    with_quality(package, {}, {"curves": curves})
    assert look_inside(package).curves == curves
    with_quality(package, {}, {"curves": {"losses": 3}})
    assert "another form" in look_inside(package).curves


def test_what_cannot_be_looked_into_is_one_line(make_package, tmp_path, photo):
    with pytest.raises(OptionError, match="name one with --photo"):
        look_inside(make_package(), None, photo)
    with pytest.raises(ModelNotFound, match="impasto export vgg16"):
        look_inside(make_package("other", task="stylize"), photo, photo, network=str(tmp_path / "none"))
    code, _, stderr = cli("inspect", tmp_path / "tiny", "--photo", photo)
    assert code == 1 and "--html FILE" in stderr


def test_the_verb_writes_a_page_beside_what_it_prints(stylizer, photo, tmp_path):
    made = tmp_path / "page.html"
    network = write_perceptual(tmp_path / "small")
    code, stdout, stderr = cli(
        "inspect", stylizer, "--html", made, "--photo", photo, "--painting", photo, "--network", network
    )
    assert code == 0, stderr
    assert "intact" in stdout
    page = made.read_text(encoding="utf-8")
    assert page.count('alt="w1: channel ') == CHANNELS and 'alt="shallow (8 channels): the painting"' in page
    assert "Inside tiny" in page and "does not hold it" in page and "in fp32" in page
    assert "32 channels, one for every 4 × 4 pixels; each value sees ± 4 pixels" in page
