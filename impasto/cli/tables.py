"""Results as Rich tables, where more than one verb shows them."""

from __future__ import annotations

from rich.table import Table

from impasto.benchmarks import BenchmarkReport, Latency


def benchmark_table(*reports: BenchmarkReport) -> Table:
    """One row for each model, size and kind of latency."""
    table = Table(title="Latency, one picture at a time, in ms", title_justify="left")
    for heading in ("model", "backend", "size", "what"):
        table.add_column(heading)
    for heading in ("median", "p90", "p99", "std", "images/s"):
        table.add_column(heading, justify="right")
    for report in reports:
        for result in report.results:
            first = (report.info.name, report.info.backend, f"{result.height} x {result.width}")
            table.add_row(*first, "compute only", *_figures(result.compute))
            table.add_row("", "", "", "end to end", *_figures(result.end_to_end))
    if reports:
        machine = reports[0].environment
        table.caption = f"{machine['processor']}, {machine['cores']} cores"
    return table


def _figures(latency: Latency) -> list[str]:
    times = (latency.median_ms, latency.percentile_ms(90), latency.percentile_ms(99), latency.standard_deviation_ms)
    return [*(f"{value:.2f}" for value in times), f"{latency.images_per_second:.1f}"]
