"""Video files read and written: FFmpeg's formats by PyAV, frames at their own times, sound by packets."""

from __future__ import annotations

import io
import os
import re
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from impasto import images
from impasto.errors import MissingDependency, OptionError, OutputError, PictureError
from impasto.files import check_name, is_file, why_unreadable

from . import colours
from .colours import pyav
from .source import Source
from .timeline import BestTimes, Clock, Losses

if TYPE_CHECKING:
    from av import AudioStream, Packet, VideoFrame, VideoStream
    from av.container import InputContainer, OutputContainer

SUFFIXES = (
    *(".mp4", ".mov", ".m4v", ".mkv", ".webm", ".avi"),
    *(".ts", ".mts", ".m2ts", ".mpg", ".mpeg", ".vob"),
    *(".wmv", ".asf", ".flv", ".f4v", ".3gp", ".3g2", ".ogv", ".y4m", ".gif"),
)
"""The file types read, in lower case; .gif files only if they move."""

WRITTEN = (".mp4", ".mov", ".m4v", ".mkv")
"""The file types written, in lower case: those that hold H.264 and most kinds of sound."""

CRF = 16
"""The default of x264's constant rate factor. 0 loses only what 8-bit YCbCr loses, 51 is the coarsest."""

_RESTARTING = 0x0200
"""FFmpeg's flag of formats whose clocks may begin at any time and start again (AVFMT_TS_DISCONT)."""
_HDR = {16: "PQ", 18: "HLG"}
"""FFmpeg's numbers of the transfer functions of high dynamic range."""
_FILE_METADATA = (
    "title",
    "artist",
    "author",
    "album",
    "comment",
    "description",
    "date",
    "creation_time",
    "copyright",
    "genre",
    "location",
)
"""Metadata keys that the written file takes over."""
_TRACK_METADATA = ("language", "title")
_PRESET = "veryfast"
_WAITING = 3
"""Frames and packets of sound that may wait for the encoder, which bounds the memory."""


def is_video(path: str | os.PathLike[str]) -> bool:
    """Whether the name is a video file's. A .gif file is opened, because one with a single frame is a picture."""
    suffix = Path(path).suffix.lower()
    return suffix in SUFFIXES and (suffix != ".gif" or images.is_animated(path))


def check_suffix(path: Path) -> None:
    """Raises OptionError unless the path ends in one of WRITTEN."""
    if path.suffix.lower() not in WRITTEN:
        raise OptionError(f"cannot write a video to {path.name!r}; let its name end in one of {', '.join(WRITTEN)}")
    check_name(path)


def _opened(path: Path) -> InputContainer:
    """Open the file, whatever bytes its metadata hold. PyAV before 19 needs an argument for that, which 19 does not take."""
    av = pyav()
    try:
        return av.open(str(path), metadata_errors="replace")
    except TypeError:
        return av.open(str(path))


class FileSource(Source):
    """A video file. Raises PictureError where it cannot be read."""

    def __init__(self, path: Path, *, sound: bool = True) -> None:
        """sound: whether its sound is copied."""
        super().__init__()
        self.path, self.name = path, str(path)
        av = pyav()
        if not is_file(path):
            raise PictureError(f"{path} {why_unreadable(path).split(';')[0]}; give a video file")
        try:
            self._container: InputContainer = _opened(path)
        except PermissionError as error:  # which FFmpeg's own error is too
            raise PictureError(f"cannot read {path}: {error.strerror}; change the file's permissions") from None
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
        self.sounds = tuple(self._container.streams.audio) if sound else ()
        self.rate = self.video.average_rate or self.video.guessed_rate or Fraction(25)
        self.time_base = self.video.time_base or 1 / self.rate
        self.count = self._count()
        self.left_out = self._others(videos)
        self._longest = Fraction(0)
        """The longest time that a frame was shown until now, in seconds."""
        self.transparent = self.video.metadata.get("alpha_mode") == "1"  # VP8 and VP9, whose decoders drop transparency

    @property
    def metadata(self) -> dict[str, str]:
        """The file's metadata."""
        return self._container.metadata

    def chapters(self) -> Any:
        """The chapters, in PyAV's form."""
        return self._container.chapters()

    def frames(self, carry: Callable[[Packet], None]) -> Iterator[np.ndarray]:
        size: tuple[int, ...] = ()
        last = None
        clock, times, losses = Clock(self._start()), BestTimes(), Losses(self.video.codec_context.name)
        unread: str | None = None
        for packet in self._packets():
            clock.settle(packet)
            if packet.stream is not self.video:
                carry(packet)
                continue
            losses.packet(packet)
            try:
                decoded = self.video.decode(packet)
            except pyav().FFmpegError as error:  # other frames may be readable
                unread = unread or error.strerror
                continue
            for frame in decoded:
                losses.frame(frame)
                last = self._time(times.of(frame), last)
                picture = self._rgb(frame, last)
                if size and picture.shape != size:
                    raise PictureError(f"{self._at(last)} changes its size; cut it there, and draw the parts alone")
                size = picture.shape
                self.waiting.append(last)
                yield picture
        if last is None:
            raise PictureError(f"{self.path} holds no frame that can be read" + (f": {unread}" if unread else ""))
        self.lost_s, self.hidden = self._lost(losses, last), losses.hidden
        self.restarts_s = tuple(clock.restarts_s)

    def __exit__(self, *_: object) -> None:
        self._container.close()

    def _packets(self) -> Iterator[Packet]:
        """The packets up to the end, or up to where the file is broken. Missing frames are counted afterwards."""
        av = pyav()
        try:
            yield from self._container.demux(self.video, *self.sounds)
        except av.FFmpegError:
            end = av.Packet()  # an empty packet makes the decoder give the frames that it holds back
            end.stream = self.video
            yield end

    def _start(self) -> Fraction:
        """The first time of the clock, in seconds, in formats cut out of broadcasts, where it means nothing; otherwise 0."""
        if not self._container.format.flags & _RESTARTING or self._container.start_time is None:
            return Fraction(0)
        return Fraction(self._container.start_time, 1_000_000)

    def _rgb(self, frame: VideoFrame, time: int) -> np.ndarray:
        """Upright and in 8 bits. Raises PictureError for high dynamic range."""
        if frame.color_trc in _HDR:
            raise PictureError(
                f"{self.path} has high dynamic range ({_HDR[frame.color_trc]}), and the models know 8 bits of sRGB; convert it "
                f"first: ffmpeg -i {self.path.name} -vf zscale=t=linear,tonemap=hable,zscale=t=bt709:m=bt709:r=tv,format=yuv420p "
                "-c:v libx264 -crf 10 sdr.mkv"
            )
        self.damaged += frame.is_corrupt
        self.interlaced |= frame.interlaced_frame
        codec = self.video.codec_context
        self.told_matrix, self.primaries, self.transfer = int(codec.colorspace), codec.color_primaries, codec.color_trc
        quarters = frame.rotation // 90  # counterclockwise
        aspect = self.video.sample_aspect_ratio or Fraction(1)
        self.pixel_aspect = 1 / aspect if quarters % 2 else aspect
        try:
            picture = colours.to_rgb(frame, self.matrix(frame.height))
            self.transparent = self.transparent or colours.is_transparent(frame)
        except pyav().FFmpegError as error:
            raise PictureError(
                f"{self._at(time)} cannot be converted to RGB ({frame.format.name}): {error.strerror}"
            ) from None
        return np.ascontiguousarray(np.rot90(picture, quarters))

    def _time(self, stated: int | None, last: int | None) -> int:
        """When the frame is shown, in units of `time_base`: always later than the last one, even if a broken file says otherwise.

        stated: the time in the file, None without one.
        """
        time = stated
        if time is None:
            time = 0 if last is None else last + self._step()
        if last is not None:
            time = max(time, last + 1)
            self._longest = max(self._longest, (time - last) * self.time_base)
        return time

    def _step(self) -> int:
        return max(1, round(1 / (self.rate * self.time_base)))

    def _at(self, time: int | None) -> str:
        return f"{self.path}" if time is None else f"{self.path} at {float(time * self.time_base):.2f} s"

    def _lost(self, losses: Losses, last: int) -> tuple[float, ...]:
        """When the missing frames should have been shown, in seconds. last: the time of the last frame that was read."""
        lost, places = (
            (0, []) if self.interlaced else losses.undrawn()
        )  # a packet of interlaced video may hold half a frame
        step = self._step()
        places = places or [last + step * (index + 1) for index in range(lost)]
        end = max([last, *places])
        cut = self._cut_off(losses, end + step)
        places += [end + step * (index + 1) for index in range(cut)]
        return tuple(float(place * self.time_base) for place in places)

    def _cut_off(self, losses: Losses, end: int) -> int:
        """How many frames the file announces after its last packet. end: when that packet ends, in units of `time_base`."""
        if "mp4" in self._container.format.name:
            return losses.missing(len(self.video.index_entries))  # without the frames that edit lists cut off
        if self.video.frames:
            return losses.missing(self.video.frames)
        announced = self._announced_end()
        if announced is None:
            return 0
        short = announced - end * self.time_base
        # Times are rounded. With a variable frame rate, the last frame may be shown for a long time.
        return round(short * self.rate) if short > Fraction(3, 2) * max(1 / self.rate, self._longest) else 0

    def _announced_end(self) -> Fraction | None:
        """When the video ends, in seconds, as the file states for the track, or for the whole file if it has no sound."""
        match = re.fullmatch(r"(\d{1,4}):(\d\d):(\d\d(?:\.\d{1,9})?)", self.video.metadata.get("DURATION", ""))
        if match:
            return int(match[1]) * 3600 + int(match[2]) * 60 + Fraction(match[3])
        if self.video.duration:
            start = 0 if self._start() else self.video.start_time or 0
            return Fraction((self.video.duration + start) * self.time_base)
        if self._container.duration and len(self._container.streams) == 1:
            return Fraction(self._container.duration, 1_000_000)
        return None

    def _others(self, videos: list[VideoStream]) -> tuple[str, ...]:
        """Tracks of other kinds, pictures such as covers, and videos beside the first."""
        others = [stream for stream in self._container.streams if stream.type != "audio" and stream is not self.video]
        kinds = Counter(
            "picture" if stream.type == "video" and stream not in videos else f"{stream.type} track"
            for stream in others
        )
        return tuple(f"{count} {kind}{'s' if count > 1 else ''}" for kind, count in kinds.items())

    def _count(self) -> int | None:
        if self.video.frames:
            return self.video.frames
        if self.video.duration:
            return round(self.video.duration * self.time_base * self.rate)
        return round(Fraction(self._container.duration, 1_000_000) * self.rate) if self._container.duration else None


class FileTarget:
    """The file that is written. It is opened with the first frame, which gives its size. A thread of its own encodes."""

    def __init__(self, temporary: Path, target: Path, source: Source, crf: int) -> None:
        self._temporary, self._target, self._source, self._crf = temporary, target, source, crf
        self._container: OutputContainer | None = None
        self._early: list[Packet] = []
        self._encoder = ThreadPoolExecutor(1, thread_name_prefix="impasto-encode")
        self._tasks: deque[Future[None]] = deque()
        self._sounds: dict[int, AudioStream] = {}
        """The tracks of sound that are copied, by their index in the source."""
        self.refused: tuple[str, ...] = ()
        """Tracks of sound that the file cannot hold, in words. Known with the first frame."""
        self.mkv_holds_refused = False
        """Whether a .mkv file could hold the refused tracks."""

    @property
    def sounds(self) -> int:
        """How many tracks of sound are copied. Known with the first frame."""
        return len(self._sounds)

    def add(self, picture: np.ndarray, time: int) -> None:
        """Encode a frame later, in the encoder's thread. time: when it is shown. Raises OutputError."""
        self._submit(self._add, picture, time)

    def carry(self, packet: Packet) -> None:
        """Copy a packet of sound later, in the encoder's thread. Raises OutputError."""
        if packet.size:  # an empty packet marks the end of a track
            self._submit(self._carry, packet)

    def _submit(self, work: Callable[..., None], *arguments: Any) -> None:
        """Hand work to the encoder's thread, which does it in order. An error of earlier work is raised here."""
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
        if packet.stream_index in self._sounds:
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
        held = [sound for sound in source.sounds if _holds(self._container.format.name, sound)]
        self._sounds = {sound.index: _copied(self._container, sound) for sound in held}
        refused = [(number, sound) for number, sound in enumerate(source.sounds, 1) if sound not in held]
        self.refused = tuple(_sound_name(sound, number) for number, sound in refused)
        self.mkv_holds_refused = bool(refused) and all(_holds("matroska", sound) for _, sound in refused)
        if isinstance(source, FileSource):
            self._container.metadata.update(_only(source.metadata, _FILE_METADATA))
            self._video.metadata.update(_track_metadata(source.video))
            self._container.set_chapters(source.chapters())
        self._video.codec_context.open(strict=False)
        self._container.start_encoding()
        early, self._early = self._early, []
        for packet in early:
            self._carry(packet)

    def _mux(self, packets: list[Packet]) -> None:
        assert self._container is not None
        self._container.mux(packets)

    @contextmanager
    def _failing(self) -> Iterator[None]:
        """Turn FFmpeg's errors into OutputError."""
        try:
            yield
        except pyav().FFmpegError as error:
            raise OutputError(
                f"cannot write {self._target}: {error.strerror}; choose another place or format"
            ) from None


def _only(metadata: Mapping[str, str], keys: Sequence[str]) -> dict[str, str]:
    return {key: value for key, value in metadata.items() if key.lower() in keys}


def _track_metadata(track: AudioStream | VideoStream) -> dict[str, str]:
    """Metadata for the copy of a track. FFmpeg writes a title into .mp4 files, and reads it there as a name."""
    name = track.metadata.get("name")
    return ({"title": name} if name else {}) | _only(track.metadata, _TRACK_METADATA)


def _copied(container: OutputContainer, sound: AudioStream) -> AudioStream:
    """Add a track that takes the packets of this one unchanged. Raises ValueError if the container cannot hold it."""
    copied = container.add_stream_from_template(sound)
    copied.metadata.update(_track_metadata(sound))
    copied.disposition = sound.disposition
    if sound.layout.name.endswith(" channels"):
        # The track names no speakers, and .mp4 must name them: take the usual ones.
        copied.codec_context.layout = f"{sound.layout.nb_channels}c"
    return copied


def _holds(format: str, sound: AudioStream) -> bool:
    """Whether files of this format (FFmpeg's name) can hold such sound. Some formats refuse only when the header is written."""
    av = pyav()
    if sound.codec_context is None:  # a codec that FFmpeg does not know
        return False
    try:
        with av.open(io.BytesIO(), "w", format=format) as tried:
            _copied(tried, sound)
            tried.start_encoding()
    except (ValueError, av.FFmpegError):
        return False
    return True


def _sound_name(sound: AudioStream, number: int) -> str:
    kind = sound.codec_context.name if sound.codec_context else "of a kind that FFmpeg does not know"
    words = [kind, *(sound.metadata[key] for key in _TRACK_METADATA if key in sound.metadata)]
    return f"sound track {number} ({', '.join(words)})"
