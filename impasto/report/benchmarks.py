"""The page of `impasto bench`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from .charts import Distributions, Spread, bars, figure, spread
from .page import Figure, Grid, Part, Report, Section

if TYPE_CHECKING:
    from impasto.benchmarks import BenchmarkReport
    from impasto.benchmarks.measurement.report import SizeResult


def benchmark_report(found: BenchmarkReport, command: str = "") -> Report:
    """Latency by size, its distribution, throughput, and memory and energy where they were measured."""
    first = found.results[0]
    sections = (
        Section("Latency", (_table(found),), _LATENCY),
        Section("Distributions", (Distributions("ms", tuple(_spreads(found))),), _DISTRIBUTIONS),
        Section("Throughput", _throughput(found), "One picture at a time; a batch only where one was measured."),
        Section("Memory", _memory(found), _MEMORY),
        Section("Energy", _energy(found), "By the machine's own sensors, which count whatever else it does meanwhile."),
    )
    figures = [
        Figure(f"{figure(first.end_to_end.median_ms)} ms", f"a picture of {_size(first)}, median"),
        Figure(f"{figure(first.end_to_end.percentile_ms(99))} ms", "99 % are within"),
        Figure(f"{figure(first.end_to_end.images_per_second)}", "pictures a second"),
    ]
    if first.peak_memory_bytes:
        figures.append(Figure(_megabytes(first.peak_memory_bytes), "peak memory"))
    if first.energy:
        joules = first.energy.joules[first.energy.main] / first.energy.pictures
        figures.append(Figure(f"{figure(1000 * joules)} mJ", f"a picture, by {first.energy.main}"))
    return Report(
        f"{found.info.name} measured",
        f"{found.info.backend}, {found.info.precision}, on {found.info.device}",
        sections,
        found.environment,
        tuple(figures),
        command,
    )


_LATENCY = (
    "Compute is the graph alone; end to end is from a NumPy picture to a NumPy picture, with padding, copies and cropping. "
    "p90 and p99: so many percent of the pictures are within."
)
_DISTRIBUTIONS = (
    "Each on an axis of its own. A long tail to the right is what makes a video stutter, however good the median is."
)
_MEMORY = "The process's largest resident memory while it drew this size: libraries, weights and buffers."


def _size(result: SizeResult) -> str:
    return f"{result.width} × {result.height}"


def _table(found: BenchmarkReport) -> Grid:
    rows = []
    for result in found.results:
        for name, latency in (("compute", result.compute), ("end to end", result.end_to_end)):
            times = (
                latency.median_ms,
                latency.percentile_ms(90),
                latency.percentile_ms(99),
                latency.standard_deviation_ms,
                latency.images_per_second,
            )
            rows.append((_size(result), name, *map(figure, times)))
    return Grid(("size", "what", "median ms", "p90", "p99", "std", "pictures/s"), tuple(rows), words=2)


def _spreads(found: BenchmarkReport) -> Iterator[Spread]:
    for result in found.results:
        yield spread(f"{_size(result)}, end to end", result.end_to_end.samples_ms)
        yield spread(f"{_size(result)}, compute", result.compute.samples_ms)


def _throughput(found: BenchmarkReport) -> tuple[Part, ...]:
    by_size = [
        (
            _size(result),
            speed := result.height * result.width * result.end_to_end.images_per_second / 1e6,
            f"{figure(speed)} megapixels/s",
        )
        for result in found.results
    ]
    by_batch = [
        (f"{_size(result)}, batch {batch}", speed := 1000 * batch / latency.median_ms, f"{figure(speed)} pictures/s")
        for result in found.results
        for batch, latency in result.batches.items()
    ]
    parts: list[Part] = [bars("end to end, by size", by_size)]
    if by_batch:
        parts.append(bars("compute, by batch", by_batch))
    return tuple(parts)


def _memory(found: BenchmarkReport) -> tuple[Part, ...]:
    rows = [
        (_size(result), float(result.peak_memory_bytes), _megabytes(result.peak_memory_bytes))
        for result in found.results
        if result.peak_memory_bytes
    ]
    return (bars("peak resident memory", rows),) if rows else ()


def _megabytes(count: int) -> str:
    return f"{count / 1e6:,.0f} MB"


def _energy(found: BenchmarkReport) -> tuple[Part, ...]:
    rows = tuple(
        (
            _size(result),
            name,
            figure(1000 * joules / result.energy.pictures),
            figure(joules / result.energy.seconds),
            figure(result.energy.idle_watts[name]),
        )
        for result in found.results
        if result.energy
        for name, joules in result.energy.joules.items()
    )
    return (Grid(("size", "sensor", "mJ a picture", "W", "W idle"), rows, words=2),) if rows else ()
