"""Video files redrawn frame by frame, at their own times and with their own sound. PyAV (FFmpeg) is imported on first use."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np

from .errors import MissingDependency, OptionError, OutputError, PictureError
from .files import atomic_path

if TYPE_CHECKING:
    from av import AudioStream, Packet, VideoFrame, VideoStream
    from av.container import InputContainer, OutputContainer

SUFFIXES = (".mp4", ".mov", ".m4v", ".mkv", ".webm", ".avi")
"""The file types read, in lower case."""

WRITTEN = (".mp4", ".mov", ".m4v", ".mkv")
"""The file types written, in lower case: those that hold H.264 and most kinds of sound."""

CRF = 16
"""x264's constant rate factor where no other is asked for. 0 loses nothing but what 8-bit YCbCr loses, 51 is the coarsest."""

Draw = Callable[[Iterator[np.ndarray]], Iterator[np.ndarray]]
"""Takes frames, uint8 (H, W, 3) RGB, and gives as many drawn ones in their order, all of one size: `Model.stream`, for one."""

Progress = Callable[[int, "int | None"], None]
"""Called with the frames written, and how many there are; None where the file does not say."""

# swscale's bits for exact rounding and for colours interpolated in full. Without them frames that only become RGB and YCbCr 4:2:0
# again are off by 2 levels of 255 on average, with them by 0.4.
_ACCURATE = 0x40000 | 0x2000 | 4
_BT709, _BT601 = 1, 5
_MATRICES = {1: 1, 4: 4, 5: 5, 6: 5, 7: 7, 9: 9}
"""Colour matrices: FFmpeg's number for a frame's (AVCOL_SPC_*) -> swscale's (SWS_CS_*)."""
_LIMITED, _FULL = 1, 2
_LAST_SD_HEIGHT = 576
_HDR = {16: "PQ", 18: "HLG"}
"""Transfer functions whose pictures are no sRGB, as FFmpeg numbers them."""
_PRESET = "veryfast"


@dataclass(frozen=True)
class Redrawn:
    """A video that was written."""

    path: Path
    width: int
    height: int
    times_s: tuple[float, ...]
    """When each frame is shown, in seconds."""
    sounds: int
    """Sound tracks carried along, as they were."""
    damaged: int
    """Frames that could only be read in part; the decoder filled in the rest."""
    interlaced: bool
    """Whether frames hold two moments each, in every other line: networks then see combs for edges."""

    def __str__(self) -> str:
        return f"{self.path}, {len(self.times_s)} frames of {self.width}x{self.height}"


def is_video(path: str | os.PathLike[str]) -> bool:
    """Whether the name is a video file's."""
    return Path(path).suffix.lower() in SUFFIXES


def check_suffix(path: Path) -> None:
    """Raises OptionError unless the path ends in one of WRITTEN."""
    if path.suffix.lower() not in WRITTEN:
        raise OptionError(f"cannot write a video to {path.name!r}; let its name end in one of {', '.join(WRITTEN)}")


def redraw(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    draw: Draw,
    *,
    crf: int = CRF,
    progress: Progress | None = None,
) -> Redrawn:
    """Write `target`: every frame of `source` as `draw` draws it, shown when that is shown, with the sound copied bit by bit.

    Frames come upright, in 8 bits, with the colours that their file means. They are written as H.264 with the same colour
    matrix, in YCbCr 4:2:0 (4:4:4 where a side is odd). The file appears whole or not at all.
    crf: 0 to 51. Raises MissingDependency, PictureError for what cannot be read, OptionError for a suffix or sound that the
    target cannot have, OutputError, and whatever `draw` raises.
    """
    target = Path(target)
    check_suffix(target)
    with _Reader(Path(source)) as reader, atomic_path(target) as temporary:
        with _Writer(temporary, target, reader, crf) as writer:
            drawn = draw(reader.frames(writer.carry))
            try:
                for picture in drawn:
                    writer.add(picture, reader.waiting.popleft())
                    if progress:
                        progress(len(writer.times), reader.count)
            finally:  # a generator that computes ahead may not go on behind the caller's back
                getattr(drawn, "close", lambda: None)()
        height, width = writer.size
    seconds = tuple(float(time * reader.time_base) for time in writer.times)
    return Redrawn(target, width, height, seconds, len(reader.sounds), reader.damaged, reader.interlaced)


class _Reader(AbstractContextManager["_Reader"]):
    """A video file: its frames in order, and the packets of its sound in between."""

    def __init__(self, path: Path) -> None:
        self.path = path
        av = _av()
        if not path.is_file():
            raise PictureError(f"{path} {'is a folder' if path.is_dir() else 'does not exist'}; give a video file")
        try:
            self._container: InputContainer = av.open(str(path), metadata_errors="replace")
        except Exception as error:  # FFmpeg's, or an IndexError of PyAV's where a damaged header contradicts itself
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
        self.sounds: tuple[AudioStream, ...] = tuple(self._container.streams.audio)
        self.rate: Fraction = self.video.average_rate or self.video.guessed_rate or Fraction(25)
        self.time_base: Fraction = self.video.time_base or 1 / self.rate
        self.count = self._count()
        self.waiting: deque[int] = deque()
        """The times of the frames that were given and not yet drawn, in units of `time_base`."""
        self.damaged, self.interlaced = 0, False
        self._rotation = 0

    def frames(self, carry: Callable[[Packet], None]) -> Iterator[np.ndarray]:
        """Upright RGB frames. carry: gets the packets of sound as they come. Raises PictureError."""
        av = _av()
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
        full = frame.color_range == _FULL or frame.format.name.startswith(("yuvj", "rgb", "bgr", "gbr", "gray"))
        converted = frame.reformat(
            format="rgb24",
            src_colorspace=_MATRICES[self.matrix(frame.height)],
            src_color_range=_FULL if full else _LIMITED,
            interpolation=_ACCURATE,
        )
        self._rotation = frame.rotation // 90  # counterclockwise
        return np.ascontiguousarray(np.rot90(converted.to_ndarray(), self._rotation))

    @property
    def pixel_aspect(self) -> Fraction:
        """Width of a pixel of an upright frame over its height."""
        aspect = self.video.sample_aspect_ratio or Fraction(1)
        return 1 / aspect if self._rotation % 2 else aspect

    def matrix(self, height: int) -> int:
        """The colour matrix as AVCOL_SPC_*: what the file says, otherwise what players take for frames of that height."""
        told = int(self.video.codec_context.colorspace)
        return told if told in _MATRICES else _BT709 if height > _LAST_SD_HEIGHT else _BT601

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


class _Writer(AbstractContextManager["_Writer"]):
    """The file that is written: opened with the first frame, whose size it takes."""

    def __init__(self, temporary: Path, target: Path, reader: _Reader, crf: int) -> None:
        self._temporary, self._target, self._reader, self._crf = temporary, target, reader, crf
        self._container: OutputContainer | None = None
        self._early: list[Packet] = []
        self.times: list[int] = []
        self.size = 0, 0

    def add(self, picture: np.ndarray, time: int) -> None:
        """Encode a frame that is shown at this time. Raises OptionError for sound that the file cannot hold, OutputError."""
        av = _av()
        with self._failing():
            if self._container is None:
                self._open(picture)
            matrix = self._reader.matrix(self.size[0])
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(
                format=self._video.pix_fmt,
                dst_colorspace=_MATRICES[matrix],
                dst_color_range=_LIMITED,
                interpolation=_ACCURATE,
            )
            frame.pts, frame.time_base = time, self._reader.time_base
            self._mux(self._video.encode(frame))
        self.times.append(time)

    def carry(self, packet: Packet) -> None:
        """Take over a packet of sound as it is."""
        if not packet.size:  # the sign that a track has ended
            return
        if self._container is None:
            self._early.append(packet)
            return
        packet.stream = self._sounds[packet.stream_index]
        with self._failing():
            self._mux([packet])

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._container is None:
            return
        with self._failing(), self._container:
            if kind is None:
                self._mux(self._video.encode(None))

    def _open(self, picture: np.ndarray) -> None:
        """Make the file and its tracks, and write the sound that came before the first frame."""
        av, reader, source = _av(), self._reader, self._reader.video.codec_context
        height, width = self.size = picture.shape[0], picture.shape[1]
        options = {"movflags": "+faststart"} if self._target.suffix.lower() != ".mkv" else {}
        self._container = av.open(str(self._temporary), "w", options=options)
        try:
            self._video = self._container.add_stream(
                "libx264", rate=reader.rate, options={"crf": str(self._crf), "preset": _PRESET}
            )
        except av.codec.codec.UnknownCodecError:
            raise MissingDependency(
                "writing video needs an FFmpeg with libx264, and this PyAV's has none: pip install --force-reinstall av"
            ) from None
        video = self._video.codec_context
        video.width, video.height = width, height
        video.pix_fmt = "yuv444p" if width % 2 or height % 2 else "yuv420p"
        video.time_base = reader.time_base
        video.sample_aspect_ratio = reader.pixel_aspect
        video.colorspace, video.color_range = reader.matrix(height), _LIMITED
        video.color_primaries, video.color_trc = source.color_primaries, source.color_trc
        self._sounds = {sound.index: self._sound(sound) for sound in reader.sounds}
        early, self._early = self._early, []
        for packet in early:
            self.carry(packet)

    def _sound(self, sound: AudioStream) -> AudioStream:
        assert self._container is not None
        try:
            return self._container.add_stream_from_template(sound)
        except ValueError:
            kind = sound.codec_context.name if sound.codec_context else "such"
            raise OptionError(
                f"{self._target.suffix} files hold no {kind} sound; .mkv files hold more kinds, or convert it first: "
                f"ffmpeg -i {self._reader.path.name} -c:v copy -c:a aac converted.mkv"
            ) from None

    def _mux(self, packets: list[Packet]) -> None:
        assert self._container is not None
        self._container.mux(packets)

    @contextmanager
    def _failing(self) -> Iterator[None]:
        """FFmpeg's complaints as ours."""
        try:
            yield
        except _av().FFmpegError as error:
            raise OutputError(
                f"cannot write {self._target}: {error.strerror}; choose another place or format"
            ) from None


def _av() -> ModuleType:
    """PyAV. Raises MissingDependency."""
    try:
        import av
    except ImportError:
        raise MissingDependency("reading and writing videos needs PyAV: pip install 'impasto[video]'") from None
    return av
