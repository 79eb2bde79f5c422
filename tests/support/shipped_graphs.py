"""The graphs that ship, and a normalising one, as engines are built of."""

from __future__ import annotations

from functools import cache

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from impasto.runtime.loading.source import known_names


@cache
def representatives() -> frozenset[str]:
    """Of the shipped models whose picture graphs are alike but for their weights, the first of each kind."""
    first: dict[tuple[object, ...], str] = {}
    for name, package in sorted(known_names().items()):
        if (package / "model.onnx").is_file():
            graph = onnx.load(str(package / "model.onnx")).graph
            nodes = (node.SerializeToString() for node in graph.node if node.op_type != "Constant")
            weights = ((tensor.name, *tensor.dims) for tensor in graph.initializer)
            first.setdefault((*nodes, *weights), name)
    return frozenset(first.values())


SHIPPED = [path for package in known_names().values() for path in sorted(package.glob("*.onnx"))]


def normalised() -> onnx.ModelProto:
    """An instance normalisation between convolution-less casts, as the classic network has it."""
    weights = {"scale": np.array([1, 2, 0.5]), "bias": np.array([10, 0, 100])}
    nodes = [
        helper.make_node("Transpose", ["image"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Cast", ["planes"], ["x"], to=TensorProto.FLOAT),
        helper.make_node("InstanceNormalization", ["x", "scale", "bias"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "normalised",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["N", "H", "W", 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 3, "H", "W"])],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
