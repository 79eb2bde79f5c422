"""The stand-in driver as the checks see it: what to fail, what is left, and work of theirs on its streams."""

from __future__ import annotations

import ctypes
import itertools
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np

from impasto.kernels import cuda_driver, launch


class StandIn:
    """Takes FakeDriver's place under FakeTensorRT and FakeModule: `memory` and `begin`, late."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL("libcuda.so.1")
        self._library.stand_in_report.restype = ctypes.c_char_p
        self._library.stand_in_memory.restype = ctypes.c_void_p
        self._library.stand_in_depth.restype = ctypes.c_size_t
        self._works: dict[int, weakref.WeakMethod[Callable[[], None]]] = {}
        self._tokens = itertools.count(1)
        self._run = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(self._do)
        self.wrong: list[str] = []
        """What went wrong in work on streams, where nobody catches exceptions."""

    def fail(self, call: str, n: int = 1, code: int = 719, lasting: bool = False) -> None:
        """The n-th call from now fails once, or it and all that follow. code: CUresult; 719 is "unspecified launch failure"."""
        self._library.stand_in_fail(call.encode(), n, code, lasting)

    def heal(self) -> None:
        """Nothing fails any more."""
        self._library.stand_in_heal()

    def calls(self, call: str) -> int:
        """How often it was called so far."""
        return self._library.stand_in_calls(call.encode())

    def depth(self) -> int:
        """Contexts on this thread's stack."""
        return self._library.stand_in_depth()

    def be_integrated(self, yes: bool) -> None:
        self._library.stand_in_integrated(yes)

    def report(self) -> list[str]:
        """Faults since the last report, and what is not freed."""
        wrong, self.wrong = self.wrong, []
        return [*wrong, *self._library.stand_in_report().decode().splitlines()]

    def memory(self, pointer: int, nbytes: int) -> np.ndarray:
        """The bytes behind a device address; a fault, and zeros, where that is no device memory."""
        address = self._library.stand_in_memory(ctypes.c_uint64(pointer), ctypes.c_size_t(nbytes))
        if not address:
            return np.zeros(nbytes, np.uint8)
        return np.ctypeslib.as_array(ctypes.cast(address, ctypes.POINTER(ctypes.c_uint8)), (nbytes,))

    def begin(self, stream: int, work: Callable[[], None]) -> None:
        """Put a method on a stream, also while that is captured. Its object must live until it has run, as vendors' do."""
        token = next(self._tokens)
        self._works[token] = weakref.WeakMethod(work)
        cuda_driver.call("cuLaunchHostFunc", ctypes.c_void_p(stream), self._run, ctypes.c_void_p(token))

    def run_kernels(self, compute: Callable[[str, int, Any], None]) -> None:
        """Kernels do this from now on: name, blocks, parameters as launched."""

        def run(name: bytes, blocks: int, parameters: int) -> None:
            try:
                compute(name.decode(), blocks, launch._Group.from_address(parameters))
            except Exception as error:
                self.wrong.append(f"in a kernel: {error!r}")

        self._kernel = ctypes.CFUNCTYPE(None, ctypes.c_char_p, ctypes.c_uint, ctypes.c_void_p)(run)
        self._library.stand_in_kernels(self._kernel, ctypes.c_size_t(ctypes.sizeof(launch._Group)))

    def _do(self, token: int) -> None:
        work = self._works[token]()
        if work is None:
            self.wrong.append("an execution context was freed before its work was done")
            return
        try:
            work()
        except Exception as error:
            self.wrong.append(f"in an engine: {error!r}")
