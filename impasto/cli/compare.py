"""`impasto compare`."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, Optional

import typer

from . import options
from .console import err, out, write_json, write_page
from .progress import Bar


def compare(
    models: Annotated[
        list[str],
        typer.Argument(
            help="Two or more models: a name, package, .onnx file or engine. After a comma, how to run it: "
            "denoise,precision=int8,backend=openvino; also layout=, style= and strength=.",
            show_default=False,
        ),
    ],
    photo: Annotated[Path, typer.Option(help="The picture that they draw.", show_default=False)],
    size: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option("--size", "-s", help="Scale the photo to HEIGHTxWIDTH or 480p, 720p, 1080p, 1440p, 2160p (4k)."),
    ] = None,
    rounds: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(
            help="Number of rounds. In each, every model draws three times, and its fastest counts.",
            show_default="15, or as many as fit into a minute, but at least 6",
            min=1,
        ),
    ] = None,
    device: options.Device = 0,
    sheet: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(callback=options.writable_picture, help="Also write the drawings side by side to this file."),
    ] = None,
    html: options.Html = None,
    json: options.Json = None,
) -> None:
    """Compare models, backends and precisions in one interleaved run: how fast they are, and how similar their pictures."""
    from impasto.benchmarks.measurement.compare import Contender
    from impasto.benchmarks.measurement.compare import compare as compare_models
    from impasto.images.sizes import parse_size
    from impasto.report.comparisons import comparison_report

    from .tables import comparison_table

    contenders = [Contender.parse(text) for text in models]
    with Bar("rounds") as bar:
        bar.say("loading")
        found = compare_models(
            contenders,
            photo,
            size=parse_size(size) if size else None,
            rounds=rounds,
            device=device,
            progress=bar.say,
        )
    out.print(comparison_table(found))
    if sheet is not None:
        found.write_sheet(sheet)
        err.print(f"wrote {sheet}", markup=False)
    write_page(html, partial(comparison_report, found))
    write_json(json, found.to_json())
