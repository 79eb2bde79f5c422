"""The canonical graph once more, with float ends: for pictures of 16 bits a channel, of which nothing is rounded to bytes.

It takes and gives float32 (N, H, W, 3) RGB from 0 to 1, and computes between its ends what the canonical graph computes. It keeps its
weights in that one's file (`weight_storage.with_shared_weights`), so that a package holds them once.
"""

from __future__ import annotations

import warnings

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

from impasto.errors import ExportError, ImpastoWarning, first_line
from impasto.metrics import independent
from impasto.package.manifest import FLOAT_MODEL
from impasto.package.spec import SizeRule
from impasto.package.writer import NewFile
from impasto.runtime.backends.onnxruntime import onnxruntime, session_options

from .helpers import attribute, constants, copy, element_types, graph_file, producers, readers, replace_nodes
from .weight_storage import with_shared_weights

_LEVELS = 255.0
_COMPARED = (61, 83)
"""Height and width of the picture that both graphs draw, rounded up to what they take."""
_ROUNDED = 0.51
"""Levels of 255: the graph of bytes rounds half a level away, and float32 some thousandths."""
_SAME = 1e-6
"""Relative: a factor this near to 1 is 1, rounded."""
_MADE = "float ends"
"""What the names of new tensors begin with."""


def float_file(model: onnx.ModelProto, holder: NewFile, size: SizeRule) -> NewFile:
    """The graph with float ends as a file of a package. holder: the canonical graph's file, which holds the weights.

    Raises what `with_float_ends` raises, and ExportError where it would draw another picture than the canonical graph.
    """
    floats = with_float_ends(model)
    _require_same(model, floats, size.padded(*_COMPARED))
    content = holder.content if isinstance(holder.content, bytes) else holder.content.read_bytes()
    return graph_file(FLOAT_MODEL, with_shared_weights(floats, holder.name, content))


def float_files(name: str, model: onnx.ModelProto, holder: NewFile, size: SizeRule) -> list[NewFile]:
    """The graph with float ends, as `float_file` makes it; none, with a warning, where the model cannot have one."""
    try:
        return [float_file(model, holder, size)]
    except ExportError as error:
        warnings.warn(f"{name} takes pictures of 8 bits alone: {error}", ImpastoWarning, stacklevel=3)
        return []


def with_float_ends(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy that takes and gives float32 from 0 to 1 in place of bytes. Results are clipped to 0..1, and not rounded.

    model: a canonical graph with its weights inside. Raises ExportError for one that makes its values of bytes, or bytes of its values,
    in a way that says nothing of values between two levels.
    """
    model = copy(model)
    del model.metadata_props[:]
    graph = model.graph
    nodes = _with_float_entry(graph)
    replace_nodes(graph, nodes)
    replace_nodes(graph, _with_float_exit(graph))
    for value in (graph.input[0], graph.output[0]):
        value.type.tensor_type.elem_type = TensorProto.FLOAT
    _drop_unused(graph)
    del graph.value_info[:]
    try:
        onnx.checker.check_model(model, full_check=True)
        inner = element_types(model)
    except Exception as error:  # the checker's errors have no public base that onnx promises
        raise ExportError(f"the graph cannot take floats in place of bytes: {first_line(error)}") from None
    if TensorProto.UINT8 in inner.values():
        raise ExportError("the graph computes with bytes inside, so that values between two levels would be lost in it")
    return model


def _require_same(model: onnx.ModelProto, floats: onnx.ModelProto, size: tuple[int, int]) -> None:
    """Raises ExportError unless the graph with float ends draws, before rounding, what the other draws. Both hold their weights."""
    image = independent(*size)[None]
    bytes_drawn, drawn = (
        _drawn(each, given)
        for each, given in ((model, image), (floats, image.astype(np.float32) / np.float32(_LEVELS)))
    )
    apart = float(np.abs(drawn * _LEVELS - bytes_drawn).max())
    if not apart <= _ROUNDED:  # also for NaN
        raise ExportError(
            f"the graph with float ends draws up to {apart:.2f} levels of 255 away from the other; please report the model"
        )


def _drawn(model: onnx.ModelProto, image: np.ndarray) -> np.ndarray:
    """What ONNX Runtime draws. Second inputs are 0, but for a strength, which is 1."""
    feeds = {model.graph.input[0].name: image}
    for value in model.graph.input[1:]:
        length = value.type.tensor_type.shape.dim[-1].dim_value
        feeds[value.name] = np.full((1, length), length == 1, np.float32)
    try:
        session = onnxruntime().InferenceSession(
            model.SerializeToString(), session_options(), providers=["CPUExecutionProvider"]
        )
        return np.asarray(session.run(None, feeds)[0])
    except Exception as error:  # the vendor's exceptions have no common base
        raise ExportError(f"ONNX Runtime cannot draw the graph: {first_line(error)}") from None


def _with_float_entry(graph: onnx.GraphProto) -> list[NodeProto]:
    """The nodes, with bytes' casts to float32 replaced by a product with 255; where 1/255 follows, both are left out."""
    picture = {graph.input[0].name}
    stored, reading = constants(graph), readers(graph)
    graph.initializer.append(numpy_helper.from_array(np.array(_LEVELS, np.float32), f"{_MADE}/levels"))
    kept: list[NodeProto] = []
    same: dict[str, str] = {}  # what a left-out product gave -> what it was made of
    for node in graph.node:
        if not picture.intersection(node.input):
            node.input[:] = [same.get(name, name) for name in node.input]
            if not (node.op_type == "Mul" and node.output[0] in same):
                kept.append(node)
            continue
        if node.op_type == "Transpose":
            picture.add(node.output[0])
            kept.append(node)
        elif node.op_type == "Shape":  # says nothing of values
            kept.append(node)
        elif node.op_type == "Cast" and attribute(node, "to", None) == TensorProto.FLOAT:
            following = reading.get(node.output[0], [])
            if following and all(_factor(after, node.output[0], stored) == 1 / _LEVELS for after in following):
                same |= {after.output[0]: node.input[0] for after in following}
                continue
            name = f"{_MADE}/{node.output[0]}"
            kept.append(helper.make_node("Mul", [node.input[0], f"{_MADE}/levels"], [node.output[0]], name))
        else:
            raise ExportError(
                f"the graph takes bytes into {node.op_type} ({node.name}); floats can be put in place of a Cast to float32 alone"
            )
    return kept


def _with_float_exit(graph: onnx.GraphProto) -> list[NodeProto]:
    """The nodes, with what rounds values to bytes replaced by a bound of 0..1."""
    stored, by, reading = constants(graph), producers(graph), readers(graph)
    turns: list[NodeProto] = []
    tail, casts = [graph.output[0].name], 0
    while True:
        node = by.get(tail[-1])
        kind = node.op_type if node else "the picture itself"
        if node is None or kind not in ("Transpose", "Cast", "Clip", "Round") or len(reading.get(tail[-1], ())) > 1:
            raise ExportError(
                f"the graph makes bytes of its values by {kind} without a Round before it; what it would give between levels is unknown"
            )
        if kind == "Clip" and [float(stored[name]) for name in node.input[1:] if name in stored] != [0, _LEVELS]:
            raise ExportError(f"the graph bounds its picture by other values than 0 and 255 ({node.name})")
        casts += kind == "Cast"
        turns += [node] if kind == "Transpose" else []
        tail.append(node.input[0])
        if kind == "Round":
            break
    if casts != 1:
        raise ExportError(f"the graph has {casts} Casts between its values and its picture; one was expected")
    values, before = tail[-1], by.get(tail[-1])
    nodes = [node for node in graph.node if node.output[0] not in tail[:-1]]
    if before is not None and (source := _source_of_product(before, stored)) and len(reading[values]) == 1:
        values = source
        nodes.remove(before)
    else:
        nodes.append(helper.make_node("Mul", [values, f"{_MADE}/share"], [f"{_MADE}/values"], f"{_MADE}/values"))
        values = f"{_MADE}/values"
    added = {"share": 1 / _LEVELS, "low": 0.0, "high": 1.0}
    graph.initializer.extend(
        numpy_helper.from_array(np.array(number, np.float32), f"{_MADE}/{name}") for name, number in added.items()
    )
    nodes.append(helper.make_node("Clip", [values, f"{_MADE}/low", f"{_MADE}/high"], [f"{_MADE}/0"], f"{_MADE}/clip"))
    for place, turn in enumerate(reversed(turns)):
        perm = attribute(turn, "perm", None)
        nodes.append(
            helper.make_node(
                "Transpose", [f"{_MADE}/{place}"], [f"{_MADE}/{place + 1}"], f"{_MADE}/turn {place}", perm=perm
            )
        )
    nodes[-1].output[0] = graph.output[0].name
    return nodes


def _factor(node: NodeProto, source: str, stored: dict[str, np.ndarray]) -> float | None:
    """1/255 where the node multiplies `source` by just that; otherwise None."""
    return 1 / _LEVELS if _multiplies(node, source, stored, 1 / _LEVELS) else None


def _source_of_product(node: NodeProto, stored: dict[str, np.ndarray]) -> str | None:
    """What the node multiplies by 255, where it does so."""
    return next((name for name in node.input if _multiplies(node, name, stored, _LEVELS)), None)


def _multiplies(node: NodeProto, source: str, stored: dict[str, np.ndarray], factor: float) -> bool:
    if node.op_type != "Mul" or source in stored:
        return False
    others = [stored.get(name) for name in node.input if name != source]
    if len(others) != 1 or others[0] is None or others[0].size != 1:
        return False
    return abs(float(others[0].reshape(-1)[0]) / factor - 1) < _SAME


def _drop_unused(graph: onnx.GraphProto) -> None:
    """Remove the nodes whose results nothing needs, as what bytes alone had needed."""
    wanted = {value.name for value in graph.output}
    kept = []
    for node in reversed(graph.node):
        if wanted.intersection(node.output):
            kept.append(node)
            wanted.update(readers(helper.make_graph([node], "one", [], [])))
    replace_nodes(graph, kept[::-1])
