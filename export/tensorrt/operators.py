"""Operators that TensorRT's parsers refuse, or read otherwise than ONNX means them, as others that they read.

Each function takes one node and gives nodes that compute the same. What the parsers do with an operator is in
`tests/support/parser_laws.py`; here is what follows from it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

from impasto.errors import ExportError
from impasto.export.graph.helpers import attribute, constants, drop_attributes, kernel_shape, producers

_SAME = (b"SAME_UPPER", b"SAME_LOWER")
_SELU = {"alpha": 1.67326319217681884765625, "gamma": 1.05070102214813232421875}
"""ONNX's defaults. The parsers' own are 1.6732 and 1.0507."""
_EPSILON = 1e-5  # ONNX's default for norms


class Known:
    """What shape inference and the initializers say of a graph's tensors."""

    def __init__(self, model: onnx.ModelProto) -> None:
        inferred = onnx.shape_inference.infer_shapes(model).graph
        values = (*inferred.input, *inferred.output, *inferred.value_info)
        tensors = {value.name: value.type.tensor_type for value in values}
        self.graph = model.graph
        self.constants = constants(model.graph)
        self.types = {name: tensor.elem_type for name, tensor in tensors.items()}
        self.types |= {tensor.name: tensor.data_type for tensor in model.graph.initializer}
        self._shapes = {
            name: [size.dim_value or None for size in tensor.shape.dim]
            for name, tensor in tensors.items()
            if tensor.HasField("shape")
        }
        self._by = producers(model.graph)

    def shape(self, name: str) -> list[int | None] | None:
        """None for a size that is free, or instead of all where not even their number is known."""
        return list(self.constants[name].shape) if name in self.constants else self._shapes.get(name)

    def kernel_shape(self, node: NodeProto) -> list[int]:
        """A convolution's kernel shape, found by `helpers.kernel_shape`."""
        return kernel_shape(node, self.constants, self._by)

    def store(self, value: np.ndarray, name: str) -> str:
        """Add an initializer. Returns its name."""
        self.graph.initializer.append(numpy_helper.from_array(value, name))
        self.constants[name] = value
        return name


Rewrite = Callable[[NodeProto, Known], list[NodeProto]]


def rewrite(model: onnx.ModelProto, rules: dict[str, Rewrite]) -> None:
    """Put other nodes in place of those that `rules` knows, in this graph. Raises ExportError as they do."""
    if not any(node.op_type in rules for node in model.graph.node):
        return
    known = Known(model)
    nodes = [
        other
        for node in model.graph.node
        for other in (rules[node.op_type](node, known) if node.op_type in rules else [node])
    ]
    del model.graph.node[:]
    model.graph.node.extend(nodes)


class _Steps:
    """Nodes in place of one: they take what it took, and the last one has its name and gives what it gave."""

    def __init__(self, node: NodeProto, known: Known) -> None:
        self._node, self._known = node, known
        self._nodes: list[NodeProto] = []
        self._constants = 0
        self.kind = known.types.get(node.input[0], TensorProto.FLOAT)
        """The TensorProto.DataType of what is computed."""

    def add(self, kind: str, *inputs: str | float, **attributes: Any) -> str:
        """One node. Numbers among its inputs become constants of the type that is computed in. Returns its output."""
        names = [value if isinstance(value, str) else self._number(value) for value in inputs]
        name = f"{self._node.output[0]}/{len(self._nodes)} {kind}"
        self._nodes.append(helper.make_node(kind, names, [name], name, **attributes))
        return name

    def ending(self) -> list[NodeProto]:
        self._nodes[-1].output[0], self._nodes[-1].name = self._node.output[0], self._node.name
        return self._nodes

    def _number(self, value: float) -> str:
        self._constants += 1
        dtype = helper.tensor_dtype_to_np_dtype(self.kind)
        return self._known.store(np.asarray(value, dtype), f"{self._node.output[0]}/constant {self._constants}")


def _gelu(node: NodeProto, known: Known) -> list[NodeProto]:
    """x/2 (1 + erf(x / sqrt 2)), or its approximation by tanh. 9.x has no importer, 10.6 has one; for 10.3 nobody could look."""
    steps, x = _Steps(node, known), node.input[0]
    if attribute(node, "approximate", b"none") == b"tanh":
        cubed = steps.add("Mul", steps.add("Mul", steps.add("Mul", x, x), x), 0.044715)
        bent = steps.add("Tanh", steps.add("Mul", steps.add("Add", x, cubed), math.sqrt(2 / math.pi)))
    else:
        bent = steps.add("Erf", steps.add("Mul", x, math.sqrt(0.5)))
    steps.add("Mul", steps.add("Mul", x, 0.5), steps.add("Add", bent, 1.0))
    return steps.ending()


def _hard_swish(node: NodeProto, known: Known) -> list[NodeProto]:
    """x hardsigmoid(x): docs/operators.md has it from 8.5 on, but no importer that could be read."""
    steps, x = _Steps(node, known), node.input[0]
    steps.add("Mul", x, steps.add("HardSigmoid", x, alpha=1 / 6, beta=0.5))
    return steps.ending()


def _mish(node: NodeProto, known: Known) -> list[NodeProto]:
    """x tanh(softplus(x)): it came with opset 18, and no importer could be read."""
    steps, x = _Steps(node, known), node.input[0]
    steps.add("Mul", x, steps.add("Tanh", steps.add("Softplus", x)))
    return steps.ending()


def _selu(node: NodeProto, _: Known) -> list[NodeProto]:
    """The node with its constants written, which the parsers' defaults have four digits of."""
    given = {found.name for found in node.attribute}
    node.attribute.extend(helper.make_attribute(name, value) for name, value in _SELU.items() if name not in given)
    return [node]


def _shape(node: NodeProto, known: Known) -> list[NodeProto]:
    """All sizes first, and then some of them: the parsers do not look at `start` and `end`."""
    start, end = attribute(node, "start", 0), attribute(node, "end", None)
    if not start and end is None:
        return [node]
    steps = _Steps(node, known)
    ends = np.array([np.iinfo(np.int32).max if end is None else end])
    cut = (np.array([start]), ends, np.array([0]))
    names = [
        known.store(value, f"{node.output[0]}/{what}")
        for what, value in zip(("starts", "ends", "axes"), cut, strict=True)
    ]
    steps.add("Slice", steps.add("Shape", node.input[0]), *names)
    return steps.ending()


def _clip(node: NodeProto, known: Known) -> list[NodeProto]:
    """The Clip with a lower bound where only the upper one is given: the parsers' own is a float32, whatever the tensor is."""
    if len(node.input) == 3 and not node.input[1] and node.input[2] in known.constants:
        dtype = known.constants[node.input[2]].dtype
        least = np.finfo(dtype).min if dtype.kind == "f" else np.iinfo(dtype).min
        node.input[1] = known.store(np.asarray(least, dtype), f"{node.output[0]}/least")
    return [node]


def _pow(node: NodeProto, known: Known) -> list[NodeProto]:
    """The Pow with an exponent of the base's type, which ONNX leaves free: elementwise layers take one type, and no integers here."""
    base, exponent = node.input
    wanted, found = known.types.get(base), known.types.get(exponent)
    if wanted is None or wanted == found:
        return [node]
    if exponent in known.constants:
        value = known.constants[exponent].astype(helper.tensor_dtype_to_np_dtype(wanted))
        node.input[1] = known.store(value, f"{node.output[0]}/exponent")
        return [node]
    cast = f"{node.output[0]}/exponent"
    node.input[1] = cast
    return [helper.make_node("Cast", [exponent], [cast], cast, to=wanted), node]


def _pad(node: NodeProto, known: Known) -> list[NodeProto]:
    """The Pad with pads for all axes, in place of those for `axes`, which parsers before 10.4 refuse."""
    if len(node.input) < 4 or not node.input[3]:
        return [node]
    shape = known.shape(node.input[0])
    if shape is None or any(node.input[index] not in known.constants for index in (1, 3)):
        raise ExportError(f"the Pad {node.name!r} computes which axes it pads; TensorRT wants them stored in the graph")
    pads, axes = (known.constants[node.input[index]].tolist() for index in (1, 3))
    every = np.zeros((2, len(shape)), np.int64)
    for index, axis in enumerate(axes):
        every[:, axis] = pads[index], pads[len(axes) + index]
    node.input[1] = known.store(every.ravel(), f"{node.output[0]}/pads")
    del node.input[3:]
    return [node]


def _convolution(node: NodeProto, _: Known) -> list[NodeProto]:
    """The convolution without pads that `auto_pad` overrules: the parsers refuse both, or add them."""
    if attribute(node, "auto_pad", b"NOTSET") != b"NOTSET":
        drop_attributes(node, "pads")
    return [node]


def _pool(node: NodeProto, known: Known) -> list[NodeProto]:
    """The pooling without pads that `auto_pad` overrules, and without dilations, which old parsers refuse and new ones ignore."""
    if any(step != 1 for step in attribute(node, "dilations", ())):
        raise ExportError(
            f"the {node.op_type} {node.name!r} is dilated, which no TensorRT computes; export the network with one that is not"
        )
    drop_attributes(node, "dilations")
    return _convolution(node, known)


def _transposed_convolution(node: NodeProto, known: Known) -> list[NodeProto]:
    """The convolution with pads as ONNX computes them, in place of `auto_pad` and `output_shape`.

    The parsers give the odd pixel to the other side, drop `output_padding` beside `auto_pad`, and compute with sizes of -1 where
    they are free.
    """
    mode, wanted = attribute(node, "auto_pad", b"NOTSET"), attribute(node, "output_shape", ())
    if mode in _SAME or wanted:
        pads, output_padding = _transposed_pads(node, known, mode, list(wanted))
        drop_attributes(node, "auto_pad", "output_shape", "pads", "output_padding")
        node.attribute.append(helper.make_attribute("pads", pads))
        if any(output_padding):
            node.attribute.append(helper.make_attribute("output_padding", output_padding))
    elif mode != b"NOTSET":
        drop_attributes(node, "auto_pad", "pads")
    return [node]


def _transposed_pads(node: NodeProto, known: Known, mode: bytes, wanted: list[int]) -> tuple[list[int], list[int]]:
    """(pads, output_padding) by the formulas of ONNX's ConvTranspose. Raises ExportError where they need free sizes."""
    kernel = known.kernel_shape(node)
    ones = [1] * len(kernel)
    strides, dilations = attribute(node, "strides", ones), attribute(node, "dilations", ones)
    extra = list(attribute(node, "output_padding", [0] * len(kernel)))
    sides = (known.shape(node.input[0]) or [None] * (2 + len(kernel)))[2:]
    before, after = [], []
    for axis, side in enumerate(sides):
        total = extra[axis] + (kernel[axis] - 1) * dilations[axis] + 1 - strides[axis]
        if wanted:
            if side is None:
                raise ExportError(
                    f"the ConvTranspose {node.name!r} says how large its result is, for pictures of a free size; export the "
                    "network with output_padding instead, or with a fixed size"
                )
            total += strides[axis] * side - wanted[axis - len(kernel)]
        if total < 0:
            extra[axis] -= total
        total = max(total, 0)
        less = total // 2
        before.append(less if mode == b"SAME_UPPER" else total - less)
        after.append(total - before[-1])
    return [*before, *after], extra


def _layer_norm_in_full(node: NodeProto, known: Known) -> list[NodeProto]:
    """The node with a bias, zeros where it has none: for a missing one the parser makes a number, and scale and bias have one shape."""
    if len(node.output) > 1 and any(node.output[1:]):
        raise ExportError(
            f"something reads the mean or the deviation that the LayerNormalization {node.name!r} computes; TensorRT gives the "
            "normalized tensor alone"
        )
    del node.output[1:]
    if len(node.input) < 3 or not node.input[2]:
        shape, kind = known.shape(node.input[1]), known.types.get(node.input[1], TensorProto.FLOAT)
        if shape is None or None in shape:
            raise ExportError(f"the LayerNormalization {node.name!r} computes its scale; TensorRT wants it stored")
        zeros = np.zeros(shape, helper.tensor_dtype_to_np_dtype(kind))  # type: ignore[arg-type]
        node.input[:] = [*node.input[:2], known.store(zeros, f"{node.output[0]}/bias")]
    return [node]


def _layer_norm_in_steps(node: NodeProto, known: Known) -> list[NodeProto]:
    """The operator in steps: 8.5 has no importer, and 8.6 is of the same opset."""
    [node] = _layer_norm_in_full(node, known)
    axis, shape = attribute(node, "axis", -1), known.shape(node.input[0])
    if axis >= 0:
        if shape is None:
            raise ExportError(f"nothing says how many axes the LayerNormalization {node.name!r} goes over")
        axis -= len(shape)
    steps = _Steps(node, known)
    normal = _normal(steps, node, list(range(axis, 0)))
    steps.add("Add", steps.add("Mul", normal, node.input[1]), node.input[2])
    return steps.ending()


def _instance_norm(node: NodeProto, known: Known) -> list[NodeProto]:
    """The node in steps, over planes or whatever else follows the channels: old parsers hand the operator to a plugin over cuDNN."""
    x, *columns = node.input
    shape = known.shape(x)
    if shape is None or any(name not in known.constants for name in columns):
        raise ExportError(
            f"the InstanceNormalization {node.name!r} computes its scale, or takes a tensor of unknown shape; TensorRT's old "
            "parsers want them known. Fold them first"
        )
    for index, name in enumerate(columns):
        column = known.constants[name].reshape(1, -1, *[1] * (len(shape) - 2))
        columns[index] = known.store(column, f"{node.output[0]}/column {index}")
    steps = _Steps(node, known)
    normal = _normal(steps, node, list(range(2, len(shape))))
    steps.add("Add", steps.add("Mul", normal, columns[0]), columns[1])
    return steps.ending()


def _normal(steps: _Steps, node: NodeProto, axes: list[int]) -> str:
    """(x - mean) / sqrt(variance + epsilon), computed in float32 and given in the type of x. `axes` as an attribute: opset 17."""
    x, narrow = node.input[0], steps.kind
    if narrow != TensorProto.FLOAT:
        x, steps.kind = steps.add("Cast", x, to=TensorProto.FLOAT), TensorProto.FLOAT
    centred = steps.add("Sub", x, steps.add("ReduceMean", x, axes=axes, keepdims=1))
    variance = steps.add("ReduceMean", steps.add("Mul", centred, centred), axes=axes, keepdims=1)
    deviation = steps.add("Sqrt", steps.add("Add", variance, attribute(node, "epsilon", _EPSILON)))
    normal = steps.add("Div", centred, deviation)
    return normal if narrow == TensorProto.FLOAT else steps.add("Cast", normal, to=narrow)


EVERYWHERE: dict[str, Rewrite] = {
    "AveragePool": _pool,
    "Clip": _clip,
    "Conv": _convolution,
    "ConvTranspose": _transposed_convolution,
    "Gelu": _gelu,
    "HardSwish": _hard_swish,
    "LayerNormalization": _layer_norm_in_full,
    "MaxPool": _pool,
    "Mish": _mish,
    "Pad": _pad,
    "Pow": _pow,
    "Selu": _selu,
    "Shape": _shape,
}
"""The rewrites for the parsers of every version."""
OLD: dict[str, Rewrite] = {
    "InstanceNormalization": _instance_norm,
    "LayerNormalization": _layer_norm_in_steps,
}
"""The rewrites for parsers that read no newer opset than 17; the nodes are of that opset."""
