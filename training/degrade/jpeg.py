"""JPEG compression (ITU-T T.81), computed by the same transform as libjpeg's."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from .base import Ranged, eight_bits


class Jpeg(Ranged):
    """What JPEG with colour at half the resolution (4:2:0) loses; low, high: quality as libjpeg has it."""

    task, name, limits, harmless = "dejpeg", "jpeg", (1, 100), 100
    SUBSAMPLING: ClassVar[int] = 2
    """Pixels of a side that share one colour."""

    def damage(self, clean: Tensor, generator: torch.Generator) -> Tensor:
        return compressed(clean, self.strengths(clean, generator).round(), self.SUBSAMPLING)


class JpegFullColour(Jpeg):
    """What JPEG with colour at full resolution (4:4:4) loses, as editors and some cameras write it."""

    name, SUBSAMPLING = "jpeg444", 1


class JpegTwice(Jpeg):
    """JPEG, a cut that moves the grid of blocks, and JPEG again. The last quality is from low to high, the first from low to 100."""

    name = "jpeg-twice"

    def damage(self, clean: Tensor, generator: torch.Generator) -> Tensor:
        height, width = clean.shape[2:]
        first = self.low + (100 - self.low) * torch.rand(len(clean), 1, 1, 1, device=clean.device, generator=generator)
        # One cut for the batch, so that one padding serves it; the next step has another.
        top, left = (int(cut) for cut in torch.randint(8, (2,), device=clean.device, generator=generator))
        moved = F.pad(clean, (left, 0, top, 0), mode="replicate")
        once = compressed(moved, first.round(), self.SUBSAMPLING)[..., top : top + height, left : left + width]
        return compressed(once, self.strengths(clean, generator).round(), self.SUBSAMPLING)


def compressed(clean: Tensor, quality: Tensor, subsampling: int) -> Tensor:
    """clean: (N, 3, H, W) in 0..1. quality: (N, 1, 1, 1), whole numbers. Returns what a decoder gives, not yet rounded."""
    height, width = clean.shape[2:]
    levels = (eight_bits(F.pad(clean, (0, -width % 16, 0, -height % 16), mode="replicate")) * 255).float()
    table = _quantization(quality)
    colours = torch.einsum("ij,njhw->nihw", levels.new_tensor(_YCBCR), levels).round()
    light = _quantized(colours[:, :1] - 128, table[:, :1])
    tint = _quantized(F.avg_pool2d(colours[:, 1:], subsampling).round(), table[:, 1:])
    if subsampling > 1:
        tint = F.interpolate(tint, scale_factor=subsampling, mode="bilinear")
    decoded = torch.cat([(light + 128).round().clamp(0, 255), tint.round().clamp(-128, 127)], 1)
    rgb = torch.einsum("ij,njhw->nihw", torch.linalg.inv(levels.new_tensor(_YCBCR)), decoded)
    return rgb[..., :height, :width] / 255


_YCBCR = ((0.299, 0.587, 0.114), (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312))

_LUMINANCE = (
    (16, 11, 10, 16, 24, 40, 51, 61), (12, 12, 14, 19, 26, 58, 60, 55), (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62), (18, 22, 37, 56, 68, 109, 103, 77), (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101), (72, 92, 95, 98, 112, 100, 103, 99),
)  # fmt: skip
"""ITU-T T.81, table K.1."""

_CHROMINANCE = (
    (17, 18, 24, 47, 99, 99, 99, 99), (18, 21, 26, 66, 99, 99, 99, 99), (24, 26, 56, 99, 99, 99, 99, 99),
    (47, 66, 99, 99, 99, 99, 99, 99), *((99,) * 8,) * 4,
)  # fmt: skip
"""ITU-T T.81, table K.2."""


def _quantization(quality: Tensor) -> Tensor:
    """libjpeg's step sizes. quality: (N, 1, 1, 1), whole numbers. Returns (N, 2, 8, 8) for luminance and chrominance."""
    percent = torch.where(quality < 50, (5000 / quality).floor(), 200 - 2 * quality)
    tables = quality.new_tensor((_LUMINANCE, _CHROMINANCE))
    return ((tables * percent + 50) / 100).floor().clamp(1, 255)


def _quantized(plane: Tensor, table: Tensor) -> Tensor:
    """Rounded to the table's steps in the cosine transform of 8 x 8 blocks. plane: (N, C, H, W). table: (N, 1, 8, 8)."""
    frequency = torch.arange(8, device=plane.device).float()
    cosines = torch.cos(math.pi / 8 * frequency[:, None] * (frequency[None, :] + 0.5)) / 2
    cosines[0] /= math.sqrt(2)
    count, channels, height, width = plane.shape
    blocks = plane.view(count, channels, height // 8, 8, width // 8, 8).transpose(3, 4)
    steps = table[:, :, None, None]
    coefficients = (cosines @ blocks @ cosines.T / steps).round() * steps
    return (cosines.T @ coefficients @ cosines).transpose(3, 4).reshape(plane.shape)
