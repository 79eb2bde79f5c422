"""Pictures at other sizes, resampled by Pillow's Lanczos filter."""

from __future__ import annotations

import os

import numpy as np

from .decoding import read
from .pillow import pillow

PAINTING_SIDE = 384
"""Longest side to which a painting is scaled: at it, its strokes have the size that they shall have in photos."""


def within(image: np.ndarray, longest_side: int | None, *, multiple: int = 1) -> np.ndarray:
    """The picture scaled down until no side is longer; itself where none is, or where longest_side is None.

    image: (H, W, 3) or (H, W); uint8, uint16, or float32 from 0 to 1. multiple: of which the sides of what is scaled are.
    """
    height, width = image.shape[:2]
    if longest_side is None or max(height, width) <= longest_side:
        return image
    pil = pillow()
    factor = longest_side / max(height, width)
    size = [max(multiple, int(side * factor + 0.5) // multiple * multiple) for side in (width, height)]
    if image.dtype == np.uint8:
        return np.array(pil.Image.fromarray(image).resize(size, pil.Image.Resampling.LANCZOS))
    # Of more bits Pillow scales one channel at a time, as floats, whose overshoot it does not cut.
    planes = np.atleast_3d(image).astype(np.float32).transpose(2, 0, 1)
    scaled = [np.asarray(pil.Image.fromarray(plane).resize(size, pil.Image.Resampling.LANCZOS)) for plane in planes]
    most = 1 if image.dtype == np.float32 else np.iinfo(image.dtype).max
    whole = np.stack(scaled, -1).reshape(size[1], size[0], *image.shape[2:]).clip(0, most)
    return whole if image.dtype == np.float32 else np.rint(whole).astype(image.dtype)


def read_painting(path: str | os.PathLike[str]) -> np.ndarray:
    """A painting at the size at which its style is learnt and measured: uint8 (H, W, 3). Raises PictureError."""
    pil = pillow()
    picture = pil.Image.fromarray(read(path).rgb)
    factor = PAINTING_SIDE / max(picture.size)
    size = (max(32, int(picture.width * factor)), max(32, int(picture.height * factor)))
    return np.asarray(picture.resize(size, pil.Image.Resampling.LANCZOS))


def read_scaled(path: str | os.PathLike[str], size: tuple[int, int]) -> np.ndarray:
    """A picture scaled to a height and width, whatever its own: uint8 (height, width, 3). Raises PictureError."""
    pil = pillow()
    height, width = size
    scaled = pil.Image.fromarray(read(path).rgb).resize((width, height), pil.Image.Resampling.LANCZOS)
    return np.array(scaled)
