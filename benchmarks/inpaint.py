"""An inpainter against OpenCV's Telea, on seeded scratches and blocks that training did not draw.

usage: python -m impasto.benchmarks.inpaint MODEL PHOTOS [--json FILE]
MODEL is an inpainter of `impasto train restore --degrade missing:30`, PHOTOS a folder of clean pictures. Missing pixels
are magenta (255, 0, 255); OpenCV is told where they are.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import impasto
from impasto import images
from impasto.errors import ImpastoError, MissingDependency
from impasto.files import write_text

from .report import describe_machine

SHARES = (0.1, 0.2, 0.3)
"""Shares of the pixels that are missing."""

MAGENTA = np.array((255, 0, 255), np.uint8)


def compare(model: impasto.Model, photos: Sequence[np.ndarray]) -> dict[str, Any]:
    """Mean PSNR in dB over photos (uint8, H x W x 3) at each of SHARES: of the damage, of OpenCV, of the model.

    Photo number i gets the mask of seed i. Raises MissingDependency without OpenCV.
    """
    results: dict[str, Any] = {}
    for share in SHARES:
        masks = [_mask(photo.shape[0], photo.shape[1], share, seed) for seed, photo in enumerate(photos)]
        damaged = [np.where(mask[..., None], MAGENTA, photo) for mask, photo in zip(masks, photos, strict=True)]

        def mean_psnr(
            restore: Callable[[np.ndarray, np.ndarray], np.ndarray],
            masks: list[Any] = masks,
            damaged: list[Any] = damaged,
        ) -> float:
            found = [restore(picture, mask) for picture, mask in zip(damaged, masks, strict=True)]
            errors = [np.square(f.astype(np.float64) - photo).mean() for f, photo in zip(found, photos, strict=True)]
            return float(np.mean([10 * np.log10(255**2 / error) for error in errors]))

        results[str(share)] = {
            "damaged": mean_psnr(lambda picture, _: picture),
            "opencv": mean_psnr(_telea),
            "model": mean_psnr(lambda picture, _: model(picture)),
        }
    return results


def _mask(height: int, width: int, share: float, seed: int) -> np.ndarray:
    """Scratches of 1 to 5 pixels and blocks of up to 24, until `share` of the pixels is covered: bool (height, width)."""
    cv2 = _opencv()
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
    cv2 = _opencv()
    return cv2.inpaint(picture, mask.astype(np.uint8), 5, cv2.INPAINT_TELEA)


def _opencv() -> Any:
    try:
        import cv2
    except ImportError:
        raise MissingDependency("the comparison needs OpenCV: pip install opencv-python-headless") from None
    return cv2


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("photos", type=Path)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    try:
        photos = [images.read(path).rgb for path in images.list_folder(arguments.photos)]
        with impasto.load(arguments.model) as model:
            results = compare(model, photos)
            report = {
                "model": model.info.to_json(),
                "photos": len(photos),
                "psnr_db": results,
                "environment": describe_machine(),
            }
        if arguments.json:
            write_text(arguments.json, json.dumps(report, indent=1) + "\n")
    except ImpastoError as error:
        sys.exit(f"error: {error}")
    for share, row in results.items():
        print(
            f"{float(share):.0%} missing: damaged {row['damaged']:.2f}  OpenCV Telea {row['opencv']:.2f}  "
            f"model {row['model']:.2f} dB"
        )


if __name__ == "__main__":
    main()
