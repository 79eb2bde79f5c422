"""The precision that a graph computes in, read from the types of its tensors and never from a file's name."""

from __future__ import annotations

from pathlib import Path

import onnx
from onnx import TensorProto

from impasto.errors import ExportError, first_line

from .helpers import QUANTIZERS, element_types, with_initializers
from .weight_storage import without_fp16_storage

_ARITHMETIC = frozenset(("Conv", "ConvTranspose", "Gemm", "MatMul"))
"""The operators that take nearly all of a network's time. A graph without them is judged by all its nodes."""


def graph_precision(model: onnx.ModelProto) -> str:
    """ "int8" for a graph with quantizers, "fp16" where a convolution or matrix product gives halves, else "fp32".

    Weights that are only stored as FP16 and cast to FP32 before they are used leave a graph at "fp32".
    """
    nodes = model.graph.node
    if any(node.op_type in QUANTIZERS for node in nodes):
        return "int8"
    plain = without_fp16_storage(with_initializers(model))
    types = element_types(plain)
    arithmetic = [node for node in plain.graph.node if node.op_type in _ARITHMETIC] or plain.graph.node
    halves = any(types.get(name) == TensorProto.FLOAT16 for node in arithmetic for name in node.output)
    return "fp16" if halves else "fp32"


def file_precision(graph_path: Path) -> str:
    """`graph_precision` of an ONNX file. Raises ExportError for what cannot be read."""
    try:
        model = onnx.load(str(graph_path))
        return graph_precision(model)
    except Exception as error:  # protobuf's DecodeError and the checker's error have no public base that onnx promises
        raise ExportError(f"{graph_path} is no ONNX file that can be read: {first_line(error)}") from None
