"""The picture that every machine draws the same."""

from __future__ import annotations

import numpy as np


def synthetic(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Gradients, edges and noise: uint8 (height, width, 3)."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    picture = np.stack([255 * x / width, 255 * y / height, 127 + 127 * np.sin(x / 7) * np.cos(y / 11)], axis=-1)
    picture += np.random.default_rng(seed).normal(0, 12, picture.shape)
    return np.clip(picture, 0, 255).astype(np.uint8)
