"""FP16 in the graph: everything in half precision but the nodes that need FP32, joined by casts.

An FP32 node is a node that computes in float32 and keeps its weights so. Some are FP32 nodes by rule: sums over many values (means,
variances, normalisations, Gram products), and both ends of the picture path, where values are scaled by 255 and rounded: a
half has 11 bits, and two neighbouring levels of 255 differ in the 8th. Others are FP32 nodes because what they hold does not fit
a half on the calibration pictures: a value above HIGHEST / HEADROOM, or nothing above LOWEST.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

from impasto.export.quantization.ranges import Observed

from .helpers import (
    FLOATS,
    bodies,
    captured,
    cast,
    constants,
    copy,
    element_types,
    opset,
    producers,
    readers,
    replace_nodes,
)

HIGHEST = 65504.0
"""The largest finite half."""
LOWEST = 2.0**-14
"""The smallest normal half. Below it, bits are lost one by one."""
HEADROOM = 2.0
"""Calibration pictures are not all pictures: a layer may come this close to the limit, and no closer."""

# fmt: off
_SUMS = frozenset((
    "ReduceMean", "ReduceSum", "ReduceSumSquare", "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceProd",
    "GlobalAveragePool", "GlobalLpPool", "InstanceNormalization", "LayerNormalization", "GroupNormalization",
    "BatchNormalization", "MeanVarianceNormalization", "LpNormalization", "RMSNormalization", "LRN", "Softmax", "LogSoftmax",
    "Einsum", "CumSum",
))
# What gives each pixel values of its own, and what is greatest among its colours.
_POINTWISE = frozenset((
    "Add", "Sub", "Mul", "Div", "Neg", "Abs", "Min", "Max", "Clip", "Round", "Floor", "Ceil", "Sigmoid", "HardSigmoid",
    "Tanh", "Relu", "Identity", "Transpose", "Cast", "ReduceMax",
))
# fmt: on


@dataclass(frozen=True)
class Fp32Node:
    """A node that stays in FP32."""

    node: str
    reason: str


def find_fp32_nodes(model: onnx.ModelProto, observed: Mapping[str, Observed]) -> tuple[Fp32Node, ...]:
    """The nodes of a float32 graph that may not run in half precision, in the graph's order.

    model: with node names. observed: what each float tensor held on the calibration pictures.
    """
    graph = model.graph
    values = constants(graph)
    found: dict[str, str] = {}
    for node in graph.node:
        reason = _by_rule(node, graph) or _by_range(node, values, observed)
        if reason:
            found[node.name] = reason
    for node in _squares_of(graph, found):
        found.setdefault(node.name, "it squares what a sum adds up")
    for node in (*_from_pixels(graph), *_to_pixels(graph)):
        found.setdefault(node.name, "it scales, rounds or adds pixels")
    return tuple(Fp32Node(node.name, found[node.name]) for node in graph.node if node.name in found)


def to_half(model: onnx.ModelProto, fp32_nodes: Collection[str]) -> onnx.ModelProto:
    """The graph with every node in float16 but the named ones, and with the inputs and outputs that it had.

    model: float32 with node names, Q/DQ nodes allowed. Operators, or single inputs, that ONNX defines for float32 alone stay so.
    """
    mixed = copy(model)
    del mixed.graph.value_info[:]
    types = element_types(model)
    walk = _Walk(mixed, types)
    for node in list(mixed.graph.node):
        walk.add(node, node.name not in fp32_nodes and _allows_half(node, types, opset(model)))
    walk.finish()
    onnx.checker.check_model(mixed)
    return mixed


def exact_pixels(model: onnx.ModelProto) -> onnx.ModelProto:
    """A float32 graph that computes the same, in which the 256 levels of a pixel lose nothing when they become halves.

    k / 255 - 1/2 has no exact half, and the error is the same all over an even area, where nothing averages it out; with 255/256
    of it, (k - 127.5) / 256, all levels are exact. The first convolutions' weights take the factor back. Returns `model` itself
    where levels are exact already or would not become so, or where something else than convolutions reads them.
    """
    graph = model.graph
    found = _network_entry(graph)
    if found is None:
        return model
    entry, levels, convolutions = found
    factor = 255 / 256
    if _exact(levels) or not _exact(levels * factor):
        return model
    result = copy(model)
    weights = {tensor.name: tensor for tensor in result.graph.initializer}
    for name in {node.input[1] for node in convolutions}:
        values = numpy_helper.to_array(weights[name]) * np.float32(1 / factor)
        weights[name].CopyFrom(numpy_helper.from_array(values, name))
    scaled = f"{entry}.exact"
    result.graph.initializer.append(numpy_helper.from_array(np.float32(factor), f"{scaled}.factor"))
    nodes: list[NodeProto] = []
    ends = {node.name for node in _to_pixels(graph)}
    for node in result.graph.node:
        first = entry in node.input and node.name not in ends and not any(scaled in other.output for other in nodes)
        if first:
            nodes.append(helper.make_node("Mul", [entry, f"{scaled}.factor"], [scaled], f"scale {entry}"))
        nodes.append(_renamed_input(node, entry, scaled) if node.name not in ends else node)
    replace_nodes(result.graph, nodes)
    return result


def rounded(model: onnx.ModelProto) -> onnx.ModelProto:
    """A float32 graph that computes what this mixed one does: every half is a float32 value that was rounded to a half.

    ONNX Runtime's CPU kernels compute in float32 and drop the rounding between neighbours, so that neither overflow nor lost bits
    show there. Casts that are written out are kept.
    """
    plain = copy(model)
    graph = plain.graph
    types = element_types(model)
    for tensor in graph.initializer:
        if tensor.data_type == TensorProto.FLOAT16:
            values = numpy_helper.to_array(tensor).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    nodes: list[NodeProto] = []
    for node in graph.node:
        halves = [name for name in node.output if types.get(name) == TensorProto.FLOAT16]
        if node.op_type == "Cast" and halves:
            node.attribute[0].i = TensorProto.FLOAT
        nodes.append(node)
        for name in halves:
            position = list(node.output).index(name)
            node.output[position] = f"{name}.wide"
            nodes += [
                cast(f"{name}.wide", f"{name}.narrow", TensorProto.FLOAT16),
                helper.make_node("Cast", [f"{name}.narrow"], [name], f"widen {name}", to=TensorProto.FLOAT),
            ]
    replace_nodes(graph, nodes)
    del graph.value_info[:]
    return plain


def widened(model: onnx.ModelProto) -> onnx.ModelProto:
    """The float32 graph again: no halves, no casts between them and floats, and nothing that makes halves of other numbers."""
    plain = copy(model)
    graph, types = plain.graph, element_types(model)
    _widen(graph)
    kept = {value.name for value in graph.output} | {name for node in graph.node for name in captured(node)}
    same: dict[str, str] = {}
    """Tensors that were only cast, and what they were cast from."""
    nodes: list[NodeProto] = []
    for node in graph.node:
        for index, name in enumerate(node.input):
            node.input[index] = same.get(name, name)
        floats = [types.get(name) in FLOATS for name in (*node.input[:1], *node.output[:1])]
        if node.op_type == "Cast" and all(floats) and node.output[0] not in kept:
            same[node.output[0]] = node.input[0]
        else:
            nodes.append(node)
    replace_nodes(graph, nodes)
    del graph.value_info[:]
    return plain


def _widen(graph: onnx.GraphProto) -> None:
    """Say float32 wherever the graph, or one inside its nodes, says float16: of weights, results, and types that nodes are told."""
    tensors = list(graph.initializer)
    for node in graph.node:
        for entry in node.attribute:
            if entry.name in ("to", "dtype", "output_dtype") and entry.i == TensorProto.FLOAT16:
                entry.i = TensorProto.FLOAT
            tensors += [entry.t] if entry.HasField("t") else []
        for body in bodies(node):
            _widen(body)
    for tensor in tensors:
        if tensor.data_type == TensorProto.FLOAT16:
            values = numpy_helper.to_array(tensor).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    for value in (*graph.input, *graph.output, *graph.value_info):
        if value.type.tensor_type.elem_type == TensorProto.FLOAT16:
            value.type.tensor_type.elem_type = TensorProto.FLOAT


class _Walk:
    """Goes through the nodes in order and puts a cast where a tensor's type is not the one that its reader wants."""

    def __init__(self, model: onnx.ModelProto, types: dict[str, int]) -> None:
        self._graph = model.graph
        self._opset = opset(model)
        self._types = types
        self._weights = constants(self._graph)
        self._half: set[str] = set()
        """Tensors that are halves by now."""
        self._other: dict[str, str] = {}
        """The name under which a tensor exists in its other type."""
        self._nodes: list[NodeProto] = []

    def add(self, node: NodeProto, half: bool) -> None:
        for index, name in enumerate(node.input):
            if self._types.get(name) == TensorProto.FLOAT:
                node.input[index] = self._as(name, half and _takes_half(node, index, self._opset))
        self._nodes.append(node)
        if half:
            self._half.update(name for name in node.output if self._types.get(name) == TensorProto.FLOAT)

    def finish(self) -> None:
        for value in self._graph.output:
            if value.name in self._half:
                self._nodes = [_renamed(node, value.name, f"{value.name}.half") for node in self._nodes]
                self._nodes.append(cast(f"{value.name}.half", value.name, TensorProto.FLOAT))
        replace_nodes(self._graph, self._nodes)

    def _as(self, name: str, half: bool) -> str:
        """The name of this tensor in the wanted type; a cast is written the first time that it is asked for."""
        if half == (name in self._half):
            return name
        if name not in self._other:
            other = self._other[name] = f"{name}.{'half' if half else 'float'}"
            if name in self._weights:
                self._graph.initializer.append(numpy_helper.from_array(_narrow(self._weights[name]), other))
            else:
                self._nodes.append(cast(name, other, TensorProto.FLOAT16 if half else TensorProto.FLOAT))
        return self._other[name]


def _narrow(values: np.ndarray) -> np.ndarray:
    """The values as halves. A larger value, such as an end of a Clip that clips nothing, becomes the largest half."""
    return np.asarray(np.clip(values, -HIGHEST, HIGHEST), np.float16)


def _renamed(node: NodeProto, old: str, new: str) -> NodeProto:
    for names in (node.input, node.output):
        for index, name in enumerate(names):
            if name == old:
                names[index] = new
    return node


def _renamed_input(node: NodeProto, old: str, new: str) -> NodeProto:
    for index, name in enumerate(node.input):
        if name == old:
            node.input[index] = new
    return node


def _exact(values: np.ndarray) -> bool:
    """Whether rounding to halves changes no more than float32 did."""
    return bool(np.abs(values.astype(np.float16) - values).max() <= 1e-7)


_MOVES = ("SpaceToDepth", "Pad", "Transpose", "Identity")
"""What may lie between pixels and the first convolution: it moves values, or puts zeros beside them."""


def _network_entry(graph: onnx.GraphProto) -> tuple[str, np.ndarray, list[NodeProto]] | None:
    """The tensor that the network proper takes, its 256 possible values, and the convolutions that read it; if that is all."""
    images = [value.name for value in graph.input if value.type.tensor_type.elem_type == TensorProto.UINT8]
    values = constants(graph)
    levels = {name: np.arange(256, dtype=np.float32) for name in images}
    last = {node.name for node in _to_pixels(graph)}
    for node in _from_pixels(graph):
        if node.name in last:  # a mask, which goes past the network to the picture's other end
            continue
        known = _pointwise(node, levels[node.input[0]], values)
        if known is None:
            return None
        levels[node.output[0]] = known
    read, ends = readers(graph), last | {node.name for node in _from_pixels(graph)}
    entries = [name for name in levels if any(node.name not in ends for node in read.get(name, ()))]
    if len(entries) != 1:
        return None
    convolutions: list[NodeProto] = []
    waiting = [node for node in read[entries[0]] if node.name not in ends]
    while waiting:
        node = waiting.pop()
        if node.op_type in _MOVES:
            waiting += read.get(node.output[0], [])
        elif node.op_type == "Conv" and node.input[1] in values and len(read[node.input[1]]) == 1:
            convolutions.append(node)
        else:
            return None
    return entries[0], levels[entries[0]], convolutions


def _pointwise(node: NodeProto, levels: np.ndarray, values: Mapping[str, np.ndarray]) -> np.ndarray | None:
    """What the 256 levels become; None for what is not the same at every place."""
    if node.op_type in ("Cast", "Transpose", "Identity"):
        return levels
    operations = {"Mul": np.multiply, "Add": np.add, "Sub": np.subtract, "Div": np.divide}
    other = values.get(node.input[1]) if len(node.input) == 2 else None
    if node.op_type not in operations or other is None or other.size != 1:
        return None
    result: np.ndarray = operations[node.op_type](levels, other.reshape(()))
    return result


def _allows_half(node: NodeProto, types: Mapping[str, int], version: int) -> bool:
    """Whether its float outputs may be halves. A Cast says its type itself and stays."""
    if node.op_type == "Cast" or node.domain not in ("", "ai.onnx"):
        return False
    schema = onnx.defs.get_schema(node.op_type, version)
    return all(
        _is_free(schema, schema.outputs[min(index, len(schema.outputs) - 1)].type_str)
        for index, name in enumerate(node.output)
        if types.get(name) == TensorProto.FLOAT
    )


def _takes_half(node: NodeProto, index: int, version: int) -> bool:
    schema = onnx.defs.get_schema(node.op_type, version)
    return _is_free(schema, schema.inputs[min(index, len(schema.inputs) - 1)].type_str)


def _is_free(schema: onnx.defs.OpSchema, kind: str) -> bool:
    """Whether this type of an operator's definition can be float16 as well as float32."""
    return any(
        constraint.type_param_str == kind and "tensor(float16)" in constraint.allowed_type_strs
        for constraint in schema.type_constraints
    )


def _by_rule(node: NodeProto, graph: onnx.GraphProto) -> str | None:
    if node.op_type in _SUMS:
        return f"{node.op_type} adds up many values"
    if node.op_type == "MatMul" and _is_gram(node, graph):
        return "a Gram product adds up many squares"
    return None


def _by_range(node: NodeProto, values: Mapping[str, np.ndarray], observed: Mapping[str, Observed]) -> str | None:
    for name in (*node.input, *node.output):
        if name in values:
            held = values[name]
            if held.dtype != np.float32 or not held.size or node.op_type == "Clip":
                continue
            highest = float(np.abs(held).max())
        elif name in observed:
            highest = observed[name].highest
        else:
            continue
        if highest > HIGHEST / HEADROOM:
            return f"{name} reaches {highest:.3g}; a half ends at {HIGHEST:g}"
        if 0 < highest < LOWEST:
            return f"{name} stays below {highest:.2g}; a half loses bits below {LOWEST:.2g}"
    return None


def _is_gram(node: NodeProto, graph: onnx.GraphProto) -> bool:
    """Whether both factors are one tensor, transposed or reshaped."""
    by = producers(graph)

    def origin(name: str) -> str:
        while name in by and by[name].op_type in (
            "Transpose",
            "Reshape",
            "Flatten",
            "Identity",
            "Squeeze",
            "Unsqueeze",
        ):
            name = by[name].input[0]
        return name

    return origin(node.input[0]) == origin(node.input[1])


def _squares_of(graph: onnx.GraphProto, fp32_nodes: Mapping[str, str]) -> list[NodeProto]:
    """Squares that go into a sum, and the differences that they are of: the parts of a variance."""
    by = producers(graph)
    found = []
    for node in graph.node:
        square = by.get(node.input[0]) if node.name in fp32_nodes and node.op_type in _SUMS and node.input else None
        if square is None or square.op_type not in ("Mul", "Pow"):
            continue
        if square.op_type == "Pow" or square.input[0] == square.input[1]:
            found.append(square)
            difference = by.get(square.input[0])
            if difference is not None and difference.op_type == "Sub":
                found.append(difference)
    return found


def _from_pixels(graph: onnx.GraphProto) -> list[NodeProto]:
    """What happens to the picture's values one by one before the network proper."""
    pixels = {value.name for value in graph.input if value.type.tensor_type.elem_type == TensorProto.UINT8}
    values = constants(graph)
    found = []
    for node in graph.node:
        if node.op_type in _POINTWISE and node.input[0] in pixels and all(name in values for name in node.input[1:]):
            found.append(node)
            pixels.update(node.output)
    return found


def _to_pixels(graph: onnx.GraphProto) -> list[NodeProto]:
    """What happens one by one to the values that become the picture, back to where each is a whole layer's output."""
    wanted = {value.name for value in graph.output if value.type.tensor_type.elem_type == TensorProto.UINT8}
    by, read = producers(graph), readers(graph)
    found = []
    while wanted:
        node = by.get(wanted.pop())
        # A tensor that others read too belongs to the network, not to its end.
        if node is None or node.op_type not in _POINTWISE or len(read.get(node.output[0], ())) > 1:
            continue
        found.append(node)
        wanted.update(node.input)
    return found
