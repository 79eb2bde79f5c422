"""Charts as the template draws them: places in percent of a plot, so that pages of any width show the same."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_BINS = 48
_WIDEST = 98.0
"""Percent of the plot that the longest bar takes."""


@dataclass(frozen=True)
class Spread:
    """Samples of one thing: a histogram from its least to its largest, and where its percentiles lie."""

    name: str
    median: str
    p90: str
    p99: str
    marks: tuple[float, float, float]
    """Places of the three."""
    bars: tuple[tuple[float, float, float], ...]
    """Place, width and height of each bar that is not empty, in percent."""
    low: str
    high: str
    count: int
    beyond: str
    """What is said of samples too far off to be drawn: how many, and the largest; empty where there are none."""


@dataclass(frozen=True)
class Distributions:
    """Several, below each other, each on an axis of its own."""

    unit: str
    rows: tuple[Spread, ...]

    kind = "distributions"


@dataclass(frozen=True)
class Bar:
    """A row: its bar's length in percent."""

    name: str
    value: str
    length: float
    marked: bool = False


@dataclass(frozen=True)
class Bars:
    """Lengths to compare, from 0 on."""

    caption: str
    rows: tuple[Bar, ...]
    mark: str = ""
    """What marked rows are."""

    kind = "bars"


@dataclass(frozen=True)
class Point:
    """A place in a scatter plot, in percent from its left and its bottom."""

    name: str
    x: float
    y: float
    x_text: str
    y_text: str
    best: bool
    """Whether no other is better in both."""


@dataclass(frozen=True)
class Scatter:
    """What is better in one thing against what is better in another; numbers in the plot, names below it."""

    x_label: str
    y_label: str
    points: tuple[Point, ...]
    x_ticks: tuple[tuple[float, str], ...]
    y_ticks: tuple[tuple[float, str], ...]
    front: str
    """The points that no other beats in both, as an SVG path in a square of 100 x 100."""

    kind = "scatter"


@dataclass(frozen=True)
class Curve:
    """A line, as an SVG path in a square of 100 x 100."""

    name: str
    path: str
    last: str


@dataclass(frozen=True)
class Curves:
    """Lines over one axis, each scaled between its own least and largest where their units differ."""

    x_label: str
    caption: str
    curves: tuple[Curve, ...]
    x_ticks: tuple[tuple[float, str], ...]
    y_ticks: tuple[tuple[float, str], ...]

    kind = "curves"


def figure(value: float) -> str:
    """Three significant digits, without an exponent where people would not write one."""
    if not math.isfinite(value):
        return "∞" if value > 0 else "–"
    if value == 0:
        return "0"
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:,.{min(digits, 6)}f}"


def spread(name: str, samples: Sequence[float]) -> Spread:
    """samples: at least one."""
    values = np.sort(np.asarray(samples, float))
    median, p90, p99 = (float(np.percentile(values, rank)) for rank in (50, 90, 99))
    # One outlier of ten times the median would press all others into a single bar.
    limit = max(p90 + 3 * (p90 - float(values[0])), median * 1.02)
    drawn = values[values <= limit]
    left_out = values[values > limit]
    low, high = float(drawn[0]), float(drawn[-1])
    if high <= low:
        low, high = low - max(abs(low), 1e-9) * 0.01, high + max(abs(high), 1e-9) * 0.01
    counts, _ = np.histogram(drawn, _BINS, (low, high))
    width = 100 / _BINS
    bars = tuple((place * width, width, 100 * count / counts.max()) for place, count in enumerate(counts) if count)
    marks = tuple(min(100.0, 100 * (value - low) / (high - low)) for value in (median, p90, p99))
    beyond = f"{len(left_out)} beyond, up to {figure(float(left_out[-1]))}" if len(left_out) else ""
    return Spread(
        name, figure(median), figure(p90), figure(p99), (marks[0], marks[1], marks[2]), bars, figure(low), figure(high),
        len(values), beyond,
    )  # fmt: skip


def bars(caption: str, rows: Sequence[tuple[str, float, str]], marked: Sequence[bool] = (), mark: str = "") -> Bars:
    """rows: name, value from 0 on, and the value as text. marked: for each row whether it stands out, as `mark` says."""
    longest = max((value for _, value, _ in rows), default=0) or 1
    flags = marked or [False] * len(rows)
    return Bars(
        caption,
        tuple(
            Bar(name, text, _WIDEST * value / longest, flag)
            for (name, value, text), flag in zip(rows, flags, strict=True)
        ),
        mark,
    )


def scatter(x_label: str, y_label: str, points: Sequence[tuple[str, float, float]], *, equal: str = "equal") -> Scatter:
    """points: name, x (less is better) and y (more is better; infinite is drawn at the top and called `equal`). Labels end with a
    comma and the unit.
    """
    finite = [y for _, _, y in points if math.isfinite(y)]
    top = max(finite, default=1.0)
    bottom = min(finite, default=0.0)
    room = max(top - bottom, abs(top) * 0.05, 1e-9)
    highest = top + room * (0.5 if len(finite) < len(points) else 0.1)
    lowest = bottom - room * 0.1
    right = 1.08 * max(x for _, x, _ in points)
    ys = [y if math.isfinite(y) else highest - room * 0.1 for _, _, y in points]
    found = []
    for number, (name, x, y) in enumerate(points):
        beaten = any(
            (other <= x and high >= ys[number]) and (other < x or high > ys[number])
            for (_, other, _), high in zip(points, ys, strict=True)
        )
        up = 100 * (ys[number] - lowest) / (highest - lowest)
        said = f"{figure(y)} {y_label.rpartition(', ')[2]}" if math.isfinite(y) else equal
        found.append(Point(name, 100 * x / right, up, figure(x), said, not beaten))
    front = sorted((point.x, 100 - point.y) for point in found if point.best)
    path = " ".join(f"{'L' if number else 'M'}{x:.2f} {y:.2f}" for number, (x, y) in enumerate(front))
    y_ticks = tuple(
        (100 * (value - lowest) / (highest - lowest), figure(value)) for value in _ticks(lowest, top + room * 0.05)
    )
    return Scatter(
        x_label,
        y_label,
        tuple(found),
        tuple((100 * value / right, figure(value)) for value in _ticks(0, right)),
        y_ticks,
        path,
    )


def curves(x_label: str, caption: str, lines: Sequence[tuple[str, Sequence[float], Sequence[float]]]) -> Curves:
    """lines: name, x ascending and y of each; all on one scale."""
    every_x = [x for _, xs, _ in lines for x in xs]
    every_y = [y for _, _, ys in lines for y in ys if math.isfinite(y)]
    left, right = min(every_x), max(every_x)
    low, high = min(every_y), max(every_y)
    width, height = right - left or 1.0, high - low or 1.0
    drawn = []
    for name, xs, ys in lines:
        places = [
            (100 * (x - left) / width, 100 - 100 * (y - low) / height)
            for x, y in zip(xs, ys, strict=True)
            if math.isfinite(y)
        ]
        path = " ".join(f"{'L' if number else 'M'}{x:.2f} {y:.2f}" for number, (x, y) in enumerate(places))
        drawn.append(Curve(name, path, figure(ys[-1])))
    return Curves(
        x_label,
        caption,
        tuple(drawn),
        tuple((100 * (value - left) / width, figure(value)) for value in _ticks(left, right)),
        tuple((100 * (value - low) / height, figure(value)) for value in _ticks(low, high)),
    )


def _ticks(low: float, high: float) -> list[float]:
    """Round numbers from low to high, three to six of them."""
    if high <= low:
        return [low]
    step = 10.0 ** math.floor(math.log10((high - low) / 3))
    step *= next(factor for factor in (1, 2, 5, 10) if (high - low) / (step * factor) <= 6)
    first = math.ceil(low / step - 1e-9)
    return [number * step for number in range(first, math.floor(high / step + 1e-9) + 1)]
