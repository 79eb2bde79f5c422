"""Drawing at the size that a network's strokes were made for: the picture scaled down to it, the drawing scaled back up."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

_ROWS = 4
"""Rows that are made together, of a few of the source's, which they share."""

_PRODUCT = 1 << 17
"""Multiplications of one product. From twice as many on, OpenBLAS has threads share it: they wait for one another in busy loops, and
beside other work a picture took seconds."""


class Scaling:
    """From one picture size to the working size and back, with the buffers that both need. One caller at a time.

    Both are sums of rows and sums of columns, which are the rows of the picture on its side.
    """

    def __init__(self, height: int, width: int, longest: int) -> None:
        """height, width: of the pictures, of which the longer is above `longest`, the working size in pixels."""
        small_height, small_width = drawn_size(height, width, longest)
        self._down = _means(height, small_height), _means(width, small_width)
        self._up = _cubics(small_height, height), _cubics(small_width, width)
        self.small = np.empty((small_height, small_width, 3), np.uint8)
        """What `shrink` makes."""
        self.drawn = np.empty_like(self.small)
        """Room for what the network makes of it; `enlarge` reads it."""
        # Both lie on their side: columns first.
        self._wide = np.empty((width, small_height, 3), np.float32)
        self._narrow = np.empty((small_width, small_height, 3), np.float32)

    @property
    def nbytes(self) -> int:
        """What the buffers take."""
        return sum(value.nbytes for value in vars(self).values() if isinstance(value, np.ndarray))

    def shrink(self, image: np.ndarray) -> np.ndarray:
        """`small`, of which each pixel is the mean of its part of the picture. image: uint8 (H, W, 3)."""
        rows, columns = self._down
        _add_up(rows, image, _turned(self._wide))
        _add_up(columns, self._wide, self._narrow)
        np.rint(self._narrow, out=self._narrow)
        self.small[...] = _turned(self._narrow)
        return self.small

    def enlarge(self, out: np.ndarray) -> None:
        """`drawn` at the pictures' size, by cubic convolution: Keys 1981, a = -1/2. out: uint8 (H, W, 3)."""
        rows, columns = self._up
        self._narrow[...] = _turned(self.drawn)
        _add_up(columns, self._narrow, self._wide)
        _add_up(rows, _turned(self._wide), out)


def drawn_size(height: int, width: int, longest: int | None) -> tuple[int, int]:
    """Height and width at which a picture of height x width is drawn: its own, unless the longer is above `longest`."""
    if longest is None or max(height, width) <= longest:
        return height, width
    share = longest / max(height, width)
    return max(1, round(height * share)), max(1, round(width * share))


@dataclass(frozen=True)
class _Band:
    """Some rows of a result, as sums of rows of a source."""

    made: slice
    read: slice
    weights: np.ndarray
    """float32 (rows made, rows read)."""


def _add_up(bands: list[_Band], source: np.ndarray, result: np.ndarray) -> None:
    """source: (H, W, 3), uint8 or float32; result: (H', W, 3), of either type, rounded and clipped where it is uint8."""
    made = np.empty((_ROWS, source.shape[1] * 3), np.float32)
    for band in bands:
        rows = np.ascontiguousarray(source[band.read], np.float32).reshape(-1, made.shape[1])
        sums = made[: len(band.weights)]
        step = max(1, _PRODUCT // band.weights.size)
        for start in range(0, made.shape[1], step):
            np.matmul(band.weights, rows[:, start : start + step], out=sums[:, start : start + step])
        if result.dtype == np.uint8:
            np.clip(np.rint(sums, out=sums), 0, 255, out=sums)
        result[band.made] = sums.reshape(-1, *source.shape[1:])


def _turned(picture: np.ndarray) -> np.ndarray:
    """(H, W, 3) to (W, H, 3), the same memory."""
    turned: np.ndarray = picture.transpose(1, 0, 2)
    return turned


def _means(source: int, result: int) -> list[_Band]:
    """Each of `result` pixels in a row is the mean of its part of `source`."""
    ends = np.arange(result + 1) * (source / result)
    taps = np.arange(int(np.ceil(source / result)) + 1)
    places = np.floor(ends[:-1, None]).astype(np.intp) + taps
    shared = np.minimum(ends[1:, None], places + 1) - np.maximum(ends[:-1, None], places)
    return _bands(places.clip(0, source - 1), shared.clip(0) * (result / source))


def _cubics(source: int, result: int) -> list[_Band]:
    """Each of `result` pixels in a row from the four of `source` around its middle; those at the ends are repeated."""
    middles = (np.arange(result)[:, None] + 0.5) * (source / result) - 0.5
    places = np.floor(middles).astype(np.intp) + np.arange(-1, 3)
    distance = np.abs(middles - places)
    near = (1.5 * distance - 2.5) * distance**2 + 1
    far = ((-0.5 * distance + 2.5) * distance - 4) * distance + 2
    return _bands(places.clip(0, source - 1), np.where(distance < 1, near, far))


def _bands(places: np.ndarray, weights: np.ndarray) -> list[_Band]:
    """places, weights: (rows made, taps), which rows are read for each, and how much of them."""
    found = []
    for start in range(0, len(places), _ROWS):
        taken, shares = places[start : start + _ROWS], weights[start : start + _ROWS]
        first = int(taken.min())
        block = np.zeros((len(taken), int(taken.max()) + 1 - first), np.float32)
        np.add.at(block, (np.arange(len(taken))[:, None], taken - first), shares.astype(np.float32))
        found.append(_Band(slice(start, start + len(taken)), slice(first, first + block.shape[1]), block))
    return found
