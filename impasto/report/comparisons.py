"""The page of `impasto compare`."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from .charts import Bars, Distributions, Scatter, bars, figure, scatter, spread
from .page import Figure, Grid, Report, Section
from .pictures import PictureGroup, group

if TYPE_CHECKING:
    from impasto.benchmarks.measurement.compare import Comparison, Standing


def comparison_report(found: Comparison, command: str = "") -> Report:
    """The page: the drawings, the latencies, and latency against PSNR from the first contender."""
    height, width = found.picture.shape[:2]
    first = found.standings[0]
    fastest = min(found.standings, key=lambda standing: standing.latency.median_ms)
    names = _names(found)
    sections = (
        Section("The pictures", (_pictures(found, names),), _SEEN.format(first=names[0])),
        Section("How fast, how alike", (_table(found, names), *_front(found, names)), _TABLE),
        Section("Latency", _latencies(found, names), _LATENCY),
    )
    return Report(
        f"{first.info.name} compared" if len({each.info.name for each in found.standings}) == 1 else "Models compared",
        f"{len(names)} contenders on a picture of {width} × {height} pixels, one after the other in every round",
        sections,
        found.environment,
        (
            Figure(f"{figure(first.latency.median_ms)} ms", f"{names[0]}, median"),
            Figure(f"{figure(fastest.latency.median_ms)} ms", f"fastest: {names[found.standings.index(fastest)]}"),
            Figure(f"{figure(fastest.speed[1])} ×", "as fast as the first"),
            Figure(_likeness(fastest), "the fastest's likeness to the first"),
        ),
        command,
    )


_SEEN = (
    "Drag the handle, or focus the slider and press the arrow keys. Left and right take any two; the maps show how each drawing "
    "differs from that of {first}, times 8."
)
_TABLE = (
    "Speed is how many times as fast as the first, with the median's 95 % interval. PSNR is of a drawing against the first's, in dB: "
    "above 40 nobody sees a difference, below 30 one does."
)
_LATENCY = "From a NumPy picture to a NumPy picture. In each round every model draws in turn, three times, and its fastest counts."


def _names(found: Comparison) -> list[str]:
    named = [f"{standing.name}, {standing.runs_on}" for standing in found.standings]
    return [f"{name} ({number + 1})" if named.count(name) > 1 else name for number, name in enumerate(named)]


def _pictures(found: Comparison, names: list[str]) -> PictureGroup:
    drawn = list(zip(names, (standing.drawn for standing in found.standings), strict=True))
    return group(
        "Photo and drawings", [("the photo", found.picture), *drawn], against=1, maps_of=range(2, len(drawn) + 1)
    )


def _latencies(found: Comparison, names: list[str]) -> tuple[Bars, Distributions]:
    """The medians, and how the samples are distributed."""
    latencies = [(name, standing.latency) for name, standing in zip(names, found.standings, strict=True)]
    medians = [(name, latency.median_ms, f"{figure(latency.median_ms)} ms") for name, latency in latencies]
    spreads = tuple(spread(name, latency.samples_ms) for name, latency in latencies)
    return bars("median latency, ms", medians), Distributions("ms", spreads)


def _table(found: Comparison, names: list[str]) -> Grid:
    rows = []
    for name, standing in zip(names, found.standings, strict=True):
        low, middle, high = standing.speed
        interval = f" ({low:.2f}–{high:.2f})" if standing.certain else ""
        speed = "1" if standing is found.standings[0] else f"{middle:.2f} ×{interval}"
        latency = standing.latency
        times = (latency.median_ms, latency.percentile_ms(90), latency.percentile_ms(99))
        rows.append((name, *map(figure, times), figure(latency.images_per_second), speed, _likeness(standing)))
    return Grid(("model", "median ms", "p90", "p99", "pictures/s", "speed", "PSNR"), tuple(rows))


def _likeness(standing: Standing) -> str:
    if standing.psnr_db is None:
        return "other size"
    return "equal" if standing.equal else f"{standing.psnr_db:.1f} dB"


def _front(found: Comparison, names: list[str]) -> list[Scatter]:
    points = [
        (name, standing.latency.median_ms, math.inf if standing.equal else standing.psnr_db)
        for name, standing in zip(names, found.standings, strict=True)
        if standing.psnr_db is not None
    ]
    return [scatter("median latency, ms", "PSNR against the first, dB", points)] if len(points) > 1 else []
