"""Arrays between two depths: of uint8, uint16 and float32 from 0 to 1."""

from __future__ import annotations

import numpy as np

MOST = {"uint8": 255.0, "uint16": 65_535.0, "float32": 1.0}
"""What each dtype calls white."""


def as_float(values: np.ndarray) -> np.ndarray:
    """float32 from 0 to 1."""
    if values.dtype == np.float32:
        return values
    share: np.ndarray = np.divide(values, np.float32(MOST[values.dtype.name]), dtype=np.float32)
    return share


def as_depth(values: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Values of `dtype`, rounded, from values of any of the three."""
    if values.dtype == dtype:
        return values
    scaled = as_float(values) * np.float32(MOST[dtype.name])
    return scaled if dtype == np.float32 else np.rint(scaled.clip(0, MOST[dtype.name])).astype(dtype)


def as_bytes(values: np.ndarray) -> np.ndarray:
    """The picture as screens and pages show it: uint8 (H, W, 3), rounded, gray in three channels."""
    levels = as_depth(values, np.dtype(np.uint8))
    return levels if levels.ndim == 3 else np.repeat(levels[..., None], 3, axis=2)
