"""Pictures side by side with captions, for people who would rather look than read."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from impasto import images

_MARGIN = 12
_CAPTION = 26


@dataclass(frozen=True)
class Panel:
    """One picture of the sheet."""

    caption: str
    rgb: np.ndarray
    """uint8, (H, W, 3)."""


def write_contact_sheet(path: str | os.PathLike[str], rows: Sequence[Sequence[Panel]], *, height: int = 320) -> None:
    """Write rows of captioned pictures, each scaled to `height` pixels, on one white sheet.

    Raises OutputError, and OptionError for a suffix that is no picture format.
    """
    from PIL import Image, ImageDraw, ImageFont

    font = ImageFont.load_default(15)
    scaled = [
        [
            (panel.caption, Image.fromarray(panel.rgb).resize(_fit(panel.rgb, height), Image.Resampling.LANCZOS))
            for panel in row
        ]
        for row in rows
    ]
    width = max(sum(picture.width + _MARGIN for _, picture in row) for row in scaled) + _MARGIN
    row_height = height + _CAPTION + _MARGIN
    sheet = Image.new("RGB", (width, len(scaled) * row_height + _MARGIN), "white")
    draw = ImageDraw.Draw(sheet)
    for index, row in enumerate(scaled):
        left, top = _MARGIN, _MARGIN + index * row_height
        for caption, picture in row:
            sheet.paste(picture, (left, top))
            draw.text((left, top + height + 4), caption, fill="black", font=font)
            left += picture.width + _MARGIN
    images.write(path, np.asarray(sheet))


def _fit(rgb: np.ndarray, height: int) -> tuple[int, int]:
    return max(1, round(rgb.shape[1] * height / rgb.shape[0])), height
