"""Picture files of more than 8 bits a channel to arrays: uint16, or float32 from 0 to 1; RGB or gray, as the file is.

The rules are those of 8 bits (`images.decoding`): upright, sRGB by tags or profile or refused, alpha beside the colours.
"""

from __future__ import annotations

import io
import math
import struct
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np

from impasto.errors import ImpastoWarning, PictureError, PictureTooLarge, first_line
from impasto.images.colour_tags import ColourTags
from impasto.images.formats import PNG

from .arrays import as_depth, as_float
from .codecs import complaints, imagecodecs, tifffile

NPY = b"\x93NUMPY"
_TIFF_BYTES = {b"II": "<", b"MM": ">"}
_BITS_TAG = 258
_WHITE_IS_0, _BLACK_IS_0, _RGB = 0, 1, 2
"""TIFF's PhotometricInterpretation: TIFF 6.0, section 8."""
_PHOTOMETRICS = {
    3: "a palette",
    5: "CMYK",
    6: "YCbCr",
    8: "Lab colours",
    9: "Lab colours",
    10: "Lab colours",
    32803: "a colour filter array",
}
_PREMULTIPLIED, _STRAIGHT = 1, 2
"""TIFF's ExtraSamples: what a fourth channel is, besides 0 for nobody knows."""


@dataclass(frozen=True)
class DeepPicture:
    """What a file holds, sRGB, as it lies in the file: not yet upright."""

    pixels: np.ndarray
    """uint8, uint16, or float32; (H, W, 3) or (H, W)."""
    alpha: np.ndarray | None = None
    """(H, W) of the same dtype; None where the file has no transparency."""
    orientation: int = 1
    """The EXIF orientation, 1 to 8."""


def is_deep(content: bytes) -> bool:
    """Whether these bytes are a file that `decode_deep` reads: by its header, .npy or more than 8 bits."""
    if content.startswith(NPY):
        return True
    if content.startswith(PNG):
        return content[12:16] == b"IHDR" and content[24:25] == b"\x10"
    return any(bits > 8 for bits in _bits_of_tiff(content))


def decode_deep(content: bytes, name: str, tags: ColourTags | None, most_pixels: int) -> DeepPicture:
    """The picture in a file that `is_deep`. tags: what a PNG's chunks say of its colours. most_pixels: more are refused.

    Raises PictureError and MissingDependency.
    """
    if content.startswith(NPY):
        return DeepPicture(_array(content, name, most_pixels))
    if content.startswith(PNG):
        width, height = struct.unpack(">II", content[16:24])
        _require_pixels(height, width, name, most_pixels)
        with complaints():  # of the header; what stops libpng is raised
            samples = imagecodecs().png_decode(_pixels_alone(content))
        pixels, alpha = _split(samples, name)
        return DeepPicture(_to_srgb(pixels, _profile_of_png(content), tags, name), alpha)
    return _tiff(content, name, most_pixels)


def _array(content: bytes, name: str, most_pixels: int) -> np.ndarray:
    """A NumPy file's array. Its header is looked at first, since it may ask for more memory than there is."""
    file = io.BytesIO(content)
    version = np.lib.format.read_magic(file)
    read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read_header(file)
    fits = dtype.isnative and dtype.name in ("uint8", "uint16", "float32") and len(shape) in (2, 3)
    if not fits or shape[2:] not in ((), (3,)) or 0 in shape:
        raise PictureError(
            f"{name} holds {dtype} {shape}; wanted uint8, uint16 or float32 in this machine's byte order, (H, W, 3) or (H, W): "
            "convert it with NumPy, for example np.save(path, picture.astype(np.uint16))"
        )
    _require_pixels(shape[0], shape[1], name, most_pixels)
    _require_bytes(file.tell() + math.prod(shape) * dtype.itemsize, content, name)
    array: np.ndarray = np.load(io.BytesIO(content), allow_pickle=False)
    return np.ascontiguousarray(array)


def _require_pixels(height: int, width: int, name: str, most: int) -> None:
    """Raises PictureError for a picture of nothing, and PictureTooLarge."""
    if height * width == 0:
        raise PictureError(f"{name} is {width} x {height}, so it has no pixels; get the file again from where it came")
    if height * width > most:
        raise PictureTooLarge(f"{name} is {width} x {height}, more than {most:,} pixels; scale or crop it first")


def _require_bytes(wanted: int, content: bytes, name: str) -> None:
    if len(content) < wanted:
        raise PictureError(
            f"{name} is cut short: {len(content):,} bytes of {wanted:,}; get it again from where it came"
        )


def _split(samples: np.ndarray, name: str) -> tuple[np.ndarray, np.ndarray | None]:
    """Colours and alpha. samples: (H, W) or (H, W, 1 to 4)."""
    if samples.ndim == 2:
        return samples, None
    channels = samples.shape[2]
    if channels not in (1, 2, 3, 4):
        raise PictureError(f"{name} has {channels} channels; wanted gray or RGB, with alpha or without")
    colours = samples[..., : 3 if channels > 2 else 1]
    alpha = np.ascontiguousarray(samples[..., -1]) if channels in (2, 4) else None
    return np.ascontiguousarray(colours if channels > 2 else colours[..., 0]), alpha


def _tiff(content: bytes, name: str, most_pixels: int) -> DeepPicture:
    with complaints() as told, tifffile().TiffFile(io.BytesIO(content)) as file:
        if file.pages.is_multipage:  # they are not counted: a damaged file may lead round in a circle
            raise PictureError(f"{name} is a stack of several pictures; extract the one you want as a TIFF of its own")
        page = file.pages[0]
        _require_pixels(page.imagelength, page.imagewidth, name, most_pixels)
        _require_kind(page, name)
        _require_segments(page, len(content), name, most_pixels)
        samples = page.asarray()
        profile, orientation = (_tag(page, number) for number in (34675, 274))
        photometric, extra = int(page.photometric), tuple(map(int, page.extrasamples))
        bits = page.bitspersample
    if told:
        warnings.warn(
            f"{name} has damaged fields beside its pixels, which were passed over; its colours or its orientation may be told wrong",
            ImpastoWarning,
            stacklevel=2,
        )
    if samples.ndim == 3 and samples.shape[0] == page.samplesperpixel and int(page.planarconfig) == 2:
        samples = np.moveaxis(samples, 0, -1)
    if samples.dtype == np.uint16 and bits < 16:  # packed, as cameras' 12 bits are
        samples = np.rint(samples.astype(np.float32) * np.float32(65_535 / (2**bits - 1))).astype(np.uint16)
    samples = samples.astype(samples.dtype.newbyteorder("="), copy=False)
    pixels, alpha = _split(samples, name)
    if extra[:1] == (0,):  # something else than transparency
        alpha = None
    if photometric == _WHITE_IS_0:
        pixels = (1 if pixels.dtype == np.float32 else 65_535) - pixels
    if alpha is not None and extra[:1] == (_PREMULTIPLIED,):
        pixels = _divided(pixels, alpha)
    turned = orientation if isinstance(orientation, int) else 1
    return DeepPicture(_to_srgb(pixels, profile, None, name), alpha, turned)


def _require_kind(page: Any, name: str) -> None:
    """Raises PictureError for a TIFF whose samples are no gray or RGB of up to 16 bits, or float32."""
    photometric = int(page.photometric)
    if photometric not in (_WHITE_IS_0, _BLACK_IS_0, _RGB):
        raise PictureError(
            f"{name} has {_PHOTOMETRICS.get(photometric, f'colours of kind {photometric}')} of {page.bitspersample} bits; of more than "
            "8 bits gray and RGB are read: convert it to RGB first"
        )
    wanted = 1 if photometric != _RGB else 3
    if not wanted <= page.samplesperpixel <= wanted + 1:
        raise PictureError(f"{name} has {page.samplesperpixel} channels; wanted {wanted}, or {wanted + 1} with alpha")
    kind = None if page.dtype is None else page.dtype.newbyteorder("=").name
    if kind not in ("uint16", "float32"):
        raise PictureError(
            f"{name} holds {kind or 'numbers of an unknown kind'}; wanted 16 bits without sign, or float32 from 0 to 1"
        )
    if page.imagedepth != 1:
        raise PictureError(
            f"{name} is a volume of {page.imagedepth} layers; extract the one you want as a TIFF of its own"
        )


def _require_segments(page: Any, length: int, name: str, most_pixels: int) -> None:
    """Raises PictureError where the file lacks strips or tiles, for which tifffile would give black. length: of the file, in bytes."""
    if page.is_tiled:
        _require_pixels(page.tilelength * page.tiledepth, page.tilewidth, f"a tile of {name}", most_pixels)
    wanted = math.prod(page.chunked)
    places = list(zip(page.dataoffsets, page.databytecounts, strict=False))[:wanted]
    whole = sum(start > 0 and size > 0 and start + size <= length for start, size in places)
    if whole < wanted:
        raise PictureError(
            f"{name} is cut short: {wanted - whole:,} of its {wanted:,} strips or tiles are not whole; get it again from where it came"
        )


def _tag(page: Any, number: int) -> Any:
    found = page.tags.get(number)
    return None if found is None else found.value


def _divided(pixels: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Colours that were multiplied by alpha, as they were before; black where nothing is to be seen."""
    share = as_float(alpha) if pixels.ndim == 2 else as_float(alpha)[..., None]
    colours = np.divide(as_float(pixels), share, out=np.zeros(pixels.shape, np.float32), where=share > 0)
    return as_depth(colours.clip(0, 1), pixels.dtype)


def _to_srgb(pixels: np.ndarray, profile: bytes | None, tags: ColourTags | None, name: str) -> np.ndarray:
    """By the tags or the ICC profile, whichever counts more. Raises PictureError for a profile of another kind of picture."""
    if profile and not (tags and tags.stronger_than_profile):
        converted = _by_profile(pixels, bytes(profile), name)
        if converted is not None:
            return converted
    return tags.to_srgb(pixels) if tags else pixels


def _by_profile(pixels: np.ndarray, profile: bytes, name: str) -> np.ndarray | None:
    """None, with a warning, where the profile is damaged: the picture is taken for sRGB then."""
    codecs = imagecodecs()
    space = profile[16:20].decode("latin-1").strip()
    gray = pixels.ndim == 2
    if space not in ("RGB", "GRAY") or (space == "GRAY" and not gray):
        raise PictureError(
            f"{name} holds a colour profile for {space or 'nothing'}, and the picture is {'gray' if gray else 'RGB'}: nobody knows its "
            "colours; convert it to sRGB first"
        )
    values = as_float(pixels)  # LittleCMS's tables for 16 bits are coarse in the darks
    if gray and space == "RGB":
        values = np.repeat(values[..., None], 3, axis=2)
    try:
        converted = codecs.cms_transform(
            np.ascontiguousarray(values),
            profile,
            codecs.cms_profile("srgb"),
            colorspace="rgb" if space == "RGB" else "gray",
            outcolorspace="rgb",
        )
    except Exception as error:  # CmsError, ValueError, …: what damaged profiles raise has no common base
        warnings.warn(
            f"the colour profile of {name} is damaged ({first_line(error)}); its colours are taken for sRGB",
            ImpastoWarning,
            stacklevel=2,
        )
        return None
    if gray:
        converted = converted.mean(axis=2, dtype=np.float32)
    return as_depth(converted.clip(0, 1), pixels.dtype)


def _profile_of_png(content: bytes) -> bytes | None:
    """The profile of an iCCP chunk. None without one, or where it cannot be unpacked."""
    import zlib

    from impasto.images.colour_tags import png_chunks

    packed = dict(png_chunks(content)).get(b"iCCP", b"")
    _, _, rest = packed.partition(b"\0")
    try:
        return zlib.decompressobj().decompress(rest[1:], 1 << 24) or None
    except zlib.error:
        return b"damaged profile"


_NEEDED = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")
"""PNG's chunks that say what the pixels are."""


def _pixels_alone(content: bytes) -> bytes:
    """The PNG without its other chunks, which we read ourselves: of damaged ones libpng prints lines of its own."""
    kept, place = [content[: len(PNG)]], len(PNG)
    while place + 8 <= len(content):
        length, kind = struct.unpack(">I4s", content[place : place + 8])
        if kind in _NEEDED:
            kept.append(content[place : place + 12 + length])
        place += 12 + length
    return b"".join(kept)


def _bits_of_tiff(content: bytes) -> tuple[int, ...]:
    """BitsPerSample of a TIFF's first picture; (1,) where it says none, and () for what is no TIFF."""
    order = _TIFF_BYTES.get(content[:2])
    if order is None or content[2:4] not in (struct.pack(order + "H", 42), struct.pack(order + "H", 43)):
        return ()
    big = content[2:4] == struct.pack(order + "H", 43)
    count, entry, inline, place = ("Q", "HHQ", 8, 8) if big else ("H", "HHI", 4, 4)
    try:
        (start,) = struct.unpack_from(order + ("Q" if big else "I"), content, place)
        (entries,) = struct.unpack_from(order + count, content, start)
        place = start + struct.calcsize(order + count)
        for _ in range(min(entries, 4096)):
            tag, _, number = struct.unpack_from(order + entry, content, place)
            place += struct.calcsize(order + entry)
            if tag == _BITS_TAG:
                here = (
                    place
                    if 2 * number <= inline
                    else struct.unpack_from(order + ("Q" if big else "I"), content, place)[0]
                )
                return tuple(struct.unpack_from(f"{order}{min(number, 16)}H", content, here))
            place += inline
    except struct.error:
        return ()
    return (1,)
