"""The page of `impasto run` over several pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from impasto import images, medical
from impasto.batch.pictures import PictureRun

from .charts import Distributions, figure, spread
from .page import Figure, Grid, Listing, Report, Section
from .pictures import PictureGroup, group

if TYPE_CHECKING:
    from impasto.batch.videos import VideoRun
    from impasto.runtime import ModelInfo

SHOWN = 12
"""Pictures to lay over each other: of many, evenly spread over all of them, since a page of a whole album cannot be sent."""


def run_report(
    info: ModelInfo,
    written: Sequence[PictureRun | VideoRun],
    failed: Sequence[tuple[str, str]],
    machine: Mapping[str, Any],
    command: str = "",
) -> Report:
    """Pictures before and after, as the files hold them, and how long each took. failed: each file and why.

    Raises PictureError where a picture has gone since.
    """
    pictures = [run for run in written if isinstance(run, PictureRun)]
    shown = [
        pictures[number * len(pictures) // min(SHOWN, len(pictures))] for number in range(min(SHOWN, len(pictures)))
    ]
    times = [1000 * run.seconds for run in pictures]
    some = f"{len(shown)} of {len(pictures)}, evenly spread. " if len(shown) < len(pictures) else ""
    timed = (Distributions("ms", (spread("a picture", times),)),) if times else ()
    sections = (
        Section("Before and after", tuple(_before_and_after(run) for run in shown), some + _SEEN),
        Section(
            "Time", timed, "The model's alone, without reading and writing. Pictures of other sizes take other times."
        ),
        Section("Every file", (_table(written),) if written else ()),
        Section("Not drawn", (Listing(tuple(f"{source}: {why}" for source, why in failed)),) if failed else ()),
    )
    pixels = sum(run.height * run.width for run in pictures)
    figures = [Figure(str(len(written)), "files written")]
    if times:
        figures += [
            Figure(f"{figure(sorted(times)[len(times) // 2])} ms", "a picture, median"),
            Figure(f"{figure(pixels / 1e3 / sum(times))}", "megapixels a second"),
        ]
    if failed:
        figures.append(Figure(str(len(failed)), "not drawn"))
    return Report(f"Drawn by {info.name}", str(info), sections, machine, tuple(figures), command)


_SEEN = "Drag the handle, or focus the slider and press the arrow keys."


def _seen(path: Path) -> np.ndarray:
    """A picture or a scan's first frame, as a page shows it: uint8 (H, W, 3)."""
    if medical.is_dicom(path):
        return images.as_bytes(medical.read_scan(path, medical.Window()).pictures()[0])
    return images.as_bytes(images.read_deep(path).rgb)


def _before_and_after(run: PictureRun) -> PictureGroup:
    source, drawn = _seen(run.job.source), _seen(run.job.target)
    return group(run.job.source.name, [("before", source), ("after", drawn)])


def _table(written: Sequence[PictureRun | VideoRun]) -> Grid:
    rows = []
    for run in written:
        if isinstance(run, PictureRun):
            rows.append(
                (
                    str(run.job.source),
                    str(run.job.target),
                    f"{run.width} × {run.height}",
                    f"{figure(1000 * run.seconds)} ms",
                )
            )
        else:
            target = str(run.video.path or "-")
            speed = f"{figure(run.frames_per_second)} frames/s"
            rows.append((str(run.source), target, f"{run.video.width} × {run.video.height}", speed))
    return Grid(("source", "written", "pixels", "time"), tuple(rows), words=2)
