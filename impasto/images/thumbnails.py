"""Small views of pictures, in NumPy alone: the runtime has no Pillow."""

from __future__ import annotations

import numpy as np


def thumbnail(image: np.ndarray, side: int) -> np.ndarray:
    """A small square view of the whole picture. Training, export checks and devices compute exactly this one.

    image: (H, W, 3), uint8, or float32 from 0 to 1, any size. Returns uint8, (side, side, 3): each cell is the mean of up to 8 x 8
    pixels spread evenly over its part of the picture, so the cost does not grow with the picture.
    """
    height, width = image.shape[:2]
    samples_y, samples_x = (min(8, -(-length // side)) for length in (height, width))
    rows = ((np.arange(side * samples_y) + 0.5) * height / (side * samples_y)).astype(np.intp)
    columns = ((np.arange(side * samples_x) + 0.5) * width / (side * samples_x)).astype(np.intp)
    cells = np.empty((side, side, 3), np.float32)
    sums = np.uint16 if image.dtype == np.uint8 else np.float32
    # Band by band, so that nothing as large as the picture is made; whole rows first, since adding them up is many times
    # faster than picking single pixels.
    for cell, band in zip(cells, rows.reshape(side, samples_y), strict=True):
        added = image[band].sum(axis=0, dtype=sums)
        added[columns].reshape(side, samples_x, 3).sum(axis=1, dtype=np.float32, out=cell)
    if image.dtype != np.uint8:
        cells *= 255
    return np.rint(cells / (samples_y * samples_x)).astype(np.uint8)


def middle(picture: np.ndarray, side: int) -> np.ndarray:
    """The part in the middle that is no longer than `side`; of smaller pictures all. A view of it."""
    top, left = (max(0, length - side) // 2 for length in picture.shape[:2])
    return picture[top : top + side, left : left + side]
