"""How far a faster drawing may be from the FP32 one: what the user asks for, what is measured, and whether it holds."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import onnx

from impasto.errors import OptionError
from impasto.quality import psnr

from .engine_check import LEAST_PSNR, ssim
from .precision_pictures import Feed, WholePicture
from .precision_ranges import Session

HIGHEST_PSNR = 100.0
"""Stands for the infinite PSNR of equal pictures, in dB."""

_DEFAULT_PSNR = {"fp16": LEAST_PSNR["fp16"] + 10, "int8": LEAST_PSNR["int8"]}
"""In dB. An engine in FP16 must come within LEAST_PSNR; the graph leaves it 10 dB for what its kernels round otherwise."""

_KEYS = ("psnr", "ssim", "style")


@dataclass(frozen=True)
class Quality:
    """A drawing compared with the FP32 drawing of the same pictures."""

    psnr: float
    """In dB, of the picture that came off worst."""
    mean_psnr: float
    ssim: float | None
    """Of the luma, of the worst picture; None where nobody asked."""
    style: float | None
    """Relative change of the mean distance to the painting; None without one."""
    pictures: int

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary without what was not measured."""
        return {key: value for key, value in asdict(self).items() if value is not None}

    def __str__(self) -> str:
        parts = [f"PSNR {self.psnr:.1f} dB (mean {self.mean_psnr:.1f})"]
        parts += [f"SSIM {self.ssim:.4f}"] if self.ssim is not None else []
        parts += [f"style {100 * self.style:+.2f} %"] if self.style is not None else []
        return ", ".join(parts)


@dataclass(frozen=True)
class Budget:
    """The least quality. None where it does not matter."""

    psnr: float | None = None
    """In dB, every picture."""
    ssim: float | None = None
    style: float | None = None
    """Largest relative change of the style distance, such as 0.03."""

    @classmethod
    def parse(cls, text: str) -> Budget:
        """Read "psnr=40", "psnr=40,ssim=0.98" or "style=3%". Raises OptionError."""
        found: dict[str, float] = {}
        for part in filter(None, (part.strip() for part in text.split(","))):
            key, _, value = (word.strip() for word in part.partition("="))
            if key not in _KEYS or key in found:
                raise OptionError(
                    f"cannot read the budget {text!r}: {part!r}; write each of {', '.join(_KEYS)} once at most, such as "
                    "psnr=40,ssim=0.98,style=3%"
                )
            found[key] = _number(text, key, value)
        if not found:
            raise OptionError(f"the budget {text!r} is empty; write one such as psnr=40")
        return cls(**found)

    @classmethod
    def default(cls, precision: str) -> Budget:
        """What is wanted of a precision where the user does not say."""
        return cls(psnr=_DEFAULT_PSNR[precision])

    def misses(self, quality: Quality) -> tuple[str, ...]:
        """What the quality falls short in, one phrase each; empty where the budget holds."""
        found = []
        if self.psnr is not None and quality.psnr < self.psnr:
            found.append(f"PSNR {quality.psnr:.1f} dB, wanted {self.psnr:g}")
        if self.ssim is not None and quality.ssim is not None and quality.ssim < self.ssim:
            found.append(f"SSIM {quality.ssim:.4f}, wanted {self.ssim:g}")
        if self.style is not None and quality.style is not None and abs(quality.style) > self.style:
            found.append(f"style distance {100 * quality.style:+.2f} %, wanted within {100 * self.style:g} %")
        return tuple(found)

    def __str__(self) -> str:
        parts = [f"{key}={value:g}" for key, value in asdict(self).items() if value is not None]
        return ",".join(parts)


class Judge:
    """Compares graphs with the FP32 one on pictures that calibration has not seen."""

    def __init__(
        self,
        model: onnx.ModelProto,
        pieces: Sequence[Feed],
        whole: Sequence[WholePicture],
        style: Callable[[np.ndarray], float] | None = None,
        similarity: bool = False,
    ) -> None:
        """style: a picture's distance to the painting, where there is one. similarity: measure SSIM on pieces too."""
        self._pieces = pieces
        self._whole = whole
        self._style = style
        self._similarity = similarity
        session = Session(model)
        self._drawn_pieces = [session.draw(feed) for feed in pieces]
        self._drawn_whole = [_inside(session.draw(picture.feed), picture) for picture in whole]
        self._styles = [style(drawn) for drawn in self._drawn_whole] if style else []

    def on_pieces(self, model: onnx.ModelProto) -> Quality:
        """Quick: PSNR, and SSIM if it is wanted, on pieces of the pictures."""
        return self._on_pieces(model, len(self._pieces), self._similarity)

    def on_few_pieces(self, model: onnx.ModelProto) -> Quality:
        """Quicker: PSNR on half of them."""
        return self._on_pieces(model, -(-len(self._pieces) // 2), False)

    def _on_pieces(self, model: onnx.ModelProto, count: int, similarity: bool) -> Quality:
        session = Session(model)
        drawn = [session.draw(feed)[0] for feed in self._pieces[:count]]
        return self._compare(drawn, [reference[0] for reference in self._drawn_pieces[:count]], similarity)

    def on_whole(self, model: onnx.ModelProto) -> Quality:
        """Everything, on whole pictures."""
        session = Session(model)
        drawn = [_inside(session.draw(picture.feed), picture) for picture in self._whole]
        change = None
        if self._style:
            change = float(np.mean([self._style(picture) for picture in drawn]) / np.mean(self._styles) - 1)
        return self._compare(drawn, self._drawn_whole, True, change)

    def _compare(
        self, drawn: list[np.ndarray], references: list[np.ndarray], similarity: bool, style: float | None = None
    ) -> Quality:
        pairs = list(zip(drawn, references, strict=True))
        ratios = [min(psnr(one, other), HIGHEST_PSNR) for one, other in pairs]
        similar = min(ssim(one, other) for one, other in pairs) if similarity else None
        return Quality(min(ratios), float(np.mean(ratios)), similar, style, len(pairs))


def _inside(drawn: np.ndarray, picture: WholePicture) -> np.ndarray:
    return drawn[0][picture.inside]


def _number(text: str, key: str, value: str) -> float:
    share = value.endswith("%")
    try:
        number = float(value.removesuffix("%")) / (100 if share else 1)
    except ValueError:
        number = math.nan
    limits = {"psnr": (0.0, HIGHEST_PSNR), "ssim": (0.0, 1.0), "style": (0.0, 1.0)}[key]
    if not limits[0] < number <= limits[1] or (share and key == "psnr"):
        unit = {"psnr": "dB", "ssim": "of 1", "style": "as a share, such as 3%"}[key]
        raise OptionError(
            f"cannot read the budget {text!r}: {key}={value or '?'}; {key} is above {limits[0]:g} and at most {limits[1]:g} {unit}"
        )
    return number
