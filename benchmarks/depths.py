"""What depth is worth: `denoise` and `deblur` on pictures of 8, 12 and 16 bits against the truth, and what they keep of a fine ramp.

usage: python -m impasto.benchmarks.depths PHOTOS [--json FILE]
PHOTOS is a folder of clean pictures. Each is halved by means of 2 x 2 pixels, which gives values between the levels of 255: the truth.
It is damaged as floats, rounded to a depth, drawn at that depth, and compared with the truth, whose white is 65,535. 12 bits are
stored in 16, as scanners and cameras do. Of 8 bits the result is rounded to 8 too, as it was before models took more.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import impasto
from impasto import images
from impasto.errors import ImpastoError
from impasto.files import write_text
from impasto.metrics import psnr

from .baselines import opencv
from .deblur import shake_kernel
from .measurement.report import describe_machine

BITS = (8, 12, 16)
NOISE = (1.0, 5.0, 15.0, 25.0)
"""Standard deviations, in levels of 255."""
EXTENT, AFTERWARDS = 10, 1.0
"""A shake's path in pixels, and the noise behind it."""
RAMP = 128, 8192
"""Height and width, in pixels, of a ramp that is darkest at the left: neighbours differ by 8 of 65,535."""
_WHITE = 65_535

Damage = Callable[[np.ndarray, int], np.ndarray]
"""Takes the truth, float64 from 0 to 1, and a seed; gives the damaged picture, which may exceed the range."""


def at_depth(values: np.ndarray, bits: int) -> np.ndarray:
    """Values from 0 to 1 rounded to so many bits: uint8 of 8, otherwise uint16 whose white is 65,535."""
    most = 2**bits - 1
    levels = np.rint(values.clip(0, 1) * most)
    return levels.astype(np.uint8) if bits == 8 else np.rint(levels * (_WHITE / most)).astype(np.uint16)


def compare(model: impasto.Model, truths: Sequence[np.ndarray], damage: Damage) -> dict[str, dict[str, float]]:
    """For each of BITS the mean PSNR over truths, in dB of 65,535: "damaged" and "model".

    truths: float64 (H, W, 3) or (H, W), 0 to 1.
    """
    found = {}
    for bits in BITS:
        given = [at_depth(damage(truth, seed), bits) for seed, truth in enumerate(truths)]
        pairs = {"damaged": given, "model": [model(picture) for picture in given]}
        found[str(bits)] = {
            name: float(np.mean([_psnr(truth, picture) for truth, picture in zip(truths, pictures, strict=True)]))
            for name, pictures in pairs.items()
        }
    return found


def ramp(model: impasto.Model) -> dict[str, float]:
    """Figures of a gray ramp of 16 bits: levels of its middle row before and after; largest and mean difference, of 65,535."""
    height, width = RAMP
    given = np.repeat(np.rint(np.linspace(0, _WHITE, width)).astype(np.uint16)[None], height, axis=0)
    drawn = model(given)
    apart = np.abs(drawn.astype(np.int32) - given)
    row = height // 2
    return {
        "levels_given": len(np.unique(given[row])),
        "levels_drawn": len(np.unique(drawn[row])),
        "largest_difference": int(apart.max()),
        "mean_difference": float(apart.mean()),
    }


def gray(model: impasto.Model, truths: Sequence[np.ndarray], sigma: float) -> dict[str, float]:
    """How gray is best made of the drawing's channels: PSNR of their mean, of their luma (BT.601), and of green alone.

    truths: float64 (H, W, 3); their luma is the gray truth.
    """
    weights = np.array([0.299, 0.587, 0.114])
    ways = {"mean": np.full(3, 1 / 3), "luma": weights, "green": np.array([0, 1, 0])}
    found: dict[str, list[float]] = {name: [] for name in ways}
    for seed, truth in enumerate(truths):
        gray_truth = truth @ weights
        given = _noise(sigma)(gray_truth, seed).clip(0, 1).astype(np.float32)
        drawn = model(np.repeat(given[..., None], 3, axis=2)).astype(np.float64)
        for name, each in ways.items():
            found[name].append(_psnr(gray_truth, drawn @ each))
    return {name: float(np.mean(values)) for name, values in found.items()}


def measure(photos: Sequence[np.ndarray]) -> dict[str, Any]:
    """All figures. photos: uint8 (H, W, 3)."""
    truths = [_halved(photo) for photo in photos]
    grays = [truth @ np.array([0.299, 0.587, 0.114]) for truth in truths]
    result: dict[str, Any] = {"photos": len(photos), "bits": list(BITS)}
    with impasto.load("denoise") as model:
        for kind, pictures in (("rgb", truths), ("gray", grays)):
            result[f"denoise_{kind}"] = {f"{sigma:g}": compare(model, pictures, _noise(sigma)) for sigma in NOISE}
        result["gray_of_channels"] = {f"{sigma:g}": gray(model, truths, sigma) for sigma in (15.0, 25.0)}
        result["ramp_denoise"] = ramp(model)
    with impasto.load("deblur") as model:
        result["deblur_rgb"] = {f"shake:{EXTENT}+noise:{AFTERWARDS:g}": compare(model, truths, _shake)}
        result["ramp_deblur"] = ramp(model)
        result["backend"] = model.info.backend
    return result


def _halved(photo: np.ndarray) -> np.ndarray:
    height, width = (side // 2 for side in photo.shape[:2])
    cells = photo[: 2 * height, : 2 * width].reshape(height, 2, width, 2, 3)
    mean: np.ndarray = cells.mean(axis=(1, 3), dtype=np.float64) / 255
    return mean


def _noise(sigma: float) -> Damage:
    return lambda truth, seed: truth + np.random.default_rng(seed).normal(0, sigma / 255, truth.shape)


def _shake(truth: np.ndarray, seed: int) -> np.ndarray:
    cv2 = opencv()
    kernel = shake_kernel(EXTENT, seed)
    blurred = cv2.filter2D(truth, -1, kernel[::-1, ::-1].copy(), borderType=cv2.BORDER_REFLECT_101)
    return _noise(AFTERWARDS)(blurred, seed)


def _psnr(truth: np.ndarray, picture: np.ndarray) -> float:
    """In dB, of a peak of 65,535, which is 255 for `psnr`."""
    most = 1 if picture.dtype.kind == "f" else np.iinfo(picture.dtype).max
    return psnr(picture.astype(np.float64) * (255 / most), truth * 255)


def _lines(result: dict[str, Any]) -> Iterator[str]:
    for name, rows in result.items():
        if name.startswith(("denoise", "deblur")):
            for damage, row in rows.items():
                figures = "  ".join(
                    f"{bits} bits: {row[bits]['damaged']:.2f} -> {row[bits]['model']:.3f}" for bits in map(str, BITS)
                )
                yield f"{name} {damage}: {figures}"
        elif name.startswith(("ramp", "gray")):
            yield f"{name}: {rows}"


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    try:
        result = measure([images.read(path).rgb for path in images.list_folder(arguments.photos)])
        for line in _lines(result):
            print(line)
        if arguments.json:
            report = {**result, "environment": describe_machine()}
            write_text(arguments.json, json.dumps(report, indent=1) + "\n")
    except ImpastoError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
