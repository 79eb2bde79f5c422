"""Damage to undo: a clean batch in, a damaged one out, seeded, on the batch's own device.

A damage is written as text: `KIND:LOW-HIGH`, one strength drawn for each picture; `KIND:WORST` ranges from harmless to that;
`+` joins kinds in the order in which they happen, as in "shake:15+noise:0-5". `parse` reads it, `str` writes it.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from impasto.errors import OptionError

MISSING_COLOUR = (1.0, 0.0, 1.0)
"""What missing pixels are painted with: pure magenta, which photos do not contain, so that no mask has to go beside them."""


class Degradation(ABC):
    """One kind of damage, or several in a row. Equal objects and equally seeded generators do equal damage."""

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
        """The same with one fixed strength: 0 for the weakest of its range, 1 for the strongest."""

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
        share = torch.rand(len(clean), 1, 1, 1, device=clean.device, generator=generator)
        return self.low + (self.high - self.low) * share


class GaussianNoise(Ranged):
    """White Gaussian noise on the file's values; low, high: its standard deviation in levels of 255."""

    task, name, limits, harmless = "denoise", "noise", (0, 255), 0

    def damage(self, clean: Tensor, generator: torch.Generator) -> Tensor:
        strength = self.strengths(clean, generator) / 255
        return clean + strength * torch.randn(clean.shape, device=clean.device, generator=generator)


class SensorNoise(Ranged):
    """Photon and read noise in linear light, z = (Poisson(E x) + N(0, 3²)) / E: Foi et al. 2008.

    low, high: E, the electrons that a white pixel collects; fewer are worse.
    """

    task, name, limits, harmless = "denoise", "sensor", (20, 20000), 20000
    READ_NOISE: ClassVar[float] = 3.0
    """Standard deviation of the amplifier's noise, in electrons."""

    def damage(self, clean: Tensor, generator: torch.Generator) -> Tensor:
        electrons = self.strengths(clean, generator)
        collected = torch.poisson(to_linear(clean) * electrons, generator=generator)
        read = self.READ_NOISE * torch.randn(clean.shape, device=clean.device, generator=generator)
        return from_linear((collected + read) / electrons)


class Shake(Ranged):
    """Camera shake in linear light: each picture is averaged along a random smooth path; low, high: its extent in pixels."""

    task, name, limits, harmless = "deblur", "shake", (1, 31), 1
    MOMENTS: ClassVar[int] = 96
    """Points of time at which a path is sampled: three a pixel of the longest."""

    def damage(self, clean: Tensor, generator: torch.Generator) -> Tensor:
        extent = self.strengths(clean, generator)[:, :, 0, 0] - 1
        path = self._paths(len(clean), generator, clean.device) * extent[..., None]
        radius = math.ceil((self.high - 1) / 2)
        places = torch.arange(-radius, radius + 1, device=clean.device)
        # A moment lies between four pixels and is shared among them bilinearly.
        down, across = (F.relu(1 - (path[..., axis, None] - places).abs()) for axis in (0, 1))
        return _blurred(clean, torch.einsum("nti,ntj->nij", down, across))

    def _paths(self, count: int, generator: torch.Generator, device: torch.device) -> Tensor:
        """Random walks with inertia whose longer extent is 1, centred on 0: (N, MOMENTS, 2)."""
        pushes = torch.randn(count, 2, self.MOMENTS, device=device, generator=generator)
        start = 8 * torch.randn(count, 2, 1, device=device, generator=generator)
        path = (start + pushes.cumsum(2)).cumsum(2)
        low, high = path.amin(2, keepdim=True), path.amax(2, keepdim=True)
        longest = (high - low).amax(1, keepdim=True).clamp(min=1e-6)
        return ((path - (low + high) / 2) / longest).mT


class Defocus(Ranged):
    """A lens out of focus, in linear light: averaged over a disc; low, high: its radius in pixels."""

    task, name, limits, harmless = "deblur", "defocus", (0, 15), 0

    def damage(self, clean: Tensor, generator: torch.Generator) -> Tensor:
        reach = math.ceil(self.high)
        places = torch.arange(-reach, reach + 1, device=clean.device).float()
        distance = torch.hypot(places[:, None], places[None, :])
        radius = self.strengths(clean, generator)[:, 0]
        return _blurred(clean, (radius + 0.5 - distance).clamp(0, 1))


class Missing(Ranged):
    """Scratches, lost blocks or free-form strokes in MISSING_COLOUR; low, high: the share of the pixels, in percent."""

    task, name, limits, harmless = "inpaint", "missing", (0, 90), 0

    def damage(self, clean: Tensor, generator: torch.Generator) -> Tensor:
        count, _, height, width = clean.shape
        share = self.strengths(clean, generator)[:, 0, 0] / 100
        kind = torch.randint(3, (count, 1, 1), device=clean.device, generator=generator)
        fields = [make(count, height, width, generator) for make in (_scratches, _blocks, _strokes)]
        field = torch.where(kind == 0, fields[0], torch.where(kind == 1, fields[1], fields[2]))
        # The lowest values of a field are missing: as many of them as the share says, and never more.
        order = field.flatten(1).sort(1).values
        limit = order.gather(1, (share * height * width).long())
        missing = field < limit[..., None]
        colour = clean.new_tensor(MISSING_COLOUR).view(1, 3, 1, 1)
        return torch.where(missing[:, None], colour, clean)


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
        size = (clean.shape[2] // self.factor, clean.shape[3] // self.factor)
        return F.interpolate(clean, size=size, mode="bicubic", antialias=True)


class Jpeg(Ranged):
    """What JPEG (ITU-T T.81) with 4:2:0 colour loses, computed by the same transform; low, high: quality as libjpeg has it."""

    task, name, limits, harmless = "dejpeg", "jpeg", (1, 100), 100

    def damage(self, clean: Tensor, generator: torch.Generator) -> Tensor:
        height, width = clean.shape[2:]
        levels = (eight_bits(F.pad(clean, (0, -width % 16, 0, -height % 16), mode="replicate")) * 255).float()
        table = _quantization(self.strengths(clean, generator).round())
        colours = torch.einsum("ij,njhw->nihw", levels.new_tensor(_YCBCR), levels).round()
        light = _quantized(colours[:, :1] - 128, table[:, :1])
        tint = _quantized(F.avg_pool2d(colours[:, 1:], 2).round(), table[:, 1:])
        tint = F.interpolate(tint, scale_factor=2, mode="bilinear")
        decoded = torch.cat([(light + 128).round().clamp(0, 255), tint.round().clamp(-128, 127)], 1)
        rgb = torch.einsum("ij,njhw->nihw", torch.linalg.inv(levels.new_tensor(_YCBCR)), decoded)
        return rgb[..., :height, :width] / 255


@dataclass(frozen=True)
class Compose(Degradation):
    """Several kinds of damage, one after the other."""

    parts: tuple[Degradation, ...]

    def __str__(self) -> str:
        return "+".join(map(str, self.parts))

    @property
    def task(self) -> str:  # type: ignore[override]
        """Of its parts' tasks, the one that asks most of a network."""
        return min((part.task for part in self.parts), key=_HARDEST.index)

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


_HARDEST = ("upscale", "inpaint", "deblur", "dejpeg", "denoise")
_RANGED: dict[str, type[Ranged]] = {
    kind.name: kind for kind in (GaussianNoise, SensorNoise, Shake, Defocus, Missing, Jpeg)
}


def parse(text: str) -> Degradation:
    """Read a damage, such as "noise:0-55", "shake:15+noise:0-5" or "down:2". Raises OptionError."""
    parts = [_parse_one(part.strip()) for part in text.split("+")]
    return parts[0] if len(parts) == 1 else Compose(tuple(parts))


def _parse_one(text: str) -> Degradation:
    name, _, strength = text.partition(":")
    try:
        numbers = [float(number) for number in strength.split("-")]
        if name == "down" and len(numbers) == 1 and numbers[0].is_integer():
            return Down(int(numbers[0]))
        if name in _RANGED and len(numbers) <= 2 and all(map(math.isfinite, numbers)):
            kind = _RANGED[name]
            low, high = numbers if len(numbers) == 2 else sorted((kind.harmless, numbers[0]))
            return kind(low, high)
    except ValueError:
        pass  # no numbers: told below
    raise OptionError(
        f"cannot read the damage {text!r}; write KIND:LOW-HIGH or KIND:WORST with KIND one of {', '.join(_RANGED)}, or down:2, "
        "down:4; + joins several"
    )


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


def _blurred(clean: Tensor, kernels: Tensor) -> Tensor:
    """Each picture with its own kernel, in linear light. kernels: (N, K, K), K odd, not yet of sum 1."""
    kernels = kernels / kernels.sum((1, 2), keepdim=True)
    radius = kernels.shape[-1] // 2
    light = F.pad(to_linear(clean), (radius,) * 4, mode="replicate")
    count = len(clean)
    rows = F.conv2d(
        light.transpose(0, 1), kernels[:, None], groups=count
    )  # the three colours as a batch, pictures as groups
    return from_linear(rows.transpose(0, 1))


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
