"""Video files read and written: FFmpeg's formats by PyAV, frames at their own times, sound by packets."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from impasto.errors import MissingDependency, OptionError, OutputError, PictureError

from . import colours
from .colours import pyav
from .source import Source

if TYPE_CHECKING:
    from av import AudioStream, Packet, VideoFrame, VideoStream
    from av.container import InputContainer, OutputContainer

SUFFIXES = (".mp4", ".mov", ".m4v", ".mkv", ".webm", ".avi")
"""The file types read, in lower case."""

WRITTEN = (".mp4", ".mov", ".m4v", ".mkv")
"""The file types written, in lower case: those that hold H.264 and most kinds of sound."""

CRF = 16
"""x264's constant rate factor where no other is asked for. 0 loses nothing but what 8-bit YCbCr loses, 51 is the coarsest."""

_HDR = {16: "PQ", 18: "HLG"}
"""Transfer functions whose pictures are no sRGB, as FFmpeg numbers them."""
_PRESET = "veryfast"
_WAITING = 3
"""Frames and packets of sound that may wait for the encoder, which bounds the memory."""


def is_video(path: str | os.PathLike[str]) -> bool:
    """Whether the name is a video file's."""
    return Path(path).suffix.lower() in SUFFIXES


def check_suffix(path: Path) -> None:
    """Raises OptionError unless the path ends in one of WRITTEN."""
    if path.suffix.lower() not in WRITTEN:
        raise OptionError(f"cannot write a video to {path.name!r}; let its name end in one of {', '.join(WRITTEN)}")


def _opened(path: Path) -> InputContainer:
    """The file, whatever bytes its metadata hold: PyAV before 19 must be told that they do not matter, 19 takes no such word."""
    av = pyav()
    try:
        return av.open(str(path), metadata_errors="replace")
    except TypeError:
        return av.open(str(path))


class FileSource(Source):
    """A video file. Raises PictureError where it cannot be read."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path, self.name = path, str(path)
        av = pyav()
        if not path.is_file():
            raise PictureError(f"{path} {'is a folder' if path.is_dir() else 'does not exist'}; give a video file")
        try:
            self._container: InputContainer = _opened(path)
        except (av.FFmpegError, IndexError, UnicodeError) as error:
            # IndexError where a damaged header contradicts itself.
            reason = getattr(error, "strerror", None) or error
            raise PictureError(f"{path} is no video file that can be read: {reason}; get it again") from None
        videos = [
            video
            for video in self._container.streams.video
            if not video.disposition & av.stream.Disposition.attached_pic
        ]
        if not videos:
            tracks = ", ".join(sorted({stream.type for stream in self._container.streams})) or "no tracks at all"
            self._container.close()
            raise PictureError(f"{path} holds no video; it has {tracks}")
        self.video: VideoStream = videos[0]
        if self.video.codec_context is None:  # PyAV would crash in decoding it
            self._container.close()
            raise PictureError(
                f"{path} holds video of a kind that FFmpeg does not know; get it again, or convert it to .mp4"
            )
        self.video.thread_type = "AUTO"
        self.sounds = tuple(self._container.streams.audio)
        self.rate = self.video.average_rate or self.video.guessed_rate or Fraction(25)
        self.time_base = self.video.time_base or 1 / self.rate
        self.count = self._count()

    def frames(self, carry: Callable[[Packet], None]) -> Iterator[np.ndarray]:
        av = pyav()
        size: tuple[int, ...] = ()
        last = None
        try:
            for packet in self._container.demux(self.video, *self.sounds):
                if packet.stream is not self.video:
                    carry(packet)
                    continue
                for frame in self.video.decode(packet):
                    last = self._time(frame, last)
                    picture = self._rgb(frame)
                    if size and picture.shape != size:
                        raise PictureError(f"{self._at(last)} changes its size; cut it there, and draw the parts alone")
                    size = picture.shape
                    self.waiting.append(last)
                    yield picture
        except av.FFmpegError as error:
            raise PictureError(
                f"{self._at(last)} is damaged: {error.strerror}; FFmpeg may save what can be read: "
                f"ffmpeg -i {self.path.name} -c:v libx264 -crf 10 mended.mkv"
            ) from None
        if not size:
            raise PictureError(f"{self.path} holds no frame that can be read")

    def __exit__(self, *_: object) -> None:
        self._container.close()

    def _rgb(self, frame: VideoFrame) -> np.ndarray:
        """Upright and in 8 bits. Raises PictureError for high dynamic range."""
        if frame.color_trc in _HDR:
            raise PictureError(
                f"{self.path} has high dynamic range ({_HDR[frame.color_trc]}), and the models know 8 bits of sRGB; convert it "
                f"first: ffmpeg -i {self.path.name} -vf zscale=t=linear,tonemap=hable,zscale=t=bt709:m=bt709:r=tv,format=yuv420p "
                "-c:v libx264 -crf 10 sdr.mkv"
            )
        self.damaged += frame.is_corrupt
        self.interlaced |= frame.interlaced_frame
        told = self.video.codec_context
        self.told_matrix, self.primaries, self.transfer = int(told.colorspace), told.color_primaries, told.color_trc
        quarters = frame.rotation // 90  # counterclockwise
        aspect = self.video.sample_aspect_ratio or Fraction(1)
        self.pixel_aspect = 1 / aspect if quarters % 2 else aspect
        return np.ascontiguousarray(np.rot90(colours.to_rgb(frame, self.matrix(frame.height)), quarters))

    def _time(self, frame: VideoFrame, last: int | None) -> int:
        """When the frame is shown, in units of `time_base`: later than the one before, whatever a broken file says."""
        step = max(1, round(1 / (self.rate * self.time_base)))
        if frame.pts is None:
            return 0 if last is None else last + step
        return int(frame.pts) if last is None else max(int(frame.pts), last + 1)

    def _at(self, time: int | None) -> str:
        return f"{self.path}" if time is None else f"{self.path} at {float(time * self.time_base):.2f} s"

    def _count(self) -> int | None:
        if self.video.frames:
            return self.video.frames
        if self.video.duration:
            return round(self.video.duration * self.time_base * self.rate)
        return round(Fraction(self._container.duration, 1_000_000) * self.rate) if self._container.duration else None


class FileTarget:
    """The file that is written: opened with the first frame, whose size it takes. A thread of its own encodes."""

    def __init__(self, temporary: Path, target: Path, source: Source, crf: int) -> None:
        self._temporary, self._target, self._source, self._crf = temporary, target, source, crf
        self._container: OutputContainer | None = None
        self._early: list[Packet] = []
        self._encoder = ThreadPoolExecutor(1, thread_name_prefix="impasto-encode")
        self._tasks: deque[Future[None]] = deque()
        self.sounds = len(source.sounds)

    def add(self, picture: np.ndarray, time: int) -> None:
        """Encode a frame that is shown at this time, soon. Raises OptionError for sound that the file cannot hold, OutputError."""
        self._soon(self._add, picture, time)

    def carry(self, packet: Packet) -> None:
        """Take over a packet of sound as it is, soon. Raises as `add`."""
        if packet.size:  # none is the sign that a track has ended
            self._soon(self._carry, packet)

    def _soon(self, work: Callable[..., None], *arguments: Any) -> None:
        """Work is done in the order of its coming; what an earlier piece raised comes out here."""
        while len(self._tasks) >= _WAITING or (self._tasks and self._tasks[0].done()):
            self._tasks.popleft().result()
        self._tasks.append(self._encoder.submit(work, *arguments))

    def _add(self, picture: np.ndarray, time: int) -> None:
        height = picture.shape[0]
        with self._failing():
            if self._container is None:
                self._open(picture)
            frame = colours.from_rgb(picture, self._source.matrix(height))
            frame.pts, frame.time_base = time, self._source.time_base
            self._mux(self._video.encode(frame))

    def _carry(self, packet: Packet) -> None:
        if self._container is None:
            self._early.append(packet)
            return
        packet.stream = self._sounds[packet.stream_index]
        with self._failing():
            self._mux([packet])

    def __enter__(self) -> FileTarget:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._encoder.shutdown(cancel_futures=kind is not None)
        with self._failing(), self._container or nullcontext():
            if kind is None:
                for task in self._tasks:
                    task.result()
                self._mux(self._video.encode(None))

    def _open(self, picture: np.ndarray) -> None:
        """Make the file and its tracks, and write the sound that came before the first frame."""
        av, source = pyav(), self._source
        height, width = picture.shape[:2]
        options = {"movflags": "+faststart"} if self._target.suffix.lower() != ".mkv" else {}
        self._container = av.open(str(self._temporary), "w", options=options)
        try:
            self._video = self._container.add_stream(
                "libx264", rate=source.rate, options={"crf": str(self._crf), "preset": _PRESET}
            )
        except av.codec.codec.UnknownCodecError:
            raise MissingDependency(
                "writing video needs an FFmpeg with libx264, and this PyAV's has none: pip install --force-reinstall av"
            ) from None
        video = self._video.codec_context
        video.width, video.height = width, height
        video.pix_fmt = colours.chroma_format(height, width)
        video.time_base = source.time_base
        video.sample_aspect_ratio = source.pixel_aspect
        video.colorspace, video.color_range = source.matrix(height), colours.LIMITED
        video.color_primaries, video.color_trc = source.primaries, source.transfer
        self._sounds = {sound.index: self._sound(sound) for sound in source.sounds}
        self._video.codec_context.open(strict=False)
        try:
            self._container.start_encoding()  # some sound is refused only here, where the header is written
        except av.ArgumentError:
            if not source.sounds:
                raise
            raise self._holds_no(*source.sounds) from None
        early, self._early = self._early, []
        for packet in early:
            self._carry(packet)

    def _sound(self, sound: AudioStream) -> AudioStream:
        assert self._container is not None
        try:
            copied = self._container.add_stream_from_template(sound)
            if sound.layout.name.endswith(" channels"):
                # No speakers are named, and .mp4 must name them: the usual ones.
                copied.codec_context.layout = f"{sound.layout.nb_channels}c"
            return copied
        except ValueError:
            raise self._holds_no(sound) from None

    def _holds_no(self, *sounds: AudioStream) -> OptionError:
        kinds = dict.fromkeys(sound.codec_context.name if sound.codec_context else "such" for sound in sounds)
        return OptionError(
            f"{self._target.suffix} files hold no {' or no '.join(kinds)} sound; .mkv files hold more kinds, or convert it first: "
            f"ffmpeg -i {Path(self._source.name).name} -c:v copy -c:a aac converted.mkv"
        )

    def _mux(self, packets: list[Packet]) -> None:
        assert self._container is not None
        self._container.mux(packets)

    @contextmanager
    def _failing(self) -> Iterator[None]:
        """FFmpeg's complaints as ours."""
        try:
            yield
        except pyav().FFmpegError as error:
            raise OutputError(
                f"cannot write {self._target}: {error.strerror}; choose another place or format"
            ) from None
