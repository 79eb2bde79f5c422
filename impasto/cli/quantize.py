"""`impasto quantize`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer
from rich.table import Table

from impasto.errors import OptionError

from . import options
from .console import err, out, write_measured, write_page
from .progress import Bar

if TYPE_CHECKING:
    from impasto.export.quantization.quantized_graph import QuantizedGraph
    from impasto.export.quantization.search import QuantizeResult

_BAR = 24
"""Width of the longest bar, in characters."""


def quantize(
    model: Annotated[str, typer.Argument(help="A package folder, or a model's name.", show_default=False)],
    calibrate: Annotated[
        Path, typer.Option(help="Folder of pictures to calibrate on and to judge by.", show_default=False)
    ],
    to: Annotated[str, typer.Option(help="fp16, int8, or auto: the fastest that holds the budget.")] = "int8",
    target_backend: Annotated[
        Optional[list[str]],  # noqa: UP045 (Typer on Python 3.10 evaluates it)
        typer.Option("--for", help="For INT8: tensorrt, openvino or onnxruntime; may be repeated. All by default."),
    ] = None,
    budget: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            help="Least likeness to the FP32 drawing: psnr=40 (dB), ssim=0.98, style=3% (change of the distance to --painting), "
            "truth=0.1 (dB that a restorer may lose). By default psnr=60 (fp16) or 30 (int8), and truth=0.15."
        ),
    ] = None,
    calibration: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="For INT8: percentile, entropy or min-max; the best of them by default."),
    ] = None,
    degrade: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            help="For a restorer: the damage to add to the pictures first, or none. Default: the damage it was trained on."
        ),
    ] = None,
    painting: Annotated[
        Optional[list[Path]],  # noqa: UP045
        typer.Option(help="For a stylizer with style= in its budget: the painting; one for each of its styles."),
    ] = None,
    vgg: Annotated[Optional[Path], typer.Option(help="VGG16's weights; by default those in the cache.")] = None,  # noqa: UP045
    output: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(
            "--output", "-o", help="Folder for a copy of the package. Default: write into the package itself."
        ),
    ] = None,
    modelopt: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(
            help="For TensorRT: quantize with NVIDIA ModelOpt. Give the Python of the environment that has it."
        ),
    ] = None,
    sensitivity: Annotated[
        bool, typer.Option("--sensitivity", help="Show what each layer costs, even if the budget holds.")
    ] = False,
    exclude: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(
            help="A layer to leave out of the precision, by its label in the manifest or in --sensitivity; may be repeated. No "
            "other layers are then searched."
        ),
    ] = None,
    chart: Annotated[Optional[str], typer.Option(hidden=True)] = None,  # noqa: UP045
    html: options.Html = None,
    json: options.Json = None,
) -> None:
    """Write FP16 or INT8 graphs of a model that draw the same picture within a budget."""
    from impasto import export
    from impasto.benchmarks.measurement.report import describe_machine
    from impasto.export.quantization.quality import Budget
    from impasto.export.quantization.search import QuantizeOptions
    from impasto.report.quantizations import quantization_report

    if chart is not None:
        raise OptionError(
            "--chart is gone: --sensitivity shows what each layer costs, and --html FILE keeps it as a page"
        )
    wanted = QuantizeOptions(
        calibrate=calibrate,
        to=to,
        target_backends=tuple(target_backend or ()),
        budget=Budget.parse(budget) if budget is not None else None,
        method=calibration,
        damage=degrade,
        paintings=tuple(painting or ()),
        vgg=vgg,
        output=output,
        modelopt=modelopt,
        sensitivity=sensitivity,
        exclude=tuple(exclude or ()),
    )
    with Bar("layers") as bar:
        bar.say(f"loading {model}")
        result = export.quantize(model, wanted, progress=bar.say)
    _show(result)
    write_page(html, lambda command: quantization_report(result, calibrate, describe_machine(), command))
    write_measured(json, result.to_json())


def _show(result: QuantizeResult) -> None:
    if result.skipped:
        err.print(f"skipped {len(result.skipped)} files: {result.skipped[0]}", markup=False)
    done = "" if result.damage == "none" else f", damaged by {result.damage}"
    err.print(f"calibrated and judged on {result.pictures} pictures{done}", markup=False)
    for made in result.made:
        if made.losses:
            out.print(_bars(made))
    out.print(str(result), markup=False, soft_wrap=True)


def _bars(made: QuantizedGraph) -> Table:
    """One row for each layer, with a bar as long as its cost."""
    name = made.precision + (f" for {made.target_backend}" if made.target_backend else "")
    table = Table(
        title=f"{name}: RMS difference in levels of 255 with one layer in it",
        title_justify="left",
        caption_justify="left",
    )
    table.add_column("layer", overflow="fold")
    for heading in ("levels", "PSNR"):
        table.add_column(heading, no_wrap=True, justify="right")
    table.add_column("", no_wrap=True)
    worst = max(loss.levels for loss in made.losses)
    for loss in made.losses:
        bar = "█" * max(1, round(_BAR * loss.levels / worst))
        excluded = " excluded" if loss.label in made.excluded else ""
        table.add_row(loss.label, f"{loss.levels:.3f}", f"{loss.psnr:.1f} dB", f"{bar}{excluded}")
    return table
