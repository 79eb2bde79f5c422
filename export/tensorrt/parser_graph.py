"""The ONNX graph as a TensorRT parser wants it: pixels cast where TensorRT can cast them, and no opset that it cannot read.

The result computes the same function. Nothing here touches precision: that is written in the graph already
(`export/quantization/search.py`), or asked for by builder flags where the version has them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

from impasto.errors import ExportError
from impasto.export.graph.fp16 import widened
from impasto.export.graph.helpers import (
    QUANTIZERS,
    attribute,
    constants,
    drop_attributes,
    drop_unread,
    kernel_shape,
    producers,
    readers,
    shape_of,
    with_initializers,
)
from impasto.export.graph.weight_storage import without_fp16_storage

from . import operators

_OLD = 17
"""Parsers that read no newer opset than this also want weights, norms and reductions written the old way."""


def prepare(model: onnx.ModelProto, max_opset: int) -> onnx.ModelProto:
    """A copy of the graph that a parser of opset `max_opset` (17 or above) accepts.

    uint8 tensors meet nothing but casts, which is all that TensorRT allows them; constants are initializers and weights stored
    as their layers take them; convolutions say how large they are; operators that parsers refuse or misread become others
    (`operators`), and normalisations and operators newer than `max_opset` older ones. Raises ExportError for an operator that
    has no such form here.

    What each parser reads was taken from its source; `tests/support/parser_laws.py` holds it as laws, with the places.
    """
    prepared = without_fp16_storage(with_initializers(model))  # TensorRT 8's parser reads a `value_int` as a float
    _cast_before_transpose(prepared.graph)
    _transpose_before_cast(prepared.graph)
    operators.rewrite(prepared, operators.EVERYWHERE)
    opset = next((entry for entry in prepared.opset_import if entry.domain in ("", "ai.onnx")), None)
    if opset is not None and max_opset <= _OLD:
        if _quantizes_halves(prepared.graph):  # which old parsers cannot; their FP16 flag brings the halves back
            prepared = widened(prepared)
        prepared = onnx.shape_inference.infer_shapes(prepared)
        opset = next(entry for entry in prepared.opset_import if entry.domain in ("", "ai.onnx"))
        _downgrade(prepared.graph, opset.version, max_opset)
        operators.rewrite(prepared, operators.OLD)
        opset.version = min(opset.version, max_opset)
        prepared.ir_version = min(prepared.ir_version, 8)
    _say_kernel_shapes(prepared.graph)
    _name_quantizers_apart(prepared.graph)
    drop_unread(prepared.graph)
    del prepared.graph.value_info[:]
    onnx.checker.check_model(prepared)
    return onnx.shape_inference.infer_shapes(prepared)


def _quantizes_halves(graph: onnx.GraphProto) -> bool:
    halves = {tensor.name for tensor in graph.initializer if tensor.data_type == TensorProto.FLOAT16}
    quantizers = (node for node in graph.node if node.op_type in QUANTIZERS)
    return any(node.input[1] in halves for node in quantizers)


def _say_kernel_shapes(graph: onnx.GraphProto) -> None:
    """Write each convolution's kernel_shape, which ONNX leaves optional.

    Where weights come out of a DequantizeLinear, parsers before 10.4 do not look at their shape, and refuse.
    """
    stored, by = constants(graph), producers(graph)
    for node in graph.node:
        if (
            node.op_type == "Conv"
            and not attribute(node, "kernel_shape", None)
            and (found := kernel_shape(node, stored, by))
        ):
            node.attribute.append(helper.make_attribute("kernel_shape", found))


def _name_quantizers_apart(graph: onnx.GraphProto) -> None:
    """Take away the names of quantizers that something else has too: parsers make other names unique, and not theirs."""
    taken = Counter((*(node.name for node in graph.node), *(tensor.name for tensor in graph.initializer)))
    for node in graph.node:
        if node.op_type in QUANTIZERS and taken[node.name] > 1:
            node.name = ""  # the parser makes one of the output's


def _cast_before_transpose(graph: onnx.GraphProto) -> None:
    """uint8 input -> Transpose -> Cast becomes input -> Cast -> Transpose."""
    pixels = {value.name for value in graph.input if value.type.tensor_type.elem_type == TensorProto.UINT8}
    reading = readers(graph)
    for transpose in [node for node in graph.node if node.op_type == "Transpose" and node.input[0] in pixels]:
        after = reading.get(transpose.output[0], [])
        if len(after) == 1 and after[0].op_type == "Cast":
            _swap(transpose, after[0])


def _transpose_before_cast(graph: onnx.GraphProto) -> None:
    """Cast to uint8 -> Transpose -> output becomes Transpose -> Cast -> output."""
    outputs = {value.name for value in graph.output}
    reading = readers(graph)
    for cast in [node for node in graph.node if node.op_type == "Cast" and _cast_type(node) == TensorProto.UINT8]:
        after = reading.get(cast.output[0], [])
        if len(after) == 1 and after[0].op_type == "Transpose" and after[0].output[0] in outputs:
            _swap(cast, after[0])


def _swap(first: NodeProto, second: NodeProto) -> None:
    """Exchange what two neighbouring one-input nodes do; the names of their tensors stay in place."""
    kept = NodeProto()
    kept.CopyFrom(first)
    for node, other in ((first, second), (second, kept)):
        node.op_type = other.op_type
        attributes = list(other.attribute)
        del node.attribute[:]
        node.attribute.extend(attributes)


def _downgrade(graph: onnx.GraphProto, opset: int, max_opset: int) -> None:
    """Rewrite every node whose operator changed after `max_opset`, or that old parsers leave to plugins.

    opset: the graph's. Operators that changed again after it are none of its own.
    """
    nodes = list(graph.node)
    del graph.node[:]
    for node in nodes:
        if node.op_type in _REWRITES:
            graph.node.extend(_REWRITES[node.op_type](node, graph))
        elif node.op_type in _SAME or node.domain not in ("", "ai.onnx") or _since(node.op_type, opset) <= max_opset:
            graph.node.append(node)
        else:
            raise ExportError(
                f"this TensorRT's parser reads ONNX up to opset {max_opset}, and {node.op_type} (node {node.name!r}) has no "
                "older form that Impasto knows; build with TensorRT 10 or later"
            )


def _since(kind: str, opset: int) -> int:
    """The opset in which the operator became what it is in this one."""
    newest = onnx.defs.onnx_opset_version()
    return int(onnx.defs.get_schema(kind, min(opset, newest)).since_version)


# Newer versions of these only widen the types that they take, which networks of float32, float16 and int8 never use.
# fmt: off
_SAME = frozenset((
    "Abs", "Add", "And", "AveragePool", "Cast", "Ceil", "Clip", "Concat", "Constant", "ConstantOfShape", "Conv",
    "ConvTranspose", "DepthToSpace", "Div", "Equal", "Exp", "Expand", "Flatten", "Gather", "Gemm",
    "GlobalAveragePool", "HardSigmoid", "HardSwish", "Identity", "LeakyRelu", "MatMul", "Max", "MaxPool", "Min",
    "Mul", "Neg", "PRelu", "Pow", "Reciprocal", "Relu", "Reshape", "Round", "Shape", "Sigmoid", "Slice",
    "Softmax", "SpaceToDepth", "Sqrt", "Squeeze", "Sub", "Tanh", "Tile", "Transpose", "Unsqueeze", "Where",
))
# fmt: on


def _axes_as_attribute(node: NodeProto, graph: onnx.GraphProto) -> list[NodeProto]:
    """ReduceMean and its kin take their axes as an input from opset 18 on."""
    axes = _constant(graph, node.input[1]) if len(node.input) > 1 and node.input[1] else None
    if attribute(node, "noop_with_empty_axes", 0) and (axes is None or not axes.size):
        return [helper.make_node("Identity", [node.input[0]], list(node.output), node.name)]
    keepdims = attribute(node, "keepdims", 1)
    attributes: dict[str, Any] = {"keepdims": keepdims} | (
        {} if axes is None else {"axes": [int(axis) for axis in axes]}
    )
    return [helper.make_node(node.op_type, [node.input[0]], list(node.output), node.name, **attributes)]


def _quantizer(node: NodeProto, graph: onnx.GraphProto) -> list[NodeProto]:
    """The node without the attributes that came in 19 and 21 and have neutral defaults; and with weights as floats.

    Old parsers want weights in float32 with Q and DQ behind them, not int8 weights with DQ. The detour is exact.
    """
    axis = {"axis": attribute(node, "axis", 1)}
    plain = helper.make_node(node.op_type, _with_zero_point(node, graph), list(node.output), node.name, **axis)
    stored = next((tensor for tensor in graph.initializer if tensor.name == node.input[0]), None)
    if node.op_type != "DequantizeLinear" or stored is None or stored.data_type != TensorProto.INT8:
        return [plain]
    levels = numpy_helper.to_array(stored).astype(np.float32)
    scale = np.asarray(_constant(graph, node.input[1]), np.float32)
    if scale.size > 1:
        scale = scale.reshape([-1 if index == axis["axis"] else 1 for index in range(levels.ndim)])
    name = f"{stored.name}.float"
    graph.initializer.append(numpy_helper.from_array(levels * scale, name))
    quantize = helper.make_node("QuantizeLinear", [name, *plain.input[1:]], [f"{name}.levels"], **axis)
    plain.input[0] = f"{name}.levels"
    graph.initializer.remove(stored)
    return [quantize, plain]


def _with_zero_point(node: NodeProto, graph: onnx.GraphProto) -> list[str]:
    """The quantizer's inputs, with the zero point that ONNX lets it leave out and TensorRT 8's parser asks for."""
    if len(node.input) > 2 and node.input[2]:
        return list(node.input)
    name = f"{node.output[0]}.zero"
    graph.initializer.append(numpy_helper.from_array(np.zeros(_constant(graph, node.input[1]).shape, np.int8), name))
    return [*node.input[:2], name]


def _split(node: NodeProto, graph: onnx.GraphProto) -> list[NodeProto]:
    """The Split without the number of parts of opset 18, which the outputs say. Both divide evenly; the last part is no smaller."""
    plain = _without(node, "num_outputs")
    if len(plain.attribute) < len(node.attribute):
        sizes = shape_of(graph, node.input[0])
        size = sizes[attribute(node, "axis", 0)] if sizes else 0
        if not size or size % len(node.output):
            raise ExportError(
                f"the Split {node.name!r} has {len(node.output)} parts that may be of different sizes; "
                "give it their sizes, or build with TensorRT 10 or later"
            )
    return [plain]


def _pad(node: NodeProto, _: onnx.GraphProto) -> list[NodeProto]:
    """The Pad unchanged, where it uses nothing of opset 18 or 19."""
    if attribute(node, "mode", b"constant") == b"wrap":
        raise ExportError(f"the Pad {node.name!r} uses what came with opset 18; build with TensorRT 10 or later")
    return [node]


def _resize(node: NodeProto, _: onnx.GraphProto) -> list[NodeProto]:
    """The Resize without the attributes of opset 18, which have neutral defaults."""
    neutral = {"antialias": 0, "keep_aspect_ratio_policy": b"stretch"}
    if any(attribute(node, name, value) != value for name, value in neutral.items()) or attribute(node, "axes", None):
        raise ExportError(f"the Resize {node.name!r} uses what came with opset 18; build with TensorRT 10 or later")
    return [_without(node, *neutral)]


_Rewrite = Callable[[NodeProto, onnx.GraphProto], list[NodeProto]]
_REWRITES: dict[str, _Rewrite] = {
    "ReduceL1": _axes_as_attribute,
    "ReduceL2": _axes_as_attribute,
    "ReduceLogSum": _axes_as_attribute,
    "ReduceLogSumExp": _axes_as_attribute,
    "ReduceMean": _axes_as_attribute,
    "ReduceMax": _axes_as_attribute,
    "ReduceMin": _axes_as_attribute,
    "ReduceProd": _axes_as_attribute,
    "ReduceSumSquare": _axes_as_attribute,
    "QuantizeLinear": _quantizer,
    "DequantizeLinear": _quantizer,
    "Split": _split,
    "Pad": _pad,
    "Resize": _resize,
}


def _without(node: NodeProto, *names: str) -> NodeProto:
    """A copy of the node without these attributes."""
    plain = NodeProto()
    plain.CopyFrom(node)
    drop_attributes(plain, *names)
    return plain


def _cast_type(node: NodeProto) -> int:
    return int(attribute(node, "to", 0))


def _constant(graph: onnx.GraphProto, name: str) -> np.ndarray:
    """The value of an initializer. Raises ExportError where the value is computed."""
    for tensor in graph.initializer:
        if tensor.name == name:
            return numpy_helper.to_array(tensor)
    raise ExportError(
        f"{name!r} is computed while the network runs; TensorRT's old parsers want it constant. Fold it first"
    )
