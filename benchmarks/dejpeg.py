"""A JPEG cleaner against doing nothing, on files of libjpeg.

usage: python -m impasto.benchmarks.dejpeg PHOTOS --model dejpeg [--json FILE]
PHOTOS is a folder of clean pictures. Pillow writes and reads each as a JPEG with 4:2:0 colour.
"""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np

import impasto

from .baselines import mean_psnr, run

QUALITIES = (10, 20, 30, 40)
"""libjpeg's quality."""


def compare(model: impasto.Model, photos: Sequence[np.ndarray]) -> dict[str, dict[str, float]]:
    """Mean PSNR in dB over photos (uint8, H x W x 3) at each of QUALITIES: of the JPEG, and of what the model makes of it."""
    results = {}
    for quality in QUALITIES:
        compressed = [through_jpeg(photo, quality) for photo in photos]
        results[str(quality)] = {
            "jpeg": mean_psnr(photos, compressed),
            "model": mean_psnr(photos, [model(picture) for picture in compressed]),
        }
    return results


def through_jpeg(picture: np.ndarray, quality: int) -> np.ndarray:
    """A uint8 picture, (H, W, 3), as Pillow's JPEG with 4:2:0 colour leaves it."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=quality, subsampling="4:2:0")
    return np.asarray(Image.open(file))


def _line(quality: str, row: dict[str, float]) -> str:
    return f"quality {quality}: JPEG {row['jpeg']:.2f}  model {row['model']:.2f} dB"


if __name__ == "__main__":
    run(__doc__ or "", compare, _line)
