"""Results as Rich tables, where more than one verb shows them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Table

from impasto.benchmarks import BenchmarkReport, Latency

if TYPE_CHECKING:
    from impasto.benchmarks.measurement.compare import Comparison, Standing
    from impasto.benchmarks.prediction import Prediction
    from impasto.export.checks.engine import EngineCheck


def benchmark_table(*reports: BenchmarkReport) -> Table:
    """One row for each model, size and kind of latency."""
    table = Table(title="Latency in ms, one picture at a time", title_justify="left", caption_justify="left")
    table.add_column("model, size", overflow="fold")
    table.add_column("what", no_wrap=True)
    for heading in ("median", "p90", "p99", "std", "img/s"):
        table.add_column(heading, justify="right", no_wrap=True)
    for report in reports:
        for result in report.results:
            name = f"{report.info.name} {result.height}x{result.width}"
            table.add_row(name, "compute", *_figures(result.compute))
            table.add_row("", "end to end", *_figures(result.end_to_end))
    if reports:
        machine = reports[0].environment
        backends = ", ".join(sorted({f"{report.info.backend} {report.info.precision}" for report in reports}))
        table.caption = f"{backends}; {machine['processor']}, {machine['cores']} cores"
    return table


def _figures(latency: Latency) -> list[str]:
    times = (latency.median_ms, latency.percentile_ms(90), latency.percentile_ms(99), latency.standard_deviation_ms)
    return [*(f"{value:.2f}" if value < 100 else f"{value:.1f}" for value in times), f"{latency.images_per_second:.1f}"]


def prediction_table(found: Prediction) -> Table:
    """One row for each size and precision."""
    table = Table(title="Predicted, in ms; nothing was run", title_justify="left", caption_justify="left")
    table.add_column("size", no_wrap=True)
    table.add_column("precision")
    for heading in ("at least", "likely", "end to end", "memory"):
        table.add_column(heading, justify="right", no_wrap=True)
    for size in found.sizes:
        times = (f"{value:.2f}" for value in (size.bound_ms, size.likely_ms, size.end_to_end_ms))
        precision = size.precision + (" (assumed)" if size.assumed else "")
        table.add_row(f"{size.height}x{size.width}", precision, *times, f"{size.memory_bytes / 1e6:,.0f} MB")
    assumed = "assumed: the package holds no such graph; " if any(size.assumed for size in found.sizes) else ""
    table.caption = escape(
        f"{found.model} on {found.device.name}, {found.backend}; {assumed}compared with: {found.device.checked}"
    )
    return table


def comparison_table(found: Comparison) -> Table:
    """One row for each contender, the first being what the others are compared with."""
    height, width = found.picture.shape[:2]
    table = Table(
        title=f"From picture to picture, {height} x {width}, in turn", title_justify="left", caption_justify="left"
    )
    table.add_column("model", overflow="fold")
    table.add_column("runs on")
    for heading in ("median", "speed", "PSNR"):
        table.add_column(heading, justify="right", no_wrap=True)
    for index, (name, standing) in enumerate(zip(found.names, found.standings, strict=True)):
        low, middle, high = standing.speed
        interval = f" ({low:.2f}–{high:.2f})" if standing.certain else ""
        colour = "" if not standing.differs else "[green]" if middle > 1 else "[red]"
        table.add_row(
            escape(name),
            standing.runs_on,
            f"{standing.latency.median_ms:.1f} ms",
            f"{colour}{middle:.2f} ×{'[/]' if colour else ''}{interval}" if index else "1",
            _likeness(standing) if index else "",
        )
    machine = found.environment
    rounds = len(found.standings[0].latency.samples_ms)
    brackets = (
        f"in brackets 95 % of {rounds} rounds' median"
        if found.standings[0].certain
        else f"{rounds} rounds are too few to tell a difference from chance"
    )
    table.caption = f"speed and PSNR against the first; {brackets}; {machine['processor']}, {machine['cores']} cores"
    return table


def _likeness(standing: Standing) -> str:
    if standing.psnr_db is None:
        return "other size"
    return "equal" if standing.equal else f"{standing.psnr_db:.1f} dB"


def engine_check_table(found: EngineCheck) -> Table:
    """One row for each picture that an engine and its graph drew."""
    title = f"{found.precision} engine / {found.against} in ONNX Runtime; wanted: {found.least_psnr:g} dB"
    table = Table("picture", "PSNR", "SSIM", "max difference", title=title, title_justify="left")
    for picture in found.pictures:
        verdict = "[green]ok[/]" if picture.drawn.psnr >= found.least_psnr else "[red]too far[/]"
        figures = (
            f"{picture.drawn.psnr:.1f} dB {verdict}",
            "–" if picture.ssim is None else f"{picture.ssim:.5f}",
            f"{picture.drawn.max_difference} of {picture.drawn.white}",
        )
        table.add_row(picture.drawn.picture, *figures)
    return table
