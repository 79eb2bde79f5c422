"""What the tensors of a graph hold while pictures go through it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, helper

from impasto.errors import PrecisionError, first_line
from impasto.export.graph.helpers import FLOATS, copy, element_types, producers
from impasto.runtime.backends.onnxruntime import onnxruntime, session_options

from .calibration import Feed


@dataclass(frozen=True)
class Observed:
    """One float tensor over all pictures."""

    highest: float
    """Largest absolute value."""
    shape: tuple[int, ...]
    """The tensor's shape for the last picture."""


class Session:
    """A graph in ONNX Runtime on the CPU, from memory."""

    def __init__(self, model: onnx.ModelProto, *, exact: bool = True) -> None:
        """exact: see `session_options`; False for graphs that `opened` made. Raises PrecisionError."""
        open_session = onnxruntime().InferenceSession
        try:
            self._session = open_session(
                model.SerializeToString(), session_options(exact=exact), providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # the vendor's exceptions have no common base
            raise PrecisionError(
                f"ONNX Runtime cannot load this graph: {first_line(error)}; check it with impasto inspect"
            ) from error

    def draw(self, feed: Feed) -> np.ndarray:
        """The first output."""
        drawn: np.ndarray = self._session.run(None, feed)[0]
        return drawn

    def all(self, feed: Feed) -> dict[str, np.ndarray]:
        """Every output by name."""
        names = [value.name for value in self._session.get_outputs()]
        return dict(zip(names, self._session.run(None, feed), strict=True))


def opened(model: onnx.ModelProto, tensors: Sequence[str] | None = None) -> onnx.ModelProto:
    """The graph with the named tensors as further outputs; by default every float tensor that it computes."""
    shown = copy(model)
    types = element_types(model)
    computed = [name for node in model.graph.node for name in node.output]
    wanted = [name for name in computed if types.get(name) in FLOATS] if tensors is None else tensors
    present = {value.name for value in shown.graph.output}
    for name in wanted:
        if name not in present:
            shown.graph.output.append(helper.make_tensor_value_info(name, types.get(name, TensorProto.FLOAT), None))
    return shown


def observe(model: onnx.ModelProto, feeds: Iterable[Feed]) -> dict[str, Observed]:
    """The range of every float tensor that the graph computes, by name."""
    session = Session(opened(model), exact=False)
    highest: dict[str, float] = {}
    shapes: dict[str, tuple[int, ...]] = {}
    for feed in feeds:
        for name, value in session.all(feed).items():
            if value.dtype in (np.float32, np.float16) and value.size:
                highest[name] = max(highest.get(name, 0.0), float(np.abs(value).max()))
                shapes[name] = value.shape
    return {name: Observed(highest[name], shapes[name]) for name in highest}


def require_finite(model: onnx.ModelProto, feeds: Iterable[Feed], what: str) -> None:
    """Run pictures through the graph and look at every tensor. Raises PrecisionError that names the first layer to overflow.

    model: a graph of float32 values, where FP16 has been written out (`graph.fp16.rounded`). what: the precision.
    """
    shown = opened(model)
    session = Session(shown, exact=False)
    layers = producers(model.graph)
    for feed in feeds:
        found = session.all(feed)
        for name, node in layers.items():  # in the order of computation
            value = found.get(name)
            if value is None or value.dtype not in (np.float32, np.float16) or np.isfinite(value).all():
                continue
            while node.op_type == "Cast" and node.input[0] in layers:  # the layer whose value no half can hold
                node = layers[node.input[0]]
            raise PrecisionError(
                f"{what} overflows: the first layer that gives infinity or no number is {node.name!r} ({node.op_type}). "
                "Calibrate with more pictures, such as this one, so that it is kept in FP32"
            )
