"""`impasto check`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer
from rich.table import Table

from impasto.errors import OptionError

from . import options
from .console import err, out, write_measured
from .tables import engine_check_table

if TYPE_CHECKING:
    from impasto.export.checks.against_torch import CheckResult
    from impasto.export.checks.engine import EngineCheck
    from impasto.export.checks.style import StyleCheck


def check(
    model: options.Model,
    pictures: Annotated[
        Optional[list[Path]],  # noqa: UP045
        typer.Argument(
            help="Pictures to draw, besides two synthetic ones; with --style, instead of them.", show_default=False
        ),
    ] = None,
    against: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="For an engine: the .onnx file or package that it must draw like.", show_default=False),
    ] = None,
    min_psnr: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(
            help="With --against: least PSNR in dB; by precision 60 (fp32), 50 (fp16), 30 (int8); with float ends 90."
        ),
    ] = None,
    style: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(
            help="The painting: measure whether other precisions than FP32, or an engine, changed the style.",
            show_default=False,
        ),
    ] = None,
    network: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="With --style: the perceptual network, as impasto export vgg16 makes it; vgg16 by default."),
    ] = None,
    max_style_change: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(help="With --style: largest change of the mean style distance, in %; 3 by default."),
    ] = None,
    device: options.Device = 0,
    backend: options.Backend = "auto",
    json: options.Json = None,
) -> None:
    """Prove that a package draws what its checkpoint draws in torch, an engine what its graph draws, or both in one style."""
    if style is None and (network is not None or max_style_change is not None):
        raise OptionError("--network and --max-style-change need the painting to measure by: --style PAINTING")
    from impasto import export

    reference = None
    if style is not None:
        change = {} if max_style_change is None else {"max_change": max_style_change / 100}
        reference = export.StyleReference(style, network or "vgg16", **change)
    with err.status(f"comparing what {model} draws") as status:
        found = export.check(
            model,
            pictures or (),
            against=against,
            least_psnr=min_psnr,
            style=reference,
            backend=backend,
            device=device,
            progress=lambda line, *_: status.update(line),
        )
    out.print(_table(found))
    write_measured(json, found.to_json())
    found.require()


def _table(found: CheckResult | EngineCheck | StyleCheck) -> Table:
    from impasto.export.checks.against_torch import CheckResult
    from impasto.export.checks.engine import EngineCheck

    if isinstance(found, CheckResult):
        return _package_table(found)
    return engine_check_table(found) if isinstance(found, EngineCheck) else _style_table(found)


def _package_table(result: CheckResult) -> Table:
    """One row for each picture."""
    from impasto.export.checks.against_torch import TOLERANCE

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
    return table


def _style_table(found: StyleCheck) -> Table:
    """One row for each layer, one column for each graph."""
    count = len(found.pictures)
    table = Table(
        "layer",
        title=f"{found.model}: style distance to {found.painting}, mean of {count} picture{'s' * (count > 1)}",
        caption=f"{found.network}; wanted: the total within {100 * found.max_change:g} %",
        title_justify="left",
        caption_justify="left",
    )
    for drawn in (found.reference, *found.others):
        table.add_column(drawn.graph.replace(" ", "\n"), justify="right")
    for layer in (*found.layers, None):
        cells = [f"{found.reference.mean(layer):.4g}"]
        for other in found.others:
            verdict = "" if layer else " [green]ok[/]" if found.holds(other) else " [red]too far[/]"
            cells.append(f"{other.mean(layer):.4g}\n{100 * found.change(other, layer):+.2f} %{verdict}")
        table.add_row(layer or "total", *cells)
    return table
