"""What a request gets: a drawn picture, or a status and one line. Nothing here knows of HTTP's library or of Ray."""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

from impasto import images
from impasto.batch.pictures import result_of
from impasto.batch.stores import encoded
from impasto.errors import ImpastoError, NoNumbers, OptionError, PictureError, PictureTooLarge, ShapeError
from impasto.images.deep.decoding import is_deep
from impasto.images.pillow import pillow

if TYPE_CHECKING:
    from impasto.runtime import Model

MEDIA_TYPES = {"png": "image/png", "jpg": "image/jpeg", "webp": "image/webp", "tiff": "image/tiff"}
"""By format that a server writes, as `impasto.batch.jobs.FORMATS` names them."""


@dataclass(frozen=True)
class Answer:
    """To one request."""

    status: int
    """HTTP's."""
    content: bytes
    media_type: str = "text/plain; charset=utf-8"
    note: str = ""
    """What the file could not hold; empty where it holds all."""

    @classmethod
    def refusal(cls, status: int, why: str) -> Answer:
        """One line that says why there is no picture."""
        return cls(status, (" ".join(why.split()) + "\n").encode())


def drawn(model: Model, content: bytes, format: str, quality: int, most_pixels: int) -> Answer:
    """The answer to a picture file's bytes: the bytes that `impasto run` would write, or what was wrong with them.

    format: one of MEDIA_TYPES. quality: 1 to 100, of JPEG and WebP. most_pixels: larger pictures are refused before they are decoded.
    """
    if refused := _refused(content, most_pixels):
        return refused
    try:
        picture = images.decode_at_own_depth(content, "the picture", most_pixels)
        result = result_of(picture, model(picture.rgb), model.info.scale)
        file, note = encoded(f"the result.{format}", result, quality)
    except PictureTooLarge as error:
        return Answer.refusal(413, str(error))
    except (PictureError, OptionError, ShapeError, NoNumbers) as error:
        return Answer.refusal(400, str(error))
    except ImpastoError as error:
        return Answer.refusal(500, str(error))
    return Answer(200, file, MEDIA_TYPES[format], note or "")


def _refused(content: bytes, most_pixels: int) -> Answer | None:
    """The answer to what is no picture, or too large a one, by its header; None where the header is right, or damaged.

    Files of more than 8 bits, some of which Pillow does not know, are looked at when they are decoded.
    """
    if is_deep(content):
        return None
    pil = pillow()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with pil.Image.open(io.BytesIO(content)) as image:
                width, height = image.size
    except pil.UnidentifiedImageError:
        return Answer.refusal(
            415, f"{len(content):,} bytes that are no picture; send the bytes of a PNG, JPEG, WebP, BMP or TIFF file"
        )
    except pil.Image.DecompressionBombError:
        return Answer.refusal(413, f"the picture has more than {most_pixels:,} pixels; scale it first")
    except Exception:  # decoding tells what is damaged
        return None
    if height * width > most_pixels:
        return Answer.refusal(
            413, f"the picture is {width} x {height}, more than {most_pixels:,} pixels; scale it first"
        )
    return None
