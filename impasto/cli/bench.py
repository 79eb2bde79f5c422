"""`impasto bench`."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Optional

import typer

from . import options
from .console import err, out, write_json, write_page


def bench(
    model: options.Model,
    size: Annotated[
        list[str],
        typer.Option("--size", "-s", help="HEIGHTxWIDTH or 480p, 720p, 1080p, 1440p, 2160p (4k); may be repeated."),
    ] = ["512x512"],  # noqa: B006 (Typer copies it)
    backend: options.Backend = "auto",
    precision: options.Precision = "auto",
    device: options.Device = 0,
    layout: options.Layout = None,
    iterations: Annotated[int, typer.Option(help="Timed runs; fewer where 20 s are not enough for them.", min=1)] = 50,
    warmup: Annotated[int, typer.Option(help="Runs before, untimed.", min=0)] = 5,
    energy: Annotated[
        bool,
        typer.Option("--energy", help="Also count joules a picture, by a Jetson's, a GPU's or a CPU's own sensors."),
    ] = False,
    batch: Annotated[
        Optional[list[int]],  # noqa: UP045
        typer.Option(help="Also time the graph on so many pictures at once; may be repeated.", min=1),
    ] = None,
    html: options.Html = None,
    json: options.Json = None,
) -> None:
    """Measure latency and throughput: the graph alone, and from picture to picture."""
    from impasto.benchmarks import BenchmarkOptions, benchmark
    from impasto.report.benchmarks import benchmark_report

    from .tables import benchmark_table

    with err.status(f"loading {model}") as status:
        report = benchmark(
            model,
            size,
            backend=backend,
            precision=precision,
            device=device,
            layout=layout,
            options=BenchmarkOptions(iterations, warmup, tuple(batch or ()), energy),
            progress=lambda step, *_: status.update(f"measuring {step}"),
        )
    out.print(benchmark_table(report))
    for result in report.results:
        if result.energy:
            out.print(f"{result.height}x{result.width}: {result.energy}", markup=False, soft_wrap=True)
        if result.peak_memory_bytes:
            peak = result.peak_memory_bytes / 1e6
            err.print(f"{result.height}x{result.width}: {peak:,.0f} MB of memory at most", markup=False)
    write_page(html, partial(benchmark_report, report))
    write_json(json, report.to_json())
