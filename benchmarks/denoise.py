"""A denoiser against OpenCV's non-local means, on seeded noise.

usage: python -m impasto.benchmarks.denoise PHOTOS [--model denoise] [--json FILE]
PHOTOS is a folder of clean pictures. OpenCV gets the strength that serves it best, chosen on these same pictures.
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

SIGMAS = (15, 25, 50)
"""Standard deviations of the noise, in levels of 255."""

STRENGTHS = (0.3, 0.4, 0.5, 0.6, 0.8, 1.0)
"""OpenCV's h, as shares of sigma, among which the best is taken."""


def compare(model: impasto.Model, photos: Sequence[np.ndarray]) -> dict[str, Any]:
    """Mean PSNR in dB over photos (uint8, H x W x 3) at each of SIGMAS: of the noise, of OpenCV at its best, of the model.

    Photo number i gets the noise of seed i, clipped and rounded to 8 bits. Raises MissingDependency without OpenCV.
    """
    results: dict[str, Any] = {}
    for sigma in SIGMAS:
        pairs = [(clean, _noisy(clean, sigma, seed)) for seed, clean in enumerate(photos)]
        by_strength = {share: _mean_psnr(pairs, _non_local_means(share * sigma)) for share in STRENGTHS}
        best = max(by_strength, key=lambda share: by_strength[share])
        results[str(sigma)] = {
            "noisy": _mean_psnr(pairs, lambda noisy: noisy),
            "opencv": by_strength[best],
            "opencv_h": best * sigma,
            "model": _mean_psnr(pairs, model),
        }
    return results


def _mean_psnr(pairs: Sequence[tuple[np.ndarray, np.ndarray]], restore: Callable[[np.ndarray], np.ndarray]) -> float:
    errors = [np.square(restore(noisy).astype(np.float64) - clean).mean() for clean, noisy in pairs]
    return float(np.mean([10 * np.log10(255**2 / error) for error in errors]))


def _noisy(clean: np.ndarray, sigma: float, seed: int) -> np.ndarray:
    noise = np.random.RandomState(seed).randn(*clean.shape).astype(np.float32) * sigma / 255
    return np.round(np.clip(clean.astype(np.float32) / 255 + noise, 0, 1) * 255).astype(np.uint8)


def _non_local_means(strength: float) -> Callable[[np.ndarray], np.ndarray]:
    try:
        import cv2
    except ImportError:
        raise MissingDependency("the comparison needs OpenCV: pip install opencv-python-headless") from None
    return lambda noisy: cv2.fastNlMeansDenoisingColored(noisy, None, strength, strength, 7, 21)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--model", default="denoise")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    try:
        photos = [images.read(path).rgb for path in images.list_folder(arguments.photos)]
        # Sides cut to multiples of 8, as the published figures for these photos are.
        photos = [np.ascontiguousarray(p[: p.shape[0] // 8 * 8, : p.shape[1] // 8 * 8]) for p in photos]
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
    for sigma, row in results.items():
        print(
            f"sigma {sigma}: noisy {row['noisy']:.2f}  OpenCV (h {row['opencv_h']:g}) {row['opencv']:.2f}  "
            f"{arguments.model} {row['model']:.2f} dB"
        )


if __name__ == "__main__":
    main()
