"""What layers cost: laws, then counts by hand, then the shipped models' own figures."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from support.small_models import REPOSITORY, canonical_graph

from impasto.errors import ExportError
from impasto.export.graph.layers import Assumed, layers_of, peak_bytes
from impasto.export.graph.receptive_field import receptive_field
from impasto.package.shared_weights import self_contained


def shipped(name: str) -> onnx.ModelProto:
    return onnx.load(str(REPOSITORY / "models" / name / "model.onnx"))


def graph(
    nodes: list[onnx.NodeProto], weights: dict[str, np.ndarray], outputs: tuple[str, ...] = ("out",)
) -> onnx.ModelProto:
    """float32 N x 3 x H x W to the named tensors."""
    made = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 3, "H", "W"])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def conv(source: str, target: str, weights: str = "w") -> onnx.NodeProto:
    return helper.make_node("Conv", [source, weights], [target], target, pads=[1, 1, 1, 1])


W = {"w": np.zeros((3, 3, 3, 3), np.float32)}


@pytest.mark.parametrize("name", ["great-wave", "denoise", "upscale-x2", "inpaint"])
def test_multiplications_are_those_that_training_counted(name):
    recipe = json.loads((REPOSITORY / "models" / name / "manifest.json").read_text())["recipe"]
    counted = sum(layer.macs for layer in layers_of(shipped(name), 256, 192)) / (256 * 192 * 1000)
    assert counted == pytest.approx(recipe["kmac_per_pixel"], abs=0.06)


def test_work_and_bytes_grow_with_the_picture_and_weights_do_not():
    small, large = (layers_of(canonical_graph(), 64 * factor, 64) for factor in (1, 2))
    for one, two in zip(small, large, strict=True):
        assert two.macs == 2 * one.macs and two.operations == 2 * one.operations
        assert two.written_bytes == 2 * one.written_bytes and two.weight_bytes == one.weight_bytes
    assert peak_bytes(large) > peak_bytes(small)


@pytest.mark.parametrize("name", ["great-wave", "upscale-x2"])
def test_layers_are_called_the_same_in_every_precision(name):
    def convolutions(file: str) -> list[str]:
        model = onnx.load_from_string(self_contained(REPOSITORY / "models" / name / file))
        return [layer.name for layer in layers_of(model, 64, 64) if layer.macs]

    names = convolutions("model.onnx")
    for file in ("model.fp16.onnx", "model.int8-tensorrt.onnx", "model.int8-openvino.onnx"):
        assert convolutions(file) == names


def test_every_node_is_in_one_layer_or_costs_nothing():
    model = shipped("great-wave")
    kinds = sorted(kind for layer in layers_of(model, 64, 64) for kind in layer.kind.split(" + "))
    # Weights are cast and reordered when the engine is built; Unsqueeze is another name for a tensor.
    weights = {tensor.name for tensor in model.graph.initializer}
    expected = []
    for node in model.graph.node:
        if all(name in weights for name in node.input):
            weights.update(node.output)
        elif node.op_type != "Unsqueeze":
            expected.append(node.op_type)
    assert kinds == sorted(expected)


def test_the_last_layer_sees_what_the_graph_sees():
    for model in (canonical_graph(), shipped("denoise")):
        assert layers_of(model, 64, 64)[-1].radius == receptive_field(model).radius


def test_a_convolution_takes_up_a_sum_and_an_activation_but_nothing_after_it():
    nodes = [
        conv("image", "c"),
        helper.make_node("Add", ["c", "image"], ["s"]),
        helper.make_node("Relu", ["s"], ["r"]),
        helper.make_node("Sqrt", ["r"], ["out"]),
    ]
    first, second = layers_of(graph(nodes, W), 8, 8)
    assert (first.kind, second.kind) == ("Conv + Add + Relu", "Sqrt")
    values = 3 * 8 * 8
    assert first.macs == values * 27 and first.operations == 2 * values
    assert (first.read_bytes, first.written_bytes, first.weight_bytes) == (4 * values, 4 * values, 4 * 81)


def test_a_tensor_with_two_readers_ends_a_layer():
    nodes = [conv("image", "c"), helper.make_node("Relu", ["c"], ["r"]), helper.make_node("Add", ["c", "r"], ["out"])]
    assert [layer.kind for layer in layers_of(graph(nodes, W), 8, 8)] == ["Conv", "Relu + Add"]


def test_pointwise_operators_become_one_and_scales_by_the_picture_stay_outside_of_the_convolution():
    nodes = [
        conv("image", "c"),
        helper.make_node("GlobalAveragePool", ["image"], ["mean"]),
        helper.make_node("Mul", ["c", "mean"], ["m"]),
        helper.make_node("Relu", ["m"], ["out"]),
    ]
    assert [layer.kind for layer in layers_of(graph(nodes, W), 8, 8)] == ["Conv", "GlobalAveragePool", "Mul + Relu"]


def test_quantized_layers_move_bytes():
    scale = {"s": np.float32(0.1), "z": np.int8(0), "q": np.zeros((3, 3, 3, 3), np.int8)}
    nodes = [
        helper.make_node("QuantizeLinear", ["image", "s", "z"], ["iq"]),
        helper.make_node("DequantizeLinear", ["iq", "s", "z"], ["i"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["wd"]),
        helper.make_node("Conv", ["i", "wd"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("QuantizeLinear", ["r", "s", "z"], ["rq"]),
        helper.make_node("DequantizeLinear", ["rq", "s", "z"], ["out"]),
    ]
    first, second = layers_of(graph(nodes, scale), 8, 8)
    values = 3 * 8 * 8
    assert (first.read_bytes, first.written_bytes) == (4 * values, values)
    assert (second.kind, second.precision) == ("Conv + Relu + QuantizeLinear", "int8")
    assert (second.read_bytes, second.written_bytes, second.weight_bytes) == (values, values, 81 + 2)


def test_an_assumed_precision_moves_fewer_bytes_and_excluded_layers_keep_theirs():
    model = shipped("denoise")
    full, half, quarter = (
        layers_of(model, 64, 64, assumed=assumed) for assumed in (None, Assumed("fp16"), Assumed("int8"))
    )
    assert sum(layer.bytes for layer in half) < 0.55 * sum(layer.bytes for layer in full)
    assert sum(layer.bytes for layer in quarter) < sum(layer.bytes for layer in half)
    assert {layer.precision for layer in quarter if layer.macs} == {"int8"}
    spared = layers_of(model, 64, 64, assumed=Assumed("int8", ["head"], "bf16"))
    assert [layer.name for layer in spared if layer.macs and layer.precision == "bf16"] == ["head"]


def test_tensors_that_live_at_once_are_the_most_that_any_moment_needs():
    nodes = [conv("image", "a"), conv("a", "b"), conv("b", "c"), helper.make_node("Add", ["c", "a"], ["out"])]
    layers = layers_of(graph(nodes, W), 8, 8)
    values = 4 * 3 * 8 * 8
    # `a` waits for the sum, which the last convolution takes up.
    assert peak_bytes(layers) == 3 * values + sum(layer.weight_bytes for layer in layers)


def test_a_graph_whose_work_depends_on_the_picture_is_refused():
    body = helper.make_graph(
        [helper.make_node("Identity", ["image"], ["x"])],
        "b",
        [],
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, None)],
    )
    node = helper.make_node("If", ["c"], ["out"], then_branch=body, else_branch=body)
    with pytest.raises(ExportError, match="branches or loops"):
        layers_of(graph([node], {"c": np.array(True)}), 8, 8)


def test_a_size_that_nobody_knows_is_refused():
    nodes = [helper.make_node("NonZero", ["image"], ["places"]), helper.make_node("Cast", ["places"], ["out"], to=1)]
    with pytest.raises(ExportError, match="size of the tensor"):
        layers_of(graph(nodes, {}), 8, 8)
