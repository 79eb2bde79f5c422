"""What TensorRT's parser takes of quantization, checked before a builder sees the graph."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
from onnx import NodeProto

from impasto.errors import PrecisionError

from .helpers import constants, element_types, readers

_INT8, _UINT8, _INT32 = onnx.TensorProto.INT8, onnx.TensorProto.UINT8, onnx.TensorProto.INT32
_WHOLE_OPERATORS = (
    "QLinearConv",
    "QLinearMatMul",
    "ConvInteger",
    "MatMulInteger",
    "DynamicQuantizeLinear",
    "QLinearAdd",
    "QLinearMul",
)


def problems(model: onnx.ModelProto) -> tuple[str, ...]:
    """Everything about its quantization that TensorRT refuses, one sentence each; empty for a graph without any."""
    values, types, read = constants(model.graph), element_types(model), readers(model.graph)
    found: list[str] = []
    for node in model.graph.node:
        if node.op_type in _WHOLE_OPERATORS:
            found.append(f"{_name(node)}: {node.op_type} computes in integers; TensorRT wants QuantizeLinear pairs")
        elif node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            found += [f"{_name(node)}: {problem}" for problem in _of_pair(node, values, types, read)]
    return tuple(found)


def require_parsable(model: onnx.ModelProto, name: str) -> None:
    """Raises PrecisionError with the first few problems. name: what to call the graph."""
    found = problems(model)
    if found:
        more = f" (and {len(found) - 3} more)" if len(found) > 3 else ""
        raise PrecisionError(
            f"TensorRT cannot read the quantization of {name}: {'; '.join(found[:3])}{more}. "
            "Quantize the FP32 model for it: impasto quantize MODEL --to int8 --for tensorrt --calibrate PHOTOS"
        )


def _of_pair(
    node: NodeProto,
    values: Mapping[str, np.ndarray],
    types: Mapping[str, int],
    read: Mapping[str, list[NodeProto]],
) -> list[str]:
    found = []
    quantizes = node.op_type == "QuantizeLinear"
    kind = types.get(node.output[0] if quantizes else node.input[0], _INT8)
    if kind == _INT32:
        found.append("an int32 bias; keep biases in floats (QuantizeBias: False)")
    elif kind == _UINT8:
        found.append("uint8; quantize to int8")
    zero = node.input[2] if len(node.input) > 2 else ""
    if zero and zero not in values:
        found.append("a zero point that is computed; it must be the constant 0")
    elif zero and np.any(values[zero]):
        found.append(f"zero point {int(np.abs(values[zero].astype(np.int64)).max())}; it must be 0")
    scale = values.get(node.input[1])
    if scale is None:
        found.append("a scale that is computed; it must be constant")
    elif not (np.isfinite(scale).all() and (scale > 0).all()):
        found.append("a scale that is not above 0")
    elif scale.size > 1 and quantizes and node.input[0] not in values:
        found.append("one scale a channel on activations; one for the whole tensor is allowed")
    if quantizes and any(reader.op_type != "DequantizeLinear" for reader in read.get(node.output[0], ())):
        found.append("its result is read by something else than DequantizeLinear")
    return found


def _name(node: NodeProto) -> str:
    return node.name or node.output[0]
