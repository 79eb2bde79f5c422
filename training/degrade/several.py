"""Several kinds of damage: one after the other, or one of them for each picture."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from impasto.errors import OptionError

from .base import Degradation

_HARDEST = ("upscale", "inpaint", "restore", "deblur", "dejpeg", "denoise")
"""The tasks of restorers, the one that asks most of a network first."""


@dataclass(frozen=True)
class Compose(Degradation):
    """Several kinds of damage, one after the other."""

    parts: tuple[Degradation, ...]

    def __str__(self) -> str:
        return "+".join(map(str, self.parts))

    @property
    def task(self) -> str:  # type: ignore[override]
        """The task of that part which asks most of a network."""
        return hardest(self.parts)

    @property
    def scale(self) -> int:
        return math.prod(part.scale for part in self.parts)

    def at(self, share: float) -> Compose:
        return Compose(tuple(part.at(share) for part in self.parts))

    def damage(self, clean: Tensor, generator: torch.Generator) -> Tensor:
        for part in self.parts:
            # Light that a sensor or a file cannot hold is lost between two kinds of damage too.
            clean = part.damage(clean, generator).clamp(0, 1)
        return clean


@dataclass(frozen=True)
class Mixture(Degradation):
    """One of several kinds of damage for each picture."""

    parts: tuple[Degradation, ...]
    weights: tuple[float, ...]
    """How often each part is drawn, relative to the others."""
    task: str  # type: ignore[misc]
    """What the restorer is for."""

    def __post_init__(self) -> None:
        if not all(math.isfinite(weight) and weight > 0 for weight in self.weights):
            raise OptionError(
                f"the weights of {self} are {self.weights}; wanted numbers above 0, as in 3*noise:0-55|jpeg:40"
            )
        if scales := sorted({part.scale for part in self.parts} - {self.parts[0].scale}):
            raise OptionError(
                f"the kinds of a mixture have one scale; {self} has {self.parts[0].scale} and {scales[0]}. Add down:2 to each"
            )

    def __str__(self) -> str:
        pairs = zip(self.weights, self.parts, strict=True)
        return "|".join(f"{part}" if weight == 1 else f"{weight:g}*{part}" for weight, part in pairs)

    @property
    def scale(self) -> int:
        return self.parts[0].scale

    def at(self, share: float) -> Mixture:
        return Mixture(tuple(part.at(share) for part in self.parts), self.weights, self.task)

    def damage(self, clean: Tensor, generator: torch.Generator) -> Tensor:
        weights = torch.tensor(self.weights, device=clean.device)
        kinds = torch.multinomial(weights, len(clean), replacement=True, generator=generator)
        height, width = (side // self.scale for side in clean.shape[2:])
        damaged = clean.new_empty(len(clean), clean.shape[1], height, width)
        for number, part in enumerate(self.parts):
            chosen = (kinds == number).nonzero()[:, 0]
            if len(chosen):
                damaged[chosen] = part.damage(clean[chosen], generator)
        return damaged


def hardest(parts: tuple[Degradation, ...]) -> str:
    """The task that asks most of a network, among those of several kinds of damage."""
    return min((part.task for part in parts), key=_HARDEST.index)
