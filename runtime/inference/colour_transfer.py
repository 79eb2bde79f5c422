"""Gives a drawing the photo's colours, for `Model.keep_colors`."""

from __future__ import annotations

import numpy as np

_VALUES = 1 << 18
"""Values of the picture that are computed at once, which bounds the memory."""


def keep_colours(photo: np.ndarray, drawing: np.ndarray) -> None:
    """Give the drawing the photo's colours, in place: photo + (Y of the drawing - Y of the photo), clipped to 0..255.

    The luminance, and with it every stroke, is the drawing's; the chroma is the photo's. photo, drawing: uint8 (H, W, 3).
    """
    rows = max(1, _VALUES // (3 * photo.shape[1]))
    for start in range(0, len(photo), rows):
        given, strokes = photo[start : start + rows], drawing[start : start + rows]
        brighter = luma(strokes).astype(np.int16) - luma(given).astype(np.int16)
        kept = given + brighter[..., None]
        strokes[...] = np.clip(kept, 0, 255, out=kept)


def luma(picture: np.ndarray) -> np.ndarray:
    """Luminance Y of ITU-R BT.601, rounded: uint8 (H, W, 3) to uint16 (H, W), 0 to 255."""
    total = np.full(picture.shape[:2], 128, np.uint16)
    for channel, weight in enumerate((77, 150, 29)):  # of 256
        total += np.multiply(picture[..., channel], weight, dtype=np.uint16)
    return total >> 8
