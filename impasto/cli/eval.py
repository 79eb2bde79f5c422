"""`impasto eval`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer
from rich.table import Table

from impasto.errors import OptionError
from impasto.styles import parse

from . import options
from .console import err, out, write_json, write_page
from .progress import Bar

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
    every_precision: Annotated[
        bool,
        typer.Option(
            "--every-precision", help="Judge each graph of the package, FP32 first, to see what lower precisions lose."
        ),
    ] = False,
    html: options.Html = None,
    json: options.Json = None,
    sheet: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(callback=options.writable_picture, help="Also write pictures before and after to this file."),
    ] = None,
) -> None:
    """Judge a model on photos: PSNR and SSIM of a restorer, content and style distance of a stylizer."""
    from impasto.benchmarks.measurement.report import describe_machine
    from impasto.evaluation import LoadOptions
    from impasto.evaluation import evaluate as judge_on_photos
    from impasto.report.evaluations import evaluation_report
    from impasto.runtime.loading.source import resolve

    if bool(degrade) == (painting is not None):
        raise OptionError("say what to judge by: --degrade DAMAGE for a restorer, or --painting FILE for a stylizer")
    if degrade and style:
        raise OptionError("--style is a stylizer's; leave it out, or judge one with --painting FILE")
    if every_precision and (precision != "auto" or sheet is not None):
        raise OptionError("--every-precision takes no --precision and no --sheet; they are of one graph")
    # Only ONNX Runtime on the CPU draws the graphs of all target backends.
    how = LoadOptions("onnxruntime-cpu" if every_precision and backend == "auto" else backend, precision, device)
    judge: Callable[..., Evaluation] = partial(
        judge_on_photos,
        photos=photos,
        reference=painting or degrade or [],
        vgg=vgg,
        style=parse(style) if style else None,
        strength=strength,
        options=how,
    )
    with Bar("pictures") as bar:
        bar.say(f"loading {model}")
        graphs = resolve(model).graphs() if every_precision else {"": model}
        results = {name: judge(graph, progress=bar.say) for name, graph in graphs.items()}
    for line in next(iter(results.values())).skipped:
        err.print(f"left out: {line}", markup=False)
    write_page(html, lambda command: evaluation_report(results, describe_machine(), command))
    if every_precision:
        out.print(_precision_table(results))
        write_json(json, {name: result.to_json() for name, result in results.items()})
        return
    (result,) = results.values()
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


def _precision_table(results: dict[str, Evaluation]) -> Table:
    """One row for each condition and graph: means, and how they differ from the first graph's."""
    first = next(iter(results.values()))
    pictures = len(first.pictures)
    # What the damage alone does is the same for all graphs.
    headings = [heading for heading in first.conditions[0].scores if not heading.startswith("damaged ")]
    table = Table("", "", title=f"{first.info.name} on {pictures} pictures: mean (change)", title_justify="left")
    for heading in headings:
        table.add_column(heading, justify="right")
    for number, condition in enumerate(first.conditions):
        for name, result in results.items():
            cells = []
            for heading in headings:
                mean = result.conditions[number].scores[heading].mean
                change = mean - condition.scores[heading].mean
                cells.append(f"{mean:.4g}" + (f" ({change:+.2g})" if change else ""))
            table.add_row(condition.name, name, *cells)
    return table
