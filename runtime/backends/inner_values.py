"""Checks for NaN and infinity inside a graph that clips and rounds its values itself.

A copy of the graph gives the values before they are clipped and rounded as a second output.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from impasto.errors import BackendError, OptionError, PackageError
from impasto.package.onnx_bytes import unbounded, with_output
from impasto.package.shared_weights import self_contained

from .base import Backend, InnerValues, require_numbers

VARIABLE = "IMPASTO_CHECK_VALUES"
"""Environment variable: 1 checks every run for NaN."""


def wanted_always() -> bool:
    """Whether $IMPASTO_CHECK_VALUES is 1. Raises OptionError for a value other than 0 and 1."""
    text = os.environ.get(VARIABLE, "").strip()
    if text not in ("", "0", "1"):
        raise OptionError(f"${VARIABLE} is {text!r}; set it to 1 to check every run for NaN, or to 0")
    return text == "1"


class WatchedGraph(Backend):
    """A graph with the values as a second output. It checks them in every run, and gives the picture alone."""

    def __init__(self, inner: Backend, infinite: bool) -> None:
        """inner: the graph, with the picture and the values as outputs. infinite: whether the values may be infinite."""
        self._inner, self._infinite = inner, infinite
        self.name, self.device, self.metadata = inner.name, inner.device, inner.metadata
        self.precision = inner.precision
        self.inputs, self.outputs = inner.inputs, inner.outputs[:1]

    def _run(self, inputs: Sequence[np.ndarray], out: np.ndarray) -> None:
        (drawn,) = self._run_all(inputs)
        if drawn.shape != out.shape:
            raise BackendError(f"the graph gives {drawn.shape} where {out.shape} was expected")
        out[...] = drawn

    def _run_all(self, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        drawn, values = self._inner._run_all(inputs)
        if values.dtype.kind == "f":
            require_numbers(values, infinite=self._infinite)
        return [drawn]

    def _measure(self, inputs: Sequence[np.ndarray]) -> tuple[int, ...]:
        return self._inner._measure(inputs)

    def _stop(self) -> None:
        self._inner._stop()

    def _close(self) -> None:
        self._inner.close()


def open_watched(path: Path, open_copy: Callable[[Path], Backend]) -> WatchedGraph | None:
    """The graph at `path` with its values as a second output; None if it neither clips nor rounds. open_copy: loads a graph.

    Raises BackendError, OSError, PackageError if its weights are in another file that cannot be read, and ValueError if the file is no
    ONNX file.
    """
    model = self_contained(path, trust=True)  # the hashes were compared before
    values = unbounded(model)
    if values is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / path.name
        copy.write_bytes(with_output(model, values.tensor))
        inner = open_copy(copy)
    if len(inner.outputs) != 2:  # the graph had several outputs already, so it is no picture model
        inner.close()
        return None
    return WatchedGraph(inner, values.infinite)


class ValuesBeforeRounding(InnerValues):
    """Checks single runs in a copy of the graph, which is loaded on first use."""

    def __init__(self, path: Path, open_copy: Callable[[Path], Backend]) -> None:
        """open_copy: loads a graph in the backend that runs the graph at `path`."""
        self._path, self._open_copy = path, open_copy
        self._copy: Backend | None = None
        self._cannot_check = False

    def check(self, inputs: Sequence[np.ndarray]) -> None:
        """Repeat a run in the copy. Raises NoNumbers and BackendError. Does nothing if the copy cannot be made or loaded."""
        if self._copy is None and not self._cannot_check:
            try:
                self._copy = open_watched(self._path, self._open_copy)
            except (OSError, ValueError, BackendError, PackageError):
                self._copy = None
            self._cannot_check = self._copy is None
        if self._copy:
            self._copy.run_all(inputs)

    def close(self) -> None:
        if self._copy:
            self._copy.close()
