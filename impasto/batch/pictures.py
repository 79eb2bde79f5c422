"""A model over picture files: alpha carried along, results written while the next pictures are drawn."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from impasto import images
from impasto.errors import ImpastoError

from .jobs import Job

if TYPE_CHECKING:
    from impasto.runtime import Model

_WRITERS = min(4, os.cpu_count() or 1)
"""A 12-megapixel PNG takes seconds to compress, and a network on a GPU milliseconds to draw it."""
_WAITING_BYTES = 1 << 28
"""Drawn pictures that may wait to be written, unless a single one is larger: edge devices have little memory."""


class Files:
    """Where pictures are read and written: on this machine's disks. A subclass knows another place."""

    def read(self, source: Path) -> images.Picture:
        """The picture, as `images.read_deep` gives it. Raises PictureError."""
        return images.read_deep(source)

    def write(self, target: Path, picture: images.Picture, quality: int) -> str | None:
        """Write a whole picture or nothing, as `images.write_telling` does, and return what the file could not hold."""
        return images.write_telling(target, picture, quality=quality)


@dataclass(frozen=True)
class PictureRun:
    """A picture that a model drew and that was written."""

    job: Job
    height: int
    width: int
    """Width of the result in pixels, as `height` is its height."""
    seconds: float
    """The model's alone, without reading and writing."""
    changed: bool
    """Whether any pixel is another than the source's."""
    note: str | None
    """What the file could not hold, and of a scan what its levels mean; None where there is nothing to say."""
    frames: int = 1
    """Frames of a scan, which may have several."""

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary."""
        return {
            "source": str(self.job.source),
            "file": str(self.job.target),
            "size": [self.height, self.width],
            "milliseconds": 1000 * self.seconds,
            **({"frames": self.frames} if self.frames > 1 else {}),
        }


def run_pictures(
    model: Model,
    jobs: Sequence[Job],
    *,
    quality: int = 95,
    longest_side: int | None = None,
    files: Files | None = None,
) -> Iterator[tuple[Job, Future[PictureRun]]]:
    """Draw pictures. Yields each job with its outcome, which is there already, in the jobs' order.

    quality: 1 to 100, of JPEG and WebP. longest_side: larger pictures are scaled down to it, in pixels, before they are drawn.
    files: where they are read and written; None: on this machine's disks. Results may raise PictureError, ShapeError for a picture
    that the model does not take, OutputError, BackendError, and OptionError where the target's format cannot hold the picture.
    """
    files = files or Files()
    waiting: deque[tuple[Job, Future[PictureRun], int]] = deque()
    with ThreadPoolExecutor(_WRITERS, "impasto-writer") as writers:
        for job in jobs:
            waiting.append((job, *_begin(writers, model, job, files, quality, longest_side)))
            while waiting and (
                waiting[0][1].done() or len(waiting) > _WRITERS or sum(size for *_, size in waiting) > _WAITING_BYTES
            ):
                yield _finished(waiting)
        while waiting:
            yield _finished(waiting)


def _finished(waiting: deque[tuple[Job, Future[PictureRun], int]]) -> tuple[Job, Future[PictureRun]]:
    job, outcome, _ = waiting.popleft()
    wait([outcome])
    return job, outcome


def _begin(
    writers: ThreadPoolExecutor, model: Model, job: Job, files: Files, quality: int, longest_side: int | None
) -> tuple[Future[PictureRun], int]:
    """Read and draw a picture, and have it written. Returns the outcome and the bytes that wait for it."""
    try:
        picture = files.read(job.source)
        source = images.within(picture.rgb, longest_side)
        height, width = (side * model.info.scale for side in source.shape[:2])
        images.check_holds(job.target, height, width, alpha=picture.alpha is not None)
        begun = time.perf_counter()
        with job.naming():
            drawn = model(source)
        seconds = time.perf_counter() - begun
    except ImpastoError as error:
        failed: Future[PictureRun] = Future()
        failed.set_exception(error)
        return failed, 0
    result = result_of(picture, drawn, model.info.scale, longest_side)
    changed = not np.array_equal(drawn, source)

    def write() -> PictureRun:
        note = files.write(job.target, result, quality)
        return PictureRun(job, height, width, seconds, changed, note)

    return writers.submit(write), drawn.nbytes


def result_of(
    picture: images.Picture, drawn: np.ndarray, scale: int, longest_side: int | None = None
) -> images.Picture:
    """What is written of a drawn picture: transparency, enlarged as the drawing is, and EXIF come from the source.

    drawn: (H x scale, W x scale, 3), of the picture scaled down to longest_side first.
    """
    alpha = picture.alpha
    if alpha is not None:
        alpha = images.within(alpha, longest_side).repeat(scale, 0).repeat(scale, 1)
    return images.Picture(drawn, alpha, picture.exif)
