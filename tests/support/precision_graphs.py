"""Small canonical graphs and folders of pictures for the tests of precision."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

from impasto import images
from impasto.export.quantization.calibration import Feed, extreme_pictures
from support.small_models import picture

Weights = dict[str, np.ndarray]


def canonical(nodes: list[NodeProto], weights: Weights, *, last: str = "last", opset: int = 20) -> onnx.ModelProto:
    """uint8 N x H x W x 3 in and out around nodes that turn `first`, (N, 3, H, W) in -0.5..0.5, into `last`, (N, 3, H, W)."""
    ends = {"k": 1 / 255, "half": 0.5, "top": 255.0, "zero": 0.0}
    around = [
        helper.make_node("Transpose", ["image"], ["planes"], "planes", perm=[0, 3, 1, 2]),
        helper.make_node("Cast", ["planes"], ["floats"], "floats", to=TensorProto.FLOAT),
        helper.make_node("Mul", ["floats", "k"], ["unit"], "unit"),
        helper.make_node("Sub", ["unit", "half"], ["first"], "first"),
        *nodes,
        helper.make_node("Add", [last, "half"], ["light"], "light"),
        helper.make_node("Mul", ["light", "top"], ["levels"], "levels"),
        helper.make_node("Round", ["levels"], ["rounded"], "rounded"),
        helper.make_node("Clip", ["rounded", "zero", "top"], ["clipped"], "clipped"),
        helper.make_node("Cast", ["clipped"], ["bytes"], "bytes", to=TensorProto.UINT8),
        helper.make_node("Transpose", ["bytes"], ["picture"], "picture", perm=[0, 2, 3, 1]),
    ]
    stored = {key: np.array(value, np.float32) for key, value in ends.items()} | weights
    graph = helper.make_graph(
        around,
        "test",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["N", "H", "W", 3])],
        [helper.make_tensor_value_info("picture", TensorProto.UINT8, ["N", "H", "W", 3])],
        [numpy_helper.from_array(value, key) for key, value in stored.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10 if opset > 18 else 8)


def chain(layers: int = 6, channels: int = 8, *, hostile: int | None = None, opset: int = 20) -> onnx.ModelProto:
    """3 x 3 convolutions `conv0`, `conv1`, … with ReLUs between them, that roughly keep the picture.

    hostile: number of the layer whose input has one channel a thousand times larger than the others, which are what
    counts: 8 bits for the whole tensor lose them.
    """
    generator = np.random.default_rng(0)
    nodes, weights = [], {}
    source, inside = "first", 3
    for index in range(layers):
        name, outside = f"conv{index}", channels if index < layers - 1 else 3
        kernel = generator.normal(0, 0.02, (outside, inside, 3, 3)).astype(np.float32)
        kernel[np.arange(outside), np.arange(outside) % inside, 1, 1] += 1
        if hostile is not None and index == hostile - 1:
            kernel[-1] *= 1000
        if hostile is not None and index == hostile:
            kernel[:, -1] = 0
        weights |= {f"{name}.weight": kernel, f"{name}.bias": np.full(outside, 0.5 if index == 0 else 0.0, np.float32)}
        if index == layers - 1:
            weights[f"{name}.bias"] -= 0.5
        output = "last" if index == layers - 1 else name
        nodes.append(
            helper.make_node("Conv", [source, f"{name}.weight", f"{name}.bias"], [output], name, pads=[1, 1, 1, 1])
        )
        if index < layers - 1:
            # Only what has a plain ReLU before it can be made equal.
            operator = "Relu" if hostile is None else "LeakyRelu"
            nodes.append(helper.make_node(operator, [name], [f"{name}.relu"], f"{name}.relu"))
        source, inside = f"{name}.relu", outside
    return canonical(nodes, weights, opset=opset)


def feeds(count: int = 3, side: int = 48) -> list[Feed]:
    """Pictures as a graph's input."""
    return [{"image": picture(side, side + 8, seed)[None]} for seed in range(count)]


def extremes(side: int = 32) -> list[Feed]:
    return [{"image": image[None]} for image in extreme_pictures(side)]


def photos(folder: Path, count: int = 8, side: int = 48) -> Path:
    """A folder of pictures."""
    folder.mkdir(exist_ok=True)
    for seed in range(count):
        images.write(folder / f"{seed}.png", picture(side, side + 8, seed))
    return folder
