"""Reflection around a picture, in place: no picture-sized array is allocated."""

from __future__ import annotations

import numpy as np

from impasto.runtime.host_copies import copy_into


def reflect_into(padded: np.ndarray, image: np.ndarray, top: int, left: int) -> None:
    """Copy `image` into `padded` at (top, left) and fill what is left by reflecting it about its edges.

    padded: (H', W', C); image: (H, W, C), same dtype, H' >= top + H, W' >= left + W. The edge pixel is not repeated
    (NumPy's "reflect"), also when the margin is wider than the picture; a side of 1 pixel has no reflection and is
    repeated instead.
    """
    height, width = image.shape[:2]
    rows = padded[top : top + height]
    copy_into(rows[:, left : left + width], image)
    # Columns first, on the picture's own rows; then whole rows, which carries the corners along. Columns are taken by their
    # places: slices of pixels in reverse would be copied three bytes at a time, which is half as fast.
    places = left + _reflected(left, width, padded.shape[1])
    for margin in (slice(0, left), slice(left + width, None)):
        if len(places[margin]):
            rows[:, margin] = rows.take(places[margin], axis=1)
    _fill(padded, top, top + height)


def _reflected(start: int, length: int, whole: int) -> np.ndarray:
    """For each of `whole` places, of which `length` from `start` on are a picture's own, the picture's place that it shows."""
    period = max(2 * (length - 1), 1)
    place = np.abs(np.arange(whole) - start) % period
    nearest: np.ndarray = np.minimum(place, period - place)
    return nearest


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
