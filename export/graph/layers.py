"""What each layer of a graph costs: multiplications, bytes, and how far it looks, with nodes fused as TensorRT fuses them.

Its documentation lists the patterns ("Layer Fusion Catalog", docs.nvidia.com/deeplearning/tensorrt). Those that image networks meet
are followed here: a convolution takes up constant scales, one sum with another tensor, an activation and the quantizer behind it;
pointwise operators that follow each other become one; what depends on no input is computed when the engine is built; views of a
tensor and concatenations cost nothing.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper

from impasto.errors import ExportError, first_line

from .helpers import QUANTIZERS, attribute, bodies, constants, element_types, readers, shape_of, with_names
from .receptive_field import radii

BYTES = {"fp32": 4, "bf16": 2, "fp16": 2, "int8": 1, "uint8": 1}
"""Bytes of one value, by the precision that a layer computes in. "uint8" is for a layer that only moves a picture's bytes."""

PRODUCTS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
"""Operators whose work is multiply-accumulates: a layer each."""

_VIEWS = ("Concat", "Dropout", "Flatten", "Identity", "Reshape", "Squeeze", "Unsqueeze")
"""Operators that move nothing in an engine."""

_ACTIVATIONS = (
    "Clip", "Elu", "Gelu", "HardSigmoid", "HardSwish", "LeakyRelu", "Mish", "Relu", "Selu", "Sigmoid", "Softplus", "Tanh",
)  # fmt: skip
_POINTWISE = (
    *_ACTIVATIONS, "Abs", "Add", "BatchNormalization", "Cast", "Ceil", "Cos", "Div", "Equal", "Erf", "Exp", "Floor", "Greater", "Less",
    "Log", "Max", "Min", "Mod", "Mul", "Neg", "Not", "PRelu", "Pow", "QuantizeLinear", "Reciprocal", "Round", "Sign", "Sin", "Sqrt",
    "Sub", "Sum", "Where",
)  # fmt: skip


@dataclass(frozen=True)
class Layer:
    """What an engine runs as one piece."""

    name: str
    """What people call it: that of its weights, such as "body.0.first"; otherwise its operators after the layer before it."""
    label: str
    """That of the weights that it computes with, or of those before it; empty before the first."""
    kind: str
    """Its operators, such as "Conv + Add + Relu"."""
    nodes: tuple[str, ...]
    """The names of its nodes. A graph of another precision has the same for the same work."""
    precision: str
    """One of BYTES."""
    shape: tuple[int, ...]
    """Shape of the layer's result."""
    macs: int
    """Multiply-accumulates."""
    operations: int
    """Other arithmetic: one for each value that a pointwise operator gives."""
    weight_bytes: int
    read_bytes: int
    """Bytes read of activations and inputs. Weights count in `weight_bytes`."""
    written_bytes: int
    radius: int | None
    """In pixels of the picture, how far away it sees from its own place; None where it sees everything, or nobody knows."""
    output: str
    """The tensor that it gives."""
    inputs: tuple[str, ...]
    """The tensors that it reads, but for weights."""

    @property
    def stage(self) -> str:
        """What it is a part of: "body.0" of "body.0.first"."""
        whole, _, part = self.label.rpartition(".")
        return self.label if not whole or part.isdigit() else whole

    @property
    def bytes(self) -> int:
        """Everything that it moves."""
        return self.weight_bytes + self.read_bytes + self.written_bytes


@dataclass(frozen=True)
class Assumed:
    """A precision that a graph does not have yet."""

    precision: str
    excluded: Collection[str] = ()
    """Names of layers that keep `otherwise`."""
    otherwise: str = "fp32"


def layers_of(
    model: onnx.ModelProto, height: int, width: int, *, batch: int = 1, assumed: Assumed | None = None
) -> tuple[Layer, ...]:
    """The layers of a graph for pictures of height x width, in the order of computation.

    model: its first input is (N, H, W, 3) or (N, 3, H, W); other inputs get `batch` for what is free. assumed: count as if the graph
    computed in this precision. Raises ExportError where sizes cannot be told.
    """
    sized = _sized(model, height, width, batch)
    try:
        sees = radii(sized)
    except (ValueError, KeyError, IndexError, ArithmeticError):  # of a graph that is no picture's
        sees = {}
    return _Fusion(sized, sees, assumed).layers()


def peak_bytes(layers: Sequence[Layer]) -> int:
    """The most bytes that tensors between layers need at once, where each is freed after its last reader, and all weights."""
    last = {name: number for number, layer in enumerate(layers) for name in layer.inputs}
    alive: dict[str, int] = {}
    most = 0
    for number, layer in enumerate(layers):
        for name in layer.inputs:
            alive.setdefault(name, 0 if any(name == other.output for other in layers[:number]) else layer.read_bytes)
        alive[layer.output] = layer.written_bytes
        most = max(most, sum(alive.values()))
        alive = {name: size for name, size in alive.items() if last.get(name, -1) > number or name == layers[-1].output}
    return most + sum(layer.weight_bytes for layer in layers)


def _sized(model: onnx.ModelProto, height: int, width: int, batch: int) -> onnx.ModelProto:
    """A copy with names for all nodes, constants as initializers, and the size of every tensor. Raises ExportError."""
    sized = with_names(model)
    graph = sized.graph
    if any(bodies(node) for node in graph.node):
        raise ExportError("the graph has branches or loops: what it costs depends on the picture and cannot be told")
    stored = {tensor.name for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in stored]
    for value in inputs:
        dimensions = value.type.tensor_type.shape.dim
        free = [batch] * len(dimensions)
        if value is inputs[0] and len(dimensions) == 4:
            free[slice(1, 3) if _channels_last(dimensions) else slice(2, 4)] = height, width
        for dimension, size in zip(dimensions, free, strict=True):
            if not dimension.dim_value:
                dimension.dim_value = size
    del graph.value_info[:]
    for value in graph.output:
        value.type.tensor_type.ClearField("shape")
    try:
        return onnx.shape_inference.infer_shapes(sized, data_prop=True)
    except Exception as error:  # onnx's own has no public base that it promises
        raise ExportError(f"the sizes of the graph's tensors cannot be told: {first_line(error)}") from None


def _channels_last(dimensions: Sequence[onnx.TensorShapeProto.Dimension]) -> bool:
    return dimensions[3].dim_value == 3 and dimensions[1].dim_value != 3


@dataclass(eq=False)
class _Group:
    """Nodes that become one layer. All tensors inside it have one reader, so that it has one result."""

    nodes: list[NodeProto]
    product: bool
    """Whether it begins with one of PRODUCTS."""
    label: str
    """Label of the group's weights, or of the nearest weights before it."""
    pointwise: bool = False
    stage: int = 0
    """What a product has taken up: 0 constant scales alone, 1 a sum, 2 an activation, 3 a quantizer."""

    @property
    def output(self) -> str:
        return str(self.nodes[-1].output[0])


class _Fusion:
    """Walks a graph once, in the order of computation."""

    def __init__(self, model: onnx.ModelProto, sees: Mapping[str, int | None], assumed: Assumed | None) -> None:
        """model: as `_sized` makes it. sees: the radius of each tensor, as far as it is known."""
        self._graph = model.graph
        self._sees = sees
        self._assumed = assumed
        self._types = element_types(model)
        self._shapes = {name: value.shape for name, value in constants(model.graph).items()}
        self._origins = {name: name for name in self._shapes}
        """The initializer that a constant is computed of."""
        self._views: dict[str, tuple[str, ...]] = {}
        """Tensors that are others under another name."""
        self._quantized: set[str] = set()
        """Tensors that come from DequantizeLinear."""
        self._readers = {name: len(nodes) for name, nodes in readers(model.graph).items()}
        for value in model.graph.output:
            self._readers[value.name] = self._readers.get(value.name, 0) + 2  # never inside a group
        self._groups: list[_Group] = []
        self._of: dict[str, _Group] = {}
        for node in model.graph.node:
            self._place(node)

    def layers(self) -> tuple[Layer, ...]:
        """What became of the nodes."""
        precisions = {group: self._precision(group) for group in self._groups}
        sizes = self._value_bytes(precisions)
        return tuple(self._layer(group, precisions[group], sizes) for group in self._groups)

    def _place(self, node: NodeProto) -> None:
        taken = [name for name in node.input if name]
        if node.op_type in ("Shape", "Size") or (taken and all(name in self._origins for name in taken)):
            for name in node.output:
                self._origins[name] = self._origins.get(taken[0], taken[0])
                self._quantized.update(
                    [name] if node.op_type == "DequantizeLinear" or taken[0] in self._quantized else []
                )
            return
        if node.op_type in _VIEWS or node.op_type == "DequantizeLinear":
            source = taken[:1] if node.op_type != "Concat" else taken
            for name in node.output:
                self._views[name] = tuple(real for one in source for real in self._real(one))
                self._quantized.update([name] if node.op_type == "DequantizeLinear" else [])
            return
        if node.op_type in _POINTWISE and (group := self._joined(node)):
            group.nodes.append(node)
        else:
            product = node.op_type in PRODUCTS
            label = self._label(node) if product else self._label_before(taken)
            group = _Group([node], product, label, node.op_type in _POINTWISE)
            self._groups.append(group)
        for name in node.output:
            self._of[name] = group

    def _joined(self, node: NodeProto) -> _Group | None:
        """The group that takes up a pointwise node; those that only it reads become one."""
        inner = [self._of[name] for name in node.input if name in self._of and self._readers.get(name) == 1]
        for group in sorted((one for one in inner if one.product), key=self._groups.index, reverse=True):
            stage = self._stage_after(group, node)
            if stage is not None:
                group.stage = stage
                # It now waits for the other tensor, too.
                self._groups.remove(group)
                self._groups.append(group)
                return group
        merged = [one for one in dict.fromkeys(inner) if one.pointwise]
        if not merged:
            return None
        label = self._label_before([name for name in node.input if name])
        whole = _Group([each for one in merged for each in one.nodes], False, label, True)
        self._groups = [one for one in self._groups if one not in merged]
        self._groups.append(whole)
        self._of.update((name, whole) for each in whole.nodes for name in each.output)
        return whole

    def _stage_after(self, group: _Group, node: NodeProto) -> int | None:
        """What a product has taken up with this node; None where it does not take it up."""
        others = [name for name in node.input if name and name != group.output]
        fixed = all(name in self._origins for name in others)
        kind, stage = node.op_type, group.stage
        if kind in ("Mul", "Add", "Sub", "Div", "BatchNormalization") and fixed and stage == 0:
            return 0
        if kind == "Add" and len(others) == 1 and self._shape(others[0]) == self._shape(group.output) and stage == 0:
            return 1
        if kind in _ACTIVATIONS and fixed and stage <= 1:
            return 2
        return 3 if kind in ("QuantizeLinear", "Cast") and stage <= 2 else None

    def _real(self, name: str) -> tuple[str, ...]:
        """The tensors that lie in memory under this name."""
        return self._views.get(name, (name,))

    def _shape(self, name: str) -> tuple[int, ...]:
        """Raises ExportError where it is not known to the last side."""
        shape = self._shapes.get(name)
        if shape is None:
            found = shape_of(self._graph, name)
            if found is None or any(side < 1 for side in found):
                raise ExportError(f"the size of the tensor {name!r} cannot be told from the graph")
            shape = self._shapes[name] = tuple(found)
        return shape

    def _label(self, node: NodeProto) -> str:
        weights = self._origins.get(node.input[1], "")
        label = (
            weights.removeprefix("network.").removesuffix("_quantized").removesuffix(".half").removesuffix(".weight")
        )
        return label if label and all(label != one.label for one in self._groups if one.product) else node.name

    def _label_before(self, taken: Sequence[str]) -> str:
        """That of the last product among those that led to these tensors."""
        found = {self._of[real].label for name in taken for real in self._real(name) if real in self._of}
        return next((one.label for one in reversed(self._groups) if one.product and one.label in found), "")

    def _precision(self, group: _Group) -> str:
        first = group.nodes[0]
        if group.product and self._assumed:
            excluded = group.label in self._assumed.excluded
            return self._assumed.otherwise if excluded else self._assumed.precision
        if group.product and all(name in self._quantized for name in first.input[:2]):
            return "int8"
        touched = [first.output[0], group.output, *(name for node in group.nodes for name in node.input)]
        kinds = [self._types.get(name) for name in touched]
        if self._assumed and TensorProto.FLOAT in kinds:
            return self._assumed.otherwise if self._assumed.precision == "int8" else self._assumed.precision
        return next((_FLOATS[kind] for kind in kinds if kind in _FLOATS), "uint8")

    def _value_bytes(self, precisions: Mapping[_Group, str]) -> dict[str, int]:
        """Bytes of one value of each tensor that a group gives."""
        reading: dict[str, list[_Group]] = {}
        for group in self._groups:
            for name in self._reads(group):
                reading.setdefault(name, []).append(group)
        sizes = {}
        for group, precision in precisions.items():
            for name in group.nodes[-1].output:
                kind = self._types.get(name, TensorProto.FLOAT)
                sizes[name] = np.dtype(helper.tensor_dtype_to_np_dtype(kind)).itemsize
                if self._assumed and kind in _FLOATS:
                    sizes[name] = BYTES[precision]
                    if self._assumed.precision == "int8":
                        # A quantizer stands before every INT8 product, and what is computed of the tensor elsewhere wants floats.
                        users = [precisions[one] == "int8" for one in reading.get(name, ())]
                        sizes[name] = 1 if users and all(users) else BYTES[self._assumed.otherwise]
        return sizes

    def _reads(self, group: _Group) -> list[str]:
        """The tensors that it takes from outside, weights aside."""
        own = {name for node in group.nodes for name in node.output}
        taken = [real for node in group.nodes for name in node.input if name for real in self._real(name)]
        return [name for name in dict.fromkeys(taken) if name not in own and name not in self._origins]

    def _layer(self, group: _Group, precision: str, sizes: Mapping[str, int]) -> Layer:
        read = self._reads(group)
        weights = {name for node in group.nodes for name in node.input if name in self._origins}
        kind = " + ".join(node.op_type for node in group.nodes)
        label = group.label or "picture"
        name = label if group.product else f"{'after' if group.label else 'of the'} {label}: {kind}"
        outputs = [name for name in group.nodes[-1].output if name in self._readers or name == group.output]
        return Layer(
            name=name,
            label=group.label,
            kind=kind,
            nodes=tuple(node.name for node in group.nodes),
            precision=precision,
            shape=self._shape(group.output),
            macs=sum(self._macs(node) for node in group.nodes),
            operations=sum(self._operations(node) for node in group.nodes),
            weight_bytes=sum(self._elements(name) for name in weights) * BYTES[precision],
            read_bytes=sum(self._elements(name) * sizes.get(name, self._given_bytes(name)) for name in read),
            written_bytes=sum(self._elements(name) * sizes[name] for name in outputs),
            radius=self._sees.get(group.output),
            output=group.output,
            inputs=tuple(read),
        )

    def _given_bytes(self, name: str) -> int:
        """Bytes of one value of an input."""
        return np.dtype(helper.tensor_dtype_to_np_dtype(self._types.get(name, TensorProto.FLOAT))).itemsize

    def _elements(self, name: str) -> int:
        return math.prod(self._shape(name))

    def _macs(self, node: NodeProto) -> int:
        if node.op_type == "Conv":
            return self._elements(node.output[0]) * math.prod(self._shape(node.input[1])[1:])
        if node.op_type == "ConvTranspose":
            return self._elements(node.input[0]) * math.prod(self._shape(node.input[1])[1:])
        if node.op_type in ("Gemm", "MatMul"):
            across = -2 if attribute(node, "transA", 0) else -1
            return self._elements(node.output[0]) * self._shape(node.input[0])[across]
        return 0

    def _operations(self, node: NodeProto) -> int:
        if node.op_type in (
            *PRODUCTS,
            *QUANTIZERS,
            "Transpose",
            "DepthToSpace",
            "SpaceToDepth",
            "Split",
            "Slice",
            "Gather",
            "Pad",
        ):
            return 0
        window: int = math.prod(attribute(node, "kernel_shape", [1]))
        reads = self._elements(node.input[0]) if node.op_type.startswith("Reduce") else 0
        return max(self._elements(node.output[0]) * window, reads)


_FLOATS: dict[int, str] = {
    TensorProto.FLOAT: "fp32",
    TensorProto.FLOAT16: "fp16",
    TensorProto.BFLOAT16: "bf16",
    TensorProto.DOUBLE: "fp32",
}
