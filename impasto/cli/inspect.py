"""`impasto inspect`."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, Optional

import typer
from rich.markup import escape
from rich.table import Table

from impasto.errors import OptionError

from . import options
from .console import err, out, write_json, write_page


def inspect(
    path: Annotated[
        str,
        typer.Argument(help="A model's name, a package, an .onnx file, a checkpoint or an engine.", show_default=False),
    ],
    html: options.Html = None,
    photo: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(
            help="With --html: a photo, to see what each stage sees in it and what steers its drawing.",
            show_default=False,
        ),
    ] = None,
    painting: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="With --html and --photo: the painting, to compare Gram matrices with.", show_default=False),
    ] = None,
    network: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            help="With --painting: the perceptual network, as impasto export vgg16 makes it; vgg16 by default."
        ),
    ] = None,
    sensitivity: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(
            help="With --html: JSON of impasto quantize --sensitivity --json, where the package does not hold it."
        ),
    ] = None,
    json: options.Json = None,
) -> None:
    """Show what a package, graph, checkpoint or engine is, and whether its files are the ones its manifest describes."""
    from impasto.export.inspection import inspect_path

    if html is None and (photo or painting or network or sensitivity):
        raise OptionError(
            "--photo, --painting, --network and --sensitivity are shown on a page; name one with --html FILE"
        )
    if network and painting is None:
        raise OptionError("--network needs the painting to compare with: --painting PAINTING")

    found = inspect_path(path)
    table = Table(title=escape(found.title), title_justify="left", show_header=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for key, value in found.rows:
        table.add_row(escape(key), escape(value))
    out.print(table)
    if found.files:
        files = Table()
        files.add_column("file", no_wrap=True)  # the others give way: a name is there to be copied
        for heading in ("role", "precision", "bytes", "SHA-256", ""):
            files.add_column(heading)
        for file in found.files:
            state = "[green]intact[/]" if file.intact else "[red]altered or missing[/]"
            about = (Path(file.name).name, file.role, file.precision, f"{file.bytes:,}", file.sha256[:12])
            files.add_row(*map(escape, about), state)
        out.print(files)
    if found.layers:
        layers = Table()
        for heading in ("layer", "kind", "computes in", "reads", "writes"):
            layers.add_column(heading, overflow="fold")
        for layer in found.layers:
            sides = (", ".join(dict.fromkeys(side)) for side in (layer.inputs, layer.outputs))
            layers.add_row(*map(escape, (layer.name, layer.kind, layer.precision, *sides)))
        out.print(layers)
    write_json(json, found.to_json())
    found.require_intact()
    if html is not None:
        _write_page(html, path, photo, painting, network, sensitivity)


def _write_page(
    html: Path, path: str, photo: Path | None, painting: Path | None, network: str | None, sensitivity: Path | None
) -> None:
    from impasto.benchmarks.measurement.report import describe_machine
    from impasto.export.inside.look import look_inside
    from impasto.report.inspections import inspection_report

    with err.status("looking inside") as status:
        inside = look_inside(
            path,
            photo,
            painting,
            network=network or "vgg16",
            sensitivity=sensitivity,
            progress=lambda line, *_: status.update(line),
        )
    write_page(html, partial(inspection_report, inside, describe_machine()))
