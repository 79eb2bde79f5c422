"""What a model is, as far as running it goes: a few small rules, each with one owner."""

from __future__ import annotations

import re
import reprlib
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from impasto.errors import OptionError, PackageError
from impasto.images.sizes import LEAST_WORKING_SIZE

from . import schema

PERCEPTUAL = "perceptual"
"""The task of a network that gives feature maps, for `StyleMeter`; it draws nothing."""
TASKS = ("stylize", "denoise", "deblur", "inpaint", "upscale", "dejpeg", "restore", "unknown")
"""What picture models do."""
RESTORERS = ("denoise", "deblur", "inpaint", "upscale", "dejpeg", "restore")
"""The tasks that give a damaged picture back undamaged."""

MAX_SIDE = 16_384
"""Pixels: of multiples, smallest and fixed sizes, and radii. A file may not ask for more, since what it asks for is allocated."""
MAX_BORDER, MAX_SCALE, MAX_THUMBNAIL = 1024, 64, 4096
MAX_STRENGTH = 100.0
MAX_SMALLEST = 1 << 28
"""Pixels that a network may draw for a picture of one."""


@dataclass(frozen=True)
class SizeRule:
    """What height and width a network accepts."""

    multiple: int = 1
    """Height and width are multiples of this. Always >= 1."""
    minimum: int = 1
    """Smallest height and width. Always >= 1; what `padded` gives is a multiple that is not below it."""
    fixed: tuple[int, int] | None = None
    """The only (height, width) of a graph with static sizes, multiples both; None where sizes are free."""

    def padded(self, height: int, width: int) -> tuple[int, int]:
        """The smallest accepted size that holds `height` x `width` pixels; where sizes are fixed, that size."""
        if self.fixed:
            return self.fixed
        return self.round_up(max(height, self.minimum)), self.round_up(max(width, self.minimum))

    def round_up(self, length: int) -> int:
        """The smallest multiple that is not below `length`."""
        return -(-length // self.multiple) * self.multiple

    def __str__(self) -> str:
        if self.fixed:
            return f"{self.fixed[0]} x {self.fixed[1]} only"
        accepted = f"multiples of {self.multiple}" if self.multiple > 1 else "any size"
        return accepted + (f", at least {self.minimum}" if self.minimum > self.multiple else "")


@dataclass(frozen=True)
class ModelSpec:
    """Everything that running a network needs to know besides its graph. Stored in manifests and in ONNX metadata."""

    name: str
    task: str = "unknown"
    """What it does: one of TASKS, or PERCEPTUAL."""
    scale: int = 1
    """Output side / input side. Always >= 1."""
    channels: int = 3
    bit_depth: int = 8
    size: SizeRule = field(default_factory=SizeRule)
    border: int = 0
    """Pixels reflected around the picture before running and cropped afterwards; hides the network's zero padding."""
    receptive_field: int | None = None
    """Radius in pixels: an output pixel depends on no input further away than this, so that tiles which overlap by it
    join exactly. None where the network uses whole-image statistics, or where nobody knows: such a model is not tiled."""
    thumbnail: int | None = None
    """Side of the square thumbnail of the whole picture that the context graph takes; None without a context."""
    styles: tuple[str, ...] = ()
    """What the context graph gives scales and shifts for, in its order; empty where it gives those of one style alone."""
    strength: float = 0.0
    """The largest strength that a restorer can be asked for; its graph's second input is then the strength itself, float32 (N, 1),
    and there is no context graph. 0 where it takes none."""
    working_size: int | None = None
    """Pixels of the longest side that a stylizer's strokes were made for: larger photos are drawn at it, and the drawings enlarged.
    None where it draws every picture at the picture's own size."""

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary that `from_json` reads."""
        return {
            "name": self.name,
            "task": self.task,
            "scale": self.scale,
            "channels": self.channels,
            "bit_depth": self.bit_depth,
            "size": {
                "multiple": self.size.multiple,
                "minimum": self.size.minimum,
                "fixed": list(self.size.fixed) if self.size.fixed else None,
            },
            "border": self.border,
            "receptive_field": self.receptive_field,
            "thumbnail": self.thumbnail,
            "styles": list(self.styles),
            # Only where there is one: readers older than it refuse what they do not know.
            **({"strength": self.strength} if self.strength else {}),
            **({"working_size": self.working_size} if self.working_size else {}),
        }

    @classmethod
    def from_json(cls, data: Any, source: str) -> ModelSpec:
        """The reverse of `to_json`. `source` names the file in the PackageError raised for anything malformed."""
        if not isinstance(data, dict):
            raise PackageError(f"{source}: the model's description is {type(data).__name__}, not an object")
        try:
            spec = cls(
                name=schema.name(data.get("name"), "name"),
                task=schema.text(data.get("task", "unknown"), "task"),
                scale=_whole(data, "scale", 1, default=1, most=MAX_SCALE),
                channels=_whole(data, "channels", 1, default=3),
                bit_depth=_whole(data, "bit_depth", 1, default=8),
                size=_size(schema.mapping(data.get("size"), "size")),
                border=_whole(data, "border", 0, default=0, most=MAX_BORDER),
                receptive_field=_optional(data, "receptive_field", 0),
                thumbnail=_optional(data, "thumbnail", 8, most=MAX_THUMBNAIL),
                styles=schema.names(data.get("styles"), "styles"),
                strength=_strength(data.get("strength") or 0),
                working_size=_optional(data, "working_size", LEAST_WORKING_SIZE),
            )
            _check_smallest(spec)
        except schema.Malformed as error:
            raise PackageError(f"{source}: {error}") from None
        if (spec.channels, spec.bit_depth) != (3, 8):
            raise PackageError(
                f"{source}: {spec.channels} channels of {spec.bit_depth} bits; this Impasto runs RGB models of 8 bits"
            )
        if spec.strength and (spec.thumbnail or spec.scale != 1):
            raise PackageError(
                f"{source}: 'strength' stands beside {'a thumbnail' if spec.thumbnail else f'scale {spec.scale}'}; a graph's second "
                "input is a context or a strength, and what enlarges has none"
            )
        if spec.working_size and not spec.may_draw_smaller:
            raise PackageError(f"{source}: 'working_size' is a stylizer's, and this is a network for {spec.task}")
        return spec

    @property
    def may_draw_smaller(self) -> bool:
        """Whether a drawing of the picture scaled down stands for one of the picture: it makes strokes, not detail."""
        return self.scale == 1 and self.task not in (*RESTORERS, PERCEPTUAL)


@dataclass(frozen=True)
class Pixels:
    """How a float graph that nobody here made wants its pixels: channel order and value range."""

    order: str = "rgb"
    """"rgb" or "bgr"."""
    low: float = 0.0
    """What 0 of 255 becomes."""
    high: float = 1.0
    """What 255 of 255 becomes."""

    @classmethod
    def parse(cls, text: str) -> Pixels:
        """Read "rgb 0..1", "bgr 0..255", "rgb -1..1" and the like. Raises OptionError."""
        form = r"\s*(rgb|bgr)\s+(-?\d{1,6}(?:\.\d{1,6})?)\.\.(-?\d{1,6}(?:\.\d{1,6})?)\s*"
        match = re.fullmatch(form, text, re.IGNORECASE) if isinstance(text, str) else None
        if not match or float(match[2]) >= float(match[3]):
            raise OptionError(
                f"cannot read the pixel layout {reprlib.repr(text)}; write channel order and range, such as "
                "'rgb 0..1', 'bgr 0..255' or 'rgb -1..1'"
            )
        return cls(match[1].lower(), float(match[2]), float(match[3]))

    def encode(self, image: np.ndarray, dtype: np.dtype) -> np.ndarray:
        """uint8 (N, H, W, 3) RGB -> `dtype` (N, 3, H, W) in this order and range."""
        planes = (image[..., ::-1] if self.order == "bgr" else image).transpose(0, 3, 1, 2)
        values = planes.astype(np.float32)
        values *= (self.high - self.low) / 255
        values += self.low
        return np.ascontiguousarray(values, dtype=dtype)

    def decode(self, planes: np.ndarray) -> np.ndarray:
        """(N, 3, H, W) in this order and range -> uint8 (N, H, W, 3) RGB, rounded and clipped."""
        values = planes.astype(np.float32)
        values -= self.low
        values *= 255 / (self.high - self.low)
        levels: np.ndarray = np.clip(np.rint(values), 0, 255).astype(np.uint8).transpose(0, 2, 3, 1)
        return levels[..., ::-1] if self.order == "bgr" else levels


def _size(data: dict[str, Any]) -> SizeRule:
    fixed = data.get("fixed")
    if fixed is not None:
        if not isinstance(fixed, list) or len(fixed) != 2:
            raise schema.Malformed(f"size.fixed is {reprlib.repr(fixed)}; expected [height, width] or null")
        fixed = tuple(schema.whole(side, "size.fixed", 1, MAX_SIDE) for side in fixed)
    return SizeRule(_whole(data, "multiple", 1, default=1), _whole(data, "minimum", 1, default=1), fixed)


def _check_smallest(spec: ModelSpec) -> None:
    height, width = spec.size.padded(1 + 2 * spec.border, 1 + 2 * spec.border)
    if height * width * spec.scale**2 > MAX_SMALLEST:
        raise schema.Malformed(
            f"its sizes ({spec.size}, border {spec.border}, scale {spec.scale}) make more than {MAX_SMALLEST:,} pixels of one"
        )


def _whole(data: dict[str, Any], key: str, least: int, default: int, most: int = MAX_SIDE) -> int:
    return schema.whole(data.get(key, default), key, least, most)


def _optional(data: dict[str, Any], key: str, least: int, most: int = MAX_SIDE) -> int | None:
    return None if data.get(key) is None else _whole(data, key, least, least, most)


def _strength(value: Any) -> float:
    if type(value) not in (int, float) or not 0 <= value <= MAX_STRENGTH:
        raise schema.Malformed(
            f"'strength' is {reprlib.repr(value)}; expected the largest that can be asked for, such as 1"
        )
    return float(value)
