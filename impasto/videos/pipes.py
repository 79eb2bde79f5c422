"""Videos that come and go through pipes as Y4M, frame by frame."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from impasto.errors import OutputError, PictureError

from . import colours, y4m
from .source import Source

if TYPE_CHECKING:
    from av import Packet, VideoFrame
    from av.video.plane import VideoPlane


class PipeSource(Source):
    """A Y4M stream. Raises PictureError where it is none."""

    name = "the Y4M stream"

    def __init__(self, stream: BinaryIO) -> None:
        super().__init__()
        colours.pyav()
        self._stream, self._header = stream, y4m.read_header(stream)
        self.rate, self.time_base = self._header.rate, 1 / self._header.rate
        self.pixel_aspect, self.interlaced = self._header.pixel_aspect, self._header.interlaced

    def frames(self, carry: Callable[[Packet], None]) -> Iterator[np.ndarray]:
        matrix = self.matrix(self._header.height)
        none = True
        for index, planes in enumerate(y4m.read_frames(self._stream, self._header)):
            none = False
            self.waiting.append(index)
            yield colours.to_rgb(self._frame(planes), matrix)
        if none:
            raise PictureError(f"{self.name} holds no frame; what writes it stopped too early")

    def __exit__(self, *_: object) -> None:
        """The stream is the caller's."""

    def _frame(self, planes: list[np.ndarray]) -> VideoFrame:
        header = self._header
        frame = colours.pyav().VideoFrame(header.width, header.height, header.pix_fmt)
        frame.color_range = colours.FULL if header.full_range else colours.LIMITED
        for plane, content in zip(frame.planes, planes, strict=True):
            _rows(plane)[:, : content.shape[1]] = content
        return frame


class PipeTarget:
    """A Y4M stream that is written, one frame after the other at one rate: it holds neither times nor sound."""

    sounds = 0
    mkv_holds_refused = False
    refused: tuple[str, ...] = ()
    """Nothing is said of single tracks, since a stream holds no sound at all."""

    def __init__(self, stream: BinaryIO, source: Source) -> None:
        self._stream, self._source = stream, source
        self._header: y4m.Header | None = None

    def add(self, picture: np.ndarray, time: int) -> None:
        """Write a frame. Raises OutputError."""
        height, width = picture.shape[:2]
        # No matrix is named in Y4M, so it is the one that players take for such frames.
        frame = colours.from_rgb(picture, colours.matrix(colours.UNSPECIFIED, height))
        try:
            if self._header is None:
                kind = frame.format.name.strip("yuvp")
                self._header = y4m.Header(width, height, self._source.rate, self._source.pixel_aspect, kind)
                y4m.write_all(self._stream, f"{self._header}\n".encode())
            rows = zip(frame.planes, self._header.planes, strict=True)
            y4m.write_frame(
                self._stream, [np.ascontiguousarray(_rows(plane)[:, :length]) for plane, (_, length) in rows]
            )
            self._stream.flush()
        except BrokenPipeError:
            raise OutputError("the program that reads the Y4M stream has stopped; look there for why") from None
        except OSError as error:
            raise OutputError(
                f"cannot write the Y4M stream any further: {error.strerror or error}; send it elsewhere"
            ) from None

    def carry(self, packet: Packet) -> None:
        """Sound stays behind."""

    def __enter__(self) -> PipeTarget:
        return self

    def __exit__(self, *_: object) -> None:
        """The stream is the caller's."""


def _rows(plane: VideoPlane) -> np.ndarray:
    """The plane's own memory, uint8 (rows, bytes a row): FFmpeg's rows may be longer than the picture's."""
    return np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)
