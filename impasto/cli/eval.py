"""`impasto eval`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer
from rich.table import Table

from impasto import images
from impasto.errors import OptionError
from impasto.styles import parse

from . import options
from .console import err, out, write_json

if TYPE_CHECKING:
    from impasto.evaluation import Evaluation


def evaluate(
    model: options.Model,
    photos: Annotated[
        Path, typer.Option(help="Folder of clean photos that training has not seen.", show_default=False)
    ],
    degrade: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(help="For a restorer: a damage such as noise:0-55; judged at five strengths. May be repeated."),
    ] = None,
    painting: Annotated[Optional[Path], typer.Option(help="For a stylizer: the picture it paints like.")] = None,  # noqa: UP045
    vgg: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="VGG16's weights; for a stylizer by default those in the cache, for a restorer none."),
    ] = None,
    style: options.Style = None,
    strength: options.Strength = 1.0,
    backend: options.Backend = "auto",
    precision: options.Precision = "auto",
    device: options.Device = 0,
    json: options.Json = None,
    sheet: Annotated[Optional[Path], typer.Option(help="Also write pictures before and after to this file.")] = None,  # noqa: UP045
) -> None:
    """Judge a model on photos: PSNR and SSIM of a restorer, content and style distance of a stylizer."""
    from impasto.evaluation import LoadOptions, evaluate_restorer, evaluate_stylizer

    if bool(degrade) == (painting is not None):
        raise OptionError("say what to judge by: --degrade DAMAGE for a restorer, or --painting FILE for a stylizer")
    if sheet is not None:
        images.check_suffix(sheet)
    how = LoadOptions(backend, precision, device)
    with err.status(f"judging {model}") as status:
        if painting is not None:
            mixed = parse(style) if style else None
            result = evaluate_stylizer(
                model, photos, painting, vgg=vgg, style=mixed, strength=strength, options=how, progress=status.update
            )
        else:
            result = evaluate_restorer(model, photos, degrade or [], vgg=vgg, options=how, progress=status.update)
    out.print(_table(result))
    write_json(json, result.to_json())
    if sheet is not None:
        result.write_sheet(sheet)
        err.print(f"wrote {sheet}", markup=False)


def _table(result: Evaluation) -> Table:
    """One row for each condition."""
    table = Table(
        "", title=f"{result.info.name} on {len(result.pictures)} pictures: mean ± 95 % confidence", title_justify="left"
    )
    for heading in result.conditions[0].scores:
        table.add_column(heading, justify="right")
    for condition in result.conditions:
        table.add_row(condition.name, *map(str, condition.scores.values()))
    return table
