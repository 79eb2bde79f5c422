"""`impasto run`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from impasto.picture_run import Job, plan, run_job
from impasto.styles import parse

from . import options
from .console import err, fail, out

if TYPE_CHECKING:
    from impasto.runtime import Model


def run(
    model: options.Model,
    inputs: Annotated[list[Path], typer.Argument(help="Pictures, or folders of pictures.", show_default=False)],
    output: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(
            "--output", "-o", help="A file for one picture, otherwise a folder. By default NAME.MODEL.png beside each."
        ),
    ] = None,
    backend: options.Backend = "auto",
    precision: options.Precision = "auto",
    device: options.Device = 0,
    layout: options.Layout = None,
    style: options.Style = None,
    strength: options.Strength = 1.0,
    quality: Annotated[int, typer.Option(help="Of JPEG and WebP files.", min=1, max=100)] = 95,
) -> None:
    """Run a model on pictures and write the results."""
    import impasto

    with impasto.load(model, backend=backend, precision=precision, device=device, layout=layout) as loaded:
        loaded.set_style(parse(style) if style else None, strength=strength)
        jobs = plan(inputs, output, loaded.info.name)
        failures = 0
        with _progress(len(jobs)) as progress:
            task = progress.add_task("", total=len(jobs))
            for job in jobs:
                failures += not _run_one(loaded, job, quality, alone=len(jobs) == 1)
                progress.advance(task)
    if len(jobs) > 1:
        written = f"{len(jobs) - failures} of {len(jobs)} pictures written to {jobs[0].target.parent}"
        out.print(f"{written} with {loaded.info}", markup=False, soft_wrap=True)
    if failures:
        raise typer.Exit(1)


def _run_one(loaded: Model, job: Job, quality: int, alone: bool) -> bool:
    """One picture; a damaged one among several is reported and passed over."""
    import impasto

    try:
        changed = run_job(loaded, job, quality)
    except impasto.errors.PictureError as error:
        if alone:
            raise
        fail(error)
        return False
    if not changed and loaded.info.task == "inpaint":
        err.print(
            f"{job.source} had nothing to fill in: missing pixels are exactly magenta (255, 0, 255), and it has none. JPEG does not "
            "keep that colour; save the picture as PNG",
            markup=False,
        )
    if alone:
        out.print(f"wrote {job.target} with {loaded.info}", markup=False, soft_wrap=True)
    return True


def _progress(count: int) -> Progress:
    columns = (TextColumn("running"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=err, transient=True, disable=count < 2)
