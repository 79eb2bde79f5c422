"""A deblurrer, told nothing, against Wiener's deconvolution, and against Wiener's and Richardson and Lucy's, told the kernel.

usage: python -m impasto.benchmarks.deblur PHOTOS --model deblur [--json FILE]
PHOTOS is a folder of clean pictures. They are shaken along seeded paths in linear light, and get noise of sigma 2. The
deconvolutions of scikit-image get the setting that serves them best, chosen on these same pictures. Wiener's is also tried as it
can be used where nobody knows the path: with a Gaussian in its place, of the best width among some.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

import impasto
from impasto.errors import MissingDependency
from impasto.metrics import noisy

from .baselines import mean_psnr, opencv, run

EXTENTS = (5, 10, 15)
"""Pixels that the camera moves by."""

SIGMA = 2.0
"""Standard deviation of the noise that follows, in levels of 255."""

BALANCES = (0.003, 0.01, 0.03, 0.1)
"""Wiener's regularisation, among which the best is taken."""

WIDTHS = (0.15, 0.25)
"""Standard deviations, in shares of the extent, of the Gaussian that stands for an unknown path."""

ITERATIONS = (5, 10, 20)
"""Richardson and Lucy's steps, among which the best is taken."""

_EDGE = 32
"""Pixels that are reflected around a picture before deconvolution and cropped afterwards: it takes pictures for periodic."""


def compare(model: impasto.Model, photos: Sequence[np.ndarray]) -> dict[str, dict[str, float]]:
    """Mean PSNR in dB over photos (uint8, H x W x 3) at each of EXTENTS: of the damage, of the baselines, of the model.

    Photo number i gets the path and the noise of seed i. Raises MissingDependency without OpenCV or scikit-image.
    """
    restoration = _restoration()
    results = {}
    for extent in EXTENTS:
        kernels = [shake_kernel(extent, seed) for seed in range(len(photos))]
        shaken = [
            noisy(_shaken(photo, kernel), SIGMA, seed)
            for seed, (photo, kernel) in enumerate(zip(photos, kernels, strict=True))
        ]

        pairs = list(zip(shaken, kernels, strict=True))
        results[str(extent)] = {
            "shaken": mean_psnr(photos, shaken),
            "wiener_blind": max(
                _best(photos, [(picture, gaussian(width * extent)) for picture in shaken], restoration.wiener, BALANCES)
                for width in WIDTHS
            ),
            "wiener": _best(photos, pairs, restoration.wiener, BALANCES),
            "richardson_lucy": _best(photos, pairs, restoration.richardson_lucy, ITERATIONS),
            "model": mean_psnr(photos, [model(picture) for picture in shaken]),
        }
    return results


def shake_kernel(extent: int, seed: int) -> np.ndarray:
    """A camera's path during an exposure: a random walk with inertia, `extent` pixels long or high. (K, K), sum 1, K odd."""
    generator = np.random.default_rng(seed)
    velocity = np.cumsum(generator.normal(size=(200, 2)), axis=0) + 10 * generator.normal(size=2)
    path = np.cumsum(velocity, axis=0)
    path -= (path.max(0) + path.min(0)) / 2
    path *= (extent - 1) / np.ptp(path, axis=0).max()
    side = 2 * (extent // 2) + 3
    kernel = np.zeros((side, side))
    np.add.at(kernel, tuple(np.floor(path + side / 2).astype(int).T), 1 / len(path))
    return kernel


def gaussian(sigma: float) -> np.ndarray:
    """A blur alike in all directions, `sigma` in pixels: (K, K), sum 1, K odd."""
    place = np.arange(-math.ceil(3 * sigma), math.ceil(3 * sigma) + 1)
    line = np.exp(-(place**2) / (2 * sigma**2))
    kernel: np.ndarray = np.outer(line, line) / line.sum() ** 2
    return kernel


def _shaken(photo: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    cv2 = opencv()
    # OpenCV correlates; flipped, the kernel convolves, as the deconvolutions take for granted.
    return _to_levels(cv2.filter2D(_to_light(photo), -1, kernel[::-1, ::-1].copy(), borderType=cv2.BORDER_REFLECT_101))


def _best(
    photos: Sequence[np.ndarray],
    pairs: Sequence[tuple[np.ndarray, np.ndarray]],
    deconvolve: Callable[..., np.ndarray],
    settings: Sequence[float],
) -> float:
    """The mean PSNR at the setting that serves best. pairs: shaken pictures and their kernels."""
    return max(
        mean_psnr(photos, [_by_colour(picture, kernel, deconvolve, setting) for picture, kernel in pairs])
        for setting in settings
    )


def _by_colour(
    picture: np.ndarray, kernel: np.ndarray, deconvolve: Callable[..., np.ndarray], setting: float
) -> np.ndarray:
    light = np.pad(_to_light(picture), ((_EDGE, _EDGE), (_EDGE, _EDGE), (0, 0)), mode="reflect")
    restored = np.stack([deconvolve(light[..., colour], kernel, setting) for colour in range(3)], axis=2)
    return _to_levels(restored[_EDGE:-_EDGE, _EDGE:-_EDGE])


def _to_light(picture: np.ndarray) -> np.ndarray:
    """sRGB levels to linear light in 0..1: IEC 61966-2-1."""
    values = picture.astype(np.float64) / 255
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def _to_levels(light: np.ndarray) -> np.ndarray:
    light = np.clip(light, 0, 1)
    values = np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)
    return np.rint(values * 255).astype(np.uint8)


def _restoration() -> Any:
    try:
        from skimage import restoration
    except ImportError:
        raise MissingDependency("the comparison needs scikit-image: pip install scikit-image") from None
    return restoration


def _line(extent: str, row: dict[str, float]) -> str:
    return (
        f"{extent} px: shaken {row['shaken']:.2f}  Wiener, told nothing {row['wiener_blind']:.2f}  told the kernel "
        f"{row['wiener']:.2f}  Richardson-Lucy {row['richardson_lucy']:.2f}  model {row['model']:.2f} dB"
    )


if __name__ == "__main__":
    run(__doc__ or "", compare, _line)
