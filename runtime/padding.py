"""Reflection around a picture, in place: no picture-sized array is allocated."""

from __future__ import annotations

import numpy as np


def reflect_into(padded: np.ndarray, image: np.ndarray, top: int, left: int) -> None:
    """Copy `image` into `padded` at (top, left) and fill what is left by reflecting it about its edges.

    padded: (H', W', C); image: (H, W, C), same dtype, H' >= top + H, W' >= left + W. The edge pixel is not repeated
    (NumPy's "reflect"), also when the margin is wider than the picture; a side of 1 pixel has no reflection and is
    repeated instead.
    """
    height, width = image.shape[:2]
    padded[top : top + height, left : left + width] = image
    # Columns first, on the picture's own rows; then whole rows, which carries the corners along.
    _fill(padded[top : top + height].swapaxes(0, 1), left, left + width)
    _fill(padded, top, top + height)


def _fill(buffer: np.ndarray, start: int, stop: int) -> None:
    """Grow the valid part [start, stop) of the first axis to the whole axis, by reflecting what is there."""
    length = len(buffer)
    if stop - start == 1:
        buffer[:start] = buffer[start]
        buffer[stop:] = buffer[start]
        return
    period = stop - start - 1
    while start > 0:
        step = min(start, period)
        buffer[start - step : start] = buffer[start + 1 : start + step + 1][::-1]
        start -= step
    end = stop
    while end < length:
        step = min(length - end, period)
        buffer[end : end + step] = buffer[end - step - 1 : end - 1][::-1]
        end += step
