"""Looking for NaN where a graph rounds to bytes by itself: a second copy of it, which also gives what it rounds."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from impasto.errors import BackendError, OptionError, PackageError
from impasto.package.onnx_bytes import unrounded, with_output
from impasto.package.shared_weights import self_contained

from .base import Backend, InnerValues, require_numbers

VARIABLE = "IMPASTO_CHECK_VALUES"
"""Environment variable: 1 looks for NaN in every run, which takes twice as long."""


def wanted_always() -> bool:
    """Whether $IMPASTO_CHECK_VALUES says so. Raises OptionError for anything but 0 and 1."""
    text = os.environ.get(VARIABLE, "").strip()
    if text not in ("", "0", "1"):
        raise OptionError(f"${VARIABLE} is {text!r}; set it to 1 to look for NaN in every run, or to 0")
    return text == "1"


class ValuesBeforeRounding(InnerValues):
    """A copy of an ONNX graph with one more output, loaded when it is first needed."""

    def __init__(self, path: Path, open_copy: Callable[[Path], Backend], *, always: bool) -> None:
        """open_copy: loads a graph of two outputs in the backend that runs the one at `path`."""
        self._path = path
        self._open = open_copy
        self._copy: Backend | None = None
        self._blind = False
        self.always = always

    def check(self, inputs: Sequence[np.ndarray]) -> None:
        """Raises NoNumbers, or, where every run is to be looked at and this graph cannot be, BackendError."""
        if self._copy is None and not self._blind:
            self._copy = self._loaded()
        if self._copy is None:
            return
        *_, values = self._copy.run_all(inputs)
        if values.dtype.kind == "f":
            require_numbers(values)

    def close(self) -> None:
        if self._copy:
            self._copy.close()

    def _loaded(self) -> Backend | None:
        """None where the graph rounds nothing, or its copy does not load and only suspicion asked for it."""
        try:
            model = self_contained(self._path)
            tensor = unrounded(model)
            if tensor is None:
                self._blind = True
                return None
            with tempfile.TemporaryDirectory() as folder:
                copy = Path(folder) / self._path.name
                copy.write_bytes(with_output(model, tensor))
                return self._open(copy)
        except (OSError, ValueError, BackendError, PackageError) as error:
            self._blind = True
            if self.always:
                raise BackendError(f"cannot look for NaN in {self._path}: {error}; unset ${VARIABLE}") from None
            return None
