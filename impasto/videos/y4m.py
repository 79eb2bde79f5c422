"""YUV4MPEG2: uncompressed frames with one line of header, as FFmpeg, GStreamer, mpv and VapourSynth pass them through pipes.

Here and not by FFmpeg, which asks a Python stream for whole blocks, so that frames come late, and swallows Ctrl-C while it waits.
The format: https://wiki.multimedia.cx/index.php/YUV4MPEG2, and FFmpeg's words for what that leaves out (XCOLORRANGE, C420p10).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import BinaryIO

import numpy as np

from impasto.errors import PictureError
from impasto.images import MAX_PIXELS

_MAGIC = "YUV4MPEG2"
_LONGEST_LINE = 1024
_LARGEST_SIDE = 32768
_LARGEST_TERM = 2**31 - 1
"""The largest numerator and denominator of a fraction: FFmpeg holds 32-bit integers."""
_SUBSAMPLING = {"420": (2, 2), "422": (1, 2), "444": (1, 1), "411": (1, 4), "mono": None}
"""Pixels that share a colour, down and across; None where there are no colours."""
_KINDS = re.compile(r"(420|422|444|411|mono)(?:jpeg|mpeg2|paldv)?(?:p?(9|10|12|14|16))?")


@dataclass(frozen=True)
class Header:
    """What a stream says of all its frames."""

    width: int
    height: int
    rate: Fraction = Fraction(25)
    """Frames a second."""
    pixel_aspect: Fraction = Fraction(1)
    """Width of a pixel over its height."""
    kind: str = "420"
    """A key of _SUBSAMPLING."""
    bits: int = 8
    """Bits of a sample. A sample of more than 8 takes two bytes, the lower one first."""
    full_range: bool = False
    interlaced: bool = False

    @property
    def pix_fmt(self) -> str:
        """FFmpeg's name of the format."""
        deep = f"{self.bits}le" if self.bits > 8 else ""
        return f"gray{deep}" if self.kind == "mono" else f"yuv{self.kind}p{deep}"

    @property
    def planes(self) -> list[tuple[int, int]]:
        """Rows and bytes a row of each plane: brightness, then the two of colour."""
        down_across = _SUBSAMPLING[self.kind]
        wide = 2 if self.bits > 8 else 1
        luma = (self.height, self.width * wide)
        if down_across is None:
            return [luma]
        down, across = down_across
        return [luma, *[(-(-self.height // down), -(-self.width // across) * wide)] * 2]

    def __str__(self) -> str:
        """The line, of the kinds that are written here: 8 bits, progressive, limited range."""
        rate, aspect = self.rate, self.pixel_aspect
        kind = "420jpeg" if self.kind == "420" else self.kind  # swscale puts colours in the middle, as JPEG does
        return (
            f"{_MAGIC} W{self.width} H{self.height} F{rate.numerator}:{rate.denominator} Ip "
            f"A{aspect.numerator}:{aspect.denominator} C{kind} XCOLORRANGE=LIMITED"
        )

    @classmethod
    def parse(cls, line: str) -> Header:
        """Raises PictureError."""
        told = {word[0]: word[1:] for word in line.split(" ")[1:] if word and word[0] != "X"}
        kind = _KINDS.fullmatch(told.get("C", "420"))
        if not kind:
            raise PictureError(
                f"the Y4M stream holds {told['C']!r}, and this reads 4:2:0, 4:2:2, 4:4:4, 4:1:1 and mono; convert it: "
                "ffmpeg … -pix_fmt yuv420p -f yuv4mpegpipe -"
            )
        try:
            width, height = int(told["W"]), int(told["H"])
            rate = _ratio(told.get("F", "25:1")) or Fraction(25)
            aspect = _ratio(told.get("A", "0:0")) or Fraction(1)
        except (KeyError, ValueError):
            raise PictureError(f"the Y4M stream's header cannot be read: {line!r}; make it anew") from None
        sensible = 0 < width <= _LARGEST_SIDE and 0 < height <= _LARGEST_SIDE
        if not sensible or not all(
            0 < part <= _LARGEST_TERM for each in (rate, aspect) for part in each.as_integer_ratio()
        ):
            raise PictureError(f"the Y4M stream's header makes no sense: {line!r}; make it anew")
        if width * height > MAX_PIXELS:
            raise PictureError(
                f"the Y4M stream has frames of {width} x {height}, more than {MAX_PIXELS:,} pixels; scale them down first"
            )
        return cls(
            width,
            height,
            rate,
            aspect,
            kind[1],
            int(kind[2] or 8),
            full_range="XCOLORRANGE=FULL" in line.split(" "),
            interlaced=told.get("I", "?")[:1] in ("t", "b", "m"),
        )


def read_header(stream: BinaryIO) -> Header:
    """Raises PictureError."""
    line = stream.readline(_LONGEST_LINE)
    if not line.startswith(f"{_MAGIC} ".encode()):
        found = f"it begins with {line[:12]!r}" if line else "it is empty"
        raise PictureError(
            f"no Y4M stream comes in: {found}; pipe one, such as from ffmpeg -i clip.mp4 -f yuv4mpegpipe -pix_fmt yuv420p -"
        )
    return Header.parse(line.decode("ascii", "replace").rstrip("\n"))


def read_frames(stream: BinaryIO, header: Header) -> Iterator[list[np.ndarray]]:
    """The planes of each frame, as bytes: uint8 (rows, bytes a row). Raises PictureError."""
    sizes = header.planes
    count = 0
    while line := stream.readline(_LONGEST_LINE):
        if not line.startswith(b"FRAME") or not line.endswith(b"\n"):
            raise PictureError(f"the Y4M stream has {line[:12]!r} where frame {count} should begin; make it anew")
        planes = []
        for rows, row in sizes:
            plane = np.empty((rows, row), np.uint8)
            if not _filled(stream, plane.data.cast("B")):
                raise PictureError(f"the Y4M stream ends within frame {count}; what wrote it stopped too early")
            planes.append(plane)
        yield planes
        count += 1


def write_frame(stream: BinaryIO, planes: Sequence[np.ndarray]) -> None:
    """planes: uint8 (rows, bytes a row), C-contiguous. Raises OSError."""
    write_all(stream, b"FRAME\n")
    for plane in planes:
        write_all(stream, plane.data.cast("B"))


def write_all(stream: BinaryIO, content: bytes | memoryview) -> None:
    """An unbuffered stream may take less than it gets. Raises OSError."""
    rest = memoryview(content)
    while rest:
        rest = rest[stream.write(rest) :]


def _filled(stream: BinaryIO, space: memoryview) -> bool:
    """Whether the stream had enough to fill the space."""
    while space:
        part = stream.read(len(space))
        if not part:
            return False
        space[: len(part)] = part
        space = space[len(part) :]
    return True


def _ratio(text: str) -> Fraction | None:
    """ "30000:1001" as a fraction; None where it says that nothing is known."""
    above, below = (int(part) for part in text.split(":"))
    return Fraction(above, below) if above and below else None
