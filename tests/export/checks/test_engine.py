"""An engine compared with its graph, on the GPU made of NumPy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from support.command_line import cli
from support.fake_engines import write_plan
from support.fake_gpu import FakeTensorRT
from support.perceptual_networks import write_perceptual
from support.small_models import canonical_graph, picture, write_graph
from typer.testing import CliRunner

from impasto import images
from impasto.cli.app import app
from impasto.errors import CheckFailed, OptionError
from impasto.export import add_float_graph
from impasto.export.checks.engine import check_engine
from impasto.export.checks.style import StyleReference, check_style
from impasto.metrics import ssim
from impasto.package.spec import ModelSpec

pytest_plugins = ("support.engine_fixtures",)


def inverter(path: Path, top: float) -> Path:
    """A graph that gives `top` - picture, clipped; the fake engine gives 255 - picture."""
    onnx.save(inverting(top), str(path))
    return path


def inverting(top: float) -> onnx.ModelProto:
    shape = ["N", "H", "W", 3]
    nodes = [
        helper.make_node("Cast", ["image"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Sub", ["top", "float"], ["turned"]),
        helper.make_node("Round", ["turned"], ["rounded"]),
        helper.make_node("Clip", ["rounded", "low", "high"], ["clipped"]),
        helper.make_node("Cast", ["clipped"], ["picture"], to=TensorProto.UINT8),
    ]
    values = {"top": top, "low": 0, "high": 255}
    graph = helper.make_graph(
        nodes,
        "inverter",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, shape)],
        [helper.make_tensor_value_info("picture", TensorProto.UINT8, shape)],
        [numpy_helper.from_array(np.array(value, np.float32), name) for name, value in values.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_an_engine_that_draws_the_same_passes(vendor: FakeTensorRT, plan: Path, tmp_path: Path) -> None:
    found = check_engine(plan, inverter(tmp_path / "same.onnx", 255))
    found.require()
    assert [picture.drawn.max_difference for picture in found.pictures] == [0, 0]
    assert all(picture.ssim == pytest.approx(1) for picture in found.pictures)
    assert found.to_json()["pictures"][0]["psnr"] is None


@pytest.mark.parametrize(("precision", "passes"), [("fp32", False), ("fp16", False), ("int8", True)])
def test_the_budget_goes_by_the_precision(vendor: FakeTensorRT, tmp_path: Path, precision: str, passes: bool) -> None:
    found = check_engine(write_plan(tmp_path, precision=precision), inverter(tmp_path / "near.onnx", 252))
    assert found.pictures[0].drawn.psnr == pytest.approx(38.6, abs=0.3)
    if passes:
        found.require()
    else:
        with pytest.raises(CheckFailed, match=rf"{precision} must reach .* --min-psnr"):
            found.require()


@pytest.mark.parametrize(("top", "passes"), [(255, True), (254.995, True), (254.9, False)])
def test_one_with_float_ends_draws_pictures_of_16_bits(
    vendor: FakeTensorRT, tmp_path: Path, top: float, passes: bool
) -> None:
    """Five thousandths of a level of 255 are within its budget, and a tenth is not: 16 bits are more than 8."""
    package = write_graph(tmp_path / "tiny", ModelSpec("tiny", task="denoise"), inverting(top))
    add_float_graph(package)
    plan = write_plan(tmp_path, b"float", precision="fp32", role="float")
    found = check_engine(plan, package)
    assert found.least_psnr == 90
    assert (found.pictures[0].drawn.picture, found.pictures[0].drawn.white) == ("synthetic 16 x 16, 16 bits", 65535)
    code, stdout, _ = cli("check", plan, "--against", package)
    assert (code == 0, "of 65535" in stdout) == (passes, True)
    if top == 255:
        assert [each.drawn.max_difference for each in found.pictures] == [0, 0]
        assert all(each.ssim == pytest.approx(1) for each in found.pictures)
    if not passes:
        with pytest.raises(CheckFailed, match=r"largest difference 26 of 65535\); fp32 must reach 90 dB"):
            found.require()


def test_the_command_exits_by_the_budget(vendor: FakeTensorRT, plan: Path, tmp_path: Path) -> None:
    graph = inverter(tmp_path / "near.onnx", 252)
    arguments = ["check", str(plan), "--against", str(graph)]
    result = CliRunner().invoke(app, arguments, env={"COLUMNS": "200"})
    assert (result.exit_code, "SSIM" in result.stdout, "too far" in result.stdout) == (1, True, True)
    assert CliRunner().invoke(app, [*arguments, "--min-psnr", "30"]).exit_code == 0


def test_options_without_effect_are_refused(vendor: FakeTensorRT, plan: Path, tmp_path: Path) -> None:
    against = ("--against", inverter(tmp_path / "same.onnx", 255))
    for options in (against, (*against, "--style", tmp_path / "painting.png")):
        code, _, stderr = cli("check", plan, *options, "--backend", "openvino")
        assert (code, "leave --backend out" in stderr) == (1, True)
    code, _, stderr = cli("check", "upscale-x2", "--min-psnr", 500)
    assert (code, "--min-psnr is of engines" in stderr) == (1, True)


def test_the_picture_may_have_any_name(vendor: FakeTensorRT, tmp_path: Path) -> None:
    shapes = ((1, 16, 16, 3), (1, 20, 24, 3), (1, 64, 64, 3))
    plan = write_plan(tmp_path, profiles=({"context": ((1, 5),) * 3, "photo": shapes},))
    found = check_engine(plan, inverter(tmp_path / "same.onnx", 255))
    assert [picture.drawn.size for picture in found.pictures] == [(20, 24), (15, 13)]


def test_a_graph_of_another_scale_is_another_graph(vendor: FakeTensorRT, plan: Path, tmp_path: Path) -> None:
    onnx.save(canonical_graph(scale=2), str(tmp_path / "twice.onnx"))
    (tmp_path / "twice.json").write_text('{"multiple": 4}')
    with pytest.raises(
        CheckFailed, match=r"makes 16 x 16 of 16 x 16, and .* makes 32 x 32, so .* was not built from it"
    ):
        check_engine(plan, tmp_path / "twice.onnx")


@pytest.mark.filterwarnings("error")
def test_a_picture_smaller_than_the_window_has_no_ssim(vendor: FakeTensorRT, plan: Path, tmp_path: Path) -> None:
    graph = inverter(tmp_path / "same.onnx", 255)
    images.write(tmp_path / "small.png", picture(10, 40))
    found = check_engine(plan, graph, [tmp_path / "small.png"])
    assert (found.pictures[0].ssim, found.pictures[0].drawn.max_difference) == (None, 0)
    code, stdout, _ = cli("check", plan, tmp_path / "small.png", "--against", graph)
    assert (code, "nan" in stdout) == (0, False)


def test_a_budget_is_a_number(vendor: FakeTensorRT, plan: Path, tmp_path: Path) -> None:
    graph = inverter(tmp_path / "far.onnx", 100)
    code, _, stderr = cli("check", plan, "--against", graph, "--min-psnr", "nan")
    assert (code, "nan; wanted a number of dB" in stderr) == (1, True)


def test_engines_are_compared_with_graphs(plan: Path) -> None:
    with pytest.raises(OptionError, match="is an engine"):
        check_engine(plan, plan)


def test_ssim_is_that_of_scikit_image() -> None:
    metrics = pytest.importorskip("skimage.metrics", reason="scikit-image is not installed")
    one, other = picture(60, 50), picture(60, 50, seed=1)
    luma = [image.astype(float) @ [0.299, 0.587, 0.114] for image in (one, other)]
    _, full = metrics.structural_similarity(
        *luma, data_range=255, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, full=True
    )
    assert ssim(one, other) == pytest.approx(full[5:-5, 5:-5].mean(), abs=1e-6)
    assert ssim(one, one) == pytest.approx(1)


@pytest.mark.parametrize(("top", "passes"), [(255, True), (200, False)])
def test_the_style_of_an_engine_is_measured_against_its_graph(
    vendor: FakeTensorRT, plan: Path, tmp_path: Path, top: int, passes: bool
) -> None:
    images.write(tmp_path / "painting.png", picture(60, 90) // 2)
    images.write(tmp_path / "photo.png", picture(48, 50))
    network = write_perceptual(tmp_path / "small")
    graph = inverter(tmp_path / "graph.onnx", top)
    found = check_style(
        plan,
        StyleReference(tmp_path / "painting.png", network / "model.onnx"),
        [tmp_path / "photo.png"],
        against=graph,
    )
    assert [drawn.backend for drawn in (found.reference, *found.others)] == ["onnxruntime-cpu", "tensorrt"]
    assert found.holds(found.others[0]) is passes
    assert (found.change(found.others[0]) == 0) is passes
