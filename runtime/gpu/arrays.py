"""Arrays of other libraries on a CUDA device, read through DLPack or `__cuda_array_interface__`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from impasto.errors import KernelError, OptionError, ShapeError
from impasto.kernels import cuda_driver
from impasto.kernels.frames import MATRICES, Picture

from . import dlpack
from .protocols import CUDA, cuda_interface, is_gpu_array

_RGB_WANTED = "uint8 (H, W, 3) RGB"
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
    ready when its work is done. nv12: the colour matrix of NV12 surfaces. An array of two axes (or a third of 1) is NV12, with three
    channels it is RGB. Raises ShapeError for an array of another device, dtype or layout.
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
    strides = interface.get("strides") or dlpack.contiguous_strides(shape)  # one byte an element
    picture = _picture(what, (pointer, shape, tuple(strides), np.dtype(interface["typestr"]).name), nv12)
    _require_device(what, pointer, device)
    stream = interface.get("stream") if interface.get("version", 0) >= 3 else None
    return GpuView(picture, not read_only, stream, stream, lambda: None)


def _from_dlpack(value: Any, what: str, device: int, entry: int, nv12: str | None) -> GpuView:
    kind, number = value.__dlpack_device__()
    if kind == CUDA and number != device:  # managed memory is on every device
        raise _elsewhere(what, number, device)
    borrowed = dlpack.read(value.__dlpack__(stream=entry))
    try:
        picture = _picture(what, (borrowed.pointer, borrowed.shape, borrowed.strides, borrowed.dtype), nv12)
    except ShapeError:
        borrowed.release()
        raise
    return GpuView(picture, True, entry, None, borrowed.release)


def _picture(what: str, layout: tuple[int, tuple[int, ...], tuple[int, ...], str], nv12: str | None) -> Picture:
    """The picture at this pointer, of this shape, of these strides in bytes, of this dtype. Raises ShapeError."""
    pointer, shape, strides, dtype = layout
    wanted = f"{_RGB_WANTED} or {_NV12_WANTED}" if nv12 else f"{_RGB_WANTED} (for NV12 surfaces pass nv12='bt709')"
    if dtype != "uint8":
        raise ShapeError(f"{what} is {dtype} {shape}; wanted {wanted}")
    if len(shape) == 3 and shape[2] == 1:  # a video decoder's one channel
        shape, strides = shape[:2], strides[:2]
    is_rgb = len(shape) == 3 and shape[2] == 3
    is_nv12 = bool(nv12) and len(shape) == 2 and shape[0] % 3 == 0 and shape[1] % 2 == 0
    if 0 in shape or not (is_rgb or is_nv12):
        raise ShapeError(f"{what} is uint8 {shape}; wanted {wanted}")
    pixel = 3 if is_rgb else 1
    inner = (pixel, 1) if is_rgb else (1,)
    if strides[1:] != inner or strides[0] < shape[1] * pixel:
        raise ShapeError(
            f"{what} has strides of {strides} bytes; wanted rows whose pixels follow one another, channels last: "
            "pass a contiguous copy"
        )
    return Picture(pointer, strides[0], shape[0] if is_rgb else shape[0] * 2 // 3, shape[1], None if is_rgb else nv12)


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
