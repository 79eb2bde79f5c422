"""A model over video files: redrawn frame by frame, and how far each frame is from a painting's style."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from impasto import images, videos
from impasto.errors import OptionError

from .jobs import PIPE, Job

if TYPE_CHECKING:
    from impasto.runtime import Model, StyleMeter
    from impasto.runtime.style_meter import StyleDistance


@dataclass(frozen=True)
class VideoRun:
    """A video that a model drew."""

    source: Path
    video: videos.Redrawn
    seconds: float
    """From the first frame read to the last one written."""
    drift: tuple[StyleDistance, ...] = ()
    """Style distance of each frame. Empty where nobody asked for it."""

    @property
    def frames_per_second(self) -> float:
        """Read, drawn, measured where asked for, and written."""
        return len(self.video.times_s) / self.seconds

    def drift_text(self) -> str:
        """The least, middle and largest distance, and the largest change between two neighbours, with their times."""
        totals = np.array([distance.total for distance in self.drift])
        times = self.video.times_s
        low, high = int(totals.argmin()), int(totals.argmax())
        text = (
            f"style distance {np.median(totals):.4g} in the middle, {totals[low]:.4g} at {times[low]:.2f} s to "
            f"{totals[high]:.4g} at {times[high]:.2f} s"
        )
        if len(totals) < 2:
            return text
        steps = np.abs(np.diff(totals))
        return f"{text}; largest change from frame to frame {steps.max():.2g} at {times[int(steps.argmax()) + 1]:.2f} s"

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary: one entry for each frame under "frames"."""
        times = [{"time_s": moment} for moment in self.video.times_s]
        drift = [distance.to_json() for distance in self.drift] or [{}] * len(times)
        return {
            "source": str(self.source),
            "file": str(self.video.path or PIPE),
            "size": [self.video.height, self.video.width],
            "seconds": self.seconds,
            "frames_per_second": self.frames_per_second,
            "damaged_frames": self.video.damaged,
            "lost_frames_s": list(self.video.lost_s),
            "left_out": [*self.video.left_out, *self.video.sounds_refused],
            "frames": [moment | distance for moment, distance in zip(times, drift, strict=True)],
        }


def run_video(
    model: Model,
    job: Job,
    *,
    crf: int = videos.CRF,
    sound: bool = True,
    longest_side: int | None = None,
    meter: StyleMeter | None = None,
    progress: videos.FramesWritten | None = None,
) -> VideoRun:
    """Draw a video. longest_side: larger frames are scaled down to it, in pixels, before they are drawn. meter: measures each drawn
    frame's style. sound: whether a file's is carried.

    Raises OptionError where a pipe is wanted and there is a terminal, and what `videos.redraw`, the model and the meter raise.
    """
    source = _standard_input() if job.source == PIPE else job.source
    target = _standard_output() if job.target == PIPE else job.target
    drift: list[StyleDistance] = []

    def draw(frames: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
        # Even sides, since videos hold one colour for two by two pixels.
        with job.naming():
            for picture in model.stream(images.within(frame, longest_side, multiple=2) for frame in frames):
                if meter:
                    drift.append(meter(picture))
                yield picture

    begun = time.perf_counter()
    redrawn = videos.redraw(source, target, draw, crf=crf, sound=sound, progress=progress)
    return VideoRun(job.source, redrawn, time.perf_counter() - begun, tuple(drift))


def _standard_input() -> BinaryIO:
    if sys.stdin is None or sys.stdin.isatty():
        raise OptionError(
            "standard input is no pipe; send Y4M into it: ffmpeg -i clip.mp4 -f yuv4mpegpipe -pix_fmt yuv420p - | impasto run …"
        )
    return sys.stdin.buffer


def _standard_output() -> BinaryIO:
    """Without Python's buffer: what is left in that when the reader stops would be an error once more at exit, with code 120."""
    if sys.stdout is None or sys.stdout.isatty():
        raise OptionError("standard output is no pipe; send it into a program that reads Y4M: … -o - | ffplay -")
    return open(sys.stdout.fileno(), "wb", buffering=0, closefd=False)
