"""Picture files to uint8 H x W x 3 RGB arrays in sRGB. Pillow is imported on first use."""

from __future__ import annotations

import io
import os
import re
import stat
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from impasto.errors import ImpastoWarning, MissingDependency, PictureError, first_line
from impasto.files import is_folder

from . import colour_tags, deep
from .colour_tags import ColourTags
from .formats import PNG
from .pillow import pillow

if TYPE_CHECKING:
    from PIL.Image import Image


MAX_PIXELS = 180_000_000
"""Larger files are refused before they are decoded: a few kilobytes of PNG can unpack to gigabytes."""
MAX_BYTES = 1 << 31
"""Most bytes that are read of one file: more than MAX_PIXELS pixels take. A device may have no end."""

_HEIC = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
"""How such files name their kind, in bytes 8 to 11."""

_RULES = threading.Lock()

_ORIENTATION = 0x0112
"""EXIF's tag."""
_DETAILS, _PLACE = 0x8769, 0x8825
"""EXIF's tags of the blocks that hold how a picture was taken, and where."""
_SURVIVING = {
    # What is shown, who made it and with what, when, and how many pixels an inch has.
    *(269, 270, 271, 272, 282, 283, 285, 296, 305, 306, 315, 316, 33432),
    # Stars, titles and keywords of photo programs: ratings, XMP, IPTC, Windows' fields.
    *(700, 18246, 18249, 33723, 40091, 40092, 40093, 40094, 40095),
    *(_DETAILS, _PLACE),
}
"""EXIF's tags that are as true of the result. All others of a TIFF's say how its pixels lie in the file."""
_COLOUR_SPACE, _SRGB = 0xA001, 1
_NOT_SURVIVING_DETAILS = {40962, 40963, 40965, 42240}
"""EXIF tags of the details of a photograph that are not true of the result: sides in pixels, and colours that were converted."""


@dataclass(frozen=True)
class Picture:
    """A decoded picture file."""

    rgb: np.ndarray
    """uint8, (H, W, 3), sRGB, upright (the EXIF orientation has been applied). Of `read_deep` also uint16, float32 from 0 to 1, and
    (H, W) for gray."""
    alpha: np.ndarray | None = None
    """uint8, (H, W), or None where the file has no transparency. Of `read_deep` it has the picture's dtype."""
    exif: bytes | None = None
    """What of the EXIF block is true of the result too: camera, time, place, author; None without any, or where it is damaged."""


def read(path: str | os.PathLike[str]) -> Picture:
    """Read a picture file: EXIF orientation applied, colours converted to sRGB, grayscale and palettes expanded.

    Of a camera's JPEG that also holds previews (MPO) the first picture, which is the photo.
    Raises PictureError for a missing, truncated, animated, 16-bit or oversized file and for anything that is no picture.
    """
    return decode(content_of(Path(path)), str(path))


def read_deep(path: str | os.PathLike[str]) -> Picture:
    """Read a picture file at its own depth: PNG and TIFF of 16 bits, TIFF of float32, NumPy's .npy, and what `read` reads.

    Files of 16 bits and of float32, and arrays, are gray, (H, W), where the file is; pictures of 8 bits are RGB as `read` gives them.
    Raises what `read` raises for damaged, animated and oversized files, PictureError for samples that are neither gray nor RGB, and
    MissingDependency where 16 bits need a library that is not installed.
    """
    return decode_at_own_depth(content_of(Path(path)), str(path))


def content_of(path: Path) -> bytes:
    """A picture file's bytes, at most MAX_BYTES. Raises PictureError."""
    if is_folder(path):
        raise PictureError(f"{path} is a folder, not a picture file")
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            # Python allocates what it is asked to read, so a small file is not asked for the limit.
            most = min(MAX_BYTES, status.st_size) if stat.S_ISREG(status.st_mode) else MAX_BYTES
            content = file.read(most + 1)
    except FileNotFoundError:
        raise PictureError(f"{path} does not exist; check the path") from None
    except (OSError, ValueError) as error:  # ValueError of a path that holds NUL
        raise PictureError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from error
    if len(content) > MAX_BYTES:
        raise PictureError(f"{path} has more than {MAX_BYTES:,} bytes; scale or crop the picture first")
    return content


def is_animated(path: str | os.PathLike[str]) -> bool:
    """Whether it is a picture file of several frames that follow each other; False too where it cannot be read."""
    pil = pillow()
    try:
        with _our_rules(), pil.Image.open(path) as image:
            return bool(getattr(image, "is_animated", False))
    except Exception:  # whoever reads it tells what is wrong
        return False


def decode(content: bytes, name: str = "the picture") -> Picture:
    """Decode the bytes of a picture file, as `read` does. name: what error messages call it."""
    pil = pillow()
    try:
        with _our_rules():
            image = pil.Image.open(io.BytesIO(content))
        with image:
            with _our_rules():
                _refuse_unusable(image, name)
            tags = _tags(image, content, name)
            image.load()
            return _upright_srgb(image, tags, name)
    except pil.UnidentifiedImageError:
        raise PictureError(f"{name} {_unidentified(content)}") from None
    except pil.Image.DecompressionBombError as error:
        told = re.search(r"\d{8,}", str(error))
        pixels = f"{int(told[0]):,} pixels" if told else "too many pixels"
        raise PictureError(
            f"{name} says that it has {pixels}, more than {MAX_PIXELS:,}; scale or crop it first"
        ) from None
    except (PictureError, MissingDependency):
        raise
    except Exception as error:  # struct.error, TypeError, …: what Pillow's parsers stumble over has no common base
        why = " ".join(str(error).split()) or type(error).__name__
        raise PictureError(f"{name} is damaged: {why}; get the file again from where it came") from None


def decode_at_own_depth(content: bytes, name: str = "the picture", most_pixels: int = MAX_PIXELS) -> Picture:
    """Decode the bytes of a picture file, as `read_deep` does.

    name: what error messages call it. most_pixels: files of more than 8 bits that have more raise PictureTooLarge.
    """
    return _decode_deep(content, name, most_pixels) if deep.is_deep(content) else decode(content, name)


def _decode_deep(content: bytes, name: str, most_pixels: int) -> Picture:
    """Decode a file of more than 8 bits a channel. What it says besides its pixels is read as of other files."""
    try:
        tags = colour_tags.of_png(content) if content.startswith(PNG) else None
        _refuse_unknown(tags, name)
        held = deep.decode_deep(content, name, tags, most_pixels)
        orientation, exif = _exif_of_deep(content)
    except (PictureError, MissingDependency):
        raise
    except (
        Exception
    ) as error:  # imagecodecs' errors, tifffile's, ValueError, …: what parsers stumble over has no common base
        raise PictureError(f"{name} is damaged: {first_line(error)}; get the file again from where it came") from None
    turned = orientation if orientation != 1 else held.orientation
    pixels, alpha = (None if each is None else _upright(each, turned) for each in (held.pixels, held.alpha))
    assert pixels is not None
    return Picture(pixels, alpha, exif)


_EXIF_MARKS = (b"eXIf", b"Raw profile type", b"XML:com.adobe.xmp", b"II*", b"MM")
"""What a file holds somewhere if Pillow finds an orientation or an EXIF block in it."""


def _exif_of_deep(content: bytes) -> tuple[int, bytes | None]:
    """Orientation and EXIF block, as `_exif` gives them, of a file that Pillow need not be able to show."""
    if not any(mark in content for mark in _EXIF_MARKS) or content.startswith(deep.NPY):
        return 1, None
    pil = pillow()
    try:
        with _our_rules(), pil.Image.open(io.BytesIO(content)) as image:
            return _exif(image)
    except Exception:  # Pillow knows fewer kinds of TIFF
        return 1, None


def _upright(array: np.ndarray, orientation: int) -> np.ndarray:
    """The array turned as EXIF's orientation says."""
    turned = {
        2: lambda: array[:, ::-1],
        3: lambda: array[::-1, ::-1],
        4: lambda: array[::-1],
        5: lambda: array.swapaxes(0, 1),
        6: lambda: np.rot90(array, -1),
        7: lambda: array.swapaxes(0, 1)[::-1, ::-1],
        8: lambda: np.rot90(array),
    }.get(orientation)
    return array if turned is None else np.ascontiguousarray(turned())


def _unidentified(content: bytes) -> str:
    """What is told of a file that Pillow does not know."""
    if not content:
        why, advice = ": it is empty", "get it again from where it came"
    elif content[128:132] == b"DICM":
        why, advice = ": it is DICOM", "let its name end in .dcm, and name it to impasto run"
    elif content[4:8] == b"ftyp" and content[8:12] in _HEIC:
        why, advice = ": it is HEIC, as phones write it", "convert it first: heif-convert in.heic out.jpg"
    else:
        why, advice = f" (it begins with {content[:8]!r})", "give a PNG, JPEG, WebP, BMP or TIFF file"
    return f"is not a picture file that can be read{why}; {advice}"


@contextmanager
def _our_rules() -> Iterator[None]:
    """Pillow's limit and Python's warnings are the whole program's, so they are ours for a block alone, one thread at a time.

    Our own limit stands in for Pillow's, which only warns up to twice its size. What Pillow warns of otherwise is refused with a
    message of our own, or does no harm.
    """
    image = pillow().Image
    with _RULES, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs, image.MAX_IMAGE_PIXELS = image.MAX_IMAGE_PIXELS, MAX_PIXELS
        try:
            yield
        finally:
            image.MAX_IMAGE_PIXELS = theirs


def _refuse_unusable(image: Image, name: str) -> None:
    """Everything that the header already tells. Raises PictureError."""
    if image.width * image.height > MAX_PIXELS:
        raise PictureError(
            f"{name} is {image.width} x {image.height}, more than {MAX_PIXELS:,} pixels; scale or crop it first"
        )
    frames = getattr(image, "n_frames", 1)
    if frames > 1 and image.format != "MPO":  # the others of a camera's JPEG are previews, or the other eye's view
        raise PictureError(f"{name} is an animation or a stack of {frames} pictures; extract the one you want as a PNG")
    # Pillow would quietly keep only the upper 8 bits of a 16-bit RGB file; its decoder's raw mode gives that away.
    raw_modes = " ".join(str(tile[3]) for tile in getattr(image, "tile", []))
    if image.mode in ("I", "F") or image.mode.startswith("I;16") or ";16" in raw_modes:
        raise PictureError(
            f"{name} has 16 or more bits a channel ({image.mode}); 8 are read here. Convert it first, for example: "
            "convert in.png -depth 8 out.png"
        )


def _tags(image: Image, content: bytes, name: str) -> ColourTags | None:
    """What the file says of its colours besides a profile. Raises PictureError for colours and bits that no model takes."""
    tags, bits = None, 8
    if image.format == "PNG":
        tags = colour_tags.of_png(content)
    elif image.format == "AVIF":
        tags, bits = colour_tags.of_avif(content)
    elif image.format == "JPEG2000":
        bits = colour_tags.bits_of_jpeg2000(content)
    elif image.format == "PPM":
        largest = next((tile[3][1] for tile in getattr(image, "tile", []) if isinstance(tile[3], tuple)), 255)
        bits = max(8, largest.bit_length())  # Pillow makes 8 bits of more
    elif image.format == "SGI":
        bits = 8 * content[3]
    if bits > 8:
        raise PictureError(
            f"{name} has {bits} bits a channel; the models take 8. Convert it first, for example: "
            f"convert {Path(name).name} -depth 8 out.png"
        )
    _refuse_unknown(tags, name)
    return tags


def _refuse_unknown(tags: ColourTags | None, name: str) -> None:
    if tags and tags.unknown:
        raise PictureError(
            f"{name} has {tags.unknown}, and the models know sRGB; convert it first, with a program that shows it right"
        )


def _upright_srgb(image: Image, tags: ColourTags | None, name: str) -> Picture:
    with _our_rules():
        orientation, exif = _exif(image)
    transpose = pillow().Image.Transpose
    upright = {
        2: transpose.FLIP_LEFT_RIGHT,
        3: transpose.ROTATE_180,
        4: transpose.FLIP_TOP_BOTTOM,
        5: transpose.TRANSPOSE,
        6: transpose.ROTATE_270,
        7: transpose.TRANSVERSE,
        8: transpose.ROTATE_90,
    }.get(orientation)
    if upright is not None:
        image = image.transpose(upright)
    alpha = None
    if image.has_transparency_data:
        alpha = np.asarray(image.convert("RGBA").getchannel("A"))
    return Picture(np.ascontiguousarray(_to_srgb(image, tags, name)), alpha, exif)


def _exif(image: Image) -> tuple[int, bytes | None]:
    """The orientation, 1 where none is told, and what of the block survives, as far as it can be written again.

    Both are extras: cameras and editors write wrong fields, and a picture is no worse for them. Pillow's own `exif_transpose`
    writes the block again, and so fails with it.
    """
    orientation = 1
    try:
        exif = image.getexif()
        told = exif.pop(_ORIENTATION, 1)
        orientation = told if isinstance(told, int) else 1
        for tag in set(exif) - _SURVIVING:
            del exif[tag]
        details = exif.get_ifd(_DETAILS)
        for tag in _NOT_SURVIVING_DETAILS.intersection(details):
            del details[tag]
        if _COLOUR_SPACE in details:
            details[_COLOUR_SPACE] = _SRGB
        exif.bigtiff = False  # a block of a BigTIFF's kind is none that other files may hold
        return orientation, exif.tobytes() if len(exif) else None
    except Exception:  # struct.error, TypeError, …: what Pillow stumbles over has no common base
        return orientation, None


def _to_srgb(image: Image, tags: ColourTags | None, name: str) -> np.ndarray:
    """uint8 (H, W, 3), by the tags or the ICC profile, whichever counts more. Raises PictureError for a profile of another kind of
    picture."""
    profile = image.info.get("icc_profile")
    if profile and not (tags and tags.stronger_than_profile):
        converted = _by_profile(image, profile, name)
        if converted is not None:
            return np.asarray(converted)
    if image.mode == "LAB":
        raise PictureError(f"{name} is in Lab colours without a profile; convert it to sRGB first")
    rgb = np.asarray(_rgb(image))
    return tags.to_srgb(rgb) if tags else rgb


def _by_profile(image: Image, profile: bytes, name: str) -> Image | None:
    """None, with a warning, where the profile is damaged: it says nothing then, and the picture is taken for sRGB, as browsers do."""
    cms = pillow().ImageCms
    try:
        embedded = cms.ImageCmsProfile(io.BytesIO(profile))
        space = embedded.profile.xcolor_space.strip()
        modes = {"GRAY": ("1", "L", "LA", "La"), "CMYK": ("CMYK",), "Lab": ("LAB",)}
        if space == "RGB" and image.mode not in ("CMYK", "LAB"):
            source = _rgb(image)
        elif image.mode in modes.get(space, ()):
            source = image.convert("L") if space == "GRAY" else image
        else:
            raise PictureError(
                f"{name} holds a colour profile for {space}, and the picture is {image.mode}: nobody knows its colours; convert it to "
                "sRGB first"
            )
        converted: Image | None = cms.profileToProfile(source, embedded, cms.createProfile("sRGB"), outputMode="RGB")
    except (cms.PyCMSError, OSError) as error:
        warnings.warn(
            f"the colour profile of {name} is damaged ({first_line(error)}); its colours are taken for sRGB",
            ImpastoWarning,
            stacklevel=2,
        )
        return None
    return converted


def _rgb(image: Image) -> Image:
    # Pillow warns where transparency would be lost with the palette.
    return image.convert("RGBA").convert("RGB") if image.mode == "P" else image.convert("RGB")
