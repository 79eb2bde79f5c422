"""Pictures to files. Pillow is imported on first use."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from impasto.errors import ImpastoWarning
from impasto.files import atomic_path, write_bytes

from . import deep
from .decoding import Picture
from .formats import PNG_LEVEL, check_holds
from .pillow import pillow

if TYPE_CHECKING:
    from PIL.Image import Image

MAX_JPEG_EXIF = 65_533
"""Bytes: a JPEG's segment counts its length in 16 bits, two of which are for the count itself."""


def write(path: str | os.PathLike[str], picture: Picture | np.ndarray, *, quality: int = 95) -> None:
    """Write a picture, or an array, atomically; the suffix chooses the format.

    picture: uint8, uint16, or float32 from 0 to 1, (H, W, 3) or (H, W). quality: 1 to 100, for JPEG and WebP. Depth and EXIF blocks
    that the format cannot hold are left out, with a warning.
    Raises OptionError as `check_holds`, and OutputError where the file cannot be written.
    """
    if note := write_telling(path, picture, quality=quality):
        warnings.warn(note, ImpastoWarning, stacklevel=2)


def write_telling(path: str | os.PathLike[str], picture: Picture | np.ndarray, *, quality: int = 95) -> str | None:
    """Write a picture as `write` does, but return the warning's text; None without one.

    For threads: before Python 3.14, warnings of parallel threads can be lost.
    """
    if not isinstance(picture, Picture):
        picture = Picture(picture)
    path = Path(path)
    check_holds(path, *picture.rgb.shape[:2], alpha=picture.alpha is not None)
    suffix, depth = path.suffix.lower(), picture.rgb.dtype
    if suffix in deep.SUFFIXES and (depth != np.uint8 or suffix == ".npy"):
        content, lost = deep.encode_deep(suffix, picture.rgb, picture.alpha, picture.exif)
        write_bytes(path, content)
        return "; ".join(f"{path}: {each}" for each in lost) or None
    if depth == np.uint8:
        return _write_bytes_picture(path, picture, quality)
    byte = np.dtype(np.uint8)
    alpha = None if picture.alpha is None else deep.as_depth(picture.alpha, byte)
    note = _write_bytes_picture(path, Picture(deep.as_depth(picture.rgb, byte), alpha, picture.exif), quality)
    cut = f"{path} holds 8 bits a channel of the picture's {'float32' if depth == np.float32 else 16}; a .png or .tiff holds more"
    return "; ".join(filter(None, (cut, note)))


def _write_bytes_picture(path: Path, picture: Picture, quality: int) -> str | None:
    """Write uint8 (H, W, 3) or (H, W) with Pillow. Returns a note about what the file cannot hold; None without one."""
    pil = pillow()
    image = pil.Image.fromarray(picture.rgb)
    if picture.alpha is not None:
        image.putalpha(pil.Image.fromarray(picture.alpha))
    options: dict[str, Any] = {}
    if path.suffix.lower() in (".jpg", ".jpeg", ".webp"):
        options |= {"quality": quality}
    if path.suffix.lower() in (".jpg", ".jpeg"):
        options |= {"subsampling": 0}
    if path.suffix.lower() == ".png":
        options |= {"compress_level": PNG_LEVEL}
    with atomic_path(path) as temporary:
        why = _save(image, temporary, picture.exif, options)
    return why and f"{path} is written without the picture's EXIF data ({len(picture.exif or b''):,} bytes): {why}"


def _save(image: Image, temporary: Path, exif: bytes | None, options: dict[str, Any]) -> str | None:
    """Save with the EXIF block if the format can hold it. Returns why it cannot; None if it can. Raises OSError."""
    why = None
    if exif is not None:
        why = "no JPEG can hold more than 64 kB"
        if not (temporary.suffix.lower() in (".jpg", ".jpeg") and len(exif) > MAX_JPEG_EXIF):
            try:
                image.save(temporary, exif=exif, **options)
                return None
            except (
                Exception
            ) as error:  # Pillow's TIFF writer reads every field, and its errors have no common base class
                why = str(error) or type(error).__name__
    image.save(temporary, **options)
    return why
