"""Engines of graphs with float ends: built by the real TensorRT-RTX, in FP32 throughout, beside those for 8 bits."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper, numpy_helper
from support.command_line import cli
from support.engine_graphs import network
from support.fake_gpu import THUMBNAIL
from support.parser_laws import broken_laws
from support.shipped_graphs import SHIPPED

from impasto.errors import CheckFailed, OptionError
from impasto.export import add_float_graph
from impasto.export.checks.against_torch import synthetic
from impasto.export.checks.engine import LEAST_PSNR_16_BITS
from impasto.export.graph.float_ends import with_float_ends
from impasto.export.graph.helpers import copy, replace_nodes
from impasto.export.inspection import inspect_path
from impasto.export.tensorrt.cache import EngineCache
from impasto.export.tensorrt.options import BuildOptions, Sizes
from impasto.export.tensorrt.package_engines import BuildResult, build_engine
from impasto.export.tensorrt.parser_graph import prepare
from impasto.export.tensorrt.picture_ends import fuse_picture_ends
from impasto.metrics import psnr
from impasto.package.manifest import FLOAT, FLOAT_MODEL, read_manifest
from impasto.runtime.loading.stored_engines import read_stored

pytest_plugins = ("support.engine_fixtures",)
pytestmark = pytest.mark.usefixtures("own_cache")

MakePackage = Callable[..., Path]
ONE_SIZE = BuildOptions("fp32", (Sizes.parse("64x64"),), targets=("sm86",), with_float=True)
FLOAT_GRAPHS = [path for path in SHIPPED if path.name == FLOAT_MODEL]


@pytest.fixture
def rtx() -> None:
    pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed: pip install 'impasto[rtx]'")


def drawn(model: onnx.ModelProto, image: np.ndarray | None = None) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = (
        onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    )  # no rounding is optimized away
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    first, *others = session.get_inputs()
    image = np.random.default_rng(0).random((1, 48, 64, 3), np.float32) if image is None else image
    feeds = {value.name: np.ones((1, *value.shape[1:]), np.float32) for value in others}
    return session.run(None, {first.name: image} | feeds)[0]


@pytest.mark.parametrize("path", FLOAT_GRAPHS, ids=lambda path: path.parent.name)
def test_fused_float_ends_draw_the_same(path: Path) -> None:
    prepared = prepare(onnx.load(str(path)), 20)
    assert np.abs(drawn(fuse_picture_ends(prepared, (1, 48, 64))) - drawn(prepared)).max() < 2e-6


def with_operands_of_11_bits(model: onnx.ModelProto) -> onnx.ModelProto:
    """The graph with the operands of its products rounded to 11 bits, which is what TF32 and FP16 hold (Veltkamp's splitting)."""
    model = copy(model)
    model.graph.initializer.append(numpy_helper.from_array(np.float32(2**13 + 1), "factor"))
    nodes = []
    for node in model.graph.node:
        for place in (0, 1) if node.op_type in ("Conv", "ConvTranspose", "Gemm", "MatMul") else ():
            name, made = node.input[place], f"{node.output[0]} operand {place}"
            nodes += [
                helper.make_node("Mul", [name, "factor"], [f"{made} times"]),
                helper.make_node("Sub", [f"{made} times", name], [f"{made} above"]),
                helper.make_node("Sub", [f"{made} times", f"{made} above"], [made]),
            ]
            node.input[place] = made
        nodes.append(node)
    replace_nodes(model.graph, nodes)
    return model


@pytest.mark.parametrize("name", ["denoise", "deblur"])
def test_why_fp32(name: str) -> None:
    """What TF32 would draw fails the check of an engine with float ends; FP32 keeps the levels of a ramp of 16 bits."""
    (path,) = (path for path in FLOAT_GRAPHS if path.parent.name == name)
    model = prepare(onnx.load(str(path)), 20)
    photo = synthetic(96, 128).astype(np.float32)[None] / 255
    whole, coarse = drawn(model, photo), drawn(with_operands_of_11_bits(model), photo)
    assert psnr(whole * 255, coarse * 255) < LEAST_PSNR_16_BITS - 1
    ramp = np.linspace(0, 1, 8192, dtype=np.float32)[None, None, :, None].repeat(16, 1).repeat(3, 3)
    assert len(np.unique(np.rint(drawn(model, ramp)[0, 8, :, 1] * 65535))) > 7000


def test_float_ends_are_fused_and_parsers_read_them() -> None:
    floats = with_float_ends(network(4, 16, 1))
    fused = fuse_picture_ends(prepare(floats, 17), (1, 48, 64))
    assert not {"SpaceToDepth", "DepthToSpace"}.intersection(node.op_type for node in fused.graph.node)
    assert not broken_laws(fused)


@pytest.mark.usefixtures("rtx")
@pytest.mark.parametrize("size", ["64x64", "64x64:96x96:128x128"])
def test_it_is_built_beside_the_other_and_says_its_ends(make_package: MakePackage, size: str) -> None:
    package = make_package(thumbnail=THUMBNAIL, border=4)
    add_float_graph(package)
    result = build_engine(package, replace(ONE_SIZE, sizes=(Sizes.parse(size),)))
    assert result.float_engine and result.float_engine.parent == package / "engines"
    floats, own = read_stored(result.float_engine).record, result.record
    graph = read_manifest(package).find(FLOAT)
    assert graph
    assert (floats.role, floats.precision, floats.source_sha256) == (FLOAT, "fp32", graph.sha256)
    assert (own.role, floats.profiles, floats.context_sha256) == ("model", own.profiles, own.context_sha256)
    types = {text.split(",")[0] for layer in floats.layers for text in (*layer.inputs, *layer.outputs)}
    assert types == {"Float"}, "nothing is rounded to fewer bits inside"
    assert "UInt8" in {text.split(",")[0] for layer in own.layers for text in layer.inputs}
    inspect_path(str(package)).require_intact()
    again = build_engine(package, replace(ONE_SIZE, sizes=(Sizes.parse(size),)))
    assert (again.built, again.float_engine) == (False, result.float_engine)


@pytest.mark.usefixtures("rtx")
def test_the_command_line_says_where_it_is_and_removes_one_that_draws_something_else(
    make_package: MakePackage, own_cache: EngineCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = make_package()
    add_float_graph(package)
    arguments = ("build", package, "--precision", "fp32", "--size", "64x64", "--target", "sm86", "--with-float")
    code, stdout, stderr = cli(*arguments, "--json", tmp_path / "built.json")
    assert (code, stderr.count("not checked against ONNX Runtime")) == (0, 2)
    plan = Path(json.loads((tmp_path / "built.json").read_text())["float_engine"])
    assert f"the engine with float ends: {plan}" in stdout

    def differs(result: BuildResult, device: int) -> None:
        if result.plan == plan:
            raise CheckFailed("it draws at 3.0 dB")

    monkeypatch.setattr("impasto.cli.build._check", differs)
    assert cli(*arguments)[0] == 1
    assert (plan.exists(), len(list(plan.parent.glob("*.plan"))), len(own_cache.entries())) == (False, 1, 1)
    inspect_path(str(package)).require_intact()


def test_without_a_float_graph_it_is_refused_before_anything_is_built(
    make_package: MakePackage, rtx: None, own_cache: EngineCache
) -> None:
    package = make_package()
    for model, told in (
        (package, f"add it: impasto export {package} --with-float"),
        (package / "model.onnx", f"impasto export {package / 'model.onnx'} -o FOLDER"),
    ):
        (package / "model.json").write_text('{"multiple": 4}')
        with pytest.raises(OptionError, match="float ends") as error:
            build_engine(model, ONE_SIZE)
        assert told in str(error.value)
    assert not own_cache.entries()


def test_an_engines_key_does_not_depend_on_whether_another_is_built_too() -> None:
    assert ONE_SIZE.to_json() == replace(ONE_SIZE, with_float=False).to_json()
