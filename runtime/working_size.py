"""Drawing at the size that a network's strokes were made for: the picture scaled down to it, the drawing scaled back up."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

_ROWS = 16
"""Rows that one product makes. Each is made of a few of the source's, which its neighbours share."""


class Scaling:
    """From one picture size to the working size and back, with the buffers that both need. One caller at a time.

    Both are sums of rows, then of columns, as products with matrices that are zero but for a band.
    """

    def __init__(self, height: int, width: int, longest: int) -> None:
        """height, width: of the pictures, of which the longer is above `longest`, the working size in pixels."""
        share = longest / max(height, width)
        small_height, small_width = (max(1, round(side * share)) for side in (height, width))
        self._down = _bands(_mean_weights(height, small_height)), _bands(_mean_weights(width, small_width))
        self._up = _bands(_cubic_weights(small_height, height)), _bands(_cubic_weights(small_width, width))
        self.small = np.empty((small_height, small_width, 3), np.uint8)
        """What `shrink` makes."""
        self.drawn = np.empty_like(self.small)
        """Room for what the network makes of it; `enlarge` reads it."""
        # The same picture with rows first and with columns first, for one product along each.
        self._rows = np.empty((small_height, width, 3), np.float32)
        self._wide = np.empty((width, small_height, 3), np.float32)
        self._narrow = np.empty((small_width, small_height, 3), np.float32)

    @property
    def nbytes(self) -> int:
        """What the buffers take."""
        return sum(value.nbytes for value in vars(self).values() if isinstance(value, np.ndarray))

    def shrink(self, image: np.ndarray) -> np.ndarray:
        """`small`, of which each pixel is the mean of its part of the picture. image: uint8 (H, W, 3)."""
        rows, columns = self._down
        _multiply(rows, image, self._rows)
        self._wide[...] = self._rows.transpose(1, 0, 2)
        _multiply(columns, self._wide, self._narrow)
        np.rint(self._narrow, out=self._narrow)
        self.small[...] = self._narrow.transpose(1, 0, 2)
        return self.small

    def enlarge(self, out: np.ndarray) -> None:
        """`drawn` at the pictures' size, by cubic convolution: Keys 1981, a = -1/2. out: uint8 (H, W, 3)."""
        rows, columns = self._up
        self._narrow[...] = self.drawn.transpose(1, 0, 2)
        _multiply(columns, self._narrow, self._wide)
        self._rows[...] = self._wide.transpose(1, 0, 2)
        _multiply(rows, self._rows, out)


@dataclass(frozen=True)
class _Band:
    """Rows of a result, and the rows that they are sums of."""

    made: slice
    read: slice
    weights: np.ndarray
    """float32 (rows made, rows read)."""


def _multiply(bands: list[_Band], source: np.ndarray, result: np.ndarray) -> None:
    """Sums of rows. source: (H, W, 3), uint8 or float32; result: (H', W, 3), of either type, rounded and clipped where it is uint8."""
    flat, into = source.reshape(len(source), -1), result.reshape(len(result), -1)
    for band in bands:
        made = band.weights @ flat[band.read].astype(np.float32, copy=False)
        if result.dtype == np.uint8:
            np.clip(np.rint(made, out=made), 0, 255, out=made)
        into[band.made] = made


def _bands(weights: np.ndarray) -> list[_Band]:
    """What is not zero of a matrix (rows made, rows read), a few rows at a time."""
    found = []
    for start in range(0, len(weights), _ROWS):
        block = weights[start : start + _ROWS]
        (used,) = block.any(0).nonzero()
        read = slice(int(used[0]), int(used[-1]) + 1)
        found.append(_Band(slice(start, start + len(block)), read, np.ascontiguousarray(block[:, read], np.float32)))
    return found


def _mean_weights(source: int, result: int) -> np.ndarray:
    """Each of `result` pixels in a row is the mean of its part of `source`: float32 (result, source)."""
    ends = np.arange(result + 1) * (source / result)
    places = np.arange(source)
    shared = np.minimum(ends[1:, None], places + 1) - np.maximum(ends[:-1, None], places)
    return (shared.clip(0) * (result / source)).astype(np.float32)


def _cubic_weights(source: int, result: int) -> np.ndarray:
    """Each of `result` pixels in a row from the four of `source` around its middle; those at the ends are repeated: float32
    (result, source)."""
    middles = (np.arange(result) + 0.5) * (source / result) - 0.5
    first = np.floor(middles).astype(np.intp) - 1
    weights = np.zeros((result, source), np.float32)
    for tap in range(4):
        distance = np.abs(middles - (first + tap))
        near = (1.5 * distance - 2.5) * distance**2 + 1
        far = ((-0.5 * distance + 2.5) * distance - 4) * distance + 2
        np.add.at(weights, (np.arange(result), (first + tap).clip(0, source - 1)), np.where(distance < 1, near, far))
    return weights
