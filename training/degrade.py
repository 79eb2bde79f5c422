"""Damage to undo: a clean batch in, a damaged one out, seeded."""

from __future__ import annotations

import torch
from torch import Tensor


def gaussian_noise(clean: Tensor, sigma: tuple[float, float], generator: torch.Generator) -> Tensor:
    """White Gaussian noise of one strength per picture, then clipped and rounded to 8 bits as a file would be.

    clean: (N, 3, H, W) in 0..1. sigma: the range of the standard deviation, in levels of 255, drawn uniformly.
    Returns the same shape. The generator is on clean's device.
    """
    strength = torch.rand(len(clean), 1, 1, 1, device=clean.device, generator=generator)
    strength = (sigma[0] + (sigma[1] - sigma[0]) * strength) / 255
    noise = torch.randn(clean.shape, device=clean.device, generator=generator)
    return ((clean + strength * noise) * 255).round().clamp(0, 255) / 255
