"""The kinds of pictures that a model takes: uint8, uint16 or float32, RGB or gray. Graphs take RGB of uint8 or of float32."""

from __future__ import annotations

import os
import sys

import numpy as np

from impasto.errors import ShapeError
from impasto.images.deep.arrays import as_depth, as_float
from impasto.runtime.gpu.protocols import is_gpu_array

DTYPES = ("uint8", "uint16", "float32")
"""The dtypes of pictures. uint8 is drawn by the graph of bytes, the others by the graph with float ends."""

_WANTED = "uint8 or uint16, or float32 from 0 to 1, (H, W, 3) RGB or (H, W) gray"
_ROWS = 1 << 18
"""Values that are converted at once, which bounds the memory."""


def check_picture(image: object) -> None:
    """Raises ShapeError unless `image` is an array of a dtype and shape that models take."""
    if isinstance(image, np.ndarray) and is_bytes_rgb(image) and image.shape[2] == 3 and image.size:
        return
    if not isinstance(image, np.ndarray):
        raise ShapeError(f"got {type(image).__name__}; wanted a NumPy array, {_WANTED}{_remedy(image)}")
    if image.dtype.name not in DTYPES or not image.dtype.isnative:
        raise ShapeError(f"got {image.dtype} {image.shape}; wanted {_WANTED}{_dtype_remedy(image.dtype)}")
    if image.ndim not in (2, 3) or image.shape[2:] not in ((), (3,)) or 0 in image.shape:
        raise ShapeError(
            f"got {image.dtype} {image.shape}; wanted {_WANTED}, of at least 1 x 1{_shape_remedy(image.shape)}"
        )


def is_bytes_rgb(image: np.ndarray) -> bool:
    """Whether the graph of bytes takes this picture as it is: uint8 (H, W, 3)."""
    return image.dtype == np.uint8 and image.ndim == 3


def to_rgb(image: np.ndarray) -> np.ndarray:
    """The picture as a graph takes it: (H, W, 3) RGB, uint8 of uint8, float32 from 0 to 1 of the others.

    Gray is repeated in the three channels.
    """
    values = image if image.dtype == np.uint8 else as_float(image)
    return values if image.ndim == 3 else np.repeat(values[..., None], 3, axis=2)


def from_rgb(drawn: np.ndarray, out: np.ndarray) -> None:
    """Write a graph's result into `out`, in its dtype, rounded once. Gray is the mean of the three channels.

    drawn: (H, W, 3), uint8 or float32 from 0 to 1. out: uint8 where drawn is, otherwise uint16 or float32; (H, W, 3) or (H, W).
    """
    rows = max(1, _ROWS // (3 * drawn.shape[1]))
    for start in range(0, len(drawn), rows):
        values = drawn[start : start + rows]
        if out.ndim == 2:
            values = values.mean(axis=2, dtype=np.float32)
        out[start : start + rows] = np.rint(values) if drawn.dtype == np.uint8 else as_depth(values, out.dtype)


def check_values(image: np.ndarray) -> None:
    """Raises ShapeError for a float32 picture with a value outside of 0..1, or NaN. Others pass."""
    if image.dtype != np.float32:
        return
    low, high = float(image.min()), float(image.max())
    if low >= 0 and high <= 1:  # False also for NaN
        return
    if np.isnan(low):
        raise ShapeError("the float32 picture holds NaN; wanted values from 0 to 1: fill in what is missing first")
    raise ShapeError(
        f"the float32 picture has values from {low:g} to {high:g}; wanted 0 to 1: scale it, or cut it with np.clip(image, 0, 1)"
    )


def _dtype_remedy(dtype: np.dtype) -> str:
    """How to turn an array of this dtype into one that models take, for an error message."""
    if not dtype.isnative:
        return f", {sys.byteorder} endian as this machine is: convert it with .astype(np.{dtype.name})"
    if dtype.kind == "f":
        return "; scale it to 0..1 and convert it with .astype(np.float32)"
    return "; scale it to 0..255 and convert it with .astype(np.uint8), or to 0..65535 with .astype(np.uint16)"


def _shape_remedy(shape: tuple[int, ...]) -> str:
    if len(shape) == 3 and shape[2] == 1:
        return "; pass gray as image[..., 0]"
    if len(shape) == 3 and shape[2] in (2, 4):
        return "; pass the colours alone, and put the alpha channel back afterwards"
    return ""


def _remedy(image: object) -> str:
    """How to turn a path, a Pillow image or a tensor into an array, for an error message; empty for other objects."""
    if isinstance(image, str | bytes | os.PathLike):
        return '; read the file first, for example with Pillow: np.asarray(Image.open(path).convert("RGB")), or use impasto run'
    if is_gpu_array(image):
        return " in host memory; arrays on a GPU go through model(image) and run_into"
    if type(image).__module__.split(".")[0] == "PIL":
        return '; pass np.asarray(image.convert("RGB"))'
    if type(image).__module__.split(".")[0] == "torch":
        return "; pass tensor.numpy(), of uint8 values 0..255 and channels last"
    return ""
