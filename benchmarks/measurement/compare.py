"""Models against each other, in one interleaved run: how fast each is, and how alike their pictures are."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import impasto
from impasto import images
from impasto.errors import OptionError
from impasto.images.contact_sheet import Panel, write_contact_sheet
from impasto.metrics import psnr
from impasto.progress import Progress, silent

from .measure import TURNS, Latency, in_turn
from .report import SCHEMA, describe_machine

ROUNDS = 15
_PATIENCE_SECONDS = 60
"""Fewer rounds are drawn where ROUNDS would take longer than this, as with large photos on small machines."""
LEAST_ROUNDS = 6
"""The least number of rounds for an interval of 95 %: fewer lie all on one side of the median more often than one time in twenty."""
_CHOICES = ("backend", "precision", "layout", "style", "strength")


@dataclass(frozen=True)
class Contender:
    """A model, and how to load it."""

    text: str
    """What was asked for, such as "denoise,precision=int8"."""
    model: str
    choices: dict[str, str]

    @staticmethod
    def parse(text: str) -> Contender:
        """Read "MODEL" or "MODEL,precision=int8,backend=openvino"; also layout=, style= and strength=. Raises OptionError."""
        model, *rest = re.split(rf",(?=(?:{'|'.join(_CHOICES)})=)", text)
        if unknown := re.search(r",(\w+)=", model):
            raise OptionError(f"{text!r} has a {unknown[1]}, and may have {', '.join(_CHOICES)}")
        choices = dict(part.split("=", 1) for part in rest)
        try:
            float(choices.get("strength", 1))
        except ValueError:
            raise OptionError(
                f"cannot read the strength {choices['strength']!r}; wanted a number such as 0.5"
            ) from None
        return Contender(text, model, choices)

    def load(self, device: int) -> impasto.Model:
        """Raises what `impasto.load` and `Model.set_style` raise."""
        chosen = self.choices.get
        model = impasto.load(
            self.model,
            backend=chosen("backend", "auto"),
            precision=chosen("precision", "auto"),
            layout=chosen("layout"),
            device=device,
            working_size=None,
        )
        try:
            model.set_style(chosen("style"), strength=float(chosen("strength", 1)))
        except BaseException:
            model.close()
            raise
        return model


@dataclass(frozen=True)
class Standing:
    """How one contender did."""

    contender: Contender
    info: impasto.ModelInfo
    latency: Latency
    """Time from a NumPy picture to a NumPy picture; the fastest call of each round."""
    speed: tuple[float, float, float]
    """How many times as fast as the first, by rounds: the lower end of its interval, the median, the upper end. Without `certain`, the
    ends are the slowest and the fastest round's."""
    psnr_db: float | None
    """PSNR in dB of its picture against the first's, infinite where they are equal; None where they have different sizes."""
    drawn: np.ndarray
    """The picture that it drew, uint8 (H, W, 3)."""

    @property
    def name(self) -> str:
        """The model, and what was asked for that backend and precision do not say."""
        asked = [
            f"{key} {value}" for key, value in self.contender.choices.items() if key not in ("backend", "precision")
        ]
        return ", ".join([self.info.name, *asked])

    @property
    def runs_on(self) -> str:
        """Backend and precision."""
        return f"{self.info.backend} {self.info.precision}"

    @property
    def equal(self) -> bool:
        """Whether its picture is the first's, to the bit."""
        return self.psnr_db == math.inf

    @property
    def certain(self) -> bool:
        """Whether there were rounds enough for an interval of 95 %."""
        return len(self.latency.samples_ms) >= LEAST_ROUNDS

    @property
    def differs(self) -> bool:
        """Whether it is faster or slower than the first, and not just by chance."""
        low, _, high = self.speed
        return self.certain and not low <= 1 <= high

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary, with every sample; without `certain`, the interval's ends are None."""
        low, median, high = self.speed
        return {
            "contender": self.contender.text,
            "model": self.info.to_json(),
            "speed": {
                "low": low if self.certain else None,
                "median": median,
                "high": high if self.certain else None,
            },
            "psnr_db": None if self.equal else self.psnr_db,
            "equal": self.equal,
            "latency": self.latency.to_json(),
        }


@dataclass(frozen=True)
class Comparison:
    """All of them, on one picture."""

    picture: np.ndarray
    """uint8 (H, W, 3)."""
    standings: tuple[Standing, ...]
    environment: dict[str, Any]

    @property
    def names(self) -> tuple[str, ...]:
        """A name for each contender: the model's. Where two are equal, what was asked for is added, and a number if need be."""
        named = [(each.name, each.runs_on) for each in self.standings]
        texts = [each.contender.text for each in self.standings]
        return tuple(
            name
            if named.count((name, runs_on)) == 1
            else text
            if texts.count(text) == 1
            else f"{text} ({texts[: index + 1].count(text)})"
            for index, ((name, runs_on), text) in enumerate(zip(named, texts, strict=True))
        )

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary."""
        return {
            "schema": SCHEMA,
            "kind": "impasto.comparison",
            "height": self.picture.shape[0],
            "width": self.picture.shape[1],
            "standings": [standing.to_json() for standing in self.standings],
            "environment": self.environment,
        }

    def write_sheet(self, path: Path) -> None:
        """Write the picture and what each made of it, side by side. Raises OptionError and OutputError."""
        drawn = [
            Panel(f"{name}, {each.runs_on}", each.drawn) for name, each in zip(self.names, self.standings, strict=True)
        ]
        write_contact_sheet(path, [[Panel("the picture", self.picture), *drawn]])


def compare(
    contenders: Sequence[Contender],
    photo: Path,
    *,
    size: tuple[int, int] | None = None,
    rounds: int | None = None,
    device: int = 0,
    progress: Progress = silent,
) -> Comparison:
    """Load all, and let them draw one picture in turn, round by round, at its own size whatever their working sizes.

    photo: the file that they draw. size: (height, width) to scale it to; None for its own. rounds: None takes ROUNDS, or as many as
    fit into a minute, but LEAST_ROUNDS at least. progress: called after each round with the rounds that are done, from 0 on (the first
    is not counted).
    Raises OptionError for fewer than two contenders, PictureError, and what `impasto.load` raises.
    """
    if len(contenders) < 2:
        raise OptionError(
            f"got {len(contenders)} model; a comparison wants two or more, such as denoise denoise,precision=int8"
        )
    if rounds is not None and rounds < 1:
        raise OptionError(f"rounds is {rounds}; wanted at least 1")
    with ExitStack() as opened:
        models = [opened.enter_context(contender.load(device)) for contender in contenders]
        image = images.read_scaled(photo, size) if size else images.read(photo).rgb
        begun = time.perf_counter()
        drawn = [model(image) for model in models]
        rounds = rounds or _rounds_of(time.perf_counter() - begun)
        draws = {str(index): model.__call__ for index, model in enumerate(models)}
        samples = [
            np.array(times)
            for times in in_turn(draws, image, rounds, lambda done: progress("drawing in turn", done, rounds)).values()
        ]
        standings = tuple(
            Standing(
                contender,
                model.info,
                Latency(tuple(times)),
                median_interval(samples[0] / times),
                psnr(picture, drawn[0]) if picture.shape == drawn[0].shape else None,
                picture,
            )
            for contender, model, times, picture in zip(contenders, models, samples, drawn, strict=True)
        )
    return Comparison(image, standings, describe_machine())


def _rounds_of(seconds: float) -> int:
    """How many rounds to draw where nobody says. seconds: for one call of each, the first, which is slower than later ones."""
    return min(ROUNDS, max(LEAST_ROUNDS, int(_PATIENCE_SECONDS / (TURNS * seconds))))


def median_interval(values: np.ndarray, confidence: float = 0.95) -> tuple[float, float, float]:
    """An interval for the median of what the values were drawn from, around their own median: (low, median, high).

    Between two order statistics, whatever the distribution is (Conover, Practical Nonparametric Statistics, 1999, 3.2); from the
    least to the largest where there are too few values (below LEAST_ROUNDS for 0.95).
    """
    ordered = np.sort(values)
    count = len(ordered)
    below, rank = 0.0, 0
    for successes in range(count // 2):
        below += math.comb(count, successes) / 2**count
        if below > (1 - confidence) / 2:
            break
        rank = successes
    return float(ordered[rank]), float(np.median(ordered)), float(ordered[count - 1 - rank])
