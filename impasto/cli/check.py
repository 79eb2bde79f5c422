"""`impasto check`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer
from rich.table import Table

from impasto.errors import OptionError

from . import options
from .console import err, out, write_json


def check(
    model: options.Model,
    pictures: Annotated[
        Optional[list[Path]],  # noqa: UP045
        typer.Argument(help="Pictures to draw, besides two synthetic ones.", show_default=False),
    ] = None,
    against: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="For an engine: the .onnx file or package that it must draw like.", show_default=False),
    ] = None,
    min_psnr: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(help="With --against: least PSNR in dB; by precision 60 (fp32), 50 (fp16), 30 (int8)."),
    ] = None,
    device: options.Device = 0,
    backend: options.Backend = "auto",
    json: options.Json = None,
) -> None:
    """Prove that a package draws what its checkpoint draws in torch, or an engine what its graph draws."""
    if against is not None:
        _check_engine(model, against, pictures or [], device, min_psnr, json)
        return
    if model.endswith(".plan"):
        raise OptionError(f"{model} is an engine; say what it must draw like: --against MODEL.onnx, or its package")
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


def _check_engine(
    engine: str, against: str, pictures: list[Path], device: int, min_psnr: float | None, json: Path | None
) -> None:
    from impasto.export.engine_check import check_engine

    from .tables import engine_check_table

    with err.status(f"drawing with {engine} and with {against}"):
        found = check_engine(engine, against, pictures, device=device, least_psnr=min_psnr)
    out.print(engine_check_table(found))
    write_json(json, found.to_json())
    found.require()
