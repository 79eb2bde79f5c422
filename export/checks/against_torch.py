"""Proof that an exported package draws what torch draws."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import impasto
from impasto.errors import CheckFailed, MissingDependency, PackageError, install
from impasto.metrics import psnr
from impasto.runtime.loading.source import resolve

TOLERANCE = 1
"""Largest difference allowed, in levels of 255: two correct float computations may round a value apart by one."""

SYNTHETIC = ((251, 187), (96, 160))
"""Heights and widths of the synthetic pictures."""


@dataclass(frozen=True)
class PictureCheck:
    """One picture drawn twice."""

    picture: str
    size: tuple[int, int]
    max_difference: int
    """The largest difference of a value, in levels of `white`."""
    differing: float
    """Share of values that differ at all."""
    psnr: float
    """PSNR of one drawing against the other, in dB of white; infinite where they are equal."""
    white: int = 255
    """What the drawings call white: 255, or 65,535 of 16 bits."""

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary; JSON has no infinity, so a PSNR of equal drawings is null."""
        return {**vars(self), "psnr": self.psnr if np.isfinite(self.psnr) else None}


@dataclass(frozen=True)
class CheckResult:
    """What `check` found."""

    model: str
    backend: str
    pictures: tuple[PictureCheck, ...]

    @property
    def passed(self) -> bool:
        return all(picture.max_difference <= TOLERANCE for picture in self.pictures)

    def require(self) -> None:
        """Raises CheckFailed where a picture differs by more than the tolerance."""
        for picture in self.pictures:
            if picture.max_difference > TOLERANCE:
                raise CheckFailed(
                    f"{self.model} on {self.backend} draws {picture.picture} up to {picture.max_difference} levels away from "
                    f"what torch draws ({picture.psnr:.1f} dB); at most {TOLERANCE} is allowed. Export the checkpoint again"
                )

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary."""
        return {
            "model": self.model,
            "backend": self.backend,
            "pictures": [picture.to_json() for picture in self.pictures],
        }


def check_package(
    model: str | os.PathLike[str],
    pictures: Sequence[str | os.PathLike[str]] = (),
    *,
    backend: str = "auto",
    device: int = 0,
) -> CheckResult:
    """Draw pictures with the package's weights in torch and with its graph in a backend, and compare.

    model: a package, by path or name, that training can begin with. pictures: files; two synthetic ones of odd sizes
    come on top, of a restorer with a strength also at half and at the most of it. Raises PackageError or CheckpointError where torch
    has nothing to draw with, MissingDependency without torch, PictureError, NoNumbers where the network gives NaN for one of them, or
    for black or white.
    """
    try:
        from impasto.training import checkpoint as checkpoints
        from impasto.training.inference import draw
    except ImportError as error:
        raise MissingDependency(f"the comparison needs torch ({error}): {install('train')}") from None
    source = resolve(model)
    if source.manifest is None:
        raise PackageError(
            f"{source.path} is a single graph, which torch cannot draw with; name the package that holds it"
        )
    if origin := source.manifest.recipe.get("origin"):
        raise PackageError(
            f"{source.path} was made of {origin['file']}, which torch cannot draw with; impasto export compared the two. What other "
            "precisions lose: impasto eval --every-precision"
        )
    network = checkpoints.load(source.path).network
    results = []
    with impasto.load(source.path, backend=backend, device=device, check_values=True, working_size=None) as runtime:
        for level in (0, 255):  # what has no contrast is where networks divide by zero
            runtime(np.full((*SYNTHETIC[1], 3), level, np.uint8))
        for name, image in (*given_pictures(pictures), *synthetic_pictures(SYNTHETIC)):
            results.append(compare(name, runtime(image), draw(network, image)))
        for strength in sorted({0.5, runtime.info.spec.strength} - {1.0}) if runtime.info.spec.strength else ():
            runtime.strength = strength
            for name, image in synthetic_pictures(SYNTHETIC):
                wanted = draw(network, image, strength=strength)
                results.append(compare(f"{name} at strength {strength:g}", runtime(image), wanted))
        return CheckResult(runtime.info.name, runtime.info.backend, tuple(results))


def compare(name: str, drawn: np.ndarray, reference: np.ndarray) -> PictureCheck:
    """Two drawings of one picture, of the same shape, both uint8 or both uint16."""
    difference = np.abs(drawn.astype(np.int32) - reference)
    white = int(np.iinfo(drawn.dtype).max)
    return PictureCheck(
        picture=name,
        size=(drawn.shape[0], drawn.shape[1]),
        max_difference=int(difference.max()),
        differing=float((difference > 0).mean()),
        psnr=psnr(drawn * (255 / white), reference * (255 / white)),
        white=white,
    )


def synthetic(height: int, width: int) -> np.ndarray:
    """A picture with smooth gradients, hard edges, saturated colours and noise: uint8 (height, width, 3), seeded."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    picture = np.stack([255 * x / width, 255 * y / height, 127 + 127 * np.sin(x / 7) * np.cos(y / 11)], axis=-1)
    picture[(x - width / 2) ** 2 + (y - height / 2) ** 2 < (min(height, width) / 5) ** 2] = (255, 0, 0)
    picture += np.random.default_rng(0).normal(0, 6, picture.shape)
    return np.asarray(np.clip(picture, 0, 255), np.uint8)


def given_pictures(files: Sequence[str | os.PathLike[str]]) -> list[tuple[str, np.ndarray]]:
    """File names and pictures, uint8 (H, W, 3). Raises PictureError."""
    from impasto import images

    return [(Path(file).name, images.read(file).rgb) for file in files]


def synthetic_pictures(sizes: Sequence[tuple[int, int]]) -> list[tuple[str, np.ndarray]]:
    """A name and a `synthetic` picture for each size. sizes: heights and widths."""
    return [(f"synthetic {height} x {width}", synthetic(height, width)) for height, width in sizes]
