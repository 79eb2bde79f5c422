"""A painting's strokes in a photo's colours."""

from __future__ import annotations

import numpy as np

_LUMA = (77, 150, 29)
"""Of 256: how bright red, green and blue are, ITU-R BT.601."""

_VALUES = 1 << 18
"""Of the pictures, that are worked on at once, so that little memory is needed."""


def keep_colours(photo: np.ndarray, drawing: np.ndarray) -> None:
    """Give the drawing the photo's colours, in place: photo + (Y of the drawing - Y of the photo), clipped, in whole numbers.

    What both have of colour stays the photo's; how bright a place is, and so every stroke, the drawing's. Both: uint8 (H, W, 3).
    """
    rows = max(1, _VALUES // (3 * photo.shape[1]))
    for start in range(0, len(photo), rows):
        colours, strokes = (picture[start : start + rows].astype(np.int32) for picture in (photo, drawing))
        strokes -= colours
        red, green, blue = (strokes[..., channel] * weight for channel, weight in enumerate(_LUMA))
        red += green
        red += blue
        red += 128
        red >>= 8
        colours += red[..., None]
        drawing[start : start + rows] = np.clip(colours, 0, 255, out=colours)
