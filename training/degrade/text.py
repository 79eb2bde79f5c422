"""The text form of damage: `parse` reads it, `str` of a damage writes it."""

from __future__ import annotations

import math
from collections import Counter

from impasto.errors import OptionError

from .base import Degradation, Ranged, Untouched
from .blur import Defocus, GaussianBlur, Motion, Shake
from .jpeg import Jpeg, JpegFullColour, JpegTwice
from .missing import Missing
from .noise import BayerNoise, GaussianNoise, Grain, GrayNoise, SensorNoise
from .scaling import AtTwiceTheSize, Down
from .several import Compose, Mixture

_RANGED: dict[str, type[Ranged]] = {
    kind.name: kind
    for kind in (
        GaussianNoise, GrayNoise, Grain, SensorNoise, BayerNoise, Shake, Motion, Defocus, GaussianBlur, Missing, Jpeg,
        JpegFullColour, JpegTwice,
    )
}  # fmt: skip


def parse(text: str) -> Degradation:
    """Read a damage, such as "noise:0-55", "shake:15+noise:0-5", "down:2" or "3*noise:0-55|bayer:50-2000+jpeg:60-95".

    `KIND:LOW-HIGH` draws one strength for each picture; `KIND:WORST` means from harmless to WORST; "none" is a clean
    picture. `KIND…/2` is damage that was done at twice the size, before the picture was scaled down. `+` joins kinds in the order in
    which they happen. `|` chooses one of several for each picture; `3*` before one of them makes it three times as frequent.
    Raises OptionError.
    """
    kinds = [_parse_weighted(part.strip()) for part in text.split("|")]
    if len(kinds) == 1:
        if "*" in text:
            raise OptionError(f"{text!r} has a weight, and nothing to weigh it against; add another kind after |")
        return kinds[0][1]
    weights, parts = zip(*kinds, strict=True)
    return Mixture(parts, weights, _commonest(parts, weights))


def _commonest(parts: tuple[Degradation, ...], weights: tuple[float, ...]) -> str:
    """The task of a mixture: that of most of its pictures. Clean pictures belong to every task."""
    votes: Counter[str] = Counter()
    for part, weight in zip(parts, weights, strict=True):
        if not isinstance(part, Untouched):
            votes[part.task] += weight  # type: ignore[assignment]
    return votes.most_common(1)[0][0] if votes else Untouched.task


def _parse_weighted(text: str) -> tuple[float, Degradation]:
    weight, star, rest = text.partition("*")
    if not star:
        return 1.0, _parse_row(text)
    try:
        times = float(weight)
    except ValueError:
        raise OptionError(f"cannot read the weight of {text!r}; write a number before *, as in 3*noise:0-55") from None
    return times, _parse_row(rest)


def _parse_row(text: str) -> Degradation:
    parts = [_parse_one(part.strip()) for part in text.split("+")]
    return parts[0] if len(parts) == 1 else Compose(tuple(parts))


def _parse_one(text: str) -> Degradation:
    if text.endswith("/2"):
        return AtTwiceTheSize(_parse_one(text.removesuffix("/2")))
    if text == "none":
        return Untouched()
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
        "down:4, none; + joins several, | draws one of several"
    )
