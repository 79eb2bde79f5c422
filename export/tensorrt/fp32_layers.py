"""FP32 nodes where builder flags choose precision: on TensorRT 8.5 and 8.6, and where 10.x makes FP16 of an FP32 graph.

There the builder may compute any layer in half, also those that our graphs keep in float32 (`graph.fp16`). So the layers of
those are told float32, and the builder is told to prefer that: where it has no such kernel it warns and takes another (NVIDIA's
developer guide, "Control of Computational Precision"). Networks typed by their graph need none of it.

A node becomes one layer or several, and their names do not say surely which: the parser gives the node's name, with a number
behind it where that is taken, to some of them, and leaves others "(Unnamed Layer* 3) [Shuffle]" or calls them "ONNXTRT_...".
Tensors' names do. In onnx/onnx-tensorrt, whose sources of 8.5, 8.6 and 10.x were read and never run, `parseGraph` and `parseNode`
(ModelImporter.cpp) import one node after the other in topological order, and `ImporterContext::registerTensor` gives each output
the name that it has in ONNX. So the layers of a node are those behind the node before, up to the one that gives its output.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from impasto.runtime.backends.tensorrt.api import TensorRT

if TYPE_CHECKING:
    import onnx

_SAY_THEIR_TYPE = frozenset(("CONSTANT", "SHAPE", "CAST", "QUANTIZE", "DEQUANTIZE"))
"""Kinds of layers that refuse another type than their own, or fail the build: NVIDIA/TensorRT issues 2076 (constants and shapes)
and 3618 (casts). A constant follows the layer that reads it."""


def can_be_told(api: TensorRT) -> bool:
    """Whether layers take a precision here, and the builder minds it. TensorRT 11 and RTX know neither."""
    return hasattr(api.module.ILayer, "set_output_type") and hasattr(
        api.module.BuilderFlag, "PREFER_PRECISION_CONSTRAINTS"
    )


def can_be_found() -> bool:
    """Whether the library is here that reads graphs; a device may do without."""
    return find_spec("onnx") is not None


def fp32_node_tensors(model: onnx.ModelProto, prepared: onnx.ModelProto) -> dict[str, bool]:
    """For each tensor that a node of `prepared` computes, whether the node is an FP32 node.

    prepared: `parser_graph.prepare` of `model`. A graph with halves says itself what is float32; of any other, the FP32 nodes are
    those by rule, with all nodes that they became. What reads a DequantizeLinear belongs to none: Q/DQ say its precision.
    """
    from onnx import TensorProto

    from impasto.export.graph.helpers import element_types

    types = element_types(prepared)
    if TensorProto.FLOAT16 in types.values():
        kept = {name for name, kind in types.items() if kind == TensorProto.FLOAT}
    else:
        kept = _carried(model, prepared)
    from_levels = {name for node in prepared.graph.node if node.op_type == "DequantizeLinear" for name in node.output}
    return {
        name: name in kept and from_levels.isdisjoint(node.input)
        for node in prepared.graph.node
        for name in node.output
        if name
    }


def _carried(model: onnx.ModelProto, prepared: onnx.ModelProto) -> set[str]:
    """What `prepared`, which has no halves, computes of the FP32 nodes of `model`: their tensors, and those new ones before them.

    A norm in steps is an FP32 node as a whole, though no rule knows its root and its quotient alone.
    """
    from impasto.export.graph.helpers import producers, with_names
    from impasto.export.graph.weight_storage import without_fp16_storage

    plain = without_fp16_storage(with_names(model))
    known = {tensor.name for tensor in (*plain.graph.input, *plain.graph.initializer)} | set(producers(plain.graph))
    by = producers(prepared.graph)
    found = set[str]()
    waiting = list(_of_fp32_nodes(plain))
    while waiting:
        node = by.get(waiting.pop())
        if node is not None and found.isdisjoint(node.output):
            found.update(node.output)
            waiting += [name for name in node.input if name not in known]
    return found


def _of_fp32_nodes(plain: onnx.ModelProto) -> set[str]:
    """What the FP32 nodes give, in a graph with names and without FP16 weight storage."""
    from onnx import TensorProto

    from impasto.export.graph.fp16 import find_fp32_nodes
    from impasto.export.graph.helpers import element_types

    types = element_types(plain)
    if TensorProto.FLOAT16 in types.values():
        return {name for node in plain.graph.node for name in node.output if types.get(name) == TensorProto.FLOAT}
    fp32_nodes = {fp32_node.node for fp32_node in find_fp32_nodes(plain, {})}
    return {name for node in plain.graph.node if node.name in fp32_nodes for name in node.output}


def keep(api: TensorRT, network: Any, config: Any, tensors: Mapping[str, bool]) -> int:
    """Tell float32 to every layer of an FP32 node that computes with floats, and the builder to mind it. Returns how many.

    network: as the parser filled it. tensors: `fp32_node_tensors` of the graph that was parsed.
    """
    floating = api.module.DataType.FLOAT
    told = 0
    for layer in _layers_of_fp32_nodes(network, tensors):
        if _computes_floats(layer, (floating, api.module.DataType.HALF), floating):
            layer.precision = floating
            for index in range(layer.num_outputs):
                layer.set_output_type(index, floating)
            told += 1
    if told:
        config.set_flag(api.module.BuilderFlag.PREFER_PRECISION_CONSTRAINTS)
    return told


def _layers_of_fp32_nodes(network: Any, tensors: Mapping[str, bool]) -> Iterator[Any]:
    """Layers in the network's order."""
    waiting: list[Any] = []
    for index in range(network.num_layers):
        layer = network.get_layer(index)
        waiting.append(layer)
        given = [tensors[tensor.name] for tensor in _outputs(layer) if tensor.name in tensors]
        if given:
            if any(given):
                yield from waiting
            waiting = []


def _computes_floats(layer: Any, floats: Collection[Any], floating: Any) -> bool:
    """Whether it may be told float32: nothing but floats go in and out, and it does not say a type itself.

    Sizes are 32- or 64-bit integers, and pixels uint8.
    """
    inputs = [layer.get_input(index) for index in range(layer.num_inputs)]  # None for what a layer may leave out
    types = {tensor.dtype for tensor in (*inputs, *_outputs(layer)) if tensor is not None}
    if layer.type.name == "IDENTITY":  # which is also how 8.5 casts
        return types == {floating}
    return layer.type.name not in _SAY_THEIR_TYPE and bool(types) and types.issubset(floats)


def _outputs(layer: Any) -> list[Any]:
    return [layer.get_output(index) for index in range(layer.num_outputs)]
