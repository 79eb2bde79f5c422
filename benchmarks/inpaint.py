"""An inpainter against OpenCV's Telea, on seeded scratches and blocks that training did not draw.

usage: python -m impasto.benchmarks.inpaint PHOTOS --model MODEL [--json FILE]
MODEL is an inpainter of `impasto train restore --degrade missing:30`, PHOTOS a folder of clean pictures. Missing pixels
are magenta (255, 0, 255); OpenCV is told where they are.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

import impasto

from .baselines import mean_psnr, opencv, run

SHARES = (0.1, 0.2, 0.3)
"""Shares of the pixels that are missing."""

MAGENTA = np.array((255, 0, 255), np.uint8)


def compare(model: impasto.Model, photos: Sequence[np.ndarray]) -> dict[str, dict[str, float]]:
    """Mean PSNR in dB over photos (uint8, H x W x 3) at each of SHARES: of the damage, of OpenCV, of the model.

    Photo number i gets the mask of seed i. Raises MissingDependency without OpenCV.
    """
    results = {}
    for share in SHARES:
        masks = [_mask(photo.shape[0], photo.shape[1], share, seed) for seed, photo in enumerate(photos)]
        damaged = [np.where(mask[..., None], MAGENTA, photo) for mask, photo in zip(masks, photos, strict=True)]
        telea = [_telea(picture, mask) for picture, mask in zip(damaged, masks, strict=True)]
        results[str(share)] = {
            "damaged": mean_psnr(photos, damaged),
            "opencv": mean_psnr(photos, telea),
            "model": mean_psnr(photos, [model(picture) for picture in damaged]),
        }
    return results


def _mask(height: int, width: int, share: float, seed: int) -> np.ndarray:
    """Scratches of 1 to 5 pixels and blocks of up to 24, until `share` of the pixels is covered: bool (height, width)."""
    cv2 = opencv()
    generator = np.random.default_rng(seed)
    mask = np.zeros((height, width), np.uint8)
    while mask.mean() < share:
        x, y = int(generator.integers(width)), int(generator.integers(height))
        if generator.random() < 0.5:
            end = int(generator.integers(width)), int(generator.integers(height))
            cv2.line(mask, (x, y), end, 1, int(generator.integers(1, 6)))
        else:
            w, h = (int(side) for side in generator.integers(4, 25, 2))
            mask[y : y + h, x : x + w] = 1
    return mask.astype(bool)


def _telea(picture: np.ndarray, mask: np.ndarray) -> np.ndarray:
    cv2 = opencv()
    filled: np.ndarray = cv2.inpaint(picture, mask.astype(np.uint8), 5, cv2.INPAINT_TELEA)
    return filled


def _line(share: str, row: dict[str, float]) -> str:
    return (
        f"{float(share):.0%} missing: damaged {row['damaged']:.2f}  OpenCV Telea {row['opencv']:.2f}  "
        f"model {row['model']:.2f} dB"
    )


if __name__ == "__main__":
    run(__doc__ or "", compare, _line)
