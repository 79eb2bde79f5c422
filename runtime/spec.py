"""What a model is, as far as running it goes: a few small rules, each with one owner."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from impasto.errors import OptionError, PackageError

PERCEPTUAL = "perceptual"
"""The task of a network that gives feature maps, for `StyleMeter`; it draws nothing."""
TASKS = ("stylize", "denoise", "deblur", "inpaint", "upscale", "dejpeg", "restore", "unknown")
"""What picture models do."""


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
        }

    @classmethod
    def from_json(cls, data: Any, source: str) -> ModelSpec:
        """The reverse of `to_json`. `source` names the file in the PackageError raised for anything malformed."""
        if not isinstance(data, dict):
            raise PackageError(f"{source}: the model's description is {type(data).__name__}, not an object")
        size = data.get("size", {})
        size = size if isinstance(size, dict) else {}
        fixed = size.get("fixed")
        if fixed is not None and not (
            isinstance(fixed, list) and len(fixed) == 2 and all(type(n) is int and n > 0 for n in fixed)
        ):
            raise PackageError(f"{source}: size.fixed is {fixed!r}; expected [height, width] or null")
        spec = cls(
            name=_text(data, "name", source),
            task=_text(data, "task", source, default="unknown"),
            scale=_whole(data, "scale", source, 1, default=1),
            channels=_whole(data, "channels", source, 1, default=3),
            bit_depth=_whole(data, "bit_depth", source, 1, default=8),
            size=SizeRule(
                multiple=_whole(size, "multiple", source, 1, default=1),
                minimum=_whole(size, "minimum", source, 1, default=1),
                fixed=tuple(fixed) if fixed else None,
            ),
            border=_whole(data, "border", source, 0, default=0),
            receptive_field=_optional(data, "receptive_field", source, 0),
            thumbnail=_optional(data, "thumbnail", source, 8),
            styles=_names(data, "styles", source),
        )
        if (spec.channels, spec.bit_depth) != (3, 8):
            raise PackageError(
                f"{source}: {spec.channels} channels of {spec.bit_depth} bits; this Impasto runs RGB models of 8 bits"
            )
        return spec


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
        form = r"\s*(rgb|bgr)\s+(-?\d+(?:\.\d+)?)\.\.(-?\d+(?:\.\d+)?)\s*"
        match = re.fullmatch(form, text, re.IGNORECASE) if isinstance(text, str) else None
        if not match or float(match[2]) >= float(match[3]):
            raise OptionError(
                f"cannot read the pixel layout {text!r:.100}; write channel order and range, such as "
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
        levels = np.clip(np.rint(values), 0, 255).astype(np.uint8).transpose(0, 2, 3, 1)
        return levels[..., ::-1] if self.order == "bgr" else levels


def _text(data: dict[str, Any], key: str, source: str, default: str | None = None) -> str:
    value = data.get(key, default)
    if not isinstance(value, str) or not value:
        raise PackageError(f"{source}: {key!r} is {value!r}; expected some text")
    return value


def _whole(data: dict[str, Any], key: str, source: str, minimum: int, default: int) -> int:
    value = data.get(key, default)
    if type(value) is not int or value < minimum:
        raise PackageError(f"{source}: {key!r} is {value!r}; expected a whole number of at least {minimum}")
    return value


def _names(data: dict[str, Any], key: str, source: str) -> tuple[str, ...]:
    value = data.get(key) or []
    if not isinstance(value, list) or not all(isinstance(name, str) and name for name in value):
        raise PackageError(f"{source}: {key!r} is {value!r}; expected a list of names")
    if len(set(value)) < len(value):
        raise PackageError(f"{source}: {key!r} names one twice: {', '.join(value)}")
    return tuple(value)


def _optional(data: dict[str, Any], key: str, source: str, minimum: int) -> int | None:
    return None if data.get(key) is None else _whole(data, key, source, minimum, minimum)
