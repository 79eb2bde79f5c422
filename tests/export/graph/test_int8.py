"""Laws of INT8 in the graph: signed, symmetric, per channel; what is refused; and that equal channels compute the same."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from support.precision_graphs import canonical, chain, feeds

from impasto.errors import PrecisionError
from impasto.export.graph.fp16 import find_fp32_nodes, rounded, to_half
from impasto.export.graph.helpers import attribute, constants, element_types, producers
from impasto.export.graph.int8 import METHODS, equalized, find_ranges, layers_of, quantized
from impasto.export.graph.qdq_lint import problems, require_parsable
from impasto.export.quantization.ranges import Session
from impasto.export.tensorrt.builder import prepared_graph
from impasto.export.tensorrt.parser_graph import prepare
from impasto.metrics import psnr


def whole(
    model: onnx.ModelProto, target_backend: str, method: str = "min-max", excluded: tuple[str, ...] = ()
) -> onnx.ModelProto:
    return quantized(model, find_ranges(model, feeds(), method), excluded, target_backend)


def pairs(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    return [node for node in model.graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")]


@pytest.mark.parametrize("target_backend", ["tensorrt", "openvino"])
def test_values_are_signed_and_symmetric_and_biases_stay_floats(target_backend: str) -> None:
    model = whole(chain(), target_backend)
    stored, types = constants(model.graph), element_types(model)
    assert pairs(model)
    for node in pairs(model):
        assert stored[node.input[2]].dtype == np.int8
        assert not stored[node.input[2]].any()
        assert types[node.input[0]] != TensorProto.INT32
    assert problems(model) == ()
    for node in (node for node in model.graph.node if node.op_type == "Conv"):
        assert stored[node.input[2]].dtype == np.float32


@pytest.mark.parametrize("target_backend", ["tensorrt", "openvino"])
def test_what_passes_a_layer_by_is_not_rounded(target_backend: str) -> None:
    """first -> conv -> + first: the sum reads the tensor, the convolution what is left of it in 8 bits."""
    weights = {"w": np.random.default_rng(0).normal(0, 0.1, (3, 3, 3, 3)).astype(np.float32)}
    nodes = [
        helper.make_node("Conv", ["first", "w"], ["c"], "conv", pads=[1, 1, 1, 1]),
        helper.make_node("Add", ["first", "c"], ["last"], "sum"),
    ]
    model = whole(canonical(nodes, weights), target_backend)
    by, read = producers(model.graph), {node.name: list(node.input) for node in model.graph.node}
    assert "first" in read["sum"]
    assert by[read["conv"][0]].op_type == "DequantizeLinear"


@pytest.mark.parametrize("target_backend", ["tensorrt", "openvino", "onnxruntime"])
def test_weights_have_one_scale_a_channel_and_inputs_one_alone(target_backend: str) -> None:
    model = whole(chain(), target_backend)
    stored, by = constants(model.graph), producers(model.graph)
    for node in (node for node in model.graph.node if node.op_type == "Conv"):
        before, weight = by[node.input[0]], by[node.input[1]]
        channels = stored[weight.input[0]].shape[0]
        assert (stored[weight.input[1]].shape, attribute(weight, "axis", 1)) == ((channels,), 0)
        assert stored[before.input[1]].size == 1
        assert np.abs(stored[weight.input[0]].astype(int)).max(axis=(1, 2, 3)) == pytest.approx(127), "the whole range"


def test_outputs_are_quantized_for_onnx_runtime_alone() -> None:
    for target_backend, outputs in (("tensorrt", False), ("openvino", False), ("onnxruntime", True)):
        model = whole(chain(3), target_backend)
        quantizers = {node.input[0] for node in model.graph.node if node.op_type == "QuantizeLinear"}
        ends = {node.output[0] for node in model.graph.node if node.op_type == "Conv"}
        assert bool(quantizers & ends) == outputs, target_backend
    kinds = {constants(model.graph)[node.input[2]].dtype for node in pairs(model) if node.op_type == "QuantizeLinear"}
    assert kinds == {np.dtype(np.uint8)}, "its x86 kernels are made for uint8 activations"


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("target_backend", ["openvino", "onnxruntime"])
def test_every_calibration_keeps_the_picture(method: str, target_backend: str) -> None:
    model = chain(3)
    exact, narrow = Session(model), Session(whole(model, target_backend, method))
    assert min(psnr(exact.draw(feed), narrow.draw(feed)) for feed in feeds()) >= 25


def test_excluded_layers_have_no_pairs() -> None:
    model = whole(chain(), "tensorrt", excluded=("conv2",))
    by = producers(model.graph)
    inputs = {node.name: node.input for node in model.graph.node if node.op_type == "Conv"}
    assert all(name not in by or by[name].op_type != "DequantizeLinear" for name in inputs["conv2"])
    assert all(by[name].op_type == "DequantizeLinear" for name in inputs["conv3"][:2])


def test_the_rest_computes_in_fp16_for_tensorrt() -> None:
    plain = whole(chain(), "tensorrt")
    model = to_half(plain, {fp32_node.node for fp32_node in find_fp32_nodes(chain(), {})})
    types = element_types(model)
    assert {types[node.output[0]] for node in model.graph.node if node.op_type == "Conv"} == {TensorProto.FLOAT16}
    assert problems(model) == ()


def test_old_parsers_get_the_same_without_halves() -> None:
    """Opset 17 quantizes float32 alone; TensorRT 8 takes FP16 by a flag instead."""
    model = chain()
    mixed = to_half(whole(model, "tensorrt"), {fp32_node.node for fp32_node in find_fp32_nodes(model, {})})
    old = prepare(mixed, 17)
    assert TensorProto.FLOAT16 not in element_types(old).values()
    assert sum(node.op_type == "QuantizeLinear" for node in old.graph.node) >= 12, "weights are quantized in the graph"
    for feed in feeds(2):
        assert psnr(Session(old).draw(feed), Session(rounded(mixed)).draw(feed)) >= 45


def test_equal_channels_compute_the_same_and_quantize_better() -> None:
    model = chain(4, channels=8)
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    for index in range(3):  # the same function with channels of very unequal range
        uneven = np.logspace(-2, 2, 8).astype(np.float32)
        for name, by in (
            (f"conv{index}.weight", uneven[:, None, None, None]),
            (f"conv{index}.bias", uneven),
            (f"conv{index + 1}.weight", 1 / uneven[None, :, None, None]),
        ):
            values = (numpy_helper.to_array(stored[name]) * by).astype(np.float32)
            stored[name].CopyFrom(numpy_helper.from_array(values, name))
    even = equalized(model, feeds())
    exact = Session(model)
    for feed in feeds():
        assert np.abs(exact.draw(feed).astype(int) - Session(even).draw(feed)).max() <= 1

    def quality(graph: onnx.ModelProto) -> float:
        narrow = Session(whole(graph, "openvino"))
        return float(np.mean([psnr(exact.draw(feed), narrow.draw(feed)) for feed in feeds()]))

    assert quality(even) > quality(model) + 3


def pair(kind: type = np.int8, zero: int = 0, scale: tuple[float, ...] = (0.1,), bias: bool = False) -> onnx.ModelProto:
    """One quantized convolution with chosen faults."""
    values = {
        "s": np.array(scale if len(scale) > 1 else scale[0], np.float32),
        "z": np.full(len(scale), zero, kind) if len(scale) > 1 else np.array(zero, kind),
        "w": np.ones((3, 3, 1, 1), np.float32),
        "b8": np.zeros(3, np.int32),
        "bs": np.full(3, 0.1, np.float32),
    }
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"], "quantize x", axis=1),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"], "dequantize x", axis=1),
    ]
    if bias:
        nodes.append(helper.make_node("DequantizeLinear", ["b8", "bs"], ["b"], "dequantize bias", axis=0))
    nodes.append(helper.make_node("Conv", ["d", "w", "b"] if bias else ["d", "w"], ["y"], "conv"))
    used = {name for node in nodes for name in node.input}
    graph = helper.make_graph(
        nodes,
        "pair",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 3, 8, 8])],
        [numpy_helper.from_array(value, name) for name, value in values.items() if name in used],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: pair(np.uint8), "uint8; quantize to int8"),
        (lambda: pair(zero=3), "zero point 3; it must be 0"),
        (lambda: pair(bias=True), "int32 bias"),
        (lambda: pair(scale=(0.1, 0.2, 0.3)), "one scale a channel on activations"),
        (lambda: pair(scale=(0.0,)), "a scale that is not above 0"),
        (lambda: pair(scale=(float("nan"),)), "a scale that is not above 0"),
        (lambda: whole(chain(3), "onnxruntime"), "int32 bias|uint8"),
    ],
)
def test_what_tensorrt_cannot_read_is_refused_before_it_sees_it(
    make: Callable[[], onnx.ModelProto], words: str, tmp_path: Path
) -> None:
    model = make()
    with pytest.raises(PrecisionError, match=rf"{words}.*impasto quantize MODEL --to int8 --for tensorrt"):
        require_parsable(model, "the graph")
    onnx.save(model, str(tmp_path / "model.onnx"))
    with pytest.raises(PrecisionError, match=words):
        prepared_graph(tmp_path / "model.onnx", 20)


def test_a_good_pair_passes() -> None:
    assert problems(pair()) == ()
    assert problems(chain()) == ()


def test_layers_are_what_multiplies_by_stored_weights() -> None:
    assert layers_of(chain(3)) == ("conv0", "conv1", "conv2")
