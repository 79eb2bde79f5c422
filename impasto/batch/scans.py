"""A model over DICOM files: every frame drawn in its own depth, written as TIFF or PNG of 16 bits, or as a derived DICOM file."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np

from impasto import images, medical
from impasto.errors import OptionError
from impasto.files import write_bytes
from impasto.images.deep import as_depth, stack
from impasto.medical.derived import Processing

from .jobs import Job
from .pictures import PictureRun

if TYPE_CHECKING:
    from impasto.runtime import Model

_STACKS = (".tif", ".tiff")


def run_scan(
    model: Model, job: Job, *, window: medical.Window, how: str, quality: int = 95, longest_side: int | None = None
) -> PictureRun:
    """Draw a DICOM file. window: which of its values are drawn. how: what the model was told, in words, for a derived file.
    longest_side: of what is drawn otherwise; scans are never scaled down.

    Raises what `medical.read_scan`, the model and `images.write` raise, and OptionError where the target cannot hold the frames.
    """
    if longest_side is not None:
        raise OptionError(
            f"{job.source} is a scan, which is drawn at its own size; leave longest_side out (--longest-side)"
        )
    scan = medical.read_scan(job.source, window)
    count, height, width = scan.stored.shape[:3]
    height, width = height * model.info.scale, width * model.info.scale
    derived = medical.is_dicom(job.target)
    if derived:
        medical.check_derivable(job.target, scan, model.info.scale)
    else:
        images.check_holds(job.target, height, width, alpha=False)
    if count > 1 and not derived and job.target.suffix.lower() not in _STACKS:
        raise OptionError(
            f"{job.source} has {count} frames, and {job.target.name} holds one; write a .tif, which holds them all, or a .dcm"
        )
    pictures = scan.pictures()
    begun = time.perf_counter()
    with job.naming():
        drawn = np.stack([model(picture) for picture in pictures])
    seconds = time.perf_counter() - begun
    if derived:
        medical.write_derived(job.target, scan, drawn, Processing(model.info.name, how))
        told = None
    else:
        told = _write(job, scan, drawn, quality)
    note = "; ".join(filter(None, (told, scan.flat_text()))) or None
    changed = any(not np.array_equal(one, other) for one, other in zip(pictures, drawn, strict=True))
    return PictureRun(job, height, width, seconds, changed, note, count)


def _write(job: Job, scan: medical.Scan, drawn: np.ndarray, quality: int) -> str | None:
    """Write a picture of 16 bits, or a stack of them. Returns what the levels mean, and what the file could not hold."""
    told = f"{job.target}: {scan.range_text()}" if scan.is_gray else None
    if scan.is_gray and job.target.suffix.lower() != ".npy":
        drawn = as_depth(drawn, np.dtype(np.uint16))
    if len(drawn) > 1:
        write_bytes(job.target, stack(drawn))
        return told
    note = images.write_telling(job.target, drawn[0], quality=quality)
    return "; ".join(filter(None, (told, note))) or None
