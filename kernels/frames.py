"""Launches of the kernels of frames.cu: a caller's picture on the GPU becomes a graph's input, and a graph's output a picture.

Pictures are RGB, or NV12: what video decoders give and encoders take; of uint16 and float32 they are RGB or gray. The caller brings a
current CUDA context and a stream, and keeps pointers valid until the stream has passed the launch. All functions raise KernelError.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from impasto.errors import KernelError

from . import binaries, cuda_driver

_THREADS = 256
_FRACTION = 1 << 16
"""Coefficients are integers of 16 fractional bits."""
_LUMA_WEIGHTS = {"bt601": (0.299, 0.587, 0.114), "bt709": (0.2126, 0.7152, 0.0722)}
"""Shares of red, green and blue in luma (ITU-R BT.601 and BT.709)."""
VALUE_BYTES = {"uint8": 1, "uint16": 2, "float32": 4}
"""The dtypes of pictures, and the bytes of a value."""
MATRICES = tuple(_LUMA_WEIGHTS)
"""The names of the colour matrices that NV12 may have."""


class _Frame(ctypes.Structure):
    """`Frame` of frames.cu, field by field."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("pixels", "chroma", "packed")),
        *((name, ctypes.c_longlong) for name in ("pixel_stride", "chroma_stride", "packed_stride")),
        *((name, ctypes.c_int) for name in ("height", "width", "packed_height", "packed_width", "top", "left")),
        *((name, ctypes.c_int) for name in ("luma_gain", "red_of_cr", "green_of_cb", "green_of_cr", "blue_of_cb")),
        *((name, ctypes.c_int * 3) for name in ("luma_of", "cb_of", "cr_of")),
        *((name, ctypes.c_int) for name in ("bits", "channels")),
    )


def run_here() -> bool:
    """Whether there are kernels for the GPU of the current context. Never raises."""
    try:
        return _has_module(cuda_driver.current_context())
    except KernelError:
        return False


@lru_cache
def _has_module(context: int) -> bool:
    try:
        _module(context)
    except KernelError:
        return False
    return True


@dataclass(frozen=True)
class Picture:
    """A picture in device memory: uint8 RGB, or NV12 of limited range; or RGB or gray of uint16 or float32.

    Rows of the last two begin at multiples of the value's size.
    """

    pointer: int
    """Address of the first pixel, or of the first luma value."""
    row_bytes: int
    """From a row to the next."""
    height: int
    width: int
    """In pixels; both are even for NV12."""
    matrix: str | None = None
    """For NV12, its colour matrix, one of MATRICES. The chroma rows follow the luma rows, in the same row_bytes. None for RGB."""
    dtype: str = "uint8"
    """One of VALUE_BYTES; float32 is from 0 to 1."""
    channels: int = 3
    """3 of RGB; 1 of gray, which uint8 has not. Of NV12 without a meaning."""

    @property
    def pixel_bytes(self) -> int:
        """From a pixel of RGB or gray to the next in its row."""
        return self.channels * VALUE_BYTES[self.dtype]

    @property
    def nbytes(self) -> int:
        """From the first byte to behind the last row."""
        return self.row_bytes * (self.height * 3 // 2 if self.matrix else self.height)


def read_window(picture: Picture, window: Picture, top: int, left: int, stream: int) -> None:
    """Fill the window, RGB, with the picture from (top, left) on, which may be negative: the picture is reflected at its edges.

    The window is uint8 for a picture of uint8, otherwise float32.
    """
    if window.dtype == "float32":
        _launch("deep_in", _frame(picture, window, top, left), window.height * window.width * 3, stream)
        return
    quads = -(-window.width // 4)
    _launch("frame_in", _frame(picture, window, top, left), window.height * quads, stream)


def write_part(part: Picture, picture: Picture, top: int, left: int, stream: int) -> None:
    """Write the part, RGB, into the picture at (top, left). For NV12 top, left and the part's sides are even.

    The part is uint8 for a picture of uint8, otherwise float32. uint16 is rounded and clipped; gray is the mean of the channels.
    """
    if part.dtype == "float32":
        _launch("deep_out", _frame(picture, part, top, left), part.height * part.width * picture.channels, stream)
        return
    threads = part.height * part.width // 4 if picture.matrix else part.height * -(-part.width // 4)
    _launch("frame_out", _frame(picture, part, top, left), threads, stream)


def write_thumbnail(picture: Picture, small: Picture, stream: int) -> None:
    """Fill `small`, square RGB of uint8, with `impasto.images.thumbnail` of the picture."""
    if picture.dtype == "uint8":
        _launch("frame_thumbnail", _frame(picture, small, 0, 0), small.height * small.width, stream)
    else:
        _launch("deep_thumbnail", _frame(picture, small, 0, 0), small.height * small.width * 3, stream)


def _frame(picture: Picture, packed: Picture, top: int, left: int) -> _Frame:
    frame = _Frame(
        pixels=picture.pointer,
        packed=packed.pointer,
        pixel_stride=picture.row_bytes,
        packed_stride=packed.row_bytes,
        height=picture.height,
        width=picture.width,
        packed_height=packed.height,
        packed_width=packed.width,
        top=top,
        left=left,
        bits=8 * VALUE_BYTES[picture.dtype],
        channels=picture.channels,
    )
    if picture.matrix:
        frame.chroma = picture.pointer + picture.height * picture.row_bytes
        frame.chroma_stride = picture.row_bytes
        for name, value in _coefficients(picture.matrix).items():
            setattr(frame, name, value)
    return frame


@lru_cache
def _coefficients(matrix: str) -> dict[str, int | ctypes.Array[ctypes.c_int]]:
    """The fields of `_Frame` that convert between RGB and Y'CbCr of limited range (BT.709, item 3.3 and 4)."""
    red, green, blue = _LUMA_WEIGHTS[matrix]
    luma, chroma = 219 / 255, 224 / 255 / 2
    cb_of = [-red / (1 - blue) * chroma, -green / (1 - blue) * chroma, chroma]
    cr_of = [chroma, -green / (1 - red) * chroma, -blue / (1 - red) * chroma]
    return {
        "luma_gain": _fixed(1 / luma),
        "red_of_cr": _fixed((1 - red) / chroma),
        "green_of_cb": _fixed(-(1 - blue) * blue / green / chroma),
        "green_of_cr": _fixed(-(1 - red) * red / green / chroma),
        "blue_of_cb": _fixed((1 - blue) / chroma),
        "luma_of": _summing_to([value * luma for value in (red, green, blue)], luma),
        "cb_of": _summing_to(cb_of, 0),
        "cr_of": _summing_to(cr_of, 0),
    }


def _fixed(value: float) -> int:
    return round(value * _FRACTION)


def _summing_to(weights: Sequence[float], total: float) -> ctypes.Array[ctypes.c_int]:
    """Weights of red, green and blue whose rounded sum is exact, so that gray stays gray and white is 235."""
    red, blue = _fixed(weights[0]), _fixed(weights[2])
    return (ctypes.c_int * 3)(red, _fixed(total) - red - blue, blue)


def _launch(name: str, frame: _Frame, threads: int, stream: int) -> None:
    kernel = _kernel(cuda_driver.current_context(), name)
    cuda_driver.launch(kernel, -(-threads // _THREADS), _THREADS, 0, [frame], stream)


@lru_cache
def _kernel(context: int, name: str) -> ctypes.c_void_p:
    return cuda_driver.kernel(_module(context), name, 0)


@lru_cache
def _module(context: int) -> ctypes.c_void_p:
    """The kernels in this context, which is current."""
    _, image = binaries.for_gpu(cuda_driver.compute_capability(), binaries.FRAMES_FILE)
    return cuda_driver.load_module(image)
