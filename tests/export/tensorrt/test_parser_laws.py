"""Every graph that we hand to a TensorRT parser keeps the laws of `parser_laws`; and each law can be broken."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from support.engine_graphs import float_pixels, half, network, quantized
from support.parser_laws import broken_laws
from support.perceptual_networks import perceptual_graph
from support.precisions import half_and_whole
from support.shipped_graphs import SHIPPED, normalised
from support.small_models import canonical_graph, context_graph, picture

from impasto.export.tensorrt.parser_graph import prepare
from impasto.runtime.loading.source import known_names


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_shipped_graphs_are_read(path: Path) -> None:
    model = onnx.load(str(path))
    for opset in (17, 20):
        assert broken_laws(prepare(model, opset)) == [], opset


# One of each make; tests/export/quantization/test_engines.py asks the same of all, and of the classic network.
@pytest.mark.parametrize("name", ["great-wave", "inpaint", "upscale-x2"])
def test_shipped_models_are_read_in_half_precision_and_in_int8(name: str) -> None:
    path = known_names()[name] / "model.onnx"
    if not path.is_file():
        pytest.skip(f"{name} holds no graph here: impasto export makes it")
    for precision, graph in half_and_whole(onnx.load(str(path))).items():
        for opset in (17, 20):
            assert broken_laws(prepare(graph, opset)) == [], (precision, opset)


def int8_network(folder: Path) -> onnx.ModelProto:
    """As tests/device/prepare.py takes it to the GPU machine."""
    onnx.save(network(4, 32, 1), str(folder / "model.onnx"))
    quantized(folder / "model.onnx", folder / "int8.onnx", [picture(64, 64, seed) for seed in range(2)])
    return onnx.load(str(folder / "int8.onnx"))


@pytest.mark.parametrize("opset", [17, 20])
def test_small_graphs_are_read(opset: int, tmp_path: Path) -> None:
    graphs = {
        "network": network(4, 32, 1),
        "half": half(network(4, 32, 1)),
        "int8": int8_network(tmp_path),
        "float pixels": float_pixels(prepare(network(4, 32, 1), opset)),
        "with context": canonical_graph(2, 5),
        "context": context_graph(8, 5),
        "instance norm": normalised(),
        "perceptual": perceptual_graph(),
    }
    broken = {name: broken_laws(prepare(graph, opset)) for name, graph in graphs.items()}
    assert not any(broken.values()), broken


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> dict[int, onnx.ModelProto]:
    """A quantized network as the parsers of each opset get it."""
    graph = int8_network(tmp_path_factory.mktemp("good"))
    return {opset: prepare(graph, opset) for opset in (17, 20)}


def first(model: onnx.ModelProto, operator: str) -> onnx.NodeProto:
    return next(node for node in model.graph.node if node.op_type == operator)


def store(model: onnx.ModelProto, name: str, value: np.ndarray) -> None:
    """Give an initializer another value and type."""
    next(tensor for tensor in model.graph.initializer if tensor.name == name).CopyFrom(
        numpy_helper.from_array(value, name)
    )


def without(node: onnx.NodeProto, name: str) -> None:
    kept = [attribute for attribute in node.attribute if attribute.name != name]
    del node.attribute[:]
    node.attribute.extend(kept)


def no_zero_point(model: onnx.ModelProto) -> None:
    del first(model, "QuantizeLinear").input[2]


def another_zero_point(model: onnx.ModelProto) -> None:
    store(model, first(model, "QuantizeLinear").input[2], np.array(3, np.int8))


def half_scale(model: onnx.ModelProto) -> None:
    store(model, first(model, "QuantizeLinear").input[1], np.array(0.1, np.float16))


def no_kernel_shape(model: onnx.ModelProto) -> None:
    of_levels = {node.output[0] for node in model.graph.node if node.op_type == "DequantizeLinear"}
    without(
        next(node for node in model.graph.node if node.op_type == "Conv" and node.input[1] in of_levels), "kernel_shape"
    )


def two_quantizers_of_one_name(model: onnx.ModelProto) -> None:
    for node in [node for node in model.graph.node if node.op_type == "DequantizeLinear"][:2]:
        node.name = "dequantize"


def whole_bounds(model: onnx.ModelProto) -> None:
    store(model, first(model, "Clip").input[1], np.array(0, np.int64))


def round_of_integers(model: onnx.ModelProto) -> None:
    node = first(model, "Round")
    model.graph.initializer.append(numpy_helper.from_array(np.zeros(3, np.int32), "integers"))
    model.graph.node.append(helper.make_node("Abs", ["integers"], ["whole"], "whole"))
    node.input[0] = "whole"


def pixels_transposed_first(model: onnx.ModelProto) -> None:
    cast = first(model, "Cast")
    model.graph.node.insert(0, helper.make_node("Transpose", ["image"], ["turned"], "turn", perm=[0, 3, 1, 2]))
    cast.input[0] = "turned"


def pixels_between_layers(model: onnx.ModelProto) -> None:
    model.graph.output[0].name = "later"
    model.graph.node.append(helper.make_node("Cast", ["picture"], ["later"], "later", to=TensorProto.FLOAT))
    model.graph.output[0].type.tensor_type.elem_type = TensorProto.FLOAT


def stored_pixels(model: onnx.ModelProto) -> None:
    store(model, "k", np.array(1, np.uint8))


def a_constant_node(model: onnx.ModelProto) -> None:
    model.graph.node.insert(0, helper.make_node("Constant", [], ["five"], "five", value_int=5))


def a_norm(model: onnx.ModelProto) -> None:
    source = first(model, "SpaceToDepth").input[0]
    model.graph.node.append(helper.make_node("InstanceNormalization", [source, source, source], ["normal"], "norm"))


def antialiased(model: onnx.ModelProto) -> None:
    source = first(model, "SpaceToDepth").input[0]
    model.graph.initializer.append(numpy_helper.from_array(np.array([1, 1, 2, 2], np.float32), "twice"))
    model.graph.node.append(helper.make_node("Resize", [source, "", "twice"], ["large"], "resize", antialias=1))


def wrapped(model: onnx.ModelProto) -> None:
    source = first(model, "SpaceToDepth").input[0]
    model.graph.initializer.append(numpy_helper.from_array(np.array([0, 0, 1, 1] * 2), "border"))
    model.graph.node.append(helper.make_node("Pad", [source, "border"], ["padded"], "pad", mode="wrap"))


def counted_parts(model: onnx.ModelProto) -> None:
    source = first(model, "SpaceToDepth").input[0]
    model.graph.node.append(helper.make_node("Split", [source], ["red", "rest"], "split", axis=1, num_outputs=2))


def another_opset(model: onnx.ModelProto) -> None:
    model.opset_import[0].version = 18


@pytest.mark.parametrize(
    ("damage", "opset", "words"),
    [
        (no_zero_point, 17, "2 inputs"),
        (another_zero_point, 17, "zeros of int8"),
        (another_zero_point, 20, "zeros of int8"),
        (half_scale, 17, "a scale of type 10"),
        (no_kernel_shape, 17, "no kernel_shape"),
        (no_kernel_shape, 20, "no kernel_shape"),
        (two_quantizers_of_one_name, 20, "shares its name"),
        (whole_bounds, 20, "no floating-point number"),
        (round_of_integers, 17, "Round 'rounded': input 0 of type 6"),
        (pixels_transposed_first, 17, "read by Transpose"),
        (pixels_between_layers, 20, "between layers"),
        (stored_pixels, 17, "of type UINT8"),
        (a_constant_node, 17, "nobody has read its importer"),
        (a_norm, 17, "nobody has read its importer"),
        (a_norm, 20, "input 1 is computed"),
        (antialiased, 17, "attributes ['antialias']"),
        (antialiased, 20, "antialiasing"),
        (wrapped, 20, "this mode"),
        (counted_parts, 17, "attributes ['num_outputs']"),
        (another_opset, 20, "opset 18"),
    ],
)
def test_what_a_parser_would_refuse_breaks_a_law(
    damage: Callable[[onnx.ModelProto], None], opset: int, words: str, good: dict[int, onnx.ModelProto]
) -> None:
    model = onnx.ModelProto()
    model.CopyFrom(good[opset])
    assert broken_laws(model) == []
    damage(model)
    assert any(words in problem for problem in broken_laws(model)), broken_laws(model)


def test_levels_are_dequantized_by_new_parsers_alone(good: dict[int, onnx.ModelProto]) -> None:
    model = onnx.ModelProto()
    model.CopyFrom(good[20])
    assert any(node.op_type == "DequantizeLinear" for node in model.graph.node)
    model.opset_import[0].version = 17
    assert any("dequantizes stored levels" in problem for problem in broken_laws(model))
