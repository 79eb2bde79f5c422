"""Looking for NaN where a graph bounds and rounds its values by itself: a copy of it, which also gives what they were before."""

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
"""Environment variable: 1 looks for NaN in every run."""


def wanted_always() -> bool:
    """Whether $IMPASTO_CHECK_VALUES says so. Raises OptionError for anything but 0 and 1."""
    text = os.environ.get(VARIABLE, "").strip()
    if text not in ("", "0", "1"):
        raise OptionError(f"${VARIABLE} is {text!r}; set it to 1 to look for NaN in every run, or to 0")
    return text == "1"


class WatchedGraph(Backend):
    """A graph whose every run is looked at: it gives its values beside the picture, and shows the picture alone."""

    def __init__(self, inner: Backend, infinite: bool) -> None:
        """inner: gives the picture, and what that is made of. infinite: whether these values may be."""
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
    """The graph at `path`, watched; None where it hides nothing. open_copy: loads a graph of two outputs.

    Raises BackendError, PackageError where its weights lie in another file that cannot be read, OSError, and ValueError where the
    file is no ONNX file.
    """
    model = self_contained(path, trust=True)  # what was to be compared has been
    values = unbounded(model)
    if values is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / path.name
        copy.write_bytes(with_output(model, values.tensor))
        inner = open_copy(copy)
    if len(inner.outputs) != 2:  # it had several before, and is none of ours to watch
        inner.close()
        return None
    return WatchedGraph(inner, values.infinite)


class ValuesBeforeRounding(InnerValues):
    """A graph's watched copy, loaded when it is first needed."""

    def __init__(self, path: Path, open_copy: Callable[[Path], Backend]) -> None:
        """open_copy: as for `open_watched`, in the backend that runs the graph at `path`."""
        self._path, self._open_copy = path, open_copy
        self._copy: Backend | None = None
        self._blind = False

    def check(self, inputs: Sequence[np.ndarray]) -> None:
        """Raises NoNumbers, and nothing where the graph cannot be looked into."""
        if self._copy is None and not self._blind:
            try:
                self._copy = open_watched(self._path, self._open_copy)
            except (OSError, ValueError, BackendError, PackageError):
                self._copy = None
            self._blind = self._copy is None
        if self._copy:
            self._copy.run_all(inputs)

    def close(self) -> None:
        if self._copy:
            self._copy.close()
