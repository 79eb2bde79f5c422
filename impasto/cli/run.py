"""`impasto run`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from impasto.errors import OptionError, PictureError
from impasto.picture_run import FORMATS, PIPE, Job, is_one_video, plan, run_job
from impasto.styles import parse
from impasto.video_run import run_video
from impasto.videos import CRF, Redrawn

from . import options
from .console import err, fail, out, write_json

if TYPE_CHECKING:
    from impasto.runtime import Model, StyleMeter


def run(
    model: options.Model,
    inputs: Annotated[
        list[Path],
        typer.Argument(
            help="Pictures, videos, or folders of pictures; - is a video from standard input, as Y4M.",
            show_default=False,
        ),
    ],
    output: Annotated[
        Optional[str],  # noqa: UP045 (no Path, which forgets the slash at a folder's end)
        typer.Option(
            "--output",
            "-o",
            metavar="PATH",
            help="A file for one picture or video, otherwise a folder; - is standard output, for a video as Y4M. "
            "By default NAME.MODEL.png or .mp4 beside each.",
        ),
    ] = None,
    backend: options.Backend = "auto",
    precision: options.Precision = "auto",
    device: options.Device = 0,
    layout: options.Layout = None,
    style: options.Style = None,
    strength: options.Strength = 1.0,
    format: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help=f"Of pictures where -o names no file: {', '.join(FORMATS)}.", show_default="png"),
    ] = None,
    skip_existing: Annotated[
        bool, typer.Option("--skip-existing", help="Leave results alone that are there already.")
    ] = False,
    quality: Annotated[int, typer.Option(help="Of JPEG and WebP files.", min=1, max=100)] = 95,
    crf: Annotated[
        int, typer.Option(help="Of videos: x264's rate factor, 0 (largest file) to 51.", min=0, max=51)
    ] = CRF,
    painting: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="For a video: measure each frame's style distance to this painting; --json keeps them."),
    ] = None,
    network: Annotated[
        str, typer.Option(help="With --painting: the perceptual network, as impasto export vgg16 makes it.")
    ] = "vgg16",
    json: options.Json = None,
) -> None:
    """Run a model on pictures and videos, and write the results."""
    import impasto

    if (painting or json) and not is_one_video(inputs):
        raise OptionError(
            "--painting and --json are for one video; impasto eval --painting judges a stylizer by photos"
        )
    with ExitStack() as opened:
        loaded = opened.enter_context(
            impasto.load(model, backend=backend, precision=precision, device=device, layout=layout)
        )
        loaded.set_style(parse(style) if style else None, strength=strength)
        planned = plan(inputs, output, loaded.info.name, format=format)
        # Files appear whole or not at all, so what is there is finished.
        jobs = [job for job in planned if not (skip_existing and job.target.exists())]
        if len(jobs) < len(planned):
            err.print(f"{len(planned) - len(jobs)} of {len(planned)} results were there already")
        meter = opened.enter_context(_meter(painting, network, device)) if painting else None
        failures = 0
        with _progress() as progress:
            task = progress.add_task("running", total=len(jobs), visible=len(jobs) > 1)
            for job in jobs:
                try:
                    if job.is_video:
                        _run_video(loaded, job, crf, meter, progress, json)
                    else:
                        _run_picture(loaded, job, quality, quiet=len(jobs) > 1)
                except (PictureError, OptionError) as error:  # one among several is reported and passed over
                    if len(planned) == 1:
                        raise
                    fail(error)
                    failures += 1
                progress.advance(task)
    if len(jobs) > 1:
        folders = ", ".join(dict.fromkeys(str(job.target.parent) for job in jobs))
        written = f"{len(jobs) - failures} of {len(jobs)} files written to {folders}"
        out.print(f"{written} with {loaded.info}", markup=False, soft_wrap=True)
    if failures:
        raise typer.Exit(1)


def _run_picture(loaded: Model, job: Job, quality: int, quiet: bool) -> None:
    changed = run_job(loaded, job, quality)
    if not changed and loaded.info.task == "inpaint":
        err.print(
            f"{job.source} had nothing to fill in: missing pixels are exactly magenta (255, 0, 255), and it has none. JPEG does not "
            "keep that colour; save the picture as PNG",
            markup=False,
        )
    if not quiet:
        out.print(f"wrote {job.target} with {loaded.info}", markup=False, soft_wrap=True)


def _run_video(
    loaded: Model, job: Job, crf: int, meter: StyleMeter | None, progress: Progress, json: Path | None
) -> None:
    task = progress.add_task(job.source.name, total=None)
    try:
        found = run_video(
            loaded,
            job,
            crf=crf,
            meter=meter,
            progress=lambda done, total: progress.update(task, completed=done, total=total),
        )
    finally:
        progress.remove_task(task)
    video, told = found.video, err if job.target == PIPE else out
    for note in _notes(video, job):
        err.print(note, markup=False)
    between = "" if PIPE in (job.source, job.target) else " from file to file"
    speed = f"{found.frames_per_second:.1f} frames/s{between}"
    told.print(f"wrote {video}, {speed}, with {loaded.info}", markup=False, soft_wrap=True)
    if found.drift:
        told.print(found.drift_text(), markup=False, soft_wrap=True)
    write_json(json, found.to_json())


def _notes(video: Redrawn, job: Job) -> Iterator[str]:
    """What came through otherwise than one may think."""
    if video.interlaced:
        yield f"{job.source} is interlaced, and its combs were drawn as edges; better: ffmpeg -i {job.source.name} -vf yadif …"
    if video.damaged:
        yield f"{video.damaged} frames of {job.source} are damaged; the decoder filled them in"
    if video.sounds_lost:
        yield "Y4M holds no sound; take it from the source where you encode: ffmpeg -i - -i SOURCE -map 0:v -map 1:a …"
    if job.target == PIPE and video.uneven:
        yield f"{job.source} shows its frames for uneven times, and Y4M has one rate: they will move unevenly; a file keeps them"


def _meter(painting: Path, network: str, device: int) -> StyleMeter:
    from impasto.runtime import StyleMeter

    return StyleMeter(painting, network, device=device)


def _progress() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=err, transient=True, disable=not err.is_terminal)
