"""torch's pixel_shuffle and pixel_unshuffle as one ONNX operator each, where an exporter wrote chains of reshapes.

No engine fuses such a chain, and nobody can see how far it reaches. What a chain does is not read off its shapes, which may be
computed as the graph runs: it is run, on numbers that are all different, and replaced where the operator gives the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
from onnx import NodeProto, helper, numpy_helper, utils

from impasto.runtime.backends.onnxruntime import onnxruntime, session_options

from .helpers import attribute, captured, copy, producers, readers, replace_nodes, shape_of

_UNSHUFFLE, _SHUFFLE = [0, 1, 3, 5, 2, 4], [0, 1, 4, 2, 5, 3]
"""How the six axes (N, C, H, block, W, block), or (N, C, block, block, H, W), are reordered between the reshapes."""
_BLOCKS = (2, 3, 4, 8)
_RESHAPES = ("Reshape", "Squeeze", "Unsqueeze")


def unshuffle_order(channels: int, block: int) -> np.ndarray:
    """Which of SpaceToDepth's channels each of torch's pixel_unshuffle is: the one counts offsets first, the other channels."""
    return np.ravel(np.arange(channels * block * block).reshape(block * block, channels).T)


def fold_pixel_shuffles(model: onnx.ModelProto) -> onnx.ModelProto:
    """The graph with chains replaced by SpaceToDepth (and a Gather that reorders channels) or DepthToSpace."""
    model = copy(model)
    inferred = onnx.shape_inference.infer_shapes(model)
    for middle in [node for node in model.graph.node if node.op_type == "Transpose"]:
        order = attribute(middle, "perm", [])
        if order not in (_UNSHUFFLE, _SHUFFLE):
            continue
        start = _origin(model.graph, middle)
        found = next(_proven(inferred, start, _ends(model.graph, middle), order == _UNSHUFFLE), None)
        if found:
            end, nodes, constant = found
            if constant is not None:
                model.graph.initializer.append(constant)
            _replace(model.graph, end, nodes)
    return model


def _origin(graph: onnx.GraphProto, node: NodeProto) -> str:
    """The tensor that the chain begins with."""
    by = producers(graph)
    name: str = node.input[0]
    while name in by and by[name].op_type in _RESHAPES:
        name = by[name].input[0]
    return name


def _ends(graph: onnx.GraphProto, node: NodeProto) -> list[str]:
    """The tensors that the chain may end with, the last one first."""
    found: list[str] = []
    reading = readers(graph)
    name = node.output[0]
    while True:
        following = [other for other in reading.get(name, ()) if other.op_type in _RESHAPES and other.input[0] == name]
        if len(following) != 1:
            return found[::-1]
        name = following[0].output[0]
        found.append(name)


def _proven(
    model: onnx.ModelProto, start: str, ends: list[str], unshuffles: bool
) -> Iterator[tuple[str, list[NodeProto], Any]]:
    """End, nodes and constant of each replacement that gives what the chain gives. model: with inferred shapes."""
    shape = shape_of(model.graph, start)
    if shape is None or len(shape) != 4 or not shape[1]:
        return
    for end in ends:
        for block in _BLOCKS:
            if not unshuffles and shape[1] % block**2:
                continue
            size = [shape[0] or 2, shape[1], shape[2] or 2 * block, shape[3] or 3 * block]
            values = np.arange(np.prod(size), dtype=np.float32).reshape(size)
            if not unshuffles:
                node = helper.make_node("DepthToSpace", [start], [end], f"shuffle {end}", blocksize=block, mode="CRD")
                nodes, constant = [node], None
            elif size[2] % block or size[3] % block:
                continue
            else:
                cells, name = f"{end} cells", f"{end} order"
                constant = numpy_helper.from_array(unshuffle_order(shape[1], block), name)
                nodes = [
                    helper.make_node("SpaceToDepth", [start], [cells], f"unshuffle {end}", blocksize=block),
                    helper.make_node("Gather", [cells, name], [end], f"order {end}", axis=1),
                ]
            drawn = _run(model, start, end, values)
            if drawn is not None and np.array_equal(drawn, _wanted(values, block, unshuffles)):
                yield end, nodes, constant


def _wanted(values: np.ndarray, block: int, unshuffles: bool) -> np.ndarray:
    """What torch gives for these values (N, C, H, W)."""
    N, C, H, W = values.shape
    if unshuffles:
        cells = values.reshape(N, C, H // block, block, W // block, block).transpose(_UNSHUFFLE)
        return np.reshape(cells, (N, C * block**2, H // block, W // block))
    cells = values.reshape(N, C // block**2, block, block, H, W).transpose(_SHUFFLE)
    return np.reshape(cells, (N, C // block**2, H * block, W * block))


def _run(model: onnx.ModelProto, start: str, end: str, values: np.ndarray) -> np.ndarray | None:
    """What the chain gives; None where it needs more than its start, or does not take the size."""
    open_session = onnxruntime().InferenceSession
    try:
        part = utils.Extractor(model).extract_model([start], [end])
        session = open_session(part.SerializeToString(), session_options(), providers=["CPUExecutionProvider"])
        result: np.ndarray = session.run(None, {start: values})[0]
    except Exception:  # whatever the two libraries say, the chain is no whole one then, and stays as it is
        return None
    return result


def _replace(graph: onnx.GraphProto, end: str, nodes: list[NodeProto]) -> None:
    """Put these nodes where `end` was made, and drop what only the chain needed."""
    kept: list[NodeProto] = []
    for node in graph.node:
        kept += nodes if end in node.output else [node]
    wanted = {value.name for value in graph.output}
    alive = []
    for node in reversed(kept):
        if wanted.intersection(node.output):
            wanted.update(node.input, captured(node))
            alive.append(node)
    replace_nodes(graph, alive[::-1])
