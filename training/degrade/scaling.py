"""Scaling down: a picture to be enlarged again, or damage that was done at twice the size."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from impasto.errors import OptionError

from .base import Degradation


@dataclass(frozen=True)
class Down(Degradation):
    """Scaled down by antialiased bicubic interpolation of the file's values, as published figures for upscaling are."""

    factor: int
    """2 or 4."""

    task: ClassVar[str] = "upscale"

    def __post_init__(self) -> None:
        if self.factor not in (2, 4):
            raise OptionError(f"down:{self.factor} is out of range; write down:2 or down:4")

    def __str__(self) -> str:
        return f"down:{self.factor}"

    @property
    def scale(self) -> int:
        return self.factor

    def at(self, share: float) -> Down:
        return self

    def damage(self, clean: Tensor, generator: torch.Generator) -> Tensor:
        return scaled_down(clean, self.factor)


@dataclass(frozen=True)
class AtTwiceTheSize(Degradation):
    """Damage that was done to the picture at twice its size, before it was scaled down to what it is.

    What is added is the damage alone: what is left of it after scaling down. So the picture is as sharp as it was.
    """

    inner: Degradation

    def __post_init__(self) -> None:
        if self.inner.scale != 1:
            raise OptionError(f"{self.inner} changes the size itself; /2 is for damage that keeps it")

    def __str__(self) -> str:
        return f"{self.inner}/2"

    @property
    def task(self) -> str:  # type: ignore[override]
        return self.inner.task

    def at(self, share: float) -> AtTwiceTheSize:
        return replace(self, inner=self.inner.at(share))

    def damage(self, clean: Tensor, generator: torch.Generator) -> Tensor:
        large = F.interpolate(clean, scale_factor=2, mode="bicubic").clamp(0, 1)
        return clean + scaled_down(self.inner.damage(large, generator).clamp(0, 1) - large, 2)


def scaled_down(picture: Tensor, factor: int) -> Tensor:
    """Antialiased bicubic interpolation, as Pillow's. picture: (N, C, H, W)."""
    size = (picture.shape[2] // factor, picture.shape[3] // factor)
    return F.interpolate(picture, size=size, mode="bicubic", antialias=True)
