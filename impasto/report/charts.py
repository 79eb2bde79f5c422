"""Charts for the template. Positions are percentages of the plot, so a chart looks the same on a page of any width."""

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
    """The distribution of one set of samples: a histogram, and its percentiles."""

    name: str
    median: str
    p90: str
    p99: str
    marks: tuple[float, float, float]
    """Positions of median, p90 and p99, in percent."""
    bars: tuple[tuple[float, float, float], ...]
    """Position, width and height of each bar that is not empty, in percent."""
    low: str
    high: str
    count: int
    beyond: str
    """Text about samples that are too large to be drawn: how many, and the largest; empty without any."""


@dataclass(frozen=True)
class Distributions:
    """Several distributions below each other, each on an axis of its own."""

    unit: str
    rows: tuple[Spread, ...]

    kind = "distributions"


@dataclass(frozen=True)
class Bar:
    """A row of a bar chart. length: in percent."""

    name: str
    value: str
    length: float
    marked: bool = False


@dataclass(frozen=True)
class Bars:
    """A bar chart. Bars begin at 0."""

    caption: str
    rows: tuple[Bar, ...]
    mark: str = ""
    """What marked rows mean."""

    kind = "bars"


@dataclass(frozen=True)
class Point:
    """A point of a scatter plot. x, y: in percent from the left and the bottom."""

    name: str
    x: float
    y: float
    x_text: str
    y_text: str
    best: bool
    """Whether no other point is better in both directions."""


@dataclass(frozen=True)
class Scatter:
    """A scatter plot of two measures. Points have numbers in the plot, and their names below it."""

    x_label: str
    y_label: str
    points: tuple[Point, ...]
    x_ticks: tuple[tuple[float, str], ...]
    y_ticks: tuple[tuple[float, str], ...]
    front: str
    """The line through the best points, as an SVG path in a square of 100 x 100."""

    kind = "scatter"


@dataclass(frozen=True)
class Curve:
    """A line, as an SVG path in a square of 100 x 100."""

    name: str
    path: str
    last: str


@dataclass(frozen=True)
class Curves:
    """A line chart."""

    x_label: str
    caption: str
    curves: tuple[Curve, ...]
    x_ticks: tuple[tuple[float, str], ...]
    y_ticks: tuple[tuple[float, str], ...]

    kind = "curves"


def figure(value: float) -> str:
    """A number as text: three significant digits, without an exponent."""
    if not math.isfinite(value):
        return "∞" if value > 0 else "–"
    if value == 0:
        return "0"
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:,.{min(digits, 6)}f}"


def spread(name: str, samples: Sequence[float]) -> Spread:
    """The distribution of samples. samples: at least one, in any order."""
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
    """A bar chart. rows: name, value (>= 0), and the value as text. marked: whether each row stands out; `mark` says why."""
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
    """A scatter plot. points: name, x (less is better) and y (more is better). An infinite y is drawn at the top and called `equal`.

    Labels end with a comma and the unit.
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
    for (name, x, y), height in zip(points, ys, strict=True):
        beaten = any(
            (other <= x and high >= height) and (other < x or high > height)
            for (_, other, _), high in zip(points, ys, strict=True)
        )
        up = 100 * (height - lowest) / (highest - lowest)
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
    """A line chart. lines: the name of each, its x values in ascending order, and its y values. All share one scale."""
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
    """Three to six round numbers from low to high, for an axis."""
    if high <= low:
        return [low]
    step = 10.0 ** math.floor(math.log10((high - low) / 3))
    step *= next(factor for factor in (1, 2, 5, 10) if (high - low) / (step * factor) <= 6)
    first = math.ceil(low / step - 1e-9)
    return [number * step for number in range(first, math.floor(high / step + 1e-9) + 1)]
