"""How far an output pixel looks: a walk over an ONNX graph, operator by operator.

Each tensor of the picture path is followed along height and width. Its position p sees the input pixels from p · step + low to
p · step + high: a convolution widens that and strides multiply `step`, depth-to-space divides it. The arithmetic is exact;
an operator that looks at the whole picture, or that is not known here, makes the answer None, never a guess.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np
import onnx
from onnx import NodeProto

from .helpers import LEAST_OPSET, attribute, bodies, constants, opset, shape_of


@dataclass(frozen=True)
class ReceptiveField:
    """What cutting a picture into tiles must respect."""

    radius: int
    """Radius in input pixels: an output pixel depends on no input further away, along either axis."""
    alignment: int
    """Tiles begin at multiples of this many pixels, or the network's strides fall on other pixels than in the whole picture."""


@dataclass(frozen=True)
class _Reach:
    """Along one axis: position p sees the input pixels p · step + low to p · step + high."""

    step: Fraction
    low: Fraction
    high: Fraction

    def window(self, stride: int, first: int, last: int) -> _Reach:
        """The reach of a layer whose position p reads positions p · stride + first to p · stride + last of this one."""
        return _Reach(self.step * stride, self.low + self.step * first, self.high + self.step * last)

    def spread(self, factor: Fraction | int, first: Fraction | int, last: Fraction | int) -> _Reach:
        """The reach of a layer whose position p reads positions (p + first) / factor to (p + last) / factor of this one."""
        step = self.step / factor
        return _Reach(step, self.low + step * first, self.high + step * last)

    def joined(self, other: _Reach) -> _Reach:
        """The reach of a layer that reads both. Raises _Unknown where they do not lie pixel on pixel."""
        if self.step != other.step:
            raise _Unknown
        return _Reach(self.step, min(self.low, other.low), max(self.high, other.high))


@dataclass(frozen=True)
class _View:
    """A tensor of the picture path."""

    rank: int
    axes: tuple[int, int]
    """Which of its axes are height and width."""
    reaches: tuple[_Reach, _Reach]

    def each(self, change: Callable[[_Reach, int], _Reach]) -> _View:
        """The view with both of its reaches changed. change: takes the reach and 0 for height, 1 for width."""
        rows, columns = (change(reach, index) for index, reach in enumerate(self.reaches))
        return replace(self, reaches=(rows, columns))


class _Unknown(Exception):
    """What a tensor sees cannot be told; its readers' neither."""


class _Others:
    """The tensors that the picture does not reach: stored ones, other inputs, and what is computed of those."""

    def __init__(self, model: onnx.ModelProto, reached: Container[str]) -> None:
        """reached: the tensors that the picture does reach, as far as they are known by now."""
        self._values = constants(model.graph)
        self._reached = reached
        self._inferred = onnx.shape_inference.infer_shapes(model).graph

    def get(self, name: str) -> np.ndarray | None:
        """The value of a stored one."""
        return self._values.get(name)

    def shape(self, name: str) -> tuple[int, ...]:
        """0 where a size is free. Raises _Unknown where nothing is known of it."""
        value = self._values.get(name)
        shape = shape_of(self._inferred, name) if value is None else value.shape
        if shape is None:
            raise _Unknown
        return tuple(shape)

    def shapes(self, node: NodeProto) -> list[tuple[int, ...]]:
        """The shapes of what the node takes beside the picture."""
        return [self.shape(name) for name in node.input if name and name not in self._reached]


_Rule = Callable[[NodeProto, Sequence[_View], _Others], _View]


def receptive_field(model: onnx.ModelProto) -> ReceptiveField | None:
    """The receptive field of a picture graph: its first input and its only output are (N, H, W, 3) or (N, 3, H, W).

    model: as `onnx` loads it, constants as initializers. None where the graph looks at the whole picture, where it draws differently
    from place to place, or uses something that is not known here, such as an opset below 13.
    """
    found = _walked(model)
    result = found.get(model.graph.output[0].name)
    if result is None:
        return None
    steps = {reach.step for view in found.values() if view for reach in view.reaches}
    return ReceptiveField(_radius(result), math.lcm(*(step.numerator for step in steps)))


def radii(model: onnx.ModelProto) -> dict[str, int | None]:
    """For each tensor of the picture path, how many pixels its positions see beyond their own; None where that cannot be told.

    model: as for `receptive_field`. Empty for a graph that is no picture's, or of an opset below 13.
    """
    return {name: None if view is None else _radius(view) for name, view in _walked(model).items()}


def _radius(view: _View) -> int:
    # Positions at p · step belong to the input pixel before them, and what they see are whole pixels.
    return max(
        math.floor(max(bound for reach in view.reaches for bound in (-reach.low, reach.high + 1 - reach.step))), 0
    )


def _walked(model: onnx.ModelProto) -> dict[str, _View | None]:
    """What each tensor of the picture path sees."""
    graph = model.graph
    if opset(model) < LEAST_OPSET:
        return {}
    picture = graph.input[0]
    sizes = [dimension.dim_value for dimension in picture.type.tensor_type.shape.dim]
    if len(sizes) != 4:
        return {}
    start = _Reach(Fraction(1), Fraction(0), Fraction(0))
    axes = (1, 2) if sizes[3] == 3 and sizes[1] != 3 else (2, 3)
    found: dict[str, _View | None] = {picture.name: _View(4, axes, (start, start))}
    others = _Others(model, found)
    for node in graph.node:
        # What is inside a branch or a loop may read any tensor, and nobody looks there.
        if bodies(node) or any(name in found for name in node.input):
            found |= dict.fromkeys(filter(None, node.output), _seen(node, found, others))
    return found


def _seen(node: NodeProto, found: Mapping[str, _View | None], others: _Others) -> _View | None:
    """What the node's outputs see; None where that cannot be told."""
    if bodies(node) or node.domain not in ("", "ai.onnx"):
        return None
    views = []
    for name in node.input:
        if name in found:
            view = found[name]
            if view is None:
                return None
            views.append(view)
    rule = _RULES.get(node.op_type)
    if rule not in (_same, _concat) and (node.input[0] not in found or len(views) > 1):
        return None  # the picture chooses among constants, weighs them, or is the layer's parameter
    try:
        return rule(node, views, others) if rule else None
    except _Unknown:
        return None


def _same(node: NodeProto, views: Sequence[_View], others: _Others) -> _View:
    """Each position from the same position of every input."""
    view = views[0]
    for other in views[1:]:
        if (other.rank, other.axes) != (view.rank, view.axes):
            raise _Unknown
        rows, columns = (one.joined(two) for one, two in zip(view.reaches, other.reaches, strict=True))
        view = replace(view, reaches=(rows, columns))
    for shape in others.shapes(node):
        _require_even(shape, view)
    return view


def _require_even(shape: tuple[int, ...], view: _View) -> None:
    """Raises _Unknown for a tensor that may differ from pixel to pixel: moved, the network would draw something else."""
    if len(shape) > view.rank:
        raise _Unknown
    for axis in view.axes:
        from_last = view.rank - axis
        if from_last <= len(shape) and shape[-from_last] != 1:
            raise _Unknown


def _first(node: NodeProto, views: Sequence[_View], others: _Others) -> _View:
    """Each position from the same position of the first input; the others are parameters."""
    return views[0]


def _off(*where: int) -> _Rule:
    """Like `_first`, where the attribute `axis` is none of the picture's. where: the attribute's default."""

    def rule(node: NodeProto, views: Sequence[_View], others: _Others) -> _View:
        _require_off([attribute(node, "axis", *where)], views[0])
        return views[0]

    return rule


def _concat(node: NodeProto, views: Sequence[_View], others: _Others) -> _View:
    _require_off([attribute(node, "axis", 1)], views[0])
    return _same(node, views, others)


def _gather(node: NodeProto, views: Sequence[_View], others: _Others) -> _View:
    """The axis gives place to as many as the indices have: none for a single one."""
    view = views[0]
    axis = attribute(node, "axis", 0) % view.rank
    _require_off([axis], view)
    more = len(others.shape(node.input[1])) - 1
    height, width = (place + more if place > axis else place for place in view.axes)
    return replace(view, rank=view.rank + more, axes=(height, width))


def _batch_norm(node: NodeProto, views: Sequence[_View], others: _Others) -> _View:
    _require_off([1], views[0])
    if attribute(node, "training_mode", 0):  # with the picture's own mean
        raise _Unknown
    return views[0]


def _require_off(axes: Sequence[int], view: _View) -> None:
    if {axis % view.rank for axis in axes} & set(view.axes):
        raise _Unknown


def _layer_norm(node: NodeProto, views: Sequence[_View], others: _Others) -> _View:
    first = attribute(node, "axis", -1) % views[0].rank
    _require_off(range(first, views[0].rank), views[0])
    for shape in others.shapes(node):
        _require_even(shape, views[0])
    return views[0]


def _reduce(node: NodeProto, views: Sequence[_View], others: _Others) -> _View:
    axes = others.get(node.input[1]) if len(node.input) > 1 else attribute(node, "axes", None)
    if axes is None or not attribute(node, "keepdims", 1):
        raise _Unknown
    _require_off([int(axis) for axis in axes], views[0])
    return views[0]


def _kernel(node: NodeProto, others: _Others) -> tuple[list[int], list[int], list[int], list[int]]:
    """Kernel, strides, dilations and the padding in front, along height and width. Raises _Unknown."""
    weights = others.get(node.input[1]) if len(node.input) > 1 else None
    kernel = attribute(node, "kernel_shape", None if weights is None else list(weights.shape[2:]))
    if kernel is None or len(kernel) != 2:
        raise _Unknown
    strides, dilations = (attribute(node, name, [1, 1]) for name in ("strides", "dilations"))
    pads = attribute(node, "pads", [0, 0, 0, 0])
    automatic = attribute(node, "auto_pad", b"NOTSET").decode()
    if automatic.startswith("SAME"):
        if strides != [1, 1] or node.op_type == "ConvTranspose":  # how much is padded depends on the size
            raise _Unknown
        whole = [(k - 1) * d for k, d in zip(kernel, dilations, strict=True)]
        pads = [side // 2 if automatic == "SAME_UPPER" else side - side // 2 for side in whole]
    elif automatic == "VALID":
        pads = [0, 0]
    return kernel, strides, dilations, pads[:2]


def _window(node: NodeProto, views: Sequence[_View], others: _Others) -> _View:
    """Convolution and pooling."""
    _require_planes(views[0])
    kernel, strides, dilations, pads = _kernel(node, others)
    return views[0].each(lambda r, i: r.window(strides[i], -pads[i], dilations[i] * (kernel[i] - 1) - pads[i]))


def _transposed(node: NodeProto, views: Sequence[_View], others: _Others) -> _View:
    """Transposed convolution: position q takes from p where q = p · stride - pad + dilation · k."""
    _require_planes(views[0])
    kernel, strides, dilations, pads = _kernel(node, others)
    if attribute(node, "output_shape", None):
        raise _Unknown
    return views[0].each(lambda r, i: r.spread(strides[i], pads[i] - dilations[i] * (kernel[i] - 1), pads[i]))


def _require_planes(view: _View) -> None:
    if view.axes != (2, 3) or view.rank != 4:
        raise _Unknown


def _depth_to_space(node: NodeProto, views: Sequence[_View], others: _Others) -> _View:
    _require_planes(views[0])
    block = attribute(node, "blocksize", 1)
    return views[0].each(lambda reach, _: reach.spread(block, 1 - block, 0))


def _space_to_depth(node: NodeProto, views: Sequence[_View], others: _Others) -> _View:
    _require_planes(views[0])
    block = attribute(node, "blocksize", 1)
    return views[0].each(lambda reach, _: reach.window(block, 0, block - 1))


def _resize(node: NodeProto, views: Sequence[_View], others: _Others) -> _View:
    """A Resize by constant factors: position q lies at (q + ½) / factor - ½, or q / factor, and reads its neighbours there."""
    scales = others.get(node.input[2]) if len(node.input) > 2 else None
    if scales is None or len(scales) != views[0].rank or attribute(node, "axes", None):
        raise _Unknown
    mode = attribute(node, "mode", b"nearest").decode()
    where = attribute(node, "coordinate_transformation_mode", b"half_pixel").decode()
    support = {"nearest": 1, "linear": 1, "cubic": 2}[mode]
    if where not in ("half_pixel", "pytorch_half_pixel", "asymmetric"):  # the others depend on the size
        raise _Unknown
    if mode == "nearest" and all(scale >= 1 and scale == int(scale) for scale in scales):
        rounding = attribute(node, "nearest_mode", b"round_prefer_floor").decode()
        if (where, rounding) in (("asymmetric", "floor"), ("half_pixel", "round_prefer_floor")):
            return views[0].each(
                lambda r, i: r.spread(int(scales[views[0].axes[i]]), 1 - int(scales[views[0].axes[i]]), 0)
            )

    def change(reach: _Reach, index: int) -> _Reach:
        factor = Fraction(float(scales[views[0].axes[index]])).limit_denominator(1 << 12)
        wide = support if factor >= 1 or not attribute(node, "antialias", 0) else support / factor
        centre = Fraction(0) if where == "asymmetric" else (1 - factor) / 2
        return reach.spread(factor, centre - wide * factor, centre + wide * factor)

    return views[0].each(change)


def _pad(node: NodeProto, views: Sequence[_View], others: _Others) -> _View:
    pads = others.get(node.input[1]) if len(node.input) > 1 else None
    if pads is None or (len(node.input) > 3 and node.input[3]) or attribute(node, "mode", b"constant") == b"wrap":
        raise _Unknown
    before = [int(pads[axis]) for axis in views[0].axes]
    return views[0].each(lambda reach, index: reach.window(1, -before[index], -before[index]))


def _slice(node: NodeProto, views: Sequence[_View], others: _Others) -> _View:
    """Along the picture: from a constant place counted from the front, in steps of one."""
    starts, axes, steps = (
        others.get(node.input[index]) if len(node.input) > index and node.input[index] else None for index in (1, 3, 4)
    )
    if starts is None:
        raise _Unknown
    rank = views[0].rank
    along = {int(axis) % rank: index for index, axis in enumerate(range(len(starts)) if axes is None else axes)}

    def change(reach: _Reach, index: int) -> _Reach:
        at = along.get(views[0].axes[index])
        if at is None:
            return reach
        if starts[at] < 0 or (steps is not None and steps[at] < 1):
            raise _Unknown
        return reach.window(1 if steps is None else int(steps[at]), int(starts[at]), int(starts[at]))

    return views[0].each(change)


def _transpose(node: NodeProto, views: Sequence[_View], others: _Others) -> _View:
    view = views[0]
    order = list(attribute(node, "perm", list(reversed(range(view.rank)))))
    height, width = (order.index(axis) for axis in view.axes)
    return replace(view, axes=(height, width))


def _matrix_product(node: NodeProto, views: Sequence[_View], others: _Others) -> _View:
    """A product with constant weights on the last axis: channels are mixed at each pixel by itself."""
    weights = others.get(node.input[1])
    if weights is None or weights.ndim != 2:
        raise _Unknown
    _require_off([-1], views[0])
    return views[0]


# fmt: off
_ALONE = (
    "Abs", "Cast", "Ceil", "Celu", "Clip", "Cos", "Dropout", "Elu", "Erf", "Exp", "Floor", "Gelu", "HardSigmoid", "HardSwish",
    "Identity", "IsNaN", "LeakyRelu", "Log", "Mish", "Neg", "Not", "Reciprocal", "Relu", "Round", "Selu", "Sigmoid", "Sign", "Sin",
    "Softplus", "Softsign", "Sqrt", "Tanh", "ThresholdedRelu",
)
_TOGETHER = (
    "Add", "And", "Div", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Max", "Mean", "Min", "Mod", "Mul", "Or",
    "PRelu", "Pow", "Sub", "Sum", "Where", "Xor",
)
# fmt: on
_REDUCTIONS = (
    "ReduceL1",
    "ReduceL2",
    "ReduceMax",
    "ReduceMean",
    "ReduceMin",
    "ReduceProd",
    "ReduceSum",
    "ReduceSumSquare",
)

_RULES: dict[str, _Rule] = {
    **dict.fromkeys(_ALONE, _first),
    **dict.fromkeys(_TOGETHER, _same),
    **dict.fromkeys(_REDUCTIONS, _reduce),
    "AveragePool": _window,
    "BatchNormalization": _batch_norm,
    "Concat": _concat,
    "Conv": _window,
    "ConvTranspose": _transposed,
    "DepthToSpace": _depth_to_space,
    "Gather": _gather,
    "LayerNormalization": _layer_norm,
    "MatMul": _matrix_product,
    "MaxPool": _window,
    "Pad": _pad,
    "Resize": _resize,
    "Slice": _slice,
    "Softmax": _off(-1),
    "SpaceToDepth": _space_to_depth,
    "Split": _off(0),
    "Transpose": _transpose,
}
