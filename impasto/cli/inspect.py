"""`impasto inspect`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from . import options
from .console import out, write_json


def inspect(
    path: Annotated[
        str,
        typer.Argument(help="A model's name, a package, an .onnx file, a checkpoint or an engine.", show_default=False),
    ],
    json: options.Json = None,
) -> None:
    """Show what a package, graph, checkpoint or engine is, and whether its files are the ones its manifest describes."""
    from impasto.export.inspection import inspect_path

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
