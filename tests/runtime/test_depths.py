"""Pictures of 16 bits, float32 and gray: the same drawing as of 8 bits, and nothing rounded to 8 bits on the way."""

from __future__ import annotations

import shutil

import numpy as np
import onnx
import pytest
from support.precision_graphs import photos
from support.small_models import REPOSITORY, canonical_graph, float_graph, picture, write_deep_package, write_graph

import impasto
from impasto.errors import PackageError, ShapeError
from impasto.export import QuantizeOptions, quantize
from impasto.package.spec import ModelSpec, SizeRule
from impasto.runtime.inference import tile_plan
from impasto.runtime.loading.source import shipped_models

MODELS = sorted(path.parent.name for path in (REPOSITORY / "models").glob("*/manifest.json"))
SPEC = ModelSpec("small", task="denoise", size=SizeRule(4, 4), receptive_field=7)
FINE = np.linspace(0, 65535, 61 * 83).reshape(61, 83).astype(np.uint16)
"""A ramp whose neighbouring pixels differ by 13 of 65535: all values of a level of 255 are 20 of its pixels."""


def deep(image: np.ndarray) -> np.ndarray:
    """The same picture with 16 bits."""
    return image.astype(np.uint16) * 257


@pytest.fixture
def small(tmp_path):
    return write_deep_package(tmp_path / "small")


@pytest.mark.parametrize("backend", ["onnxruntime-cpu", "openvino"])
@pytest.mark.parametrize("name", MODELS)
def test_every_model_draws_the_same_at_every_depth(name, backend):
    image = picture(61, 83)
    with impasto.load(name, backend=backend) as model:
        assert model.info.depths == ("uint8", "uint16", "float32")
        assert model.info.to_json()["depths"] == ["uint8", "uint16", "float32"]
        shallow, sixteen, floats = model(image), model(deep(image)), model(image.astype(np.float32) / 255)
        for drawn, dtype in ((sixteen, np.uint16), (floats, np.float32)):
            assert drawn.dtype == dtype and drawn.shape == shallow.shape == model.output_shape(image)
        assert np.abs(sixteen / 257 - shallow).max() < 0.51
        assert np.abs(floats * 65535 - sixteen).max() < 0.51
        gray = model(deep(image[..., 0]))
        assert gray.shape == shallow.shape[:2] and gray.dtype == np.uint16


@pytest.mark.parametrize("name", ["denoise", "deblur", "dejpeg", "upscale-x2"])
def test_values_between_levels_of_255_are_kept(name):
    with impasto.load(name, backend="onnxruntime-cpu") as model:
        for ramp in (FINE, FINE.astype(np.float32) / 65535):
            drawn = model(ramp)
            assert len(np.unique(drawn)) > 4000 and drawn.shape == tuple(side * model.info.scale for side in ramp.shape)


def test_tiles_of_16_bits_join_exactly(small, monkeypatch):
    image = deep(picture(100, 140)) + np.random.default_rng(0).integers(0, 100, (100, 140, 3)).astype(np.uint16)
    with impasto.load(small, backend="onnxruntime-cpu") as model:
        whole = model(image)
    monkeypatch.setattr(tile_plan, "WHOLE_PIXELS", 1000)
    monkeypatch.setattr(tile_plan, "TILE", 64)
    with impasto.load(small, backend="onnxruntime-cpu") as model:
        assert model._plan(100, 140).tiled
        assert np.abs(model(image).astype(int) - whole).max() <= 1


@pytest.mark.parametrize("strength", [0.0, 0.5, 2.0])
def test_strengths_hold_for_16_bits(strength):
    image = picture(61, 83)
    with impasto.load("denoise", backend="onnxruntime-cpu") as model:
        model.strength = strength
        assert np.abs(model(deep(image)) / 257 - model(image)).max() < 0.51
        if strength == 0:
            for given in (FINE, deep(image), image.astype(np.float32) / 255, FINE.astype(np.float32) / 65535):
                assert np.array_equal(model(given), given)


@pytest.mark.parametrize("keep_colors", [False, True])
def test_working_sizes_and_colours_hold_for_16_bits(keep_colors):
    image = picture(120, 160)
    with impasto.load("great-wave", backend="onnxruntime-cpu", working_size=96) as model:
        model.keep_colors = keep_colors
        shallow, drawn, floats = model(image), model(deep(image)), model(image.astype(np.float32) / 255)
        assert np.abs(drawn / 257 - shallow).mean() < 1  # that one is rounded to bytes three times on its way
        assert np.abs(floats * 65535 - drawn).max() < 0.51 and floats.min() >= 0 and floats.max() <= 1
        assert len(np.unique(drawn)) > 5000


def test_gray_is_the_mean_of_the_drawings_channels():
    with impasto.load("denoise", backend="onnxruntime-cpu") as model:
        gray = picture(40, 52)[..., 0]
        floats = gray.astype(np.float32) / 255
        colour = np.repeat(floats[..., None], 3, 2)
        assert np.abs(model(floats) - model(colour).mean(2)).max() < 1e-6
        assert np.array_equal(model(deep(gray)), np.rint(model(floats) * 65535))
        small = model(gray)
        assert small.dtype == np.uint8 and np.abs(small - floats * 255).max() < 60


def test_arrays_are_given_and_streamed_as_they_come(small):
    image = picture(30, 41)
    with impasto.load(small, backend="onnxruntime-cpu") as model:
        given = [image, deep(image), deep(image)[..., 0], image.astype(np.float32) / 255, image]
        for frame, drawn in zip(given, model.stream(iter(given)), strict=True):
            assert drawn.dtype == frame.dtype and np.array_equal(drawn, model(frame))
        view = deep(image)[::-1, ::2]
        assert np.array_equal(model(view), model(view.copy()))
        out = deep(image)
        model.run_into(out, out)
        assert np.array_equal(out, model(deep(image)))
        for wrong in (np.empty(image.shape, np.uint8), np.empty(image.shape[:2], np.uint16)):
            with pytest.raises(ShapeError, match="C-contiguous uint16"):
                model.run_into(deep(image), wrong)
        model.computation(deep(image))()


@pytest.mark.parametrize(
    ("image", "told"),
    [
        (np.full((4, 4, 3), np.nan, np.float32), "holds NaN"),
        (np.full((4, 4, 3), 1.5, np.float32), "from 1.5 to 1.5; wanted 0 to 1"),
        (np.full((4, 4), -0.1, np.float32), "from -0.1 to"),
        (np.full((4, 4, 3), np.inf, np.float32), "from inf to inf"),
        (np.zeros((4, 4, 3), ">u2"), r"convert it with .astype\(np.uint16\)"),
        (np.zeros((4, 4, 3), np.float64), r"convert it with .astype\(np.float32\)"),
        (np.zeros((4, 4, 3), np.int16), "scale it to 0..255"),
        (np.zeros((4, 4, 1), np.uint16), r"pass gray as image\[..., 0\]"),
        (np.zeros((4, 4, 4), np.uint16), "alpha"),
        (np.zeros((0, 4), np.uint16), "at least 1 x 1"),
        (np.zeros(4, np.uint16), "wanted uint8 or uint16"),
    ],
)
def test_what_is_no_picture_is_told_in_a_line(small, image, told):
    with impasto.load(small, backend="onnxruntime-cpu") as model, pytest.raises(ShapeError, match=told) as error:
        model(image)
    assert "\n" not in str(error.value)


def refusal(model: impasto.Model) -> str:
    assert model.info.depths == ("uint8",)
    with pytest.raises(ShapeError) as error:
        model(FINE)
    model(np.repeat(FINE[:40, :40, None] // 257, 3, 2).astype(np.uint8))
    return str(error.value)


def test_models_without_float_graph_say_what_to_do(tmp_path):
    folder = write_graph(tmp_path / "small", SPEC, canonical_graph())
    onnx.save(float_graph(), str(tmp_path / "bare.onnx"))
    with impasto.load(folder, backend="onnxruntime-cpu") as model:
        assert f"add it: impasto export {folder} --with-float" in refusal(model)
    with impasto.load(folder / "model.onnx", backend="onnxruntime-cpu") as model:
        assert f"load its package: {folder}" in refusal(model)
    with impasto.load(tmp_path / "bare.onnx", layout="rgb 0..1", backend="onnxruntime-cpu") as model:
        assert "impasto export" in refusal(model) and "-o FOLDER" in refusal(model)


def test_a_lower_precision_is_not_left_in_silence(small, tmp_path):
    copy = tmp_path / "copy"
    quantize(small, QuantizeOptions(photos(tmp_path / "photos"), "fp16", output=copy))
    with impasto.load(copy, precision="fp16", backend="onnxruntime-cpu") as model:
        assert "choose precision='fp32'" in refusal(model)
    with impasto.load(copy, backend="onnxruntime-cpu") as model:
        assert model(FINE).dtype == np.uint16


def test_a_changed_float_graph_is_found(small):
    (small / "model.float.onnx").write_bytes(b"changed")
    with impasto.load(small, backend="onnxruntime-cpu") as model:
        model(picture(8, 8))
        with pytest.raises(PackageError, match=r"model.float.onnx is not the file"):
            model(FINE)
    with pytest.raises(PackageError, match="load the package"):
        impasto.load(small / "model.float.onnx", trust=True)


def test_packages_that_ship_stay_small():
    held = sum(path.stat().st_size for path in shipped_models().glob("*/model.float.onnx"))
    assert held < 300_000


def test_a_copy_of_a_package_keeps_its_float_graph(tmp_path):
    shutil.copytree(REPOSITORY / "models" / "upscale-x2", tmp_path / "copy")
    with impasto.load(tmp_path / "copy", backend="onnxruntime-cpu") as model:
        assert model(FINE).shape == (122, 166)
