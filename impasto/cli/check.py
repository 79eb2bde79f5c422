"""`impasto check`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer
from rich.table import Table

from . import options
from .console import err, out, write_json


def check(
    model: options.Model,
    pictures: Annotated[
        Optional[list[Path]],  # noqa: UP045
        typer.Argument(help="Pictures to draw, besides two synthetic ones.", show_default=False),
    ] = None,
    backend: options.Backend = "auto",
    json: options.Json = None,
) -> None:
    """Prove that a package draws what its checkpoint draws in torch, to within 1 level of 255."""
    from impasto.export.check import TOLERANCE, check_package

    with err.status(f"drawing with {model} and with torch"):
        result = check_package(model, pictures or (), backend=backend)
    table = Table(
        "picture", "max difference", "values that differ", "PSNR", title=f"{result.model}: {result.backend} / torch"
    )
    for found in result.pictures:
        verdict = "[green]ok[/]" if found.max_difference <= TOLERANCE else "[red]too far[/]"
        table.add_row(
            found.picture,
            f"{found.max_difference} of 255 {verdict}",
            f"{100 * found.differing:.3f} %",
            f"{found.psnr:.1f} dB",
        )
    out.print(table)
    write_json(json, result.to_json())
    result.require()
