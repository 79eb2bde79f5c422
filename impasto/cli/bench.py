"""`impasto bench`."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, Optional

import typer

from impasto.errors import OptionError

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
    iterations: Annotated[
        int, typer.Option(help="Number of timed runs. Fewer, if they would take more than 20 s.", min=1)
    ] = 50,
    warmup: Annotated[int, typer.Option(help="Number of runs before these, which are not timed.", min=0)] = 5,
    energy: Annotated[
        bool,
        typer.Option("--energy", help="Also measure joules a picture, by the sensors of a Jetson, a GPU or a CPU."),
    ] = False,
    batch: Annotated[
        Optional[list[int]],  # noqa: UP045
        typer.Option(help="Also time the graph on this many pictures at once; may be repeated.", min=1),
    ] = None,
    predict: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            help="Run nothing, and predict for a device such as orin-nano, h100 or cpu, or one that a .json file describes. An unknown "
            "name lists the devices.",
            show_default=False,
        ),
    ] = None,
    html: options.Html = None,
    json: options.Json = None,
) -> None:
    """Measure latency and throughput: the graph alone, and from picture to picture. Or predict them for a device that is not here."""
    if predict is not None:
        if energy or batch or layout:
            raise OptionError(
                "--predict knows --size, --precision and --backend; leave --energy, --batch and --layout out"
            )
        _predict(model, predict, size, precision, backend, html, json)
        return
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


def _predict(
    model: str, device: str, sizes: list[str], precision: str, backend: str, html: Path | None, json: Path | None
) -> None:
    from impasto.benchmarks.measurement.report import describe_machine
    from impasto.benchmarks.prediction import predict
    from impasto.report.predictions import prediction_report

    from .tables import prediction_table

    found = predict(model, device, sizes, precision=precision, backend=backend)
    out.print(prediction_table(found))
    for size in found.sizes:
        longest = ", ".join(
            f"{time.layer.name} {100 * size.windows * time.likely_ms / size.likely_ms:.0f} %"
            for time in size.dominant[:3]
        )
        err.print(f"{size.height}x{size.width} {size.precision}: the longest layers are {longest}", markup=False)
    write_page(html, partial(prediction_report, found, describe_machine()))
    write_json(json, found.to_json())
