"""A denoiser against OpenCV's non-local means, on seeded noise.

usage: python -m impasto.benchmarks.denoise PHOTOS --model denoise [--json FILE]
PHOTOS is a folder of clean pictures. OpenCV gets the strength that serves it best, chosen on these same pictures.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

import impasto
from impasto.metrics import noisy

from .baselines import mean_psnr, opencv, run

SIGMAS = (15, 25, 50)
"""Standard deviations of the noise, in levels of 255."""

STRENGTHS = (0.3, 0.4, 0.5, 0.6, 0.8, 1.0)
"""OpenCV's h, as shares of sigma, among which the best is taken."""


def compare(model: impasto.Model, photos: Sequence[np.ndarray]) -> dict[str, dict[str, float]]:
    """Mean PSNR in dB over photos (uint8, H x W x 3) at each of SIGMAS: of the noise, of OpenCV at its best, of the model.

    Photo number i gets the noise of seed i, clipped and rounded to 8 bits. Raises MissingDependency without OpenCV.
    """
    results = {}
    for sigma in SIGMAS:
        damaged = [noisy(photo, sigma, seed) for seed, photo in enumerate(photos)]
        by_strength = {
            share * sigma: mean_psnr(photos, [_non_local_means(picture, share * sigma) for picture in damaged])
            for share in STRENGTHS
        }
        best = max(by_strength, key=lambda strength: by_strength[strength])
        results[str(sigma)] = {
            "noisy": mean_psnr(photos, damaged),
            "opencv": by_strength[best],
            "opencv_h": best,
            "model": mean_psnr(photos, [model(picture) for picture in damaged]),
        }
    return results


def _non_local_means(picture: np.ndarray, strength: float) -> np.ndarray:
    # OpenCV takes BGR, and tells brightness from colour by it.
    blue_first = np.ascontiguousarray(picture[..., ::-1])
    denoised: np.ndarray = opencv().fastNlMeansDenoisingColored(blue_first, None, strength, strength, 7, 21)
    return np.ascontiguousarray(denoised[..., ::-1])


def _line(sigma: str, row: dict[str, float]) -> str:
    return (
        f"sigma {sigma}: noisy {row['noisy']:.2f}  OpenCV (h {row['opencv_h']:g}) {row['opencv']:.2f}  "
        f"model {row['model']:.2f} dB"
    )


if __name__ == "__main__":
    # Sides are cut to multiples of 8, as for the published figures of these photos.
    run(__doc__ or "", compare, _line, cell=8)
