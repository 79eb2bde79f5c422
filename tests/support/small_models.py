"""Small pictures and ONNX graphs that tests of all folders share. Nothing here needs torch or files from outside the repository."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from impasto.package.manifest import MODEL, Manifest
from impasto.package.spec import ModelSpec, SizeRule
from impasto.package.writer import write_package

REPOSITORY = Path(__file__).resolve().parents[2]


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Smooth colours and noise: uint8 (height, width, 3)."""
    generator = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    smooth = np.stack([x * 255 / max(width - 1, 1), y * 255 / max(height - 1, 1), 127 + 0 * x], -1)
    return np.clip(smooth * 0.7 + generator.integers(0, 76, smooth.shape), 0, 255).astype(np.uint8)


def canonical_graph(scale: int = 1, context: int | None = None, seed: int = 0) -> onnx.ModelProto:
    """A network at 1/4 resolution: 3 x 3 convolution with random weights, one ReLU, and the picture added back.

    uint8 N x H x W x 3 in and out, H and W multiples of 4, receptive field of radius 7. With `context`, that many values
    (N, context) come as a second input and shift all channels by their mean.
    """
    generator = np.random.default_rng(seed)
    cell = 4 * scale
    weights = {
        "w1": generator.normal(0, 0.05, (32, 48, 3, 3)),
        "b1": generator.normal(0, 0.1, 32),
        "w2": generator.normal(0, 0.05, (3 * cell * cell, 32, 1, 1)),
        "eye": np.kron(np.eye(3), np.ones((1, 1))).reshape(3, 3, 1, 1),
        "k": np.array(1 / 255),
        "top": np.array(255.0),
        "zero": np.array(0.0),
        "sizes": np.array([1, 1, scale, scale]),
    }
    nodes = [
        helper.make_node("Transpose", ["image"], ["t"], perm=[0, 3, 1, 2]),
        helper.make_node("Cast", ["t"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["f", "k"], ["x"]),
        helper.make_node("SpaceToDepth", ["x"], ["s"], blocksize=4),
        helper.make_node("Conv", ["s", "w1", "b1"], ["c1"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c1"], ["r1"]),
        helper.make_node("Conv", ["r1", "w2"], ["c2"]),
        helper.make_node("DepthToSpace", ["c2"], ["d"], blocksize=cell, mode="CRD"),
        helper.make_node(
            "Resize", ["x", "", "sizes"], ["up"], mode="nearest", coordinate_transformation_mode="asymmetric"
        ),
        helper.make_node("Add", ["up", "d"], ["y"]),
    ]
    inputs = [helper.make_tensor_value_info("image", TensorProto.UINT8, ["N", "H", "W", 3])]
    last = "y"
    if context:
        inputs.append(helper.make_tensor_value_info("context", TensorProto.FLOAT, ["N", context]))
        weights["axes"] = np.array([2, 3])
        nodes += [
            helper.make_node("ReduceMean", ["context", "one"], ["m"], keepdims=1),
            helper.make_node("Unsqueeze", ["m", "axes"], ["m4"]),
            helper.make_node("Add", ["y", "m4"], ["shifted"]),
        ]
        weights["one"] = np.array([1])
        last = "shifted"
    nodes += [
        helper.make_node("Mul", [last, "top"], ["levels"]),
        helper.make_node("Round", ["levels"], ["rounded"]),
        helper.make_node("Clip", ["rounded", "zero", "top"], ["clipped"]),
        helper.make_node("Cast", ["clipped"], ["u"], to=TensorProto.UINT8),
        helper.make_node("Transpose", ["u"], ["picture"], perm=[0, 2, 3, 1]),
    ]
    whole = {"axes", "one"}
    initializers = [
        numpy_helper.from_array(v.astype(np.int64 if k in whole else np.float32), k)
        for k, v in weights.items()
        if k != "eye"
    ]
    side = ("H", "W") if scale == 1 else ("Ho", "Wo")
    outputs = [helper.make_tensor_value_info("picture", TensorProto.UINT8, ["N", *side, 3])]
    graph = helper.make_graph(nodes, "test", inputs, outputs, initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model)
    return model


def context_graph(side: int, length: int) -> onnx.ModelProto:
    """Thumbnail to `length` copies of (its mean / 255 - 0.5): uint8 (N, side, side, 3) -> float32 (N, length)."""
    values = {
        "axes": np.array([1, 2, 3], np.int64),
        "k": np.array(1 / 255, np.float32),
        "half": np.array(0.5, np.float32),
        "repeats": np.array([1, length], np.int64),
        "flat": np.array([-1, 1], np.int64),
    }
    nodes = [
        helper.make_node("Cast", ["thumbnail"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["f", "axes"], ["m"], keepdims=0),
        helper.make_node("Mul", ["m", "k"], ["n"]),
        helper.make_node("Sub", ["n", "half"], ["s"]),
        helper.make_node("Reshape", ["s", "flat"], ["r"]),
        helper.make_node("Tile", ["r", "repeats"], ["context"]),
    ]
    graph = helper.make_graph(
        nodes,
        "context",
        [helper.make_tensor_value_info("thumbnail", TensorProto.UINT8, ["N", side, side, 3])],
        [helper.make_tensor_value_info("context", TensorProto.FLOAT, ["N", length])],
        [numpy_helper.from_array(value, name) for name, value in values.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def float_graph(side: int | None = None, channels_last: bool = False, gain: float = 0.5) -> onnx.ModelProto:
    """An external model: float32, (N, 3, H, W) or (N, H, W, 3), that multiplies the first channel by `gain`."""
    sides = [side or "H", side or "W"]
    shape = ["N", *sides, 3] if channels_last else ["N", 3, *sides]
    gains = np.array([gain, 1, 1], np.float32).reshape((3,) if channels_last else (3, 1, 1))
    graph = helper.make_graph(
        [helper.make_node("Mul", ["input", "gains"], ["output"])],
        "external",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(gains, "gains")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def write_graph(folder: Path, spec: ModelSpec, graph: onnx.ModelProto, **about: dict[str, object]) -> Path:
    """A package of one FP32 graph. about: `recipe`, `quality`, as in `Manifest`. Returns the folder."""
    from impasto.export.graph.helpers import graph_file

    return write_package(folder, Manifest(spec, (), **about), [graph_file(MODEL, graph)])


def write_deep_package(folder: Path, scale: int = 1) -> Path:
    """A package of `canonical_graph` that takes pictures of every depth. Returns the folder, after which it is called."""
    from impasto.export import add_float_graph

    task = "denoise" if scale == 1 else "upscale"
    spec = ModelSpec(folder.name, task=task, scale=scale, size=SizeRule(4, 4), receptive_field=7)
    add_float_graph(write_graph(folder, spec, canonical_graph(scale)))
    return folder
