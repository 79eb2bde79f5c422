"""What every damage promises, and what several have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from impasto.errors import OptionError


class Degradation(ABC):
    """One kind of damage, or several. Equal objects and equally seeded generators do equal damage."""

    task: ClassVar[str]
    """What undoing it is called in a checkpoint."""

    @property
    def scale(self) -> int:
        """Clean side / damaged side."""
        return 1

    @abstractmethod
    def damage(self, clean: Tensor, generator: torch.Generator) -> Tensor:
        """The damage alone, not yet rounded to 8 bits; takes and returns what calling does."""

    @abstractmethod
    def at(self, share: float) -> Degradation:
        """This damage at one fixed strength: 0 for the weakest of its range, 1 for the strongest."""

    def __call__(self, clean: Tensor, generator: torch.Generator) -> Tensor:
        """clean: (N, 3, H, W) sRGB in 0..1, H and W multiples of `scale`. The generator is on clean's device.

        Returns (N, 3, H / scale, W / scale), rounded to 8 bits as a file would be.
        """
        return eight_bits(self.damage(clean, generator))


@dataclass(frozen=True)
class Ranged(Degradation):
    """Damage of a strength that is drawn uniformly for each picture."""

    low: float
    high: float

    name: ClassVar[str]
    limits: ClassVar[tuple[float, float]]
    """Smallest `low` and largest `high`."""
    harmless: ClassVar[float]
    """The strength that does least; one of the limits."""

    def __post_init__(self) -> None:
        if not self.limits[0] <= self.low <= self.high <= self.limits[1]:
            raise OptionError(
                f"{self.name}:{self.low:g}-{self.high:g} is out of range; {self.name} takes LOW-HIGH from {self.limits[0]:g} to "
                f"{self.limits[1]:g}"
            )

    def __str__(self) -> str:
        return f"{self.name}:{self.low:g}-{self.high:g}"

    def at(self, share: float) -> Ranged:
        weak, strong = (self.high, self.low) if self.harmless == self.limits[1] else (self.low, self.high)
        strength = weak + (strong - weak) * share
        return replace(self, low=strength, high=strength)

    def strengths(self, clean: Tensor, generator: torch.Generator) -> Tensor:
        """One for each picture: (N, 1, 1, 1)."""
        return self.low + (self.high - self.low) * uniform(clean, generator)


class Untouched(Degradation):
    """No damage: so that a restorer learns to leave a clean picture as it is."""

    task = "denoise"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Untouched)

    def __hash__(self) -> int:
        return hash(Untouched)

    def __str__(self) -> str:
        return "none"

    def at(self, share: float) -> Untouched:
        return self

    def damage(self, clean: Tensor, generator: torch.Generator) -> Tensor:
        return clean


def uniform(clean: Tensor, generator: torch.Generator, low: float = 0.0, high: float = 1.0) -> Tensor:
    """A number from `low` to `high` for each picture of a batch: (N, 1, 1, 1)."""
    share = torch.rand(len(clean), 1, 1, 1, device=clean.device, generator=generator)
    return low + (high - low) * share


def normal(clean: Tensor, generator: torch.Generator, channels: int = 3) -> Tensor:
    """Standard normal numbers for each pixel of a batch: (N, channels, H, W)."""
    shape = (len(clean), channels, *clean.shape[2:])
    return torch.randn(shape, device=clean.device, generator=generator)


def damaged(picture: np.ndarray, degradation: Degradation, seed: int) -> np.ndarray:
    """One picture damaged on the CPU: uint8 (H, W, 3), sides multiples of the scale, to uint8 (H / scale, W / scale, 3)."""
    clean = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None].float() / 255
    result = degradation(clean, torch.Generator().manual_seed(seed))[0]
    return np.ascontiguousarray((result * 255).round().to(torch.uint8).permute(1, 2, 0).numpy())


def eight_bits(values: Tensor) -> Tensor:
    """Values in 0..1 clipped and rounded to the 256 levels of a file."""
    return (values * 255).round().clamp(0, 255) / 255


def to_linear(values: Tensor) -> Tensor:
    """sRGB in 0..1 to linear light in 0..1: IEC 61966-2-1."""
    return torch.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055).clamp(min=0) ** 2.4)


def from_linear(light: Tensor) -> Tensor:
    """Linear light to sRGB; the inverse of `to_linear` on 0..1, clipped outside of it."""
    light = light.clamp(0, 1)
    return torch.where(light <= 0.0031308, light * 12.92, 1.055 * light.clamp(min=1e-8) ** (1 / 2.4) - 0.055)
