"""Both ends of a picture graph of one fixed size, as one shuffle of pixels each, which TensorRT fuses with the arithmetic there.

A canonical graph turns uint8 NHWC pixels into NCHW, scales them, and gathers blocks of pixels into channels (SpaceToDepth). At
its end it spreads channels into blocks of pixels (DepthToSpace), scales, rounds, and turns the pixels into NHWC. TensorRT-RTX
makes several kernels of an end, which pass the whole picture through memory as FP32. Here each end is one Reshape → Transpose →
Reshape between NHWC pixels and *cells*, (N, block² · C, H / block, W / block), and the arithmetic is done on cells.

The arithmetic stays the same, value by value. Channels of cells are in SpaceToDepth's order: row in the block, column in the
block, colour.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import onnx
from onnx import NodeProto, helper, numpy_helper

from impasto.export.graph.helpers import attribute, constants, copy, producers, readers, replace_nodes, shape_of

_POINTWISE = frozenset(
    (
        "Abs",
        "Add",
        "Cast",
        "Clip",
        "Div",
        "Identity",
        "Max",
        "Min",
        "Mul",
        "Neg",
        "Relu",
        "Round",
        "Sigmoid",
        "Sub",
        "Tanh",
    )
)
_TO_NCHW, _TO_NHWC = [0, 3, 1, 2], [0, 2, 3, 1]
_TO_CELLS, _TO_PIXELS = [0, 2, 4, 5, 1, 3], [0, 4, 1, 5, 2, 3]
"""How six axes are reordered: (N, H, block, W, block, C) into cells, and (N, block, block, C, H, W) into NHWC pixels."""


def fuse_picture_ends(model: onnx.ModelProto, picture: tuple[int, int, int]) -> onnx.ModelProto:
    """The graph with shuffled ends where it has ends of this kind; `model` itself where it has none.

    model: as `parser_graph.prepare` gives it. picture: the N, H and W that all pictures have.
    """
    fused = _with_sizes(model, picture)
    changed = False
    for tensor in _ends(fused.graph):
        region = _Region(fused.graph)
        if region.grow(tensor):
            region.rewrite()
            changed = True
    if not changed:
        return model
    del fused.graph.value_info[:]
    for value, original in zip(fused.graph.input, model.graph.input, strict=True):
        value.CopyFrom(original)
    onnx.checker.check_model(fused)
    return onnx.shape_inference.infer_shapes(fused)


def _with_sizes(model: onnx.ModelProto, picture: tuple[int, int, int]) -> onnx.ModelProto:
    """A copy whose tensors have the sizes that they have for such pictures."""
    sized = copy(model)
    for value in sized.graph.input:
        sides = value.type.tensor_type.shape.dim
        for dimension, size in zip(sides, picture if len(sides) == 4 else picture[:1], strict=False):
            dimension.dim_value = dimension.dim_value or size
    del sized.graph.value_info[:]
    return onnx.shape_inference.infer_shapes(sized)


def _ends(graph: onnx.GraphProto) -> list[str]:
    """The NCHW tensors next to the graph's inputs and outputs."""
    by, reading = producers(graph), readers(graph)
    inputs, outputs = ({value.name for value in values} for values in (graph.input, graph.output))
    found = []
    for node in (node for node in graph.node if node.op_type == "Transpose"):
        source, target = node.input[0], node.output[0]
        before, after = by.get(source), reading.get(target, [])
        first = before.input[0] if before is not None and before.op_type == "Cast" else source
        last = after[0].output[0] if len(after) == 1 and after[0].op_type == "Cast" else target
        if attribute(node, "perm", []) == _TO_NCHW and first in inputs:
            found.append(target)
        elif attribute(node, "perm", []) == _TO_NHWC and last in outputs:
            found.append(source)
    return found


@dataclass
class _Region:
    """Pointwise nodes on pixels (N, C, H, W), with everything that brings pixels in or takes them out."""

    graph: onnx.GraphProto
    tensors: set[str] = field(default_factory=set)
    """All tensors of pixels."""
    borders: list[NodeProto] = field(default_factory=list)
    """Transpose, SpaceToDepth and DepthToSpace nodes."""
    tables: dict[str, np.ndarray] = field(default_factory=dict)
    """Constants with a value for each channel."""

    def __post_init__(self) -> None:
        self._by, self._reading = producers(self.graph), readers(self.graph)
        self._constants = constants(self.graph)
        self._outputs = {value.name for value in self.graph.output}

    def grow(self, seed: str) -> bool:
        """Collect the region around this tensor. False where it cannot be computed on cells, or no block is known."""
        waiting = [seed]
        while waiting:
            name = waiting.pop()
            if name in self.tensors:
                continue
            self.tensors.add(name)
            found = self._neighbours(name)
            if found is None:
                return False
            waiting += found
        return self._block() is not None and all(self._can_reorder(node) for node in self._shuffles("DepthToSpace"))

    def _neighbours(self, name: str) -> list[str] | None:
        """Further tensors of pixels beside this one; None where the tensor cannot be cells."""
        node, shape = self._by.get(name), shape_of(self.graph, name)
        if node is None or name in self._outputs or shape is None or len(shape) != 4 or 0 in shape:
            return None
        found: list[str] = []
        for other in (node, *self._reading.get(name, ())):
            if other.op_type in _POINTWISE:
                beside = self._pixels_of(other, shape)
                if beside is None:
                    return None
                found += beside
            elif not self._is_border(other, name):
                return None
            elif other not in self.borders:
                self.borders.append(other)
        return found

    def _pixels_of(self, node: NodeProto, shape: list[int]) -> list[str] | None:
        """The tensors of pixels among a pointwise node's inputs and output; None where an input is of another kind."""
        found = [node.output[0]]
        for name in filter(None, node.input):
            if name in self._constants:
                values = self._constants[name]
                if values.size > 1 and values.shape not in ((1, shape[1], 1, 1), (shape[1], 1, 1)):
                    return None
                if values.size > 1:
                    self.tables[name] = values
            else:
                sizes = shape_of(self.graph, name)
                if sizes is None or (sizes != shape and any(size != 1 for size in sizes)):
                    return None
                if sizes == shape:
                    found.append(name)
        return found

    def _is_border(self, node: NodeProto, name: str) -> bool:
        """Whether pixels come in or go out here, in a way that a shuffle replaces."""
        perm = attribute(node, "perm", [])
        if node.op_type == "Transpose":
            return list(perm) == list(_TO_NCHW if node.output[0] == name else _TO_NHWC)
        return bool(node.op_type == ("DepthToSpace" if node.output[0] == name else "SpaceToDepth"))

    def _shuffles(self, kind: str) -> list[NodeProto]:
        return [node for node in self.borders if node.op_type == kind]

    def _block(self) -> int | None:
        """The side of a cell, if all borders agree on one."""
        blocks = {
            attribute(node, "blocksize", 0)
            for kind in ("SpaceToDepth", "DepthToSpace")
            for node in self._shuffles(kind)
        }
        shapes = [shape_of(self.graph, name) or [0] for name in self.tensors]
        block = blocks.pop() if len(blocks) == 1 else 0
        return block if block and all(size % block == 0 for shape in shapes for size in shape[2:]) else None

    def _can_reorder(self, shuffle: NodeProto) -> bool:
        """Whether a DepthToSpace reads cells already, or a convolution alone whose channels can be put into the cells' order."""
        if attribute(shuffle, "mode", b"DCR") == b"DCR":
            return True
        conv = self._by.get(shuffle.input[0])
        return (
            conv is not None
            and conv.op_type == "Conv"
            and attribute(conv, "group", 1) == 1
            and len(self._reading[conv.output[0]]) == 1
            and all(name in self._constants and len(self._reading[name]) == 1 for name in conv.input[1:])
        )

    def rewrite(self) -> None:
        """Put shuffles in the place of the borders, and values for each channel of cells in that of values for each colour."""
        block = self._block()
        assert block is not None
        for name, values in self.tables.items():
            cells = np.tile(values, (block**2, 1, 1))
            self.graph.initializer.append(numpy_helper.from_array(cells, f"{name} of cells"))
        nodes: list[NodeProto] = []
        for node in self.graph.node:
            if node in self.borders:
                nodes += self._replaced(node, block)
                continue
            if node.output[0] in self.tensors:
                node.input[:] = [f"{name} of cells" if name in self.tables else name for name in node.input]
            nodes.append(node)
        replace_nodes(self.graph, nodes)

    def _replaced(self, node: NodeProto, block: int) -> list[NodeProto]:
        source, target = node.input[0], node.output[0]
        if node.op_type == "SpaceToDepth":
            return [helper.make_node("Identity", [source], [target], node.name)]
        if node.op_type == "DepthToSpace":
            if attribute(node, "mode", b"DCR") == b"CRD":
                self._reorder(self._by[source], block)
            return [helper.make_node("Identity", [source], [target], node.name)]
        shape = shape_of(self.graph, target if target in self.tensors else source)
        assert shape is not None  # `grow` looked at it
        _, C, H, W = shape
        if target in self.tensors:
            blocks, order, end = (
                (0, H // block, block, W // block, block, C),
                _TO_CELLS,
                (0, block**2 * C, H // block, W // block),
            )
        else:
            blocks, order, end = (0, block, block, C, H // block, W // block), _TO_PIXELS, (0, H, W, C)
        return _shuffle(self.graph, source, target, blocks, order, end)

    def _reorder(self, conv: NodeProto, block: int) -> None:
        """Put a convolution's output channels, which count colours first, into the cells' order."""
        for name in conv.input[1:]:
            values = self._constants[name]
            order = np.arange(len(values)).reshape(-1, block**2).T.reshape(-1)
            _replace_constant(self.graph, name, values[order])


def _shuffle(
    graph: onnx.GraphProto, source: str, target: str, blocks: tuple[int, ...], order: list[int], end: tuple[int, ...]
) -> list[NodeProto]:
    """Reshape to `blocks`, Transpose by `order`, Reshape to `end`. A size of 0 is the input's own."""
    made = []
    for name, shape in ((f"{target} blocks", blocks), (f"{target} end", end)):
        graph.initializer.append(numpy_helper.from_array(np.array(shape, np.int64), f"{name} sizes"))
        made.append(name)
    turned = f"{target} turned"
    return [
        helper.make_node("Reshape", [source, f"{made[0]} sizes"], [made[0]], made[0]),
        helper.make_node("Transpose", [made[0]], [turned], turned, perm=order),
        helper.make_node("Reshape", [turned, f"{made[1]} sizes"], [target], made[1]),
    ]


def _replace_constant(graph: onnx.GraphProto, name: str, values: np.ndarray) -> None:
    for tensor in graph.initializer:
        if tensor.name == name:
            tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(values), name))
