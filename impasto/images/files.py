"""Picture files in and out, as uint8 H x W x 3 RGB arrays in sRGB. Pillow is imported on first use."""

from __future__ import annotations

import io
import os
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from impasto.errors import ImpastoWarning, MissingDependency, OptionError, PictureError, first_line
from impasto.files import atomic_path, check_name, is_folder, list_files

from . import colour_tags
from .colour_tags import ColourTags

if TYPE_CHECKING:
    from PIL.Image import Image

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
"""The file types read from folders and written, in lower case."""

MAX_PIXELS = 180_000_000
"""Larger files are refused before they are decoded: a few kilobytes of PNG can unpack to gigabytes."""

MAX_SIDES = {".jpg": 65_500, ".jpeg": 65_500, ".webp": 16_383}
"""The longest side that a format can hold, in pixels, where there is one that a picture may exceed."""

MAX_JPEG_EXIF = 65_533
"""Bytes: a JPEG's segment counts its length in 16 bits, two of which are for the count itself."""

_PNG_LEVEL = 4
"""zlib's. Pillow's own 6 takes twice as long on photos, for files that are hardly smaller."""

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
"""Of how a picture was taken: the sides in pixels, and tags of colours that have been converted."""

PAINTING_SIDE = 384
"""Longest side to which a painting is scaled: at it, its strokes have the size that they shall have in photos."""


@dataclass(frozen=True)
class Picture:
    """A decoded picture file."""

    rgb: np.ndarray
    """uint8, (H, W, 3), sRGB, upright (the EXIF orientation has been applied)."""
    alpha: np.ndarray | None = None
    """uint8, (H, W), or None where the file has no transparency."""
    exif: bytes | None = None
    """What of the EXIF block is true of the result too: camera, time, place, author; None without any, or where it is damaged."""


def read(path: str | os.PathLike[str]) -> Picture:
    """Read a picture file: EXIF orientation applied, colours converted to sRGB, grayscale and palettes expanded.

    Of a camera's JPEG that also holds previews (MPO) the first picture, which is the photo.
    Raises PictureError for a missing, truncated, animated, 16-bit or oversized file and for anything that is no picture.
    """
    path = Path(path)
    if is_folder(path):
        raise PictureError(f"{path} is a folder, not a picture file")
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise PictureError(f"{path} does not exist; check the path") from None
    except (OSError, ValueError) as error:  # ValueError of a path that holds NUL
        raise PictureError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from error
    return decode(content, str(path))


def is_animated(path: str | os.PathLike[str]) -> bool:
    """Whether it is a picture file of several frames that follow each other; False too where it cannot be read."""
    pil = _pillow()
    try:
        with _our_rules(), pil.Image.open(path) as image:
            return bool(getattr(image, "is_animated", False))
    except Exception:  # whoever reads it tells what is wrong
        return False


def decode(content: bytes, name: str = "the picture") -> Picture:
    """The same as `read`, from the bytes of a file; `name` is what error messages call it."""
    pil = _pillow()
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
        raise PictureError(
            f"{name} is not a picture file that can be read (it begins with {content[:8]!r}); "
            "give a PNG, JPEG, WebP, BMP or TIFF file"
        ) from None
    except pil.Image.DecompressionBombError as error:
        raise PictureError(f"{name} is too large: {error}; the limit is {MAX_PIXELS:,} pixels") from None
    except (PictureError, MissingDependency):
        raise
    except Exception as error:  # struct.error, TypeError, …: what Pillow's parsers stumble over has no common base
        why = " ".join(str(error).split()) or type(error).__name__
        raise PictureError(f"{name} is damaged: {why}; get the file again from where it came") from None


@contextmanager
def _our_rules() -> Iterator[None]:
    """Pillow's limit and Python's warnings are the whole program's, so they are ours for a block alone, one thread at a time.

    Our own limit stands in for Pillow's, which only warns up to twice its size. What Pillow warns of otherwise is refused with a
    message of our own, or does no harm.
    """
    image = _pillow().Image
    with _RULES, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs, image.MAX_IMAGE_PIXELS = image.MAX_IMAGE_PIXELS, MAX_PIXELS
        try:
            yield
        finally:
            image.MAX_IMAGE_PIXELS = theirs


def within(image: np.ndarray, longest_side: int | None, *, multiple: int = 1) -> np.ndarray:
    """The picture scaled down until no side is longer; itself where none is, or where longest_side is None.

    image: uint8, (H, W, 3) or (H, W). multiple: of which the sides of what is scaled are.
    """
    height, width = image.shape[:2]
    if longest_side is None or max(height, width) <= longest_side:
        return image
    pil = _pillow()
    factor = longest_side / max(height, width)
    size = [max(multiple, int(side * factor + 0.5) // multiple * multiple) for side in (width, height)]
    return np.array(pil.Image.fromarray(image).resize(size, pil.Image.Resampling.LANCZOS))


def middle(picture: np.ndarray, side: int) -> np.ndarray:
    """The part in the middle that is no longer than `side`; of smaller pictures all. A view of it."""
    top, left = (max(0, length - side) // 2 for length in picture.shape[:2])
    return picture[top : top + side, left : left + side]


def read_painting(path: str | os.PathLike[str]) -> np.ndarray:
    """A painting at the size at which its style is learnt and measured: uint8 (H, W, 3). Raises PictureError."""
    pil = _pillow()
    picture = pil.Image.fromarray(read(path).rgb)
    factor = PAINTING_SIDE / max(picture.size)
    size = (max(32, int(picture.width * factor)), max(32, int(picture.height * factor)))
    return np.asarray(picture.resize(size, pil.Image.Resampling.LANCZOS))


def read_scaled(path: str | os.PathLike[str], size: tuple[int, int]) -> np.ndarray:
    """A picture scaled to a height and width, whatever its own: uint8 (height, width, 3). Raises PictureError."""
    pil = _pillow()
    height, width = size
    scaled = pil.Image.fromarray(read(path).rgb).resize((width, height), pil.Image.Resampling.LANCZOS)
    return np.array(scaled)


def write(path: str | os.PathLike[str], picture: Picture | np.ndarray, *, quality: int = 95) -> None:
    """Write a picture, or a uint8 (H, W, 3) array, atomically; the suffix chooses the format.

    quality: 1 to 100, for JPEG and WebP. An EXIF block that the format cannot hold is left out, with a warning.
    Raises OptionError as `check_holds`, and OutputError where the file cannot be written.
    """
    if note := write_telling(path, picture, quality=quality):
        warnings.warn(note, ImpastoWarning, stacklevel=2)


def write_telling(path: str | os.PathLike[str], picture: Picture | np.ndarray, *, quality: int = 95) -> str | None:
    """The same, but what `write` warns of is returned, None where there is nothing: for threads beside others, in which Python
    before 3.14 loses warnings."""
    pil = _pillow()
    if not isinstance(picture, Picture):
        picture = Picture(picture)
    path = Path(path)
    check_holds(path, *picture.rgb.shape[:2], alpha=picture.alpha is not None)
    image = pil.Image.fromarray(picture.rgb)
    if picture.alpha is not None:
        image.putalpha(pil.Image.fromarray(picture.alpha))
    options: dict[str, Any] = {}
    if path.suffix.lower() in (".jpg", ".jpeg", ".webp"):
        options |= {"quality": quality}
    if path.suffix.lower() in (".jpg", ".jpeg"):
        options |= {"subsampling": 0}
    if path.suffix.lower() == ".png":
        options |= {"compress_level": _PNG_LEVEL}
    with atomic_path(path) as temporary:
        why = _save(image, temporary, picture.exif, options)
    return why and f"{path} is written without the picture's EXIF data ({len(picture.exif or b''):,} bytes): {why}"


def _save(image: Image, temporary: Path, exif: bytes | None, options: dict[str, Any]) -> str | None:
    """With its EXIF block where the format holds it; returns why it does not. Raises OSError."""
    why = None
    if exif is not None:
        why = "no JPEG can hold more than 64 kB"
        if not (temporary.suffix.lower() in (".jpg", ".jpeg") and len(exif) > MAX_JPEG_EXIF):
            try:
                image.save(temporary, exif=exif, **options)
                return None
            except Exception as error:  # a TIFF's writer reads every field; what it stumbles over has no common base
                why = str(error) or type(error).__name__
    image.save(temporary, **options)
    return why


def check_holds(path: Path, height: int, width: int, *, alpha: bool) -> None:
    """Raises OptionError for a name that is too long or ends in none of SUFFIXES, and for a size or transparency that its format cannot
    hold."""
    check_suffix(path)
    check_name(path)
    suffix = path.suffix.lower()
    if alpha and suffix in (".jpg", ".jpeg", ".bmp"):
        raise OptionError(
            f"{path} cannot hold this picture's transparency, no {path.suffix} file can; write a .png instead"
        )
    if max(height, width) > MAX_SIDES.get(suffix, max(height, width)):
        raise OptionError(
            f"{path} cannot hold {height} x {width} pixels, no {path.suffix} file holds sides above {MAX_SIDES[suffix]:,}; "
            "write a .png instead"
        )


def check_suffix(path: Path) -> None:
    """Raises OptionError unless the path ends in one of SUFFIXES."""
    if path.suffix.lower() not in SUFFIXES:
        raise OptionError(
            f"cannot tell the picture format of {path.name!r}; let its name end in one of {', '.join(SUFFIXES)}"
        )


def list_folder(
    folder: str | os.PathLike[str], *, recursive: bool = False, leaving_out: str | os.PathLike[str] | None = None
) -> list[Path]:
    """The picture files in a folder, as `files.list_files` lists them. Raises PictureError without any."""
    folder = Path(folder)
    if not is_folder(folder):
        raise PictureError(f"{folder} is not a folder; give a folder of pictures")
    if not os.access(folder, os.R_OK | os.X_OK):
        raise PictureError(f"no permission to read the folder {folder}; change its permissions")
    files = list_files(folder, recursive=recursive, leaving_out=leaving_out)
    pictures = [file for file in files if file.suffix.lower() in SUFFIXES]
    if not pictures:
        where = f"in {folder} or below it" if recursive else f"in {folder}"
        raise PictureError(f"no picture files {where}; looked for {', '.join(SUFFIXES)}")
    return pictures


def thumbnail(image: np.ndarray, side: int) -> np.ndarray:
    """A small square view of the whole picture, the same everywhere: in training, in export checks and on the device.

    image: uint8, (H, W, 3), any size. Returns uint8, (side, side, 3): each cell is the mean of up to 8 x 8 pixels spread
    evenly over its part of the picture, so the cost does not grow with the picture.
    """
    height, width = image.shape[:2]
    samples_y, samples_x = (min(8, -(-length // side)) for length in (height, width))
    rows = ((np.arange(side * samples_y) + 0.5) * height / (side * samples_y)).astype(np.intp)
    columns = ((np.arange(side * samples_x) + 0.5) * width / (side * samples_x)).astype(np.intp)
    cells = np.empty((side, side, 3), np.float32)
    # Band by band, so that nothing as large as the picture is made; whole rows first, since adding them up is many times
    # faster than picking single pixels.
    for cell, band in zip(cells, rows.reshape(side, samples_y), strict=True):
        added = image[band].sum(axis=0, dtype=np.uint16)
        added[columns].reshape(side, samples_x, 3).sum(axis=1, dtype=np.float32, out=cell)
    return np.rint(cells / (samples_y * samples_x)).astype(np.uint8)


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
            f"{name} has 16 or more bits a channel ({image.mode}); the models take 8. Convert it first, for example: "
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
    if tags and tags.unknown:
        raise PictureError(
            f"{name} has {tags.unknown}, and the models know 8 bits of sRGB; convert it first, with a program that shows it right"
        )
    return tags


def _upright_srgb(image: Image, tags: ColourTags | None, name: str) -> Picture:
    with _our_rules():
        orientation, exif = _exif(image)
    transpose = _pillow().Image.Transpose
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
    cms = _pillow().ImageCms
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


def _pillow() -> Any:
    """Pillow's modules. Raises MissingDependency."""
    try:
        import PIL
        from PIL import Image, ImageCms  # noqa: F401 (modules of their own, which PIL has once they are imported)
    except ImportError:
        raise MissingDependency("reading and writing pictures needs Pillow: pip install 'impasto[cli]'") from None
    return PIL
