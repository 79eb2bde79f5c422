"""ONNX Runtime's INT8 sums, which saturate on x86-64 CPUs without VNNI where it is not told otherwise."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from impasto.runtime.backends import open_graph

LEVEL = 200
"""What a white pixel becomes."""


def largest_sums() -> onnx.ModelProto:
    """One convolution of 3 x 3 over uint8 levels and weights of 127, as `impasto quantize` writes it for ONNX Runtime."""
    constants = {
        "one": np.float32(1),
        "zero": np.uint8(0),
        "weights": np.full((3, 3, 3, 3), 127, np.int8),
        "shrink": np.full(3, LEVEL / (255 * 127 * 27), np.float32),
        "signed": np.zeros(3, np.int8),
    }
    nodes = [
        helper.make_node("Cast", ["image"], ["values"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["values"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("QuantizeLinear", ["planes", "one", "zero"], ["levels"]),
        helper.make_node("DequantizeLinear", ["levels", "one", "zero"], ["x"]),
        helper.make_node("DequantizeLinear", ["weights", "shrink", "signed"], ["w"], axis=0),
        helper.make_node("Conv", ["x", "w"], ["sums"]),
        helper.make_node("QuantizeLinear", ["sums", "one", "zero"], ["rounded"]),
        helper.make_node("DequantizeLinear", ["rounded", "one", "zero"], ["y"]),
        helper.make_node("Cast", ["y"], ["bytes"], to=TensorProto.UINT8),
        helper.make_node("Transpose", ["bytes"], ["picture"], perm=[0, 2, 3, 1]),
    ]
    ends = [
        helper.make_tensor_value_info(name, TensorProto.UINT8, ["N", None, None, 3]) for name in ("image", "picture")
    ]
    weights = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "sums", ends[:1], ends[1:], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_the_largest_sums_do_not_saturate(tmp_path):
    """Half of each would be lost: 16 bits hold one product of 255 x 127, and not the pair that such CPUs add first."""
    path = tmp_path / "sums.onnx"
    onnx.save(largest_sums(), str(path))
    graph = open_graph(path, "onnxruntime-cpu", 0)
    (drawn,) = graph.run_all((np.full((1, 20, 20, 3), 255, np.uint8),))
    assert drawn.shape == (1, 18, 18, 3)
    assert (drawn == LEVEL).all()
