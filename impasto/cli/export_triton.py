"""`impasto export-triton`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from impasto.styles import parse

from . import options
from .console import err, out


def export_triton(
    model: options.Model,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The model repository's folder; made where missing.")
    ] = Path("repository"),
    precision: Annotated[str, typer.Option(help="Precision of the graph: auto (fp32), fp32, fp16 or int8.")] = "auto",
    backend: Annotated[
        str,
        typer.Option(
            help="Triton's backend for the graphs: onnxruntime; or python, for servers that lack it, with ONNX Runtime in Python."
        ),
    ] = "onnxruntime",
    kind: Annotated[str, typer.Option(help="Where the model runs: auto, cpu or gpu.")] = "auto",
    instances: Annotated[int, typer.Option(help="Instances of the model on each GPU, or on the CPU.", min=1)] = 1,
    batch: Annotated[int, typer.Option(help="Pictures of one size that may be drawn together.", min=1)] = 8,
    delay_us: Annotated[int, typer.Option(help="Microseconds that a picture may wait for others.", min=0)] = 2000,
    style: options.Style = None,
    strength: options.Strength = 1.0,
) -> None:
    """Write a model repository for NVIDIA's Triton Inference Server."""
    from impasto.export import TritonOptions
    from impasto.export import export_triton as export

    chosen = TritonOptions(
        precision,
        backend,  # type: ignore[arg-type]  # checked there
        kind,  # type: ignore[arg-type]
        instances,
        batch,
        delay_us,
        parse(style) if style else None,
        strength,
    )
    made = export(model, output, chosen)
    out.print(f"wrote {made}", markup=False, soft_wrap=True)
    for note in made.notes:
        err.print(note, markup=False)
    out.print(
        f"next: tritonserver --model-repository {shlex.quote(str(made.path.absolute()))}", markup=False, soft_wrap=True
    )
