"""Missing pixels: scratches, lost blocks and strokes, painted in one colour that stands for them."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from .base import Ranged

MISSING_COLOUR = (1.0, 0.0, 1.0)
"""What missing pixels are painted with: pure magenta, which photos do not contain, so that no mask has to go beside them."""


class Missing(Ranged):
    """Scratches, blocks, strokes, single pixels or discs in MISSING_COLOUR; low, high: the share of the pixels, in percent."""

    task, name, limits, harmless = "inpaint", "missing", (0, 90), 0

    def damage(self, clean: Tensor, generator: torch.Generator) -> Tensor:
        count, _, height, width = clean.shape
        share = self.strengths(clean, generator)[:, 0, 0] / 100
        kind = torch.randint(len(_FIELDS), (count,), device=clean.device, generator=generator)
        fields = torch.stack([make(count, height, width, generator) for make in _FIELDS])
        field = fields[kind, torch.arange(count, device=clean.device)]
        # The lowest values of a field are missing: as many of them as the share says, and never more.
        order = field.flatten(1).sort(1).values
        limit = order.gather(1, (share * height * width).long())
        missing = field < limit[..., None]
        colour = clean.new_tensor(MISSING_COLOUR).view(1, 3, 1, 1)
        return torch.where(missing[:, None], colour, clean)


def _scratches(count: int, height: int, width: int, generator: torch.Generator) -> Tensor:
    """Distance to the nearest of some long, slightly bent lines: (N, H, W). About one line for every 16 pixels of a side."""
    device = generator.device
    y = torch.arange(height, device=device).view(1, -1, 1)
    x = torch.arange(width, device=device).view(1, 1, -1)
    nearest = torch.full((count, height, width), torch.inf, device=device)
    for _ in range(max(3, min(height, width) // 16)):
        angle, row, column, phase = torch.rand(4, count, 1, 1, device=device, generator=generator)
        sine, cosine = torch.sin(math.pi * angle), torch.cos(math.pi * angle)
        away, along = y - row * height, x - column * width
        bend = 6 * torch.sin((cosine * along + sine * away) / 24 + 2 * math.pi * phase)
        nearest = torch.minimum(nearest, (sine * along - cosine * away + bend).abs())
    return nearest


def _blocks(count: int, height: int, width: int, generator: torch.Generator) -> Tensor:
    """A random value for each block of 4, 8 or 16 pixels a side: (N, H, W)."""
    device = generator.device
    values = torch.rand(count, -(-height // 4), -(-width // 4), device=device, generator=generator)
    side = 4 << torch.randint(3, (count, 1, 1), device=device, generator=generator)
    rows = torch.arange(height, device=device).view(1, -1, 1) // side
    columns = torch.arange(width, device=device).view(1, 1, -1) // side
    return values[torch.arange(count, device=device).view(-1, 1, 1), rows, columns]


def _strokes(count: int, height: int, width: int, generator: torch.Generator) -> Tensor:
    """Distance from zero of a smooth random field: its low values wind through the picture like brush strokes. (N, H, W)."""
    size = (count, 1, height // 24 + 3, width // 24 + 3)
    coarse = torch.randn(size, device=generator.device, generator=generator)
    fine = F.interpolate(coarse, scale_factor=24, mode="bicubic")
    return fine[:, 0, 24 : 24 + height, 24 : 24 + width].abs()


def _pixels(count: int, height: int, width: int, generator: torch.Generator) -> Tensor:
    """A random value for each pixel: (N, H, W)."""
    return torch.rand(count, height, width, device=generator.device, generator=generator)


def _discs(count: int, height: int, width: int, generator: torch.Generator) -> Tensor:
    """Distance to the nearest of some points, over a size that each point has of its own: (N, H, W)."""
    device = generator.device
    y = torch.arange(height, device=device).view(1, -1, 1)
    x = torch.arange(width, device=device).view(1, 1, -1)
    nearest = torch.full((count, height, width), torch.inf, device=device)
    for _ in range(max(2, height * width // 96**2)):
        row, column, size = torch.rand(3, count, 1, 1, device=device, generator=generator)
        nearest = torch.minimum(nearest, torch.hypot(y - row * height, x - column * width) / (0.5 + size))
    return nearest


_FIELDS = (_scratches, _blocks, _strokes, _pixels, _discs)
