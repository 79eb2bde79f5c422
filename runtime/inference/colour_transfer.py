"""Gives a drawing the photo's colours, for `Model.keep_colors`."""

from __future__ import annotations

import numpy as np

_VALUES = 1 << 18
"""Values of the picture that are computed at once, which bounds the memory."""


_WEIGHTS = (77, 150, 29)
"""Weights of red, green and blue in the luminance, in shares of 256."""


def keep_colours(photo: np.ndarray, drawing: np.ndarray) -> None:
    """Give the drawing the photo's colours, in place: photo + (Y of the drawing - Y of the photo), clipped to the range.

    The luminance, and with it every stroke, is the drawing's; the chroma is the photo's. photo, drawing: (H, W, 3), both uint8, or both
    float32 from 0 to 1.
    """
    difference, most = (np.int16, 255) if photo.dtype == np.uint8 else (np.float32, 1)
    rows = max(1, _VALUES // (3 * photo.shape[1]))
    for start in range(0, len(photo), rows):
        given, strokes = photo[start : start + rows], drawing[start : start + rows]
        brighter = luma(strokes).astype(difference) - luma(given).astype(difference)
        kept = given + brighter[..., None]
        strokes[...] = np.clip(kept, 0, most, out=kept)


def luma(picture: np.ndarray) -> np.ndarray:
    """Luminance Y of ITU-R BT.601: uint8 (H, W, 3) to uint16 (H, W), rounded; float32 to float32, not rounded."""
    if picture.dtype != np.uint8:
        weighted: np.ndarray = np.matmul(picture, np.array(_WEIGHTS, np.float32) / 256)
        return weighted
    total = np.full(picture.shape[:2], 128, np.uint16)
    for channel, weight in enumerate(_WEIGHTS):
        total += np.multiply(picture[..., channel], weight, dtype=np.uint16)
    return total >> 8
