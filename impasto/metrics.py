"""Figures that several rooms give of pictures, each defined once. NumPy only."""

from __future__ import annotations

import numpy as np


def psnr(one: np.ndarray, other: np.ndarray) -> float:
    """Peak signal-to-noise ratio of two pictures of one shape, in levels of 255, in dB; infinite where they are equal."""
    error = float(np.square(one.astype(np.float64) - other).mean())
    return float(10 * np.log10(255**2 / error)) if error else float("inf")


def noisy(clean: np.ndarray, sigma: float, seed: int) -> np.ndarray:
    """Seeded white Gaussian noise on a uint8 picture, clipped and rounded to 8 bits. sigma: in levels of 255."""
    noise = np.random.RandomState(seed).randn(*clean.shape).astype(np.float32) * sigma / 255
    return np.round(np.clip(clean.astype(np.float32) / 255 + noise, 0, 1) * 255).astype(np.uint8)


def independent(height: int, width: int) -> np.ndarray:
    """A picture of independent random values, uint8 (height, width, 3), seeded: what draws it right draws everything right, since
    neighbours have nothing in common that would hide a wrong one."""
    return np.random.RandomState(0).randint(0, 256, (height, width, 3), np.uint8)
