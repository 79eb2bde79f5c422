"""How far a faster drawing may be from the FP32 one: what the user asks for, what is measured, and whether it holds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import onnx

from impasto.errors import OptionError
from impasto.export.checks.engine import LEAST_PSNR
from impasto.metrics import psnr, ssim

from .calibration import LEAST_SIDE, JudgedPicture
from .ranges import Session
from .style_distance import Distance

HIGHEST_PSNR = 100.0
"""Stands for the infinite PSNR of equal pictures, in dB."""

_DEFAULT_PSNR = {"fp16": LEAST_PSNR["fp16"] + 10, "int8": LEAST_PSNR["int8"]}
"""The budget of PSNR by precision, in dB. An engine in FP16 must come within LEAST_PSNR; the graph leaves it 10 dB for what its
kernels round otherwise."""

_DEFAULT_LOSS = 0.15
"""The budget of a restorer's loss of PSNR against the truth, in dB, where the truth is known."""

_LIMITS = {
    "psnr": (HIGHEST_PSNR, "dB"),
    "ssim": (1.0, "of 1"),
    "style": (1.0, "as a share, such as 3%"),
    "truth": (HIGHEST_PSNR, "dB"),
}
"""What a budget may name, the highest that makes sense, and its unit."""


@dataclass(frozen=True)
class Quality:
    """A drawing compared with the FP32 drawing of the same pictures."""

    psnr: float
    """PSNR in dB of the picture that came off worst."""
    mean_psnr: float
    ssim: float | None
    """SSIM of the luma, of the worst picture; None where it was not asked for, or no drawing is as large as its window."""
    style: float | None
    """Relative change of the mean distance to the painting; None without one."""
    truth: float | None
    """How much lower the PSNR against the truth is than FP32's, in dB, of the picture that loses most; None where nobody knows it."""
    pictures: int

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary without what was not measured."""
        return {key: value for key, value in asdict(self).items() if value is not None}

    def __str__(self) -> str:
        parts = [f"PSNR {self.psnr:.1f} dB (mean {self.mean_psnr:.1f})"]
        parts += [f"SSIM {self.ssim:.4f}"] if self.ssim is not None else []
        parts += [f"style {100 * self.style:+.2f} %"] if self.style is not None else []
        parts += [f"against the truth {-self.truth:+.2f} dB"] if self.truth is not None else []
        return ", ".join(parts)


@dataclass(frozen=True)
class Budget:
    """The least quality. None where it does not matter."""

    psnr: float | None = None
    """PSNR in dB of every picture."""
    ssim: float | None = None
    style: float | None = None
    """Largest relative change of the style distance, such as 0.03."""
    truth: float | None = None
    """Most that a restorer may lose of its PSNR against the undamaged picture, in dB, every picture."""

    @classmethod
    def parse(cls, text: str) -> Budget:
        """Read "psnr=40", "truth=0.1,ssim=0.98" or "style=3%". Raises OptionError."""
        found: dict[str, float] = {}
        for part in filter(None, (part.strip() for part in text.split(","))):
            key, _, value = (word.strip() for word in part.partition("="))
            if key not in _LIMITS or key in found:
                raise OptionError(
                    f"cannot read the budget {text!r}: {part!r}; write each of {', '.join(_LIMITS)} once at most, such as "
                    "psnr=40,ssim=0.98, style=3% or truth=0.1"
                )
            found[key] = _number(text, key, value)
        if not found:
            raise OptionError(f"the budget {text!r} is empty; write one such as psnr=40")
        return cls(**found)

    @classmethod
    def default(cls, precision: str, restores: bool = False) -> Budget:
        """What is wanted of a precision where the user does not say. restores: the truth behind the pictures is known."""
        return cls(psnr=_DEFAULT_PSNR[precision], truth=_DEFAULT_LOSS if restores else None)

    def misses(self, quality: Quality) -> tuple[str, ...]:
        """What the quality falls short in, one phrase each; empty where the budget holds. What is no number holds nothing."""
        found = []
        if self.psnr is not None and not quality.psnr >= self.psnr:
            found.append(f"PSNR {quality.psnr:.1f} dB, wanted {self.psnr:g}")
        if self.ssim is not None and quality.ssim is not None and not quality.ssim >= self.ssim:
            found.append(f"SSIM {quality.ssim:.4f}, wanted {self.ssim:g}")
        if self.style is not None and quality.style is not None and not abs(quality.style) <= self.style:
            found.append(f"style distance {100 * quality.style:+.2f} %, wanted within {100 * self.style:g} %")
        if self.truth is not None and quality.truth is not None and not quality.truth <= self.truth:
            found.append(f"{quality.truth:.2f} dB lost against the truth, wanted {self.truth:g} at most")
        return tuple(found)

    def __str__(self) -> str:
        parts = [f"{key}={value:g}" for key, value in asdict(self).items() if value is not None]
        return ",".join(parts)


class Judge:
    """Compares graphs with the FP32 one on pictures that calibration has not seen."""

    def __init__(
        self,
        model: onnx.ModelProto,
        pieces: Sequence[JudgedPicture],
        whole: Sequence[JudgedPicture],
        style: Distance | None = None,
        similarity: bool = False,
    ) -> None:
        """style: a drawing's distance to its painting, where there is one. similarity: SSIM counts, and is measured on pieces too.

        Raises OptionError where it counts and no picture is large enough to have one.
        """
        self._similarity = similarity
        self._style = style
        session = Session(model)
        self._pieces = [_Reference(picture, _drawn(session, picture)) for picture in pieces]
        self._whole = [_Reference(picture, _drawn(session, picture)) for picture in whole]
        if similarity and not any(reference.has_similarity for reference in self._whole):
            height, width = self._whole[0].drawn.shape[:2]
            raise OptionError(
                f"SSIM takes pictures of {LEAST_SIDE} x {LEAST_SIDE} pixels at least, and this network draws {height} x {width}; leave "
                "ssim out of the budget"
            )
        self._styles = [style(reference.drawn, reference.picture.style) for reference in self._whole] if style else []

    def on_pieces(self, model: onnx.ModelProto) -> Quality:
        """Quick: PSNR, and SSIM if it is wanted, on pieces of the pictures."""
        return self._compare(model, self._pieces, self._similarity)

    def on_few_pieces(self, model: onnx.ModelProto) -> Quality:
        """Quicker: PSNR on half of them."""
        return self._compare(model, self._pieces[: -(-len(self._pieces) // 2)], False)

    def on_whole(self, model: onnx.ModelProto) -> Quality:
        """Everything, on whole pictures."""
        return self._compare(model, self._whole, True, self._style)

    def _compare(
        self,
        model: onnx.ModelProto,
        references: Sequence[_Reference],
        similarity: bool,
        style: Distance | None = None,
    ) -> Quality:
        session = Session(model)
        pairs = [(_drawn(session, reference.picture), reference) for reference in references]
        ratios = [_psnr(drawn, reference.drawn) for drawn, reference in pairs]
        losses = [reference.loss(drawn) for drawn, reference in pairs if reference.picture.truth is not None]
        styles = [style(drawn, reference.picture.style) for drawn, reference in pairs] if style else []
        alike = [ssim(drawn, reference.drawn) for drawn, reference in pairs if similarity and reference.has_similarity]
        return Quality(
            psnr=min(ratios),
            mean_psnr=float(np.mean(ratios)),
            ssim=min(alike, default=None),
            style=float(np.mean(styles) / np.mean(self._styles) - 1) if style else None,
            truth=max(losses, default=None),
            pictures=len(pairs),
        )


@dataclass(frozen=True)
class _Reference:
    """A picture and its FP32 drawing."""

    picture: JudgedPicture
    drawn: np.ndarray

    @property
    def has_similarity(self) -> bool:
        return bool(min(self.drawn.shape[:2]) >= LEAST_SIDE)

    def loss(self, drawn: np.ndarray) -> float:
        """How much farther from the picture's truth another drawing is, in dB."""
        assert self.picture.truth is not None
        return _psnr(self.drawn, self.picture.truth) - _psnr(drawn, self.picture.truth)


def _drawn(session: Session, picture: JudgedPicture) -> np.ndarray:
    drawn: np.ndarray = session.draw(picture.feed)[0][picture.inside]
    return drawn


def _psnr(one: np.ndarray, other: np.ndarray) -> float:
    return psnr(one, other, highest=HIGHEST_PSNR)


def _number(text: str, key: str, value: str) -> float:
    share = value.endswith("%")
    try:
        number = float(value.removesuffix("%")) / (100 if share else 1)
    except ValueError:
        number = math.nan
    highest, unit = _LIMITS[key]
    if not 0 < number <= highest or (share and unit == "dB"):
        raise OptionError(
            f"cannot read the budget {text!r}: {key}={value or '?'}; {key} is above 0 and at most {highest:g} {unit}"
        )
    return number
