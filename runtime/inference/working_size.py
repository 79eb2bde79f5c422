"""The working size: a larger picture is scaled down to it, drawn, and the drawing is scaled up to the picture's size."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

_ROWS = 4
"""Rows of the result that one matrix product computes. They share most of their source rows."""

_PRODUCT = 1 << 17
"""Largest number of multiplications in one matrix product. From twice as many on, OpenBLAS uses several threads, which wait for one
another in busy loops: on a busy machine one picture took seconds."""


_BYTES = np.dtype(np.uint8)


class Scaling:
    """Scales pictures of one size to the working size and drawings back, in buffers of its own. Not thread-safe.

    Both directions are weighted sums of rows, then of columns. Columns are the rows of the transposed picture.
    """

    def __init__(self, height: int, width: int, longest: int, dtype: np.dtype = _BYTES) -> None:
        """height, width: of the pictures, in pixels. longest: the working size, in pixels; one of the sides is larger.

        dtype: of the pictures: uint8, or float32 from 0 to 1.
        """
        small_height, small_width = drawn_size(height, width, longest)
        self._down = _means(height, small_height), _means(width, small_width)
        self._up = _cubics(small_height, height), _cubics(small_width, width)
        self.small = np.empty((small_height, small_width, 3), dtype)
        """The scaled-down picture that `shrink` writes."""
        self.drawn = np.empty_like(self.small)
        """The network's drawing of `small`. The caller writes it, and `enlarge` reads it."""
        # These two are transposed: columns first.
        self._wide = np.empty((width, small_height, 3), np.float32)
        self._narrow = np.empty((small_width, small_height, 3), np.float32)

    @property
    def nbytes(self) -> int:
        """Size of the buffers, in bytes."""
        return sum(value.nbytes for value in vars(self).values() if isinstance(value, np.ndarray))

    def shrink(self, image: np.ndarray) -> np.ndarray:
        """Fill and return `small`: each of its pixels is the mean of an area of the picture. image: (H, W, 3)."""
        rows, columns = self._down
        _weighted_sums(rows, image, _transposed(self._wide))
        _weighted_sums(columns, self._wide, self._narrow)
        if self.small.dtype == np.uint8:
            np.rint(self._narrow, out=self._narrow)
        else:
            np.clip(self._narrow, 0, 1, out=self._narrow)  # weights of float32 do not sum up to exactly 1
        self.small[...] = _transposed(self._narrow)
        return self.small

    def enlarge(self, out: np.ndarray) -> None:
        """Scale `drawn` up into `out`, (H, W, 3) of its dtype, by cubic convolution (Keys 1981, a = -1/2)."""
        rows, columns = self._up
        self._narrow[...] = _transposed(self.drawn)
        _weighted_sums(columns, self._narrow, self._wide)
        _weighted_sums(rows, _transposed(self._wide), out)
        if out.dtype != np.uint8:
            np.clip(out, 0, 1, out=out)  # the cubic overshoots at edges


def drawn_size(height: int, width: int, longest: int | None) -> tuple[int, int]:
    """Height and width at which a picture is drawn, in pixels: its own, unless a side is larger than `longest`."""
    if longest is None or max(height, width) <= longest:
        return height, width
    share = longest / max(height, width)
    return max(1, round(height * share)), max(1, round(width * share))


@dataclass(frozen=True)
class _Band:
    """Some rows of a result, as weighted sums of rows of a source."""

    made: slice
    """Rows of the result."""
    read: slice
    """Rows of the source."""
    weights: np.ndarray
    """float32 (rows made, rows read)."""


def _weighted_sums(bands: list[_Band], source: np.ndarray, result: np.ndarray) -> None:
    """Compute the bands. source: (H, W, 3), uint8 or float32. result: (H', W, 3), uint8 (rounded and clipped) or float32."""
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


def _transposed(picture: np.ndarray) -> np.ndarray:
    """The transposed picture, (H, W, 3) to (W, H, 3), on the same memory."""
    transposed: np.ndarray = picture.transpose(1, 0, 2)
    return transposed


def _means(source: int, result: int) -> list[_Band]:
    """Area averages: each of `result` positions is the mean of its share of `source` positions."""
    ends = np.arange(result + 1) * (source / result)
    taps = np.arange(int(np.ceil(source / result)) + 1)
    places = np.floor(ends[:-1, None]).astype(np.intp) + taps
    shared = np.minimum(ends[1:, None], places + 1) - np.maximum(ends[:-1, None], places)
    return _bands(places.clip(0, source - 1), shared.clip(0) * (result / source))


def _cubics(source: int, result: int) -> list[_Band]:
    """Cubic convolution: each of `result` positions from the four `source` positions around it. End positions are repeated."""
    middles = (np.arange(result)[:, None] + 0.5) * (source / result) - 0.5
    places = np.floor(middles).astype(np.intp) + np.arange(-1, 3)
    distance = np.abs(middles - places)
    near = (1.5 * distance - 2.5) * distance**2 + 1
    far = ((-0.5 * distance + 2.5) * distance - 4) * distance + 2
    return _bands(places.clip(0, source - 1), np.where(distance < 1, near, far))


def _bands(places: np.ndarray, weights: np.ndarray) -> list[_Band]:
    """Bands of _ROWS rows. places, weights: (rows made, taps), the rows that each row is summed from, and their weights."""
    found = []
    for start in range(0, len(places), _ROWS):
        taken, shares = places[start : start + _ROWS], weights[start : start + _ROWS]
        first = int(taken.min())
        block = np.zeros((len(taken), int(taken.max()) + 1 - first), np.float32)
        np.add.at(block, (np.arange(len(taken))[:, None], taken - first), shares.astype(np.float32))
        found.append(_Band(slice(start, start + len(taken)), slice(first, first + block.shape[1]), block))
    return found
