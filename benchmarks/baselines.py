"""What the comparisons of restorers with OpenCV share: pictures in, a table and a report out."""

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
from impasto.benchmarks.measurement.report import describe_machine
from impasto.errors import ImpastoError, MissingDependency, OptionError
from impasto.files import write_text
from impasto.metrics import psnr

Compare = Callable[[impasto.Model, Sequence[np.ndarray]], dict[str, dict[str, float]]]
"""A model and clean photos to figures by condition."""


def opencv() -> Any:
    """The cv2 module. Raises MissingDependency with the command that installs it."""
    try:
        import cv2
    except ImportError:
        raise MissingDependency("the comparison needs OpenCV: pip install opencv-python-headless") from None
    return cv2


def mean_psnr(photos: Sequence[np.ndarray], restored: Sequence[np.ndarray]) -> float:
    """Mean of the pictures' PSNRs, in dB."""
    return float(np.mean([psnr(picture, photo) for picture, photo in zip(restored, photos, strict=True)]))


def run(
    description: str,
    compare: Compare,
    line: Callable[[str, dict[str, float]], str],
    *,
    cell: int = 1,
    enlarging: bool = False,
) -> None:
    """The command line: PHOTOS --model MODEL [--json FILE]. Prints `line` for each condition.

    cell: sides are cut to multiples of this. enlarging: whether the comparison is of models that enlarge.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--model", required=True)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    try:
        photos = [images.read(path).rgb for path in images.list_folder(arguments.photos)]
        photos = [np.ascontiguousarray(p[: p.shape[0] // cell * cell, : p.shape[1] // cell * cell]) for p in photos]
        with impasto.load(arguments.model, working_size=None) as model:
            if model.info.scale != 1 and not enlarging:
                raise OptionError(
                    f"{model.info.name} enlarges ×{model.info.scale}, and this comparison is of models that keep the size; name "
                    "another with --model, or compare it by impasto.benchmarks.upscale"
                )
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
    for condition, row in results.items():
        print(line(condition, row))
