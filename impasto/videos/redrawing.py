"""From a video to a redrawn one, whatever holds them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from impasto.errors import NoNumbers, OptionError
from impasto.files import atomic_path

from .files import CRF, FileSource, FileTarget, check_suffix
from .pipes import PipeSource, PipeTarget
from .source import Source

Draw = Callable[[Iterator[np.ndarray]], Iterator[np.ndarray]]
"""Takes frames, uint8 (H, W, 3) RGB, and gives as many drawn ones in their order, all of one size and each an array of its own:
`Model.stream`, for one."""

FramesWritten = Callable[[int, "int | None"], None]
"""Called with the frames written, and how many there are; None where the video does not say."""

Progress = FramesWritten
"""Its old name."""


@dataclass(frozen=True)
class Redrawn:
    """A video that was written."""

    path: Path | None
    """None for a stream."""
    width: int
    height: int
    times_s: tuple[float, ...]
    """When each frame of the source is shown, in seconds."""
    sounds: int
    """Sound tracks carried along, as they were."""
    sounds_lost: int
    """Sound tracks that the result cannot hold."""
    damaged: int
    """Frames that could only be read in part; the decoder filled in the rest."""
    interlaced: bool
    """Whether frames hold two moments each, in every other line: networks then see combs for edges."""
    lost_s: tuple[float, ...] = ()
    """When those frames were to be shown, in seconds, that the source has or announces and that could not be read."""
    hidden: int = 0
    """Frames that the source has and that its edit list cuts off."""
    restarts_s: tuple[float, ...] = ()
    """Where the source's clock ran back, in seconds; what follows was moved behind what was before."""
    transparent: bool = False
    """Whether the source is transparent in parts, which the result is not."""
    sounds_refused: tuple[str, ...] = ()
    """Those of them that this kind of file cannot hold, in words; a stream holds none."""
    mkv_holds_refused: bool = False
    """Whether a .mkv file holds all of these."""
    left_out: tuple[str, ...] = ()
    """What else the source holds and the result does not, in words."""

    def __str__(self) -> str:
        return f"{self.path or 'a Y4M stream'}, {len(self.times_s)} frames of {self.width}x{self.height}"

    @property
    def uneven(self) -> bool:
        """Whether a frame is shown for half as long again as the middle one, or for half as long."""
        steps = np.diff(self.times_s)
        return len(steps) > 0 and bool(np.abs(steps / np.median(steps) - 1).max() >= 0.5)


def redraw(
    source: str | os.PathLike[str] | BinaryIO,
    target: str | os.PathLike[str] | BinaryIO,
    draw: Draw,
    *,
    crf: int = CRF,
    sound: bool = True,
    progress: FramesWritten | None = None,
) -> Redrawn:
    """Write `target`: every frame of `source` as `draw` draws it, shown when that is shown, with the sound copied bit by bit.

    source, target: a file, or a binary stream of Y4M, which holds frames at one rate and no sound. Frames come upright, in 8 bits,
    with the colours that their video means. Files are written as H.264 with the same colour matrix, both in YCbCr 4:2:0 (4:4:4
    where a side is odd). A file appears whole or not at all; a stream is written as frames come.
    What a damaged file has lost is left out, and so are tracks of sound that the target cannot hold; `Redrawn` tells it. sound:
    whether it is carried.
    crf: 0 to 51, of files. Raises MissingDependency, PictureError for what cannot be read, OptionError for a suffix that the
    target cannot have and for a `draw` that gives more or fewer frames than there are, OutputError, and whatever `draw` raises.
    """
    times: list[int] = []
    if isinstance(target, str | os.PathLike):
        check_suffix(Path(target))
    with _source(source, sound) as reader, _target(target, reader, crf) as writer:
        frames = reader.frames(writer.carry)
        drawn = draw(frames)
        try:
            for picture in drawn:
                if not reader.waiting:
                    raise _uneven("more than")
                times.append(reader.waiting.popleft())
                writer.add(picture, times[-1])
                if progress:
                    progress(len(times), reader.count)
        except NoNumbers as error:
            when = f"; the frame at {float(reader.waiting[0] * reader.time_base):.2f} s" if reader.waiting else ""
            raise NoNumbers(f"{error}{when}") from error
        finally:  # a generator that computes ahead may not go on behind the caller's back
            getattr(drawn, "close", lambda: None)()
        if reader.waiting or next(frames, None) is not None:
            raise _uneven(f"only {len(times)} of")
    return Redrawn(
        path=Path(target) if isinstance(target, str | os.PathLike) else None,
        height=picture.shape[0],
        width=picture.shape[1],
        times_s=tuple(float(time * reader.time_base) for time in times),
        sounds=writer.sounds,
        sounds_lost=len(reader.sounds) - writer.sounds,
        damaged=reader.damaged,
        interlaced=reader.interlaced,
        lost_s=reader.lost_s,
        hidden=reader.hidden,
        restarts_s=reader.restarts_s,
        transparent=reader.transparent,
        sounds_refused=writer.refused,
        mkv_holds_refused=writer.mkv_holds_refused,
        left_out=reader.left_out,
    )


def _uneven(number: str) -> OptionError:
    return OptionError(f"draw gave {number} the frames that the video has; let it give one for each, in their order")


def _source(source: str | os.PathLike[str] | BinaryIO, sound: bool) -> Source:
    return FileSource(Path(source), sound=sound) if isinstance(source, str | os.PathLike) else PipeSource(source)


@contextmanager
def _target(target: str | os.PathLike[str] | BinaryIO, source: Source, crf: int) -> Iterator[FileTarget | PipeTarget]:
    if not isinstance(target, str | os.PathLike):
        yield PipeTarget(target, source)
        return
    with atomic_path(target) as temporary, FileTarget(temporary, Path(target), source, crf) as file:
        yield file
