"""Arrays of this process as the kernels of frames.cu take pictures: the emulated GPU's memory is this process's own."""

from __future__ import annotations

import numpy as np

from impasto.kernels import frames


def rgb_picture(array: np.ndarray) -> frames.Picture:
    """An array, uint8 (H, W, 3) with any distance between rows, as the kernels take it."""
    return frames.Picture(array.ctypes.data, array.strides[0], array.shape[0], array.shape[1])


def deep_picture(array: np.ndarray) -> frames.Picture:
    """An array, uint16 or float32, (H, W, 3) or (H, W) with any distance between rows, as the kernels take it."""
    height, width, channels = (*array.shape, 1)[:3]
    return frames.Picture(array.ctypes.data, array.strides[0], height, width, None, array.dtype.name, channels)


def nv12_picture(surface: np.ndarray, matrix: str) -> frames.Picture:
    """An NV12 surface, uint8 (H * 3 / 2, W) with any distance between rows, as the kernels take it."""
    return frames.Picture(surface.ctypes.data, surface.strides[0], surface.shape[0] * 2 // 3, surface.shape[1], matrix)
