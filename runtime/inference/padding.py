"""Pads pictures by reflection, in place: no picture-sized array is allocated."""

from __future__ import annotations

import numpy as np

from impasto.runtime.host_copies import copy_into


def reflect_into(padded: np.ndarray, image: np.ndarray, top: int, left: int) -> None:
    """Copy `image` into `padded` at (top, left), and fill the margins by reflecting it about its edges.

    padded: (H', W', C). image: (H, W, C), of the same dtype, H' >= top + H, W' >= left + W. The edge pixel is not repeated, as in
    NumPy's "reflect". A margin may be wider than the picture. A side of 1 pixel has no reflection, and is repeated instead.
    """
    height, width = image.shape[:2]
    rows = padded[top : top + height]
    copy_into(rows[:, left : left + width], image)
    # Columns first, on the picture's rows; then whole rows, which fills the corners too. Columns are taken by index: a reversed
    # slice of pixels would be copied three bytes at a time, which takes twice as long.
    places = left + _reflected(left, width, padded.shape[1])
    for margin in (slice(0, left), slice(left + width, None)):
        if len(places[margin]):
            rows[:, margin] = rows.take(places[margin], axis=1)
    _fill(padded, top, top + height)


def _reflected(start: int, length: int, whole: int) -> np.ndarray:
    """For each of `whole` padded positions, the position in the picture that it shows. The picture has `length`, from `start` on."""
    period = max(2 * (length - 1), 1)
    place = np.abs(np.arange(whole) - start) % period
    nearest: np.ndarray = np.minimum(place, period - place)
    return nearest


def _fill(buffer: np.ndarray, start: int, stop: int) -> None:
    """Fill the first axis outside [start, stop) by reflecting the rows inside."""
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
