"""What the runtime does around a network, as ONNX graphs, since a server runs nothing else: border, thumbnail, styles, crop.

The graphs give the runtime's own numbers for a picture that is not cut into tiles: `runtime.inference.padding`, `images.thumbnail`
and `styles.mixture` in ONNX's operators.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from impasto.export.graph.helpers import OPSET
from impasto.package.spec import ModelSpec

_IR = 10
"""The file format's version, as the exporter writes it."""
_SAMPLES = 8
"""Pixels that a thumbnail's cell averages along each side, at most; `images.thumbnail` says so."""


def begin(spec: ModelSpec, strength: float | None) -> onnx.ModelProto:
    """Picture to what the network takes: image, uint8 (N, H, W, 3), to padded, uint8 (N, H', W', 3).

    Beside it for a network with a thumbnail: thumbnail, uint8 (N, side, side, 3). For one with a strength: context, float32 (N, 1),
    the strength given here.
    """
    graph = _Graph()
    graph.take("image", TensorProto.UINT8, ["N", "H", "W", 3])
    height, width = graph.sides("image")
    rows, columns = (_reflected(graph, length, spec, axis) for axis, length in enumerate((height, width)))
    banded = graph.add("Gather", ["image", rows], axis=1)
    graph.give(graph.add("Gather", [banded, columns], axis=2), "padded", TensorProto.UINT8, ["N", "Hp", "Wp", 3])
    if spec.thumbnail:
        small = _thumbnail(graph, height, width, spec.thumbnail)
        graph.give(small, "thumbnail", TensorProto.UINT8, ["N", spec.thumbnail, spec.thumbnail, 3])
    if strength is not None:
        batch = graph.add("Gather", [graph.add("Shape", ["image"]), graph.constant([0])])
        shape = graph.add("Concat", [batch, graph.constant([1])], axis=0)
        value = graph.constant(np.full((1, 1), strength, np.float32))
        graph.give(graph.add("Expand", [value, shape]), "context", TensorProto.FLOAT, ["N", 1])
    return graph.model("begin")


def end(spec: ModelSpec) -> onnx.ModelProto:
    """What the network drew to the picture: drawn, uint8 (N, H' x scale, W' x scale, 3), and image, uint8 (N, H, W, 3), whose size it
    gets times scale, to picture."""
    graph = _Graph()
    graph.take("drawn", TensorProto.UINT8, ["N", "Hd", "Wd", 3])
    graph.take("image", TensorProto.UINT8, ["N", "H", "W", 3])
    border, scale = graph.constant([spec.border * spec.scale]), graph.constant([spec.scale])
    ends = [graph.add("Add", [graph.add("Mul", [side, scale]), border]) for side in graph.sides("image")]
    picture = graph.add(
        "Slice",
        [
            "drawn",
            graph.constant([spec.border * spec.scale] * 2),
            graph.add("Concat", ends, axis=0),
            graph.constant([1, 2]),
        ],
    )
    graph.give(picture, "picture", TensorProto.UINT8, ["N", "Ho", "Wo", 3])
    return graph.model("end")


def mix(shares: np.ndarray, length: int) -> onnx.ModelProto:
    """The context of a mixture of styles: contexts, float32 (N, styles, length), to context, float32 (N, length).

    shares: each style's, float32 (styles,).
    """
    graph = _Graph()
    graph.take("contexts", TensorProto.FLOAT, ["N", len(shares), length])
    summed = graph.add("MatMul", [graph.constant(shares[None].astype(np.float32)), "contexts"])
    graph.give(graph.add("Squeeze", [summed, graph.constant([1])]), "context", TensorProto.FLOAT, ["N", length])
    return graph.model("mix")


def _reflected(graph: _Graph, length: str, spec: ModelSpec, axis: int) -> str:
    """For each padded position along an axis, the picture's position that it shows: NumPy's "reflect", a single pixel repeated.

    length: the tensor of the picture's side, (1,).
    """
    zero, one, two = (graph.constant([value]) for value in (0, 1, 2))
    if spec.size.fixed:
        padded = graph.constant([spec.size.fixed[axis]])
    else:
        multiple = graph.constant([spec.size.multiple])
        bordered = graph.add("Add", [length, graph.constant([2 * spec.border])])
        least = graph.add("Max", [bordered, graph.constant([spec.size.minimum])])
        more = graph.add("Add", [least, graph.constant([spec.size.multiple - 1])])
        padded = graph.add("Mul", [graph.add("Div", [more, multiple]), multiple])
    places = graph.add("Range", [graph.scalar(zero), graph.scalar(padded), graph.scalar(one)])
    away = graph.add("Abs", [graph.add("Sub", [places, graph.constant([spec.border])])])
    period = graph.add("Max", [graph.add("Mul", [graph.add("Sub", [length, one]), two]), one])
    place = graph.add("Mod", [away, period])
    return graph.add("Min", [place, graph.add("Sub", [period, place])])


def _thumbnail(graph: _Graph, height: str, width: str, side: int) -> str:
    """`images.thumbnail` of the whole batch."""
    (rows, samples_y), (columns, samples_x) = (_cells(graph, length, side) for length in (height, width))
    picked = graph.add("Gather", [graph.add("Gather", ["image", rows], axis=1), columns], axis=2)
    sides = [
        graph.constant([0]),
        graph.constant([side]),
        samples_y,
        graph.constant([side]),
        samples_x,
        graph.constant([3]),
    ]
    cells = graph.add(
        "Reshape", [graph.add("Cast", [picked], to=TensorProto.FLOAT), graph.add("Concat", sides, axis=0)]
    )
    sums = graph.add("ReduceSum", [cells, graph.constant([2, 4])], keepdims=0)
    number = graph.add("Cast", [graph.add("Mul", [samples_y, samples_x])], to=TensorProto.FLOAT)
    return graph.add("Cast", [graph.add("Round", [graph.add("Div", [sums, number])])], to=TensorProto.UINT8)


def _cells(graph: _Graph, length: str, side: int) -> tuple[str, str]:
    """Positions of the pixels that a thumbnail averages along an axis, and how many make a cell, (1,)."""
    zero, one, two = (graph.constant([value]) for value in (0, 1, 2))
    up = graph.add("Div", [graph.add("Add", [length, graph.constant([side - 1])]), graph.constant([side])])
    samples = graph.add("Min", [up, graph.constant([_SAMPLES])])
    whole = graph.add("Mul", [samples, graph.constant([side])])
    places = graph.add("Range", [graph.scalar(zero), graph.scalar(whole), graph.scalar(one)])
    # (i + 1/2) length / whole, rounded down, in whole numbers.
    odd = graph.add("Add", [graph.add("Mul", [places, two]), one])
    return graph.add("Div", [graph.add("Mul", [odd, length]), graph.add("Mul", [whole, two])]), samples


class _Graph:
    """An ONNX graph that is being written, node by node."""

    def __init__(self) -> None:
        self._nodes: list[onnx.NodeProto] = []
        self._constants: list[onnx.TensorProto] = []
        self._inputs: list[onnx.ValueInfoProto] = []
        self._outputs: list[onnx.ValueInfoProto] = []

    def take(self, name: str, kind: int, shape: Sequence[int | str]) -> None:
        """Add an input."""
        self._inputs.append(helper.make_tensor_value_info(name, kind, shape))

    def give(self, tensor: str, name: str, kind: int, shape: Sequence[int | str]) -> None:
        """Add an output: this tensor, under this name."""
        self._nodes.append(helper.make_node("Identity", [tensor], [name]))
        self._outputs.append(helper.make_tensor_value_info(name, kind, shape))

    def constant(self, values: Sequence[int] | np.ndarray) -> str:
        """A constant tensor; whole numbers are int64."""
        name = f"constant_{len(self._constants)}"
        self._constants.append(numpy_helper.from_array(np.asarray(values), name))
        return name

    def add(self, operator: str, inputs: Sequence[str], **attributes: Any) -> str:
        """Add a node; returns its output."""
        name = f"{operator.lower()}_{len(self._nodes)}"
        self._nodes.append(helper.make_node(operator, list(inputs), [name], **attributes))
        return name

    def scalar(self, tensor: str) -> str:
        """The one value of a tensor of shape (1,), without dimensions."""
        return self.add("Squeeze", [tensor])

    def sides(self, image: str) -> list[str]:
        """Height and width of a batch of pictures, (1,) each."""
        shape = self.add("Shape", [image])
        return [self.add("Gather", [shape, self.constant([axis])]) for axis in (1, 2)]

    def model(self, name: str) -> onnx.ModelProto:
        """The finished graph."""
        graph = helper.make_graph(self._nodes, name, self._inputs, self._outputs, self._constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=_IR)
        onnx.checker.check_model(model)
        return model
