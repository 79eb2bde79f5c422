"""Small questions that everything which rewrites ONNX graphs asks of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

from impasto.errors import PackageError, first_line
from impasto.package.manifest import CONTEXT, FLOAT, FLOAT_MODEL
from impasto.package.shared_weights import self_contained
from impasto.package.writer import NewFile
from impasto.runtime.loading.opening import SPEC_KEY

FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16)
QUANTIZERS = ("QuantizeLinear", "DequantizeLinear")
OPSET = 20
"""The opset of the graphs that we write. It keeps InstanceNormalization whole and dynamic sizes clean. Older ones are derived where a
device needs them."""
LEAST_OPSET = 13
"""The first whose QuantizeLinear takes one scale a channel."""


def read_graph(path: Path) -> onnx.ModelProto:
    """An ONNX file with all its weights, also those that lie in another file of its package. Raises PackageError."""
    try:
        return onnx.load_from_string(self_contained(path))
    except PackageError:
        raise
    except Exception as error:  # protobuf's DecodeError has no public base that onnx promises
        raise PackageError(f"{path} is no ONNX file that can be read: {first_line(error)}") from None


def spec_text(model: onnx.ModelProto) -> str | None:
    """The JSON of the model's spec that Impasto wrote into its graph's metadata; None in a graph of others."""
    return {entry.key: entry.value for entry in model.metadata_props}.get(SPEC_KEY)


def copy(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy to change."""
    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    return copied


def graph_file(
    name: str, model: onnx.ModelProto, precision: str = "fp32", target_backend: str | None = None
) -> NewFile:
    """A graph as a file of a package. name: CONTEXT or FLOAT_MODEL for those, else a picture graph's."""
    role = {CONTEXT: "context", FLOAT_MODEL: FLOAT}.get(name, "model")
    return NewFile(name, role, model.SerializeToString(deterministic=True), precision, target_backend)


def bodies(node: NodeProto) -> list[onnx.GraphProto]:
    """The graphs inside a node: branches of an If, the body of a Loop or Scan. They may read any tensor of the graph around them."""
    kinds = onnx.AttributeProto
    return [
        body
        for entry in node.attribute
        for body in ([entry.g] if entry.type == kinds.GRAPH else entry.graphs if entry.type == kinds.GRAPHS else [])
    ]


def captured(node: NodeProto) -> Iterator[str]:
    """What the graphs inside a node read, names of their own among it."""
    for body in bodies(node):
        for inner in body.node:
            yield from inner.input
            yield from captured(inner)
        yield from (value.name for value in body.output)


def readers(graph: onnx.GraphProto) -> dict[str, list[NodeProto]]:
    """For each tensor the nodes that take it, once for each time, or read it in a graph inside them."""
    found: dict[str, list[NodeProto]] = {}
    for node in graph.node:
        for name in (*node.input, *captured(node)):
            found.setdefault(name, []).append(node)
    return found


def producers(graph: onnx.GraphProto) -> dict[str, NodeProto]:
    """For each computed tensor, the node that gives it."""
    return {name: node for node in graph.node for name in node.output if name}


def constants(graph: onnx.GraphProto) -> dict[str, np.ndarray]:
    """The values of the initializers."""
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}


def attribute(node: NodeProto, name: str, default: Any) -> Any:
    """An attribute's value, or `default` where the node leaves it out."""
    return next((helper.get_attribute_value(found) for found in node.attribute if found.name == name), default)


def drop_attributes(node: NodeProto, *names: str) -> None:
    """Remove these attributes, where the node has them."""
    kept = [found for found in node.attribute if found.name not in names]
    del node.attribute[:]
    node.attribute.extend(kept)


def kernel_shape(node: NodeProto, stored: Mapping[str, np.ndarray], by: Mapping[str, NodeProto]) -> list[int]:
    """A convolution's kernel shape: its attribute, or its weights' shape, through Q and DQ. Empty where neither is known.

    stored, by: the graph's `constants` and `producers`.
    """
    weights = node.input[1]
    while weights in by and by[weights].op_type in QUANTIZERS:
        weights = by[weights].input[0]
    return list(attribute(node, "kernel_shape", stored[weights].shape[2:] if weights in stored else ()))


def element_types(model: onnx.ModelProto) -> dict[str, int]:
    """The TensorProto.DataType of every tensor, as far as ONNX's shape inference knows it."""
    inferred = onnx.shape_inference.infer_shapes(model).graph
    values = (*inferred.input, *inferred.output, *inferred.value_info)
    types = {value.name: value.type.tensor_type.elem_type for value in values}
    return types | {tensor.name: tensor.data_type for tensor in model.graph.initializer}


def shape_of(graph: onnx.GraphProto, name: str) -> list[int] | None:
    """A tensor's sizes after shape inference, 0 where they are free; None where nothing is known of it."""
    for value in (*graph.input, *graph.value_info, *graph.output):
        if value.name == name and value.type.tensor_type.HasField("shape"):
            return [dimension.dim_value for dimension in value.type.tensor_type.shape.dim]
    return None


def opset(model: onnx.ModelProto) -> int:
    """The version of ONNX's own operators that the graph is written in; 0 where it uses none."""
    return next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 0)


def tensor_text(value: onnx.ValueInfoProto) -> str:
    """A tensor's type and shape, for people to read: "float (N, 3, 64, 64)"."""
    tensor = value.type.tensor_type
    sizes = (str(d.dim_value) if d.HasField("dim_value") else d.dim_param or "?" for d in tensor.shape.dim)
    return f"{TensorProto.DataType.Name(tensor.elem_type).lower()} ({', '.join(sizes)})"


def cast(source: str, target: str, to: int) -> NodeProto:
    """A node that gives `source` as the type `to` under the name `target`."""
    return helper.make_node("Cast", [source], [target], f"cast {target}", to=to)


def replace_nodes(graph: onnx.GraphProto, nodes: Iterable[NodeProto]) -> None:
    """Give the graph other nodes, and drop the initializers that none of them takes."""
    kept = list(nodes)
    del graph.node[:]
    graph.node.extend(kept)
    drop_unread(graph)


def drop_unread(graph: onnx.GraphProto) -> None:
    """Remove the initializers that nothing reads any more."""
    read = {*readers(graph), *(value.name for value in graph.output)}
    kept = [tensor for tensor in graph.initializer if tensor.name in read]
    del graph.initializer[:]
    graph.initializer.extend(kept)


def fold_channel_gathers(graph: onnx.GraphProto) -> None:
    """Move a fixed reordering of channels in front of a convolution to its weights: conv(x[order]) = conv'(x)."""
    weights = {tensor.name: tensor for tensor in graph.initializer}
    reading = readers(graph)
    for gather in [node for node in graph.node if node.op_type == "Gather" and node.input[1] in weights]:
        order = numpy_helper.to_array(weights[gather.input[1]])
        if attribute(gather, "axis", 0) != 1 or not np.array_equal(np.sort(order, axis=None), np.arange(order.size)):
            continue
        convolutions = reading.get(gather.output[0], [])
        if not convolutions or any(
            node.op_type != "Conv"
            or attribute(node, "group", 1) != 1  # weights of a group know its own channels alone
            or node.input[1] not in weights
            or len(reading[node.input[1]]) > 1
            for node in convolutions
        ):
            continue
        inverse = numpy_helper.from_array(np.argsort(order), f"{gather.output[0]} inverse")
        graph.initializer.append(inverse)
        for convolution in convolutions:
            name = f"{convolution.input[1]} reordered"
            node = helper.make_node("Gather", [convolution.input[1], inverse.name], [name], name, axis=1)
            graph.node.insert(0, node)
            convolution.input[:2] = [gather.input[0], name]
        graph.node.remove(gather)
    drop_unread(graph)


def names_of(nodes: Iterable[NodeProto]) -> Iterator[str]:
    """What to call each node in messages and lists: its own name, which ONNX leaves optional, else its first output's."""
    return (node.name or node.output[0] for node in nodes)


def with_initializers(model: onnx.ModelProto) -> onnx.ModelProto:
    """The graph with initializers in place of Constant nodes; itself where it has none."""
    if not any(node.op_type == "Constant" for node in model.graph.node):
        return model
    stored = copy(model)
    nodes = []
    for node in stored.graph.node:
        kind = node.attribute[0].name if node.op_type == "Constant" and node.attribute else ""
        if kind not in _CONSTANT_TYPES:
            nodes.append(node)
            continue
        value = helper.get_attribute_value(node.attribute[0])
        if not isinstance(value, TensorProto):
            value = numpy_helper.from_array(np.asarray(value, _CONSTANT_TYPES[kind]))
        value.name = node.output[0]
        stored.graph.initializer.append(value)
    replace_nodes(stored.graph, nodes)
    return stored


_CONSTANT_TYPES = {
    "value": None,
    "value_float": np.float32,
    "value_floats": np.float32,
    "value_int": np.int64,
    "value_ints": np.int64,
}


def with_names(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy in which every node has a name of its own, and constants are initializers."""
    named = copy(with_initializers(model))
    taken = set[str]()
    for node, name in zip(named.graph.node, names_of(named.graph.node), strict=True):
        node.name = name if name not in taken else f"{name} {node.output[0]}"
        taken.add(node.name)
    drop_unread(named.graph)
    return named
