"""Figures of pictures that several folders use, each defined once. NumPy only."""

from __future__ import annotations

import numpy as np

EQUAL_PSNR = 100.0
"""What `bounded_psnr` gives for equal pictures, in dB."""

_RADIUS, _SIGMA = 5, 1.5
_C1, _C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
"""Constants of SSIM (Wang et al. 2004): radius and standard deviation of the window in pixels, and C1 and C2 for levels of 255."""

SSIM_SIDE = 2 * _RADIUS + 1
"""Pixels of the smallest side of a picture that has an SSIM."""

_LUMA = np.array([0.299, 0.587, 0.114])
"""BT.601."""


def psnr(one: np.ndarray, other: np.ndarray, *, highest: float = float("inf")) -> float:
    """Peak signal-to-noise ratio in dB: 10 log10(255² / MSE), the mean over all pixels and channels, computed in float64.

    one, other: of one shape, in levels of 255. highest: what larger values are cut to; equal pictures have an infinite PSNR.
    """
    error = float(np.square(one.astype(np.float64) - other).mean())
    return float(min(10 * np.log10(255**2 / error), highest)) if error else highest


def bounded_psnr(one: np.ndarray, other: np.ndarray) -> float:
    """`psnr`, at most EQUAL_PSNR, so that means are finite and JSON can hold them."""
    return psnr(one, other, highest=EQUAL_PSNR)


def ssim(one: np.ndarray, other: np.ndarray) -> float:
    """Mean structural similarity of the luma of two uint8 (H, W, 3) pictures, both sides at least SSIM_SIDE pixels.

    Wang et al. 2004, "Image quality assessment: from error visibility to structural similarity", equation 13: a Gaussian window
    of 11 x 11 pixels with sigma 1.5, at every place where it lies inside of the picture, computed in float64.
    """
    return float(_similarities(*(picture.astype(np.float64) @ _LUMA for picture in (one, other))).mean())


def ssim_rgb(one: np.ndarray, other: np.ndarray) -> float:
    """Mean structural similarity of two uint8 (H, W, 3) pictures over their three channels, as torchmetrics computes it.

    The window is that of `ssim`. At the picture's edges it sees the picture's reflection, so that every pixel counts. Both sides
    have at least 6 pixels, which reflecting 5 needs.
    """
    around = ((_RADIUS, _RADIUS), (_RADIUS, _RADIUS), (0, 0))
    padded = (np.pad(picture.astype(np.float64), around, mode="reflect") for picture in (one, other))
    return float(_similarities(*padded).mean())


def _similarities(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """SSIM at each place of the window. x, y: float64 (H, W) or (H, W, channels). Returns (H - 10, W - 10, …)."""
    mean_x, mean_y = _blur(x), _blur(y)
    variance_x, variance_y = _blur(x * x) - mean_x**2, _blur(y * y) - mean_y**2
    covariance = _blur(x * y) - mean_x * mean_y
    numerator = (2 * mean_x * mean_y + _C1) * (2 * covariance + _C2)
    similarities: np.ndarray = numerator / ((mean_x**2 + mean_y**2 + _C1) * (variance_x + variance_y + _C2))
    return similarities


def _blur(values: np.ndarray) -> np.ndarray:
    """Weighted means of the Gaussian window wherever it lies inside."""
    kernel = np.exp(-(np.arange(-_RADIUS, _RADIUS + 1) ** 2) / (2 * _SIGMA**2))
    kernel /= kernel.sum()
    for axis in (0, 1):
        length = values.shape[axis] - 2 * _RADIUS
        parts = (weight * values.take(range(i, i + length), axis) for i, weight in enumerate(kernel))
        values = sum(parts, np.zeros(()))
    return values


def noisy(clean: np.ndarray, sigma: float, seed: int) -> np.ndarray:
    """Seeded white Gaussian noise on a uint8 picture, clipped and rounded to 8 bits. sigma: in levels of 255."""
    noise = np.random.RandomState(seed).randn(*clean.shape).astype(np.float32) * sigma / 255
    return np.round(np.clip(clean.astype(np.float32) / 255 + noise, 0, 1) * 255).astype(np.uint8)


def independent(height: int, width: int) -> np.ndarray:
    """A picture of independent random values, uint8 (height, width, 3), seeded: what draws it right draws everything right, since
    neighbours have nothing in common that would hide a wrong one."""
    return np.random.RandomState(0).randint(0, 256, (height, width, 3), np.uint8)
