"""Where builder flags choose precision, exactly the layers of FP32 nodes are told float32, and none that would refuse it."""

from __future__ import annotations

import enum
import functools
import importlib.util
import sys
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto
from support.bindings import VERSIONS, Bindings
from support.bindings import gpu as gpu
from support.engine_graphs import half, network
from support.fake_network import Parsed
from support.precisions import half_and_whole
from support.shipped_graphs import normalised
from support.small_models import picture

from impasto.errors import ImpastoWarning
from impasto.export.graph.fp16 import find_fp32_nodes, to_half
from impasto.export.graph.helpers import element_types, with_names
from impasto.export.graph.int8 import find_ranges, quantized
from impasto.export.graph.weight_storage import without_fp16_storage
from impasto.export.tensorrt import fp32_layers
from impasto.export.tensorrt.builder import EngineBuilder
from impasto.export.tensorrt.cache import EngineCache, engine_key
from impasto.export.tensorrt.options import BuildOptions, Sizes
from impasto.export.tensorrt.parser_graph import prepare
from impasto.export.tensorrt.targets import Target
from impasto.package.spec import ModelSpec, SizeRule
from impasto.runtime.loading.source import known_names

OLD = ["8.5.3.1", "8.6.1"]
WITH_FLAGS = [*OLD, "10.3.0", "10.13.3.9", "10.16.1.11"]
TYPED = [version for version in VERSIONS if version not in OLD]
SHIPPED = ["great-wave", "denoise"]
SPEC = ModelSpec("m", size=SizeRule(16))
TARGET = Target(("8.7",), "Fake GPU", 12)


@functools.cache
def shipped(name: str) -> onnx.ModelProto:
    path = known_names()[name] / "model.onnx"
    if not path.is_file():
        pytest.skip(f"{name} holds no graph here: impasto export makes it")
    return with_names(without_fp16_storage(onnx.load(str(path))))


@functools.cache
def quantized_and_halved(name: str) -> dict[str, onnx.ModelProto]:
    return half_and_whole(shipped(name))


def built(
    version: str | Bindings, model: onnx.ModelProto, precision: str, folder: Path, name: str = "model.onnx"
) -> Bindings:
    """The stand-ins after a build, whether or not it reads back as what was asked for."""
    bindings = Bindings(version) if isinstance(version, str) else version
    onnx.save(model, str(folder / name))
    options = BuildOptions(precision, (Sizes.parse("64x64:64x64:128x128"),))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("impasto.export.tensorrt.builder.require_precision", lambda *_: None)
        EngineBuilder(
            folder / name, SPEC, options, api=bindings.api, target=TARGET, cache=EngineCache(folder)
        ).compile()
    return bindings


def told(bindings: Bindings) -> list[Parsed]:
    return [parsed for parsed in bindings.layers if "set_output_type" in bindings.facts["ILayer"] and parsed.told]


def outputs(layers: Collection[Parsed]) -> set[str]:
    """Of the nodes that the layers came from."""
    return {name for parsed in layers for name in parsed.node.output}


def prefers(bindings: Bindings) -> bool:
    flags = {call.args[0].name for call in bindings.config.set_flag.call_args_list}
    return "PREFER_PRECISION_CONSTRAINTS" in flags


def of_pixels(model: onnx.ModelProto) -> set[str]:
    """What the nodes give that scale and round pixels, but for the casts from and to uint8."""
    types = element_types(model)
    fp32_nodes = {fp32_node.node for fp32_node in find_fp32_nodes(model, {})}
    return {
        name
        for node in model.graph.node
        for name in node.output
        if node.name in fp32_nodes and {types[name], types[node.input[0]]} == {TensorProto.FLOAT}
    }


@pytest.mark.parametrize("name", SHIPPED)
@pytest.mark.parametrize("version", WITH_FLAGS)
def test_exactly_the_fp32_nodes_of_an_fp32_graph_are_told(version: str, name: str, tmp_path: Path, gpu: Any) -> None:
    model = shipped(name)
    bindings = built(version, model, "fp16", tmp_path)
    wanted = of_pixels(with_names(prepare(model, 17 if version in OLD else 20)))
    assert len(wanted) >= 6
    assert outputs(told(bindings)) == wanted
    assert prefers(bindings)


@pytest.mark.parametrize("name", SHIPPED)
@pytest.mark.parametrize("version", OLD)
def test_exactly_what_an_fp16_graph_computes_in_float32_is_told(
    version: str, name: str, tmp_path: Path, gpu: Any
) -> None:
    model = quantized_and_halved(name)["fp16"]
    bindings = built(version, model, "fp16", tmp_path, "model.fp16.onnx")
    types = element_types(prepare(model, 17))
    wanted = {
        output
        for node in prepare(model, 17).graph.node
        for output in node.output
        if node.op_type != "Cast" and types[output] == TensorProto.FLOAT
    }
    assert len(wanted) >= 6
    assert outputs(told(bindings)) == wanted
    assert prefers(bindings)


@pytest.mark.parametrize("name", SHIPPED)
@pytest.mark.parametrize("version", OLD)
def test_an_int8_graph_keeps_its_fp32_nodes_and_no_layer_between_quantizers(
    version: str, name: str, tmp_path: Path, gpu: Any
) -> None:
    bindings = built(version, quantized_and_halved(name)["int8"], "int8", tmp_path, "model.int8.onnx")
    assert of_pixels(shipped(name)) <= outputs(told(bindings))
    levels = {
        name for parsed in bindings.layers if parsed.node.op_type == "DequantizeLinear" for name in parsed.node.output
    }
    assert levels
    for parsed in told(bindings):
        assert parsed.node.op_type not in ("Conv", "QuantizeLinear", "DequantizeLinear")
        assert levels.isdisjoint(parsed.node.input)


@pytest.mark.parametrize("version", OLD)
def test_fp32_nodes_of_an_int8_graph_by_range_outlive_its_halves(version: str, tmp_path: Path, gpu: Any) -> None:
    """What calibration pictures showed is in the graph alone, and old parsers get it without halves."""
    model = shipped("denoise")
    feed = {"image": picture(64, 96)[None], "context": np.ones((1, 1), np.float32)}  # at strength 1
    whole = quantized(model, find_ranges(model, [feed], "min-max"), (), "tensorrt")
    last = [node for node in whole.graph.node if node.op_type == "Relu"][-1]
    fp32_nodes = {fp32_node.node for fp32_node in find_fp32_nodes(whole, {})}
    for names in (fp32_nodes, fp32_nodes | {last.name}):
        bindings = built(version, to_half(whole, names), "int8", tmp_path, "model.int8.onnx")
        assert (last.output[0] in outputs(told(bindings))) == (last.name in names)


def test_what_reads_levels_is_no_fp32_node_even_if_it_adds_up_many_values() -> None:
    model = normalised()
    model.graph.node[2].input[0] = "levels"
    for index, (kind, name, source) in enumerate(
        (("QuantizeLinear", "whole", "x"), ("DequantizeLinear", "levels", "whole"))
    ):
        model.graph.node.insert(2 + index, onnx.helper.make_node(kind, [source, "scale of all", "zero"], [name], name))
    for name, value in (("scale of all", TensorProto.FLOAT), ("zero", TensorProto.INT8)):
        model.graph.initializer.append(onnx.helper.make_tensor(name, value, [], [1]))
    found = fp32_layers.fp32_node_tensors(model, prepare(model, 20))
    assert not found["y"]
    assert found["x"]


@pytest.mark.parametrize("version", WITH_FLAGS)
def test_a_norm_is_an_fp32_node_with_all_that_it_became(version: str, tmp_path: Path, gpu: Any) -> None:
    bindings = built(version, normalised(), "fp16", tmp_path)
    kinds = {parsed.node.op_type for parsed in told(bindings)}
    if version in OLD:
        assert {"ReduceMean", "Sub", "Mul", "Sqrt", "Div", "Add"} <= kinds
    else:
        assert "InstanceNormalization" in kinds
    floats = {parsed.node.output[0] for parsed in bindings.layers if parsed.types <= {"FLOAT"}}
    assert outputs(told(bindings)) == floats


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
@pytest.mark.parametrize("version", WITH_FLAGS)
def test_no_layer_is_told_that_would_refuse(version: str, precision: str, tmp_path: Path, gpu: Any) -> None:
    model = shipped("great-wave")
    graph = model if precision != "int8" else quantized_and_halved("great-wave")["int8"]
    bindings = built(version, graph, precision, tmp_path)
    for parsed in told(bindings):
        assert parsed.types <= {"FLOAT", "HALF"}
        assert parsed.layer.type.name not in {"CONSTANT", "SHAPE", "CAST", "QUANTIZE", "DEQUANTIZE"}
        if parsed.layer.type.name == "IDENTITY":
            assert parsed.types == {"FLOAT"}
    kinds = {parsed.layer.type.name for parsed in bindings.layers}
    assert {"CONSTANT", "SHAPE", "GATHER", "CAST" if version != OLD[0] else "IDENTITY"} <= kinds
    assert (
        prefers(bindings) == bool(told(bindings)) == (precision == "fp16" or (precision == "int8" and version in OLD))
    )


def test_helpers_of_an_fp32_node_are_told_and_those_of_its_neighbours_are_not(tmp_path: Path, gpu: Any) -> None:
    bindings = built("8.5.3.1", network(4, 32, 1), "fp16", tmp_path)
    helpers = [
        parsed for parsed in bindings.layers if parsed.layer.name.startswith("(Unnamed") and parsed.types == {"FLOAT"}
    ]
    of_fp32_nodes = of_pixels(with_names(prepare(network(4, 32, 1), 17)))
    assert {parsed.node.output[0] in of_fp32_nodes for parsed in helpers} == {True, False}
    for parsed in helpers:
        assert parsed.told == (parsed.node.output[0] in of_fp32_nodes)


def test_layers_are_found_whatever_they_are_called(tmp_path: Path, gpu: Any) -> None:
    """Parsers give names to some layers, and number those that are taken: by an initializer, for one."""
    model = network(4, 32, 1)
    for node in model.graph.node:
        node.name = "again and again"
    bindings = built("8.5.3.1", model, "fp16", tmp_path)
    assert outputs(told(bindings)) == of_pixels(with_names(prepare(network(4, 32, 1), 17)))


def test_it_is_said_where_no_layer_of_an_fp32_node_is_found(tmp_path: Path, gpu: Any) -> None:
    """A parser that calls tensors otherwise than in ONNX."""
    bindings = Bindings("8.6.1")
    parse = bindings.parser.parse.side_effect

    def otherwise(content: bytes) -> bool:
        parse(content)
        for parsed in bindings.layers:
            parsed.layer.get_output(0).name = "another"
        return True

    bindings.parser.parse.side_effect = otherwise
    with pytest.warns(ImpastoWarning, match="none of them was found in what TensorRT 8.6.1 read"):
        built(bindings, network(4, 32, 1), "fp16", tmp_path)
    assert not prefers(bindings)


@pytest.mark.parametrize("precision", ["fp16", "int8"])
@pytest.mark.parametrize("version", TYPED)
def test_networks_typed_by_their_graph_are_told_nothing(version: str, precision: str, tmp_path: Path, gpu: Any) -> None:
    bindings = built(version, half(network(4, 32, 1)), precision, tmp_path, f"model.{precision}.onnx")
    assert bindings.layers
    assert not told(bindings)
    assert not prefers(bindings)


@pytest.mark.parametrize("version", VERSIONS)
def test_what_a_layer_may_be_told_is_asked_of_the_module(version: str) -> None:
    assert fp32_layers.can_be_told(Bindings(version).api) == (version in WITH_FLAGS)


@pytest.mark.parametrize("missing", ["flag", "method"])
def test_a_builder_that_would_not_mind_is_told_nothing(missing: str, tmp_path: Path, gpu: Any) -> None:
    bindings = Bindings("8.5.3.1")
    if missing == "flag":
        others = [flag.name for flag in bindings.module.BuilderFlag if flag.name != "PREFER_PRECISION_CONSTRAINTS"]
        bindings.module.BuilderFlag = enum.IntEnum("BuilderFlag", others)
    else:
        del bindings.module.ILayer.set_output_type
    built(bindings, network(4, 32, 1), "fp16", tmp_path)
    assert bindings.layers
    assert not told(bindings)


def without_onnx(patch: pytest.MonkeyPatch) -> None:
    patch.setitem(sys.modules, "onnx", None)
    found = importlib.util.find_spec
    patch.setattr(fp32_layers, "find_spec", lambda name: None if name == "onnx" else found(name))


def test_keys_differ_where_fp32_nodes_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine in whose cache they were not is another; one that is typed by its graph is the same as ever."""
    plain, typed = tmp_path / "model.onnx", tmp_path / "model.fp16.onnx"
    onnx.save(network(4, 32, 1), str(plain))
    onnx.save(half(network(4, 32, 1)), str(typed))

    def parts(version: str, graph: Path, precision: str) -> dict[str, Any]:
        options = BuildOptions(precision, (Sizes.parse("64x64"),))
        return EngineBuilder(graph, SPEC, options, api=Bindings(version).api, target=TARGET).key_parts()

    flagged = [
        ("8.5.3.1", plain, "fp16"),
        ("8.6.1", typed, "fp16"),
        ("8.6.1", plain, "int8"),
        ("10.3.0", plain, "fp16"),
    ]
    for given in flagged:
        before = {name: part for name, part in parts(*given).items() if name != "islands"}
        with pytest.MonkeyPatch.context() as patch:
            without_onnx(patch)
            here_unknown = parts(*given)
        assert len({engine_key(found) for found in (parts(*given), before, here_unknown)}) == 3
    for given in (("8.5.3.1", plain, "fp32"), ("10.3.0", typed, "fp16"), ("11.4.0.106", typed, "fp16")):
        assert "islands" not in parts(*given)


def test_without_the_onnx_library_it_is_said_that_fp32_nodes_are_unknown(
    tmp_path: Path, gpu: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    onnx.save(prepare(network(4, 32, 1), 17), str(tmp_path / "model.onnx"))
    bindings = Bindings("8.5.3.1")
    bindings.parser.parse.side_effect = [True]
    options = BuildOptions("fp16", (Sizes.parse("64x64"),))
    without_onnx(monkeypatch)
    with pytest.warns(ImpastoWarning, match=r"model\.onnx: without the onnx library"):
        EngineBuilder(
            tmp_path / "model.onnx", SPEC, options, api=bindings.api, target=TARGET, cache=EngineCache(tmp_path)
        ).compile()
    assert not prefers(bindings)
