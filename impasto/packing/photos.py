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

from impasto import images
from impasto.errors import OptionError, PictureError

QUALITY = 97
"""The JPEG quality of photos that were no JPEG, without chroma subsampling."""

QUALITY_TO_PAINT = 85
"""The JPEG quality of photos that are to be painted: what JPEG does to them is gone in the drawing. Colours are halved."""

SIDE_TO_PAINT = 768
"""Pixels; stylizers do not learn from larger ones (`training.style.train_style`)."""

SMALLEST_SIDE = 192
"""Pixels; photos that are made smaller than this teach too little."""

_STEP = 16
"""Sides to make photos fit into are multiples of this."""


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

    def bytes_when_scaled(self, side: int) -> float:
        """About what it takes when its longer side is `side` at most."""
        return len(self.content) * min(1.0, side / max(self.height, self.width)) ** 2


@dataclass(frozen=True)
class PackedPhotos:
    """All photos, coded alike."""

    photos: tuple[PackedPhoto, ...]
    how: str
    """What became of them, in words."""
    skipped: tuple[str, ...] = field(default=())
    """One line for each file that is no picture that can be read."""


Code = Callable[[Path, Path], PackedPhoto]
"""A place and a file to the photo. Raises PictureError."""


def packed_photos(
    files: Mapping[Path, Path], room: int, taking: Callable[[int], int], *, truth: bool = True
) -> PackedPhotos:
    """The photos in the first coding that fits.

    truth: whether a network is to give them back as they are. Those are packed as they are; others than JPEG as JPEG; the middles of
    all. Photos to paint: as they are; scaled down.
    files: places to files; a place gets another suffix where its coding changes. room: bytes. taking: how many of them a file of a
    size takes. Raises OptionError where SMALLEST_SIDE is too much.
    """
    skipped: list[str] = []
    photos = _coded(files, partial(_whole, lossless=True), skipped)
    if _fit(photos, room, taking):
        return PackedPhotos(photos, "as they are, files of other formats than JPEG as lossless WebP", tuple(skipped))
    if not truth:
        photos = _coded(files, partial(_scaled, side=SIDE_TO_PAINT), [])
        if _fit(photos, room, taking):
            how = f"scaled to at most {SIDE_TO_PAINT} pixels, as JPEG of quality {QUALITY_TO_PAINT}"
            return PackedPhotos(photos, how, tuple(skipped))
        photos, side = _fitted(files, photos, _scaled, PackedPhoto.bytes_when_scaled, room, taking)
        how = f"scaled to at most {side} pixels, as JPEG of quality {QUALITY_TO_PAINT}"
        return PackedPhotos(photos, how, tuple(skipped))
    photos = _coded(files, partial(_whole, lossless=False), [])
    if _fit(photos, room, taking):
        how = f"as they are, files of other formats than JPEG as JPEG of quality {QUALITY}"
        return PackedPhotos(photos, how, tuple(skipped))
    photos, side = _fitted(files, photos, _middle, PackedPhoto.bytes_when_cut, room, taking)
    how = f"cut to at most {side} x {side} pixels in their middle, others than JPEG as JPEG of quality {QUALITY}"
    return PackedPhotos(photos, how, tuple(skipped))


def _fit(photos: Sequence[PackedPhoto], room: int, taking: Callable[[int], int]) -> bool:
    return sum(taking(len(photo.content)) for photo in photos) <= room


def _fitted(
    files: Mapping[Path, Path],
    photos: Sequence[PackedPhoto],
    code: Callable[..., PackedPhoto],
    estimate: Callable[[PackedPhoto, int], float],
    room: int,
    taking: Callable[[int], int],
) -> tuple[tuple[PackedPhoto, ...], int]:
    """The photos as large as fits, and that side. photos: whole ones. estimate: of one of them, the bytes that a side leaves."""
    factor, side = 1.0, max((max(photo.height, photo.width) for photo in photos), default=0) + _STEP

    def expected(of: int) -> float:
        return factor * sum(estimate(photo, of) for photo in photos)

    while side > SMALLEST_SIDE:
        sides = range(_STEP * ((side - 1) // _STEP), SMALLEST_SIDE - 1, -_STEP)
        side = next((side for side in sides if expected(side) <= room), 0)
        if not side:
            break
        smaller = _coded(files, partial(code, side=side), [])
        if _fit(smaller, room, taking):
            return smaller, side
        # Coded anew, they take more than their share of the bytes.
        factor *= sum(len(photo.content) for photo in smaller) / expected(side)
    raise OptionError(
        f"{len(photos)} photos do not fit into {max(room, 0) / 2**20:.1f} MiB, though of {SMALLEST_SIDE} pixels; name fewer, or give a "
        "larger limit"
    )


def _coded(files: Mapping[Path, Path], code: Code, skipped: list[str]) -> tuple[PackedPhoto, ...]:
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


def _scaled(place: Path, file: Path, side: int) -> PackedPhoto:
    small = Image.fromarray(images.within(images.read(file).rgb, side))
    return _packed(place, small, ".jpg", quality=QUALITY_TO_PAINT, subsampling="4:2:0")


def _as_jpeg(place: Path, rgb: np.ndarray) -> PackedPhoto:
    return _packed(place, Image.fromarray(np.ascontiguousarray(rgb)), ".jpg", quality=QUALITY, subsampling=0)


def _packed(place: Path, image: Image.Image, suffix: str, **options: Any) -> PackedPhoto:
    """The suffix is added to the name, so that two files that differ in it alone stay two."""
    file = io.BytesIO()
    image.save(file, {".jpg": "JPEG", ".webp": "WEBP"}[suffix], **options)
    jpeg = suffix == ".jpg" and place.suffix.lower() in (".jpg", ".jpeg")
    named = place if jpeg or place.suffix.lower() == suffix else place.with_name(place.name + suffix)
    return PackedPhoto(named, file.getvalue(), image.height, image.width)
