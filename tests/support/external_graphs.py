"""Graphs as other projects' exporters write them, made without those: float planes, old opsets, odd habits."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

FLOAT, HALF = TensorProto.FLOAT, TensorProto.FLOAT16


class Sketch:
    """A graph from one picture to one, drawn node by node; `last` is the tensor that the next node takes."""

    def __init__(self, channels: int = 3, seed: int = 0) -> None:
        self._random = np.random.default_rng(seed)
        self._nodes: list[onnx.NodeProto] = []
        self._constants: dict[str, np.ndarray] = {}
        self.channels = channels
        self.last = "x"

    def op(self, kind: str, *others: str, take: str | None = None, **attributes: Any) -> Sketch:
        """One node on the last tensor, or on `take`, and on these constants or tensors."""
        name = f"{kind}{len(self._nodes)}"
        self._nodes.append(helper.make_node(kind, [take or self.last, *others], [name], name, **attributes))
        self.last = name
        return self

    def constant(self, value: Any, dtype: Any = np.float32) -> str:
        name = f"c{len(self._constants)}"
        self._constants[name] = np.asarray(value, dtype)
        return name

    def conv(self, channels: int, side: int = 3, **attributes: Any) -> Sketch:
        """With random weights and, unless told otherwise, zeros around that keep the size."""
        weights = self._random.normal(0, 1 / (side * np.sqrt(self.channels)), (channels, self.channels, side, side))
        bias = self._random.normal(0, 0.05, channels)
        self.channels = channels
        attributes = {"pads": [side // 2] * 4} | attributes
        return self.op("Conv", self.constant(weights), self.constant(bias), **attributes)

    def model(
        self,
        *,
        opset: int = 17,
        sizes: tuple[int | str, ...] = ("n", "h", "w"),
        scale: int = 1,
        channels_last: bool = False,
        dtype: int = FLOAT,
        weights_as_inputs: bool = False,
        names: tuple[str, str] = ("x", ""),
    ) -> onnx.ModelProto:
        """names: of the input and, where not empty, of the output."""
        nodes, last = list(self._nodes), names[1] or self.last
        for node in nodes:
            node.input[:] = [names[0] if name == "x" else name for name in node.input]
            node.output[:] = [last if name == self.last else name for name in node.output]
        constants = [
            numpy_helper.from_array(
                value.astype(np.float16) if dtype == HALF and value.dtype == np.float32 else value, name
            )
            for name, value in self._constants.items()
        ]

        def shape(factor: int) -> list[int | str]:
            n, *sides = sizes
            scaled = [
                side * factor if isinstance(side, int) else f"{side}{'' if factor == 1 else factor}" for side in sides
            ]
            return [n, *scaled, 3] if channels_last else [n, 3, *scaled]

        inputs = [helper.make_tensor_value_info(names[0], dtype, shape(1))]
        if weights_as_inputs:
            inputs += [helper.make_tensor_value_info(one.name, one.data_type, one.dims) for one in constants]
        outputs = [helper.make_tensor_value_info(last, dtype, shape(scale))]
        graph = helper.make_graph(nodes, "torch_jit", inputs, outputs, constants)
        version = 3 if weights_as_inputs else 8 if opset < 19 else 10
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=version)


def restorer(blocks: int = 2) -> Sketch:
    """The picture plus what a few convolutions make of it."""
    sketch = Sketch().conv(8)
    for _ in range(blocks):
        sketch.op("Relu").conv(8)
    sketch.op("Relu").conv(3)
    return sketch.op("Mul", sketch.constant(0.2)).op("Add", "x")


def upscaler(scale: int = 2) -> Sketch:
    """Convolutions, depth-to-space, plus the enlarged picture."""
    sketch = Sketch().conv(8).op("Relu").conv(3 * scale**2)
    sketch.op("DepthToSpace", blocksize=scale, mode="CRD").op("Mul", sketch.constant(0.2))
    detail = sketch.last
    sketch.op("Resize", "", sketch.constant([1, 1, scale, scale]), take="x", mode="nearest", nearest_mode="floor",
              coordinate_transformation_mode="asymmetric")  # fmt: skip
    return sketch.op("Add", detail)


def u_net(depth: int = 2) -> Sketch:
    """Down by strides of two and up by transposed convolutions, so that sides must be multiples."""
    sketch = Sketch().conv(8)
    kept = []
    for _ in range(depth):
        kept.append(sketch.last)
        sketch.conv(8, 2, strides=[2, 2], pads=[0, 0, 0, 0]).op("Relu")
    for skipped in reversed(kept):
        weights = np.random.default_rng(1).normal(0, 0.2, (8, 8, 2, 2))
        sketch.op("ConvTranspose", sketch.constant(weights), strides=[2, 2]).op("Add", skipped)
    return sketch.conv(3)


_BENT_BY: tuple[tuple[str, dict[str, Any]], ...] = (
    ("LeakyRelu", {"alpha": 0.1}),
    ("Elu", {"alpha": 0.5}),
    ("Selu", {}),
    ("HardSigmoid", {}),
    ("HardSwish", {}),
    ("Softplus", {}),
    ("Mish", {}),
    ("Gelu", {}),
    ("Gelu", {"approximate": "tanh"}),
    ("Softsign", {}),
    ("Sigmoid", {}),
    ("Exp", {}),
    ("Sqrt", {}),
    ("Log", {}),
    ("Erf", {}),
    ("Tanh", {}),
)


def bent() -> Sketch:
    """Through one activation of every kind that networks are drawn with, for opset 20; each keeps numbers near 1."""
    sketch = Sketch().conv(8)
    sketch.op("PRelu", sketch.constant(np.linspace(-0.2, 0.5, 8).reshape(8, 1, 1)))
    for kind, attributes in _BENT_BY:
        sketch.op(kind, **attributes)
    sketch.op("Pow", sketch.constant(2, np.int64)).op("Div", sketch.constant(0.5)).op("Clip", "", sketch.constant(0.9))
    return sketch.conv(3).op("Add", "x")


def looking_around() -> Sketch:
    """Norms, pools and attention as transformers and classifiers have them, whatever the size."""
    sketch = Sketch().conv(8).op("Transpose", perm=[0, 2, 3, 1])
    sketch.op("LayerNormalization", sketch.constant(np.linspace(0.5, 1.5, 8)), axis=-1)
    sketch.op("Transpose", perm=[0, 3, 1, 2])
    normal = sketch.last
    sketch.op("GlobalAveragePool").conv(8, 1).op("HardSigmoid", alpha=0.25, beta=0.5).op("Mul", normal)
    sketch.op("AveragePool", kernel_shape=[3, 3], auto_pad="SAME_UPPER", count_include_pad=1)
    sketch.op("MaxPool", kernel_shape=[3, 3], pads=[1] * 4)
    features = sketch.last
    shape = sketch.op("Shape").last
    pixels = sketch.op("Reshape", sketch.constant([0, 8, -1], np.int64), take=features).last
    turned = sketch.op("Transpose", perm=[0, 2, 1]).last
    sketch.op("MatMul", turned, take=pixels).op("Mul", sketch.constant(0.01)).op("Softmax", axis=-1)
    sketch.op("MatMul", pixels).op("Reshape", shape).op("Max", features)
    sketch.conv(8, 2, strides=[2, 2], pads=[0] * 4)
    weights = np.random.default_rng(2).normal(0, 0.2, (8, 4, 3, 3))
    sketch.op("ConvTranspose", sketch.constant(weights), strides=[2, 2], auto_pad="SAME_LOWER")
    sketch.channels = 4
    return sketch.conv(3)
