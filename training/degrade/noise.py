"""Noise: white, the same in all colours, grainy, and as a camera's sensor and its development make it."""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from .base import Ranged, from_linear, normal, to_linear, uniform


class GaussianNoise(Ranged):
    """White Gaussian noise on the file's values; low, high: its standard deviation in levels of 255."""

    task, name, limits, harmless = "denoise", "noise", (0, 255), 0

    def damage(self, clean: Tensor, generator: torch.Generator) -> Tensor:
        strength = self.strengths(clean, generator) / 255
        return clean + strength * torch.randn(clean.shape, device=clean.device, generator=generator)


class GrayNoise(Ranged):
    """White Gaussian noise that is the same in R, G and B, as in scans of black-and-white film; standard deviation in levels."""

    task, name, limits, harmless = "denoise", "gray-noise", (0, 255), 0

    def damage(self, clean: Tensor, generator: torch.Generator) -> Tensor:
        return clean + self.strengths(clean, generator) / 255 * normal(clean, generator, channels=1)


class Grain(Ranged):
    """Gaussian noise whose neighbours and colours are alike, as in film and phone pictures; standard deviation in levels.

    Each picture has its own blur of the noise (Gaussian, standard deviation 0.3 to 1.5 pixels), its own share of noise that all
    colours have in common, and its own strength in each colour. The standard deviation is that of the blurred noise, on average over
    the colours.
    """

    task, name, limits, harmless = "denoise", "grain", (0, 255), 0
    BLUR: ClassVar[tuple[float, float]] = (0.3, 1.5)
    REACH: ClassVar[int] = 4
    """Pixels to each side to which the widest blur reaches."""

    def damage(self, clean: Tensor, generator: torch.Generator) -> Tensor:
        strength = self.strengths(clean, generator) / 255
        common = uniform(clean, generator)
        unequal = 0.5 + torch.rand(len(clean), 3, 1, 1, device=clean.device, generator=generator)
        unequal = unequal / unequal.square().mean(1, keepdim=True).sqrt()
        noise = common.sqrt() * normal(clean, generator, channels=1) + (1 - common).sqrt() * normal(clean, generator)
        return clean + strength * unequal * self._blurred(noise, uniform(clean, generator, *self.BLUR))

    def _blurred(self, noise: Tensor, sigma: Tensor) -> Tensor:
        """The noise blurred and brought back to a standard deviation of 1. sigma: (N, 1, 1, 1)."""
        count, channels = noise.shape[:2]
        places = torch.arange(-self.REACH, self.REACH + 1, device=noise.device)
        kernel = torch.exp(-places.square() / (2 * sigma.flatten()[:, None].square()))
        kernel = kernel / kernel.square().sum(1, keepdim=True).sqrt()
        kernel = kernel.repeat_interleave(channels, 0)
        padded = F.pad(noise, (self.REACH,) * 4, mode="circular").flatten(0, 1)[None]
        rows = F.conv2d(padded, kernel[:, None, :, None], groups=count * channels)
        return F.conv2d(rows, kernel[:, None, None, :], groups=count * channels).view(noise.shape)


class SensorNoise(Ranged):
    """Photon and read noise in linear light, z = (Poisson(E x) + N(0, 3²)) / E: Foi et al. 2008.

    low, high: E, the electrons that a white pixel collects; fewer are worse.
    """

    task, name, limits, harmless = "denoise", "sensor", (20, 20000), 20000
    READ_NOISE: ClassVar[float] = 3.0
    """Standard deviation of the amplifier's noise, in electrons."""

    def damage(self, clean: Tensor, generator: torch.Generator) -> Tensor:
        electrons = self.strengths(clean, generator)
        return from_linear(collected(to_linear(clean), electrons, generator))


class BayerNoise(Ranged):
    """Sensor noise behind a Bayer mosaic, with white balance and bilinear demosaicking (Ramanath et al. 2002, section 2.1).

    What is added to the picture is the noise alone: the development of the noisy mosaic less that of the noiseless one. So the
    clean picture is as sharp as the network is to leave it. low, high: electrons that a white pixel collects. They are drawn evenly
    over the logarithm, since four times the light halves the noise.
    """

    task, name, limits, harmless = "denoise", "bayer", (10, 20000), 20000
    GAINS: ClassVar[tuple[float, float]] = (1.0, 2.4)
    """White balance of red and of blue against green: Brooks et al. 2019, section 3, has 1.2 to 2.4."""

    def strengths(self, clean: Tensor, generator: torch.Generator) -> Tensor:
        return self.low * (self.high / self.low) ** uniform(clean, generator)

    def damage(self, clean: Tensor, generator: torch.Generator) -> Tensor:
        electrons = self.strengths(clean, generator)
        gains = torch.cat(
            [uniform(clean, generator, *self.GAINS) if c != 1 else torch.ones_like(electrons) for c in range(3)], 1
        )
        height, width = clean.shape[2:]
        even = F.pad(clean, (0, width % 2, 0, height % 2), mode="replicate")
        light = to_linear(even)
        noise = collected(light / gains, electrons, generator) * gains - light
        noisy, quiet = (demosaicked(mosaic) for mosaic in (light + noise, light))
        return clean + (from_linear(noisy) - from_linear(quiet))[..., :height, :width]


def collected(light: Tensor, electrons: Tensor, generator: torch.Generator) -> Tensor:
    """Light in 0..1 as a sensor counts it, with photon and read noise: (Poisson(E x) + N(0, 3²)) / E."""
    counted = torch.poisson(light * electrons, generator=generator)
    return (counted + SensorNoise.READ_NOISE * normal(light, generator)) / electrons


def demosaicked(light: Tensor) -> Tensor:
    """What a Bayer mosaic (RGGB) keeps of linear light, and bilinear interpolation makes of that. light: (N, 3, H, W), even sides."""
    kept = torch.zeros_like(light[:1])
    for channel, row, column in ((0, 0, 0), (1, 0, 1), (1, 1, 0), (2, 1, 1)):
        kept[:, channel, row::2, column::2] = 1
    tent = light.new_tensor([1.0, 2.0, 1.0])
    kernel = (tent[:, None] * tent).expand(3, 1, 3, 3)

    def gathered(planes: Tensor) -> Tensor:
        return F.conv2d(F.pad(planes, (1, 1, 1, 1), mode="reflect"), kernel, groups=3)

    return gathered(light * kept) / gathered(kept)
