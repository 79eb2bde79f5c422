"""Blur: shake, straight motion, a lens out of focus, and a Gaussian, all in linear light."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from .base import Ranged, from_linear, to_linear


class Shake(Ranged):
    """Camera shake: each picture is averaged along a random path; low, high: its extent in pixels.

    A hand drifts smoothly and jerks now and then: a walk with inertia and rare large pushes, after Boracchi and Foi 2012, "Modeling the
    performance of image restoration from motion blur". The path's mean is at the pixel itself, so that undoing the shake moves nothing.
    """

    task, name, limits, harmless = "deblur", "shake", (1, 31), 1
    MOMENTS: ClassVar[int] = 96
    """Points of time at which a path is sampled: three a pixel of the longest."""
    JERKS: ClassVar[float] = 0.02
    """Chance of a large push at a moment."""

    def damage(self, clean: Tensor, generator: torch.Generator) -> Tensor:
        extent = self.strengths(clean, generator)[:, :, 0, 0] - 1
        path = self._paths(len(clean), generator, clean.device) * extent[..., None]
        radius = max(1, math.ceil(float(path.abs().max())))
        places = torch.arange(-radius, radius + 1, device=clean.device)
        # A moment lies between four pixels and is shared among them bilinearly.
        down, across = (F.relu(1 - (path[..., axis, None] - places).abs()) for axis in (0, 1))
        return blurred(clean, torch.einsum("nti,ntj->nij", down, across))

    def _paths(self, count: int, generator: torch.Generator, device: torch.device) -> Tensor:
        """Random walks with inertia whose longer extent is 1 and whose mean is 0: (N, MOMENTS, 2)."""
        shape = (count, 2, self.MOMENTS)
        pushes = torch.randn(shape, device=device, generator=generator)
        jerks = torch.rand(count, 1, self.MOMENTS, device=device, generator=generator) < self.JERKS
        pushes = torch.where(jerks, 12 * torch.randn(shape, device=device, generator=generator), pushes)
        start = 8 * torch.randn(count, 2, 1, device=device, generator=generator)
        return _of_extent_one((start + pushes.cumsum(2)).cumsum(2))


class Motion(Shake):
    """A straight, even motion; low, high: its length in pixels along the longer axis."""

    name = "motion"

    def _paths(self, count: int, generator: torch.Generator, device: torch.device) -> Tensor:
        angle = math.pi * torch.rand(count, 1, 1, device=device, generator=generator)
        along = torch.linspace(-1, 1, self.MOMENTS, device=device)
        return _of_extent_one(torch.cat([angle.sin() * along, angle.cos() * along], 1))


class Defocus(Ranged):
    """A lens out of focus: averaged over a disc; low, high: its radius in pixels."""

    task, name, limits, harmless = "deblur", "defocus", (0, 15), 0

    def damage(self, clean: Tensor, generator: torch.Generator) -> Tensor:
        radius = self.strengths(clean, generator)[:, 0]
        return blurred(clean, (radius + 0.5 - _distances(math.ceil(self.high), clean.device)).clamp(0, 1))


class GaussianBlur(Ranged):
    """A Gaussian blur, as lenses, scaling and phones' processing leave; low, high: its standard deviation in pixels."""

    task, name, limits, harmless = "deblur", "gaussian", (0, 8), 0

    def damage(self, clean: Tensor, generator: torch.Generator) -> Tensor:
        sigma = self.strengths(clean, generator)[:, 0].clamp(min=1e-3)
        distances = _distances(max(1, math.ceil(3 * self.high)), clean.device)
        return blurred(clean, torch.exp(-distances.square() / (2 * sigma.square())))


def blurred(clean: Tensor, kernels: Tensor) -> Tensor:
    """Each picture with its own kernel, in linear light. kernels: (N, K, K), K odd, not yet of sum 1."""
    kernels = kernels / kernels.sum((1, 2), keepdim=True)
    radius = kernels.shape[-1] // 2
    light = F.pad(to_linear(clean), (radius,) * 4, mode="replicate")
    # The three colours are the batch, the pictures are groups.
    rows = F.conv2d(light.transpose(0, 1), kernels[:, None], groups=len(clean))
    return from_linear(rows.transpose(0, 1))


def _distances(reach: int, device: torch.device) -> Tensor:
    """The distances of pixels from the middle one: (2 · reach + 1, 2 · reach + 1)."""
    places = torch.arange(-reach, reach + 1, device=device).float()
    return torch.hypot(places[:, None], places[None, :])


def _of_extent_one(path: Tensor) -> Tensor:
    """Paths (N, 2, T) scaled so that their longer extent is 1 and moved so that their mean is 0: (N, T, 2)."""
    longest = (path.amax(2) - path.amin(2)).amax(1).clamp(min=1e-6)
    return ((path - path.mean(2, keepdim=True)) / longest[:, None, None]).mT
