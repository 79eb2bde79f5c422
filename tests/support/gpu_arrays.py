"""Arrays as libraries hold them on a GPU, here in this process's own memory, and what the driver does with them."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from impasto.errors import KernelError

from .fake_gpu import FakeDriver


class OnGpu:
    """Memory on device 0 that the stand-in driver knows. What inherits it has one of the interfaces."""

    def __init__(self, driver: FakeDriver, content: np.ndarray, row_bytes: int = 0, offset: int = 0) -> None:
        """row_bytes: from a row to the next, if not packed. offset: of the first byte from an address of 256."""
        packed = content[0].nbytes
        stride = row_bytes or packed
        memory = np.full(len(content) * stride + 512, 99, np.uint8)
        driver.live[memory.ctypes.data] = memory
        start = -memory.ctypes.data % 256 + offset
        rows = memory[start : start + len(content) * stride].reshape(len(content), stride)
        self.values = rows[:, :packed].view(content.dtype).reshape(content.shape)
        self.values[...] = content
        self.streams: list[int | None] = []


class Interface(OnGpu):
    """As CuPy and Numba: version 3 of the CUDA Array Interface."""

    changed: dict[str, Any] = {}  # noqa: RUF012 - replaced, never altered

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        told = self.values.__array_interface__
        own = {"data": (told["data"][0], False), "strides": told["strides"], "stream": None}
        return {"shape": told["shape"], "typestr": told["typestr"], "version": 3, **own, **self.changed}


class Capsule(OnGpu):
    """As torch: DLPack, and an old CUDA Array Interface that tells no stream."""

    device = (2, 0)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.device

    def __dlpack__(self, *, stream: int | None = None) -> Any:
        self.streams.append(stream)
        return self.values.__dlpack__()

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return {"version": 2}  # DLPack is to be read: it orders the streams


class DriverCalls:
    """What `kernels.cuda_driver` was asked for."""

    def __init__(self, driver: FakeDriver) -> None:
        self.waits: list[tuple[int, int]] = []
        """(running, waiting), in order."""
        self.host_waits: list[int] = []
        self.uploads: list[tuple[int, int]] = []
        """Bytes and stream of each copy to the device."""
        self.streams: set[int] = set()
        """Those that are not destroyed."""
        self._driver = driver
        self._taken: dict[int, Any] = {}

    @contextmanager
    def primary_context(self, device: int) -> Iterator[None]:
        self._driver.stack.append(device)
        try:
            yield
        finally:
            self._driver.stack.pop()

    def allocate(self, nbytes: int) -> int:
        memory = self._driver.mem_alloc(nbytes)
        self._taken[int(memory)] = memory
        return int(memory)

    def free(self, pointer: int) -> None:
        self._taken.pop(pointer).free()

    def device_of(self, pointer: int) -> int:
        try:
            self._driver.memory(pointer, 1)
        except AssertionError:
            raise KernelError("cuPointerGetAttribute failed with error 1: invalid argument.") from None
        return 0

    def copy_to_host(self, address: int, pointer: int, nbytes: int, stream: int) -> None:
        ctypes.memmove(address, pointer, nbytes)
        self.host_waits.append(stream)

    def copy_to_device(self, pointer: int, address: int, nbytes: int, stream: int) -> None:
        ctypes.memmove(pointer, address, nbytes)
        self.uploads.append((nbytes, stream))

    def new_stream(self) -> int:
        self.streams.add(made := 100 + len(self.streams))
        return made

    def destroy_stream(self, stream: int) -> None:
        self.streams.remove(stream)

    def synchronize(self, stream: int) -> None:
        self.host_waits.append(stream)

    def wait_for(self, running: int, waiting: int) -> None:
        self.waits.append((running, waiting))

    @property
    def allocated(self) -> int:
        """Blocks that are not freed."""
        return len(self._taken)
