"""A model over files: what goes where; and over pictures, alpha carried along."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from . import images, videos
from .errors import OptionError, OutputError
from .files import make_folder

if TYPE_CHECKING:
    from .runtime import Model


PIPE = Path("-")
"""Standard input or output, which carry video as Y4M."""


@dataclass(frozen=True)
class Job:
    """One picture or video to run."""

    source: Path
    target: Path

    @property
    def is_video(self) -> bool:
        """Whether it is a video, by its name."""
        return self.source == PIPE or videos.is_video(self.source)


def plan(inputs: Sequence[Path], output: Path | None, model: str) -> list[Job]:
    """Which file becomes which. Folders stand for the pictures in them.

    output: for a single file a file or folder, otherwise a folder (made where missing); None writes NAME.MODEL.png (.mp4
    for a video) beside each file, and a folder's results into FOLDER-MODEL. PIPE may be the only input, and the output of one video.
    Raises PictureError, OptionError and OutputError, so that nothing is computed which could not be written.
    """
    if PIPE in (*inputs, output):
        return [_piped(inputs, output)]
    jobs = []
    to_file = (
        output is not None and len(inputs) == 1 and not inputs[0].is_dir() and not output.is_dir() and output.suffix
    )
    if output is not None and not to_file:
        if output.is_file():
            raise OutputError(f"{output} is a file; several need a folder to go to")
        make_folder(output)
    for entry in inputs:
        if entry.is_dir():
            folder = make_folder(output or entry.with_name(f"{entry.resolve().name}-{model}"))
            jobs += [Job(source, folder / f"{source.stem}.png") for source in images.list_folder(entry)]
        elif to_file and output is not None:
            jobs.append(Job(entry, output))
        else:
            suffix = ".mp4" if videos.is_video(entry) else ".png"
            jobs.append(Job(entry, (output or entry.parent) / f"{entry.stem}.{model}{suffix}"))
    _check(jobs)
    return jobs


def _piped(inputs: Sequence[Path], output: Path | None) -> Job:
    if len(inputs) > 1:
        raise OptionError("- is one video, from standard input or to standard output; run the others by themselves")
    if output is None:
        raise OptionError(
            "a video from standard input has no name to write beside; add -o FILE, or -o - for standard output"
        )
    job = Job(inputs[0], output)
    if not job.is_video:
        raise OptionError(f"standard output carries video alone, and {job.source} is none; give a file to write to")
    _check([job])
    return job


def run_job(model: Model, job: Job, quality: int = 95) -> bool:
    """Read, run, write. Transparency is kept, scaled with the picture. Raises PictureError, OutputError, BackendError.

    Returns whether the model changed anything.
    """
    picture = images.read(job.source)
    drawn = model(picture.rgb)
    alpha = picture.alpha
    if alpha is not None and model.info.scale > 1:
        alpha = np.repeat(np.repeat(alpha, model.info.scale, 0), model.info.scale, 1)
    images.write(job.target, images.Picture(drawn, alpha, picture.exif), quality=quality)
    return not np.array_equal(drawn, picture.rgb)


def _check(jobs: Sequence[Job]) -> None:
    taken: dict[Path, Path] = {}
    for job in jobs:
        if job.target == PIPE:
            continue
        (videos if job.is_video else images).check_suffix(job.target)
        target = job.target.resolve()
        if target == job.source.resolve():
            raise OptionError(
                f"{job.target} is the {'video' if job.is_video else 'picture'} itself and would be overwritten; choose another output"
            )
        if target in taken:
            raise OptionError(
                f"{taken[target]} and {job.source} would both be written to {job.target}; run them one by one with -o"
            )
        taken[target] = job.source
        if not job.target.parent.is_dir():
            raise OutputError(
                f"cannot write {job.target}: the folder {job.target.parent} does not exist; make it first"
            )
