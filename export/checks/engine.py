"""Proof that an engine draws what its graph draws in ONNX Runtime."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import impasto
from impasto.errors import CheckFailed, OptionError
from impasto.metrics import SSIM_SIDE, ssim
from impasto.runtime.loading.source import resolve

from .against_torch import PictureCheck, compare, given_pictures, synthetic_pictures

LEAST_PSNR = {"fp32": 60.0, "fp16": 50.0, "int8": 30.0}
"""The least PSNR in dB by the engine's precision. FP32 kernels round a value apart now and then; INT8 costs what calibration leaves."""
LEAST_PSNR_16_BITS = 90.0
"""The least PSNR in dB of an engine with float ends, whose pictures of 16 bits are not rounded to bytes."""


@dataclass(frozen=True)
class EnginePicture:
    """One picture drawn by the engine and by the graph."""

    drawn: PictureCheck
    ssim: float | None
    """Structural similarity of the luma, Wang et al. 2004, 1 where equal; None where its window is larger than the picture."""


@dataclass(frozen=True)
class EngineCheck:
    """What `check_engine` found. A canonical model has one output, the picture. Engines with float ends drew pictures of 16 bits."""

    engine: str
    against: str
    precision: str
    least_psnr: float
    """The budget, in dB."""
    pictures: tuple[EnginePicture, ...]

    def require(self) -> None:
        """Raises CheckFailed where a picture is further from the graph's than the budget."""
        for picture in self.pictures:
            if picture.drawn.psnr < self.least_psnr:
                raise CheckFailed(
                    f"{self.engine} draws {picture.drawn.picture} at {picture.drawn.psnr:.1f} dB of what {self.against} "
                    f"draws (largest difference {picture.drawn.max_difference} of {picture.drawn.white}); {self.precision} must reach "
                    f"{self.least_psnr:g} dB. Calibrate or build it again, or set another budget with --min-psnr"
                )

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary."""
        return {
            "engine": self.engine,
            "against": self.against,
            "precision": self.precision,
            "least_psnr": self.least_psnr,
            "pictures": [{**picture.drawn.to_json(), "ssim": picture.ssim} for picture in self.pictures],
        }


def check_engine(
    engine: str | os.PathLike[str],
    against: str | os.PathLike[str],
    pictures: Sequence[str | os.PathLike[str]] = (),
    *,
    device: int = 0,
    least_psnr: float | None = None,
) -> EngineCheck:
    """Draw pictures with an engine on the GPU and with a graph in ONNX Runtime on the CPU, and compare.

    engine: a .plan file, or a package that holds a fitting one. against: the ONNX file or package. pictures: files; a
    synthetic one of the engine's best size and one of an odd size come on top, where strengths can be asked for also at half. An
    engine with float ends gets them with 16 bits. least_psnr: the budget in dB, by the engine's precision and ends where None.
    Raises what `impasto.load` raises, PictureError, OptionError for a budget that is no number, and CheckFailed where the graph's
    pictures have another size.
    """
    require_graph(against)
    if least_psnr is not None and math.isnan(least_psnr):  # nothing is below it, so that anything would pass
        raise OptionError("the least PSNR is nan; wanted a number of dB, such as 50")
    with (
        impasto.load(engine, backend="tensorrt", device=device, working_size=None) as built,
        impasto.load(against, backend="onnxruntime-cpu", working_size=None) as reference,
    ):
        artificial = synthetic_pictures(_sizes(engine, built))
        drawn = [_compare(name, built, reference, image) for name, image in (*given_pictures(pictures), *artificial)]
        if built.info.spec.strength and reference.info.spec.strength:
            built.strength = reference.strength = 0.5
            drawn += [_compare(f"{name} at strength 0.5", built, reference, image) for name, image in artificial]
        precision = built.info.precision
        usual = LEAST_PSNR[precision] if "uint8" in built.info.depths else LEAST_PSNR_16_BITS
        budget = usual if least_psnr is None else least_psnr
        return EngineCheck(str(engine), str(against), precision, budget, tuple(drawn))


def require_graph(against: str | os.PathLike[str]) -> None:
    """Raises OptionError for an engine, which cannot tell what another engine must draw."""
    if Path(against).suffix == ".plan":
        raise OptionError(f"{against} is an engine; compare with the graph that it was built from (.onnx or package)")


def _compare(name: str, built: impasto.Model, graph: impasto.Model, image: np.ndarray) -> EnginePicture:
    """Draw with both. Raises CheckFailed where the pictures are not even of one size."""
    if "uint8" not in built.info.depths:
        name, image = f"{name}, 16 bits", _between_levels(image)
    drawn, reference = built(image), graph(image)
    if drawn.shape != reference.shape:
        taken, made, wanted = (f"{one.shape[0]} x {one.shape[1]}" for one in (image, drawn, reference))
        raise CheckFailed(
            f"{built.info.path} makes {made} of {taken}, and {graph.info.path} makes {wanted}, so the engine was not built from it; "
            "compare with the graph or package that it was built from"
        )
    holds_window = min(drawn.shape[:2]) >= SSIM_SIDE
    found = compare(name, drawn, reference)
    of_255 = (picture * (255 / found.white) for picture in (drawn, reference))
    return EnginePicture(found, ssim(*of_255) if holds_window else None)


def _between_levels(image: np.ndarray) -> np.ndarray:
    """The picture with 16 bits and values between its levels, the same each time: uint16 of uint8, of one shape."""
    between = np.random.default_rng(0).integers(-128, 129, image.shape)
    return (image.astype(np.int32) * 257 + between).clip(0, 65_535).astype(np.uint16)


def _sizes(engine: str | os.PathLike[str], built: impasto.Model) -> list[tuple[int, int]]:
    """The best size of the engine, less the border around it, and an odd one between it and the smallest."""
    record = resolve(engine).engine
    if record is None:  # a package: whatever it chose holds these, padded or in tiles
        return [(251, 187)]
    pictures = next(shapes for shapes in record.profiles[0].values() if len(shapes[0]) == 4)  # a context is a vector
    smallest, best = (np.array(shape[1:3]) - 2 * built.info.spec.border for shape in pictures[:2])
    odd = np.maximum(np.maximum(smallest, best // 2) - (1, 3), 1)
    return [(int(height), int(width)) for height, width in (best, odd)]
