"""Photos made to fit into so many bytes, losing as little as that allows."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from PIL.JpegImagePlugin import get_sampling

from . import images
from .errors import OptionError, PictureError

QUALITY = 97
"""Of a JPEG that was none, without chroma subsampling."""

SMALLEST_SIDE = 192
"""Pixels; crops of photos that are cut further than this teach too little."""

_STEP = 16
"""Sides to cut to are multiples of this."""


@dataclass(frozen=True)
class PackedPhoto:
    """A photo's file in memory."""

    place: Path
    content: bytes
    height: int
    width: int

    def bytes_when_cut(self, side: int) -> float:
        """About what its middle takes."""
        return len(self.content) * min(1.0, side / self.height) * min(1.0, side / self.width)


@dataclass(frozen=True)
class PackedPhotos:
    """All photos, coded alike."""

    photos: tuple[PackedPhoto, ...]
    how: str
    """What became of them, in words."""
    skipped: tuple[str, ...] = field(default=())
    """One line for each file that is no picture that can be read."""


def packed_photos(files: Mapping[Path, Path], room: int, taking: Callable[[int], int]) -> PackedPhotos:
    """The photos in the first coding that fits: as they are; others than JPEG as JPEG; the middles of all.

    files: places to files; a place gets another suffix where its coding changes. room: bytes. taking: how many of them a file of a
    size takes. Raises OptionError where the middles of SMALLEST_SIDE are too much.
    """

    def fits(photos: Sequence[PackedPhoto]) -> bool:
        return sum(taking(len(photo.content)) for photo in photos) <= room

    skipped: list[str] = []
    photos = _coded(files, partial(_whole, lossless=True), skipped)
    if fits(photos):
        return PackedPhotos(photos, "as they are, files of other formats than JPEG as lossless WebP", tuple(skipped))
    photos = _coded(files, partial(_whole, lossless=False), [])
    if fits(photos):
        how = f"as they are, files of other formats than JPEG as JPEG of quality {QUALITY}"
        return PackedPhotos(photos, how, tuple(skipped))
    factor, side = 1.0, max(max(photo.height, photo.width) for photo in photos)
    while (side := _side_for(photos, room / factor, side)) >= SMALLEST_SIDE:
        middles = _coded(files, partial(_middle, side=side), [])
        if fits(middles):
            how = (
                f"cut to at most {side} x {side} pixels in their middle, others than JPEG as JPEG of quality {QUALITY}"
            )
            return PackedPhotos(middles, how, tuple(skipped))
        factor = sum(len(photo.content) for photo in middles) / sum(photo.bytes_when_cut(side) for photo in photos)
    raise OptionError(
        f"{len(photos)} photos do not fit into {max(room, 0) / 2**20:.1f} MiB, though cut to {SMALLEST_SIDE} pixels; name fewer, "
        "or give a larger limit"
    )


def _side_for(photos: Sequence[PackedPhoto], room: float, below: int) -> int:
    """The largest multiple of _STEP below `below` at which the middles should fit; 0 where none does."""
    sides = range(_STEP * ((below - 1) // _STEP), 0, -_STEP)
    return next((side for side in sides if sum(photo.bytes_when_cut(side) for photo in photos) <= room), 0)


def _coded(
    files: Mapping[Path, Path], code: Callable[[Path, Path], PackedPhoto], skipped: list[str]
) -> tuple[PackedPhoto, ...]:
    def attempt(place_and_file: tuple[Path, Path]) -> PackedPhoto | str:
        try:
            return code(*place_and_file)
        except PictureError as error:
            return str(error)

    with ThreadPoolExecutor() as pool:
        found = list(pool.map(attempt, files.items()))
    skipped += [photo for photo in found if isinstance(photo, str)]
    return tuple(photo for photo in found if isinstance(photo, PackedPhoto))


def _whole(place: Path, file: Path, lossless: bool) -> PackedPhoto:
    rgb = images.read(file).rgb
    if file.suffix.lower() in (".jpg", ".jpeg"):
        return PackedPhoto(place, file.read_bytes(), *rgb.shape[:2])
    if lossless:
        return _packed(place, Image.fromarray(rgb), ".webp", lossless=True)
    return _as_jpeg(place, rgb)


def _middle(place: Path, file: Path, side: int) -> PackedPhoto:
    rgb = images.read(file).rgb
    height, width = rgb.shape[:2]
    if height <= side and width <= side:
        return _whole(place, file, lossless=False)
    # A JPEG's blocks begin at multiples of 8 pixels, or of 16 where its colours are halved.
    top, left = (max(0, length - side) // 2 // 16 * 16 for length in (height, width))
    bottom, right = min(top + side, height), min(left + side, width)
    with Image.open(file) as image:
        tables = getattr(image, "quantization", None)
        if tables and np.array_equal(np.asarray(image.convert("RGB")), rgb):
            # Its own blocks, coded again with its own tables, come out as they were, but for rounding, and no larger.
            again = {"qtables": tables, "subsampling": get_sampling(image)}
            return _packed(place, image.crop((left, top, right, bottom)), ".jpg", **again)
    return _as_jpeg(place, rgb[top:bottom, left:right])


def _as_jpeg(place: Path, rgb: np.ndarray) -> PackedPhoto:
    return _packed(place, Image.fromarray(np.ascontiguousarray(rgb)), ".jpg", quality=QUALITY, subsampling=0)


def _packed(place: Path, image: Image.Image, suffix: str, **options: Any) -> PackedPhoto:
    """The suffix is added to the name, so that two files that differ in it alone stay two."""
    file = io.BytesIO()
    image.save(file, {".jpg": "JPEG", ".webp": "WEBP"}[suffix], **options)
    jpeg = suffix == ".jpg" and place.suffix.lower() in (".jpg", ".jpeg")
    named = place if jpeg or place.suffix.lower() == suffix else place.with_name(place.name + suffix)
    return PackedPhoto(named, file.getvalue(), image.height, image.width)
