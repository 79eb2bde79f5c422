"""Graphs of one package measured against a painting: what changes, what passes, what is said."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from support.perceptual_networks import LAYERS, write_perceptual
from support.small_models import canonical_graph, float_graph, picture
from typer.testing import CliRunner

from impasto import images
from impasto.cli.app import app
from impasto.errors import CheckFailed, OptionError, ShapeError
from impasto.export.checks.style import StyleReference, check_style
from impasto.files import sha256
from impasto.package.manifest import MANIFEST, PackageFile, read_manifest
from impasto.runtime import StyleMeter, load
from impasto.runtime.loading.opening import SPEC_KEY


@pytest.fixture
def network(tmp_path: Path) -> Path:
    return write_perceptual(tmp_path / "small")


@pytest.fixture
def painting(tmp_path: Path) -> Path:
    images.write(tmp_path / "painting.png", picture(60, 90, seed=9) // 2)
    return tmp_path / "painting.png"


def add(folder: Path, *graphs: tuple[str, str, str | None, int]) -> None:
    """Write graphs into a package: file name, precision, target backend and the seed of their weights."""
    manifest = read_manifest(folder)
    files = {file.name: file for file in manifest.files}
    for name, precision, target_backend, seed in graphs:
        graph = canonical_graph(seed=seed)
        graph.metadata_props.add(key=SPEC_KEY, value=json.dumps(manifest.spec.to_json()))
        onnx.save(graph, str(folder / name))
        files[name] = PackageFile(name, "model", sha256(folder / name), precision, target_backend)
    (folder / MANIFEST).write_text(json.dumps(replace(manifest, files=tuple(files.values())).to_json()))


@pytest.fixture
def package(make_package: Callable[..., Path]) -> Path:
    """A package whose FP16 graph is its FP32 one, and whose INT8 graph is another network."""
    add(
        folder := make_package(),
        ("model.fp16.onnx", "fp16", None, 0),
        ("model.int8-openvino.onnx", "int8", "openvino", 1),
        ("model.onnx", "fp32", None, 0),
    )
    return folder


def test_each_precision_is_measured_against_fp32(package, painting, network, tmp_path):
    drawn = [picture(50, 64, seed=1), picture(70, 45, seed=2)]
    files = [tmp_path / f"{index}.png" for index in range(2)]
    for file, image in zip(files, drawn, strict=True):
        images.write(file, image)
    found = check_style(package, StyleReference(painting, network), files)
    assert [other.graph for other in (found.reference, *found.others)] == ["fp32", "fp16", "int8 openvino"]
    same, changed = found.others
    assert found.change(same) == 0
    assert found.holds(same)
    assert not found.holds(changed)
    with (
        StyleMeter(painting, network) as meter,
        load(package / "model.onnx", backend="onnxruntime-cpu") as one,
        load(package / "model.int8-openvino.onnx", backend="onnxruntime-cpu") as other,
    ):
        before, after = (np.mean([meter(model(image)).total for image in drawn]) for model in (one, other))
    assert found.change(changed) == pytest.approx(after / before - 1, rel=1e-6)
    with pytest.raises(CheckFailed, match=r"int8 openvino of .* changes the style distance to painting.png by"):
        found.require()
    told = found.to_json()["others"][1]["change"]
    assert (told["total"], set(told["layers"])) == (found.change(changed), set(LAYERS))


def test_the_command_exits_by_the_change(package, painting, network, tmp_path):
    arguments = ["check", str(package), "--style", str(painting), "--network", str(network)]
    done = CliRunner().invoke(app, [*arguments, "--json", str(tmp_path / "found.json")])
    assert (done.exit_code, "too far" in done.stdout) == (1, True)
    assert "--max-style-change" in done.stderr
    told = json.loads((tmp_path / "found.json").read_text())
    assert told["pictures"] == ["synthetic 251 x 187", "synthetic 96 x 160"]
    assert told["others"][0]["change"]["total"] == 0
    done = CliRunner().invoke(app, [*arguments, "--max-style-change", "1000"])
    assert (done.exit_code, "too far" in done.stdout) == (0, False)


def test_a_nan_is_no_pass(package, painting, network):
    found = check_style(package, StyleReference(painting, network, max_change=float("inf")))
    changed = found.others[1]
    nowhere = replace(changed.distances[0], layers=dict.fromkeys(LAYERS, float("nan")))
    assert not found.holds(replace(changed, distances=(nowhere,)))


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["{tiny}"], "holds fp32 alone"),
        (["{tiny}/model.onnx"], "is a single graph"),
        (["{tiny}", "--style", "missing.png"], "missing.png does not exist"),
        (["{tiny}", "--network", "missing"], "no perceptual network at missing"),
        (["{tiny}", "--network", "{tiny}"], "is a network for denoise, and style is measured by a perceptual network"),
        (["{tiny}", "--network", "{external}"], "does not say that it is a perceptual network"),
        (["{tiny}", "--max-style-change", "-1"], "give 0 or more"),
        (["{tiny}", "--min-psnr", "30"], "another check"),
        (["engine.plan", "--against", "other.plan"], "is an engine"),
        (["missing"], "no model is called 'missing'"),
    ],
)
def test_what_cannot_be_measured_is_told_in_one_line(arguments, told, make_package, network, painting, tmp_path):
    onnx.save(float_graph(), str(tmp_path / "external.onnx"))
    folder = make_package()
    if told != "holds fp32 alone":
        add(folder, ("model.fp16.onnx", "fp16", None, 0))
    names = {"tiny": folder, "external": tmp_path / "external.onnx"}
    given = [text.format(**names) for text in arguments]
    given += [] if "--style" in given else ["--style", str(painting)]
    given += [] if "--network" in given else ["--network", str(network)]
    done = CliRunner().invoke(app, ["check", *given])
    assert done.exit_code == 1, done.output
    assert done.stderr.startswith("error: ")
    assert told in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_picture_that_is_too_small_is_named(package, painting, network, tmp_path):
    images.write(tmp_path / "tiny.png", picture(20, 40))
    with pytest.raises(ShapeError, match=r"tiny\.png: the picture is 20 x 40"):
        check_style(package, StyleReference(painting, network), [tmp_path / "tiny.png"])


def test_options_of_style_need_a_painting(make_package):
    done = CliRunner().invoke(app, ["check", str(make_package()), "--network", "vgg16"])
    assert (done.exit_code, "--style PAINTING" in done.stderr) == (1, True)
    with pytest.raises(OptionError, match="is an engine"):
        check_style("engine.plan", StyleReference("painting.png"), against="other.plan")
