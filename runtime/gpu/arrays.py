"""Arrays of other libraries on a CUDA device, read through DLPack or `__cuda_array_interface__`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from impasto.errors import KernelError, OptionError, ShapeError
from impasto.kernels import cuda_driver
from impasto.kernels.frames import MATRICES, VALUE_BYTES, Picture

from . import dlpack
from .protocols import CUDA, cuda_interface, is_gpu_array

_RGB_WANTED = "uint8 (H, W, 3) RGB, or uint16 or float32, (H, W, 3) RGB or (H, W) gray"
_NV12_WANTED = "uint8 (H * 3 / 2, W) NV12 with even H and W"


@dataclass(frozen=True)
class GpuView:
    """A picture in another library's memory. Call `release` when no work on it is left."""

    picture: Picture
    writable: bool
    ready: int | None
    """The stream whose work must be done before the picture is used; None if it may be used at once."""
    named: int | None
    """The stream that the other library uses the picture on, if it says so."""
    release: Callable[[], None]


def require_matrix(nv12: str | None) -> None:
    """Raises OptionError for an unknown colour matrix."""
    if nv12 not in (None, *MATRICES):
        raise OptionError(f"nv12 is {nv12!r}; wanted {' or '.join(map(repr, MATRICES))}, or None for RGB")


def view(value: Any, what: str, device: int, entry: int, nv12: str | None) -> GpuView:
    """Read an array.

    what: its name in messages. device: number of the CUDA device on which it must be. entry: a stream of that device; DLPack arrays are
    ready when its work is done. nv12: the colour matrix of NV12 surfaces. An array with three channels is RGB. One of two axes is NV12
    of uint8 (where a third of 1 may follow), and gray of uint16 and float32. Raises ShapeError for an array of another device, dtype or
    layout.
    """
    if not is_gpu_array(value):
        raise ShapeError(f"{what} is a {type(value).__name__} in host memory; wanted an array on CUDA device {device}")
    interface = cuda_interface(value)
    # Version 3 says on which stream the array is used. Below it says nothing of streams, and DLPack is better.
    if interface and (interface.get("version", 0) >= 3 or not hasattr(value, "__dlpack__")):
        return _from_interface(interface, what, device, nv12)
    return _from_dlpack(value, what, device, entry, nv12)


def _from_interface(interface: dict[str, Any], what: str, device: int, nv12: str | None) -> GpuView:
    if interface.get("mask") is not None:
        raise ShapeError(f"{what} has a mask; wanted an array without one")
    pointer, read_only = interface["data"]
    shape = tuple(interface["shape"])
    dtype = np.dtype(interface["typestr"])
    strides = interface.get("strides") or _in_bytes(dlpack.contiguous_strides(shape), dtype.name)
    name = dtype.name if dtype.isnative else f"{dtype.name} of another byte order"
    picture = _picture(what, _Layout(pointer, shape, tuple(strides), name), nv12)
    _require_device(what, pointer, device)
    stream = interface.get("stream") if interface.get("version", 0) >= 3 else None
    return GpuView(picture, not read_only, stream, stream, lambda: None)


def _from_dlpack(value: Any, what: str, device: int, entry: int, nv12: str | None) -> GpuView:
    kind, number = value.__dlpack_device__()
    if kind == CUDA and number != device:  # managed memory is on every device
        raise _elsewhere(what, number, device)
    borrowed = dlpack.read(value.__dlpack__(stream=entry))
    try:
        strides = _in_bytes(borrowed.strides, borrowed.dtype)
        picture = _picture(what, _Layout(borrowed.pointer, borrowed.shape, strides, borrowed.dtype), nv12)
    except ShapeError:
        borrowed.release()
        raise
    return GpuView(picture, True, entry, None, borrowed.release)


class _Layout(NamedTuple):
    """How an array lies in memory."""

    pointer: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    """In bytes."""
    dtype: str


def _in_bytes(strides: tuple[int, ...], dtype: str) -> tuple[int, ...]:
    """Strides in bytes of strides in elements; of a dtype that no picture has, as they are."""
    return tuple(stride * VALUE_BYTES.get(dtype, 1) for stride in strides)


def _picture(what: str, layout: _Layout, nv12: str | None) -> Picture:
    """The picture that lies there. Raises ShapeError."""
    pointer, shape, strides, dtype = layout
    wanted = f"{_RGB_WANTED}, or {_NV12_WANTED}" if nv12 else f"{_RGB_WANTED} (for NV12 surfaces pass nv12='bt709')"
    if dtype not in VALUE_BYTES:
        raise ShapeError(f"{what} is {dtype} {shape}; wanted {wanted}")
    if dtype == "uint8" and len(shape) == 3 and shape[2] == 1:  # a video decoder's one channel
        shape, strides = shape[:2], strides[:2]
    is_rgb = len(shape) == 3 and shape[2] == 3
    is_gray = dtype != "uint8" and len(shape) == 2 and not nv12
    is_nv12 = dtype == "uint8" and bool(nv12) and len(shape) == 2 and shape[0] % 3 == 0 and shape[1] % 2 == 0
    if 0 in shape or not (is_rgb or is_gray or is_nv12):
        raise ShapeError(f"{what} is {dtype} {shape}; wanted {wanted}")
    size = VALUE_BYTES[dtype]
    pixel = size * (3 if is_rgb else 1)
    inner = (pixel, size) if is_rgb else (pixel,)
    if strides[1:] != inner or strides[0] < shape[1] * pixel or pointer % size or strides[0] % size:
        raise ShapeError(
            f"{what} has strides of {strides} bytes; wanted rows whose pixels follow one another, channels last"
            f"{f', at multiples of {size} bytes' if size > 1 else ''}: pass a contiguous copy"
        )
    height = shape[0] * 2 // 3 if is_nv12 else shape[0]
    return Picture(pointer, strides[0], height, shape[1], nv12 if is_nv12 else None, dtype, 3 if is_rgb else 1)


def _require_device(what: str, pointer: int, device: int) -> None:
    try:
        number = cuda_driver.device_of(pointer)
    except KernelError as error:
        raise ShapeError(f"{what} is at an address that CUDA does not know ({error}); was it freed?") from None
    if number != device:
        raise _elsewhere(what, number, device)


def _elsewhere(what: str, number: int, device: int) -> ShapeError:
    return ShapeError(
        f"{what} is on CUDA device {number} and the model on device {device}; copy it there, or load the model with "
        f"device={number}"
    )
