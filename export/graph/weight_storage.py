"""How a canonical graph keeps its weights: as training made them, in half the bytes where that loses nothing.

What a checkpoint ships was rounded to halves before it was judged, so most weights are exact in FP16; the graph casts them to
FP32, in which it computes. Backends do so once, when they load it. Each keeps the name and the order of channels that it has
in the network, so that a package is its own checkpoint (`training/packages.py`).
"""

from __future__ import annotations

import hashlib
from collections import Counter

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper
from onnx.external_data_helper import set_external_data

from impasto.package.shared_weights import WEIGHTS_KEY

from .helpers import attribute, captured, copy, readers, replace_nodes

_WORTH_A_CAST = 1024
"""Elements. A cast takes about a hundred bytes itself, and makes a graph longer to read."""

_WORTH_SHARING = 1024
"""Bytes. The note of a weight's place takes about a hundred."""


def with_fp16_storage(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy with large float32 weights as halves, where these are the same numbers, and a Cast after each."""
    model = copy(model)
    reading = readers(model.graph)
    casts = []
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.dtype != np.float32 or values.size < _WORTH_A_CAST or not _exact(values):
            continue
        whole = f"{tensor.name} in FP32"
        for node in reading.get(tensor.name, []):
            node.input[:] = [whole if name == tensor.name else name for name in node.input]
        casts.append(helper.make_node("Cast", [tensor.name], [whole], f"cast {tensor.name}", to=TensorProto.FLOAT))
        tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float16), tensor.name))
    replace_nodes(model.graph, [*casts, *model.graph.node])
    return model


def without_fp16_storage(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy with every weight as its layer takes it: halves cast to float32, channels reordered. Computes the same bits.

    What rewrites graphs, and parsers that want weights to be stored ones, begin with this. A weight keeps its name, as long as
    nothing else reads it.
    """
    model = copy(model)
    held = {tensor.name: tensor for tensor in model.graph.initializer}
    origins: dict[str, str] = {}
    nodes = []
    for node in model.graph.node:
        values = _folded(node, held)
        if values is None:
            nodes.append(node)
            continue
        (result,), weight = node.output, node.input[0]
        held[result] = numpy_helper.from_array(values, result)
        origins[result] = origins.get(weight, weight)
        model.graph.initializer.append(held[result])
    replace_nodes(model.graph, nodes)
    _name_as_before(model.graph, origins)
    return model


def with_shared_weights(model: onnx.ModelProto, holder: str, content: bytes) -> onnx.ModelProto:
    """A copy without the large weights that `holder` stores already, byte for byte: ONNX's external data says where they lie.

    holder, content: the name and the bytes of another graph's file, beside which this one will lie. The copy's metadata gives its
    SHA-256 (`shared_weights`).
    """
    held = {
        (tensor.data_type, tensor.raw_data): content.find(tensor.raw_data)
        for tensor in onnx.load_from_string(content).graph.initializer
        if len(tensor.raw_data) >= _WORTH_SHARING
    }
    model = copy(model)
    shared = False
    for tensor in model.graph.initializer:
        offset = held.get((tensor.data_type, tensor.raw_data))
        if offset is None:
            continue
        set_external_data(tensor, holder, offset, len(tensor.raw_data))
        tensor.ClearField("raw_data")
        shared = True
    if shared:
        model.metadata_props.add(key=WEIGHTS_KEY, value=hashlib.sha256(content).hexdigest())
    return model


def _name_as_before(graph: onnx.GraphProto, origins: dict[str, str]) -> None:
    """Call what was folded like the weight that it was made of, where that is gone and nothing else was made of it."""
    held = Counter(origins.get(tensor.name, tensor.name) for tensor in graph.initializer)
    inside = {name for node in graph.node for name in captured(node)}
    names = {
        result: weight for result, weight in origins.items() if held[weight] == 1 and not inside & {result, weight}
    }
    for tensor in graph.initializer:
        tensor.name = names.get(tensor.name, tensor.name)
    for node in graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]


def _folded(node: NodeProto, held: dict[str, TensorProto]) -> np.ndarray | None:
    """What the node gives, if it is one of those that stand behind a stored weight."""
    if node.op_type not in ("Cast", "Gather") or any(name not in held for name in node.input):
        return None
    weights = numpy_helper.to_array(held[node.input[0]])
    if node.op_type == "Gather":
        return np.asarray(np.take(weights, numpy_helper.to_array(held[node.input[1]]), axis=attribute(node, "axis", 0)))
    if weights.dtype == np.float16 and attribute(node, "to", None) == TensorProto.FLOAT:
        return weights.astype(np.float32)
    return None


def _exact(values: np.ndarray) -> bool:
    with np.errstate(over="ignore"):
        return bool(np.array_equal(values.astype(np.float16).astype(np.float32), values))
