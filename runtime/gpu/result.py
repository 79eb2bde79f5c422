"""Pictures that a model gives on the GPU, for other libraries to read."""

from __future__ import annotations

import weakref
from contextlib import suppress
from math import prod
from typing import Any

import numpy as np

from impasto.errors import KernelError
from impasto.kernels import cuda_driver

from . import dlpack
from .protocols import CUDA


class GpuArray:
    """A picture in the memory of a CUDA device: (H, W, 3) RGB of uint8, uint16 or float32, (H, W) gray of the last two, or
    (H * 3 / 2, W) NV12 of uint8. C-contiguous.

    Other libraries read it without a copy: `torch.from_dlpack(array)`, `cupy.from_dlpack(array)`, `cupy.asarray(array)`. They may use
    it as long as they like: its memory is freed when nobody holds it any more. Freeing waits for work of the GPU.
    """

    def __init__(self, shape: tuple[int, ...], dtype: str, device: int) -> None:
        """Get it from a model. The device's primary context must be current. Raises KernelError."""
        self.shape = shape
        self.dtype = np.dtype(dtype)
        self.device = device
        """Number of the CUDA device."""
        self.stream: int | None = None
        """The stream whose work must be done before the picture is there; None if it is there."""
        self.pointer = cuda_driver.allocate(max(1, prod(shape) * self.dtype.itemsize))
        """Device address of the first value."""
        finalizer = weakref.finalize(self, _free, device, self.pointer)
        finalizer.atexit = False  # the process's memory ends with it

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        """CUDA Array Interface, version 3."""
        return {
            "shape": self.shape,
            "typestr": self.dtype.str,
            "data": (self.pointer, False),
            "strides": None,
            "version": 3,
            "stream": self.stream,
        }

    def __dlpack_device__(self) -> tuple[int, int]:
        """DLPack's type and number of the device."""
        return CUDA, self.device

    def __dlpack__(
        self,
        *,
        stream: int | None = None,
        max_version: tuple[int, int] | None = None,
        dl_device: tuple[int, int] | None = None,
        copy: bool | None = None,
    ) -> Any:
        """A DLPack capsule (Python array API standard, `__dlpack__`).

        stream: the reader's, which then waits for the picture; None is the legacy default stream, -1 waits for nothing.
        max_version: is not needed, the capsule is of the form that every version reads. Raises BufferError for a copy or another
        device.
        """
        if copy or (dl_device is not None and tuple(dl_device) != self.__dlpack_device__()):
            raise BufferError("a GpuArray gives its own memory, on its own device; copy it afterwards")
        if stream == 0:
            raise BufferError(
                "stream 0 is ambiguous in DLPack; pass 1 for the legacy default stream, 2 for the per-thread one"
            )
        if self.stream is not None and stream != -1:
            with cuda_driver.primary_context(self.device):
                cuda_driver.wait_for(self.stream, 1 if stream is None else stream)
        return dlpack.capsule(self, self.pointer, self.shape, self.dtype.name, self.__dlpack_device__())

    def __repr__(self) -> str:
        return f"<impasto GpuArray, {self.dtype} {self.shape}, on CUDA device {self.device}>"


def _free(device: int, pointer: int) -> None:
    with suppress(KernelError), cuda_driver.primary_context(device):  # a lost device has no memory to free
        cuda_driver.free(pointer)
