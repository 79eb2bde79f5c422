"""Arrays of more than 8 bits a channel, and gray, to picture files: PNG and TIFF of 16 bits, TIFF of float32, NumPy's .npy."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np

from impasto.errors import first_line
from impasto.images.formats import PNG_LEVEL
from impasto.images.pillow import pillow

from .arrays import as_depth
from .codecs import imagecodecs, tifffile

SUFFIXES = (".png", ".tif", ".tiff", ".npy")
"""Files that hold 16 bits a channel."""
_AFTER_HEADER = 33
"""Bytes of a PNG's signature and its first chunk."""
_RESOLUTION, _UNIT, _SOFTWARE = (282, 283), 296, 305
_BLOCKS = frozenset({0x8769, 0x8825})
"""EXIF's tags of the blocks that hold how a picture was taken, and where."""


def encode_deep(
    suffix: str, pixels: np.ndarray, alpha: np.ndarray | None, exif: bytes | None
) -> tuple[bytes, list[str]]:
    """A file's bytes, and what it cannot hold of the picture, in words.

    suffix: one of SUFFIXES. pixels: uint16 or float32, for .npy also uint8; (H, W, 3) or (H, W). alpha: (H, W), of any depth; not for
    .npy. exif: as Pillow writes it. Raises MissingDependency.
    """
    if suffix == ".npy":
        file = io.BytesIO()
        np.save(file, pixels, allow_pickle=False)
        return file.getvalue(), _without_exif(exif, "no .npy holds it")
    lost: list[str] = []
    if suffix == ".png" and pixels.dtype == np.float32:
        pixels = as_depth(pixels, np.dtype(np.uint16))
        lost.append(
            "a PNG holds 16 bits a channel, so its float32 values are rounded to them; a .tiff or .npy holds them"
        )
    samples = pixels if alpha is None else np.dstack([pixels, as_depth(alpha, pixels.dtype)])
    if suffix == ".png":
        packed: bytes = imagecodecs().png_encode(np.ascontiguousarray(samples), level=PNG_LEVEL)
        return _with_exif(packed, exif), lost
    options = {
        "photometric": "rgb" if pixels.ndim == 3 else "minisblack",
        "planarconfig": "contig" if samples.ndim == 3 else None,
        "extrasamples": None if alpha is None else ["unassalpha"],
        "metadata": None,
    }
    return _tiff(samples, options, exif)


def stack(frames: np.ndarray) -> bytes:
    """A TIFF of several pictures. frames: (N, H, W) or (N, H, W, 3), uint8 or uint16. Raises MissingDependency."""
    file = io.BytesIO()
    kind = "rgb" if frames.ndim == 4 else "minisblack"
    tifffile().imwrite(file, frames, photometric=kind, metadata=None, software=False)
    return file.getvalue()


def _tiff(samples: np.ndarray, options: dict[str, Any], exif: bytes | None) -> tuple[bytes, list[str]]:
    """With what of the EXIF block a TIFF's own tags hold: all but the blocks of how and where a picture was taken."""
    writer = tifffile()
    try:
        tags, nested = _tags(exif)
        file = io.BytesIO()
        writer.imwrite(file, samples, **options, **tags)
    except (TypeError, ValueError, struct.error) as error:  # of a tag that does not fit
        file = io.BytesIO()
        writer.imwrite(file, samples, **options, software=False)
        return file.getvalue(), _without_exif(exif, first_line(error))
    return file.getvalue(), _without_exif(exif, "of 16 bits a PNG holds all of it") if nested else []


def _tags(exif: bytes | None) -> tuple[dict[str, Any], bool]:
    """The options of tifffile that write an EXIF block's own tags; and whether it has blocks inside it, which they do not hold."""
    block = pillow().Image.Exif()
    block.load(exif or b"")
    nested = any(block.get_ifd(tag) for tag in _BLOCKS.intersection(block))
    x, y = (block.get(tag) for tag in _RESOLUTION)
    options: dict[str, Any] = {"software": str(block.get(_SOFTWARE) or "") or False}
    if x and y:
        options |= {"resolution": (float(x), float(y)), "resolutionunit": int(block.get(_UNIT, 2))}
    others = set(block) - {*_BLOCKS, *_RESOLUTION, _UNIT, _SOFTWARE}
    options["extratags"] = [_tag(tag, block[tag]) for tag in sorted(others)]
    return options, nested


def _tag(number: int, value: Any) -> tuple[int, str, int, Any, bool]:
    """One tag in the form that tifffile takes: number, type, count, value, and whether only the first picture has it."""
    if isinstance(value, str):
        return number, "s", 0, value.encode() + b"\0", True
    if isinstance(value, bytes):
        return number, "B", len(value), value, True
    return number, "I", 1, int(value), True


def _without_exif(exif: bytes | None, why: str) -> list[str]:
    return [] if exif is None else [f"written without the picture's EXIF data ({len(exif):,} bytes): {why}"]


def _with_exif(png: bytes, exif: bytes | None) -> bytes:
    """The PNG with an eXIf chunk (PNG specification, third edition, 11.3.4.5)."""
    if exif is None:
        return png
    block = exif.removeprefix(b"Exif\0\0")
    chunk = struct.pack(">I", len(block)) + b"eXIf" + block + struct.pack(">I", zlib.crc32(b"eXIf" + block))
    return png[:_AFTER_HEADER] + chunk + png[_AFTER_HEADER:]
