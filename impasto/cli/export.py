"""`impasto export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from .console import err, out


def export(
    checkpoint: Annotated[
        Path,
        typer.Argument(
            help="A .safetensors checkpoint of impasto train, or another project's .pth that spandrel reads.",
            show_default=False,
        ),
    ],
    output: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--output", "-o", help="The package's folder; the checkpoint's own by default."),
    ] = None,
    name: Annotated[Optional[str], typer.Option(help="The model's name; by default the checkpoint's.")] = None,  # noqa: UP045
) -> None:
    """Turn a checkpoint into a model package: canonical ONNX, manifest, hashes."""
    from impasto.export.package import export_checkpoint

    with err.status(f"exporting {checkpoint}"):
        folder = export_checkpoint(checkpoint, output, name=name)
    out.print(f"wrote the package {folder}", markup=False)
    out.print(f"next: impasto check {folder}", markup=False)
