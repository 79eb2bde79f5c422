"""Pictures inside a page: brought to one size, compared, and written as data."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from impasto import images

GAIN = 8
"""By how much difference maps are brightened: a difference of 2 levels of 255, which nobody sees, becomes 16, which one does."""
_LOSSLESS_PIXELS = 1_000_000
"""Larger pictures are kept in WebP of quality 92, since a page of several would be too large to send."""
_LONGEST = 2048
"""Larger ones are scaled down to this."""


@dataclass(frozen=True)
class View:
    """One picture of a group."""

    name: str
    picture: np.ndarray
    """uint8 (H, W, 3)."""
    exact: bool = True
    """Whether its pixels are kept to the bit, where it is not too large; maps of noise would take most of a page."""

    @cached_property
    def data(self) -> str:
        """The picture as a data URI."""
        return _data_uri(self.picture, self.exact)


@dataclass(frozen=True)
class PictureGroup:
    """Pictures of one thing, all of one size, to lay over each other. The first two are compared where nobody chooses."""

    title: str
    views: tuple[View, ...]
    caption: str = ""
    height: int = 0
    width: int = 0
    """The size of each view, in pixels."""

    kind = "pictures"


@dataclass(frozen=True)
class Gallery:
    """Pictures beside each other."""

    title: str
    views: tuple[View, ...]
    caption: str = ""
    columns: int = 8
    narrow: int = 4
    """Pictures in a row, at a desk's width and at a phone's."""
    named: bool = True
    """Whether names stand below the pictures; they are read out anyway."""
    pixels: bool = True
    """Whether enlarged pixels stay squares."""

    kind = "gallery"


def gallery(title: str, views: Sequence[tuple[str, np.ndarray]], caption: str = "", **layout: Any) -> Gallery:
    """views: names and pictures, uint8 (h, w) or (h, w, 3). layout: as the fields of `Gallery`."""
    coloured = [
        (name, picture if picture.ndim == 3 else np.repeat(picture[..., None], 3, 2)) for name, picture in views
    ]
    exact = layout.get("pixels", True)
    return Gallery(title, tuple(View(name, picture, exact) for name, picture in coloured), caption, **layout)


_HEAT = np.array(((0, 0, 0), (70, 15, 90), (190, 50, 75), (250, 150, 30), (255, 250, 190)), np.float32)
"""From nothing to the most."""


def heat(values: np.ndarray) -> np.ndarray:
    """Values from 0 to 1, (h, w), as colours from black over violet, red and orange to pale yellow: uint8 (h, w, 3)."""
    places = np.clip(values, 0, 1) * (len(_HEAT) - 1)
    low = np.minimum(places.astype(int), len(_HEAT) - 2)
    share = (places - low)[..., None]
    return np.rint(_HEAT[low] * (1 - share) + _HEAT[low + 1] * share).astype(np.uint8)


def group(
    title: str,
    views: Sequence[tuple[str, np.ndarray]],
    *,
    against: int | None = None,
    maps_of: Iterable[int] | None = None,
    caption: str = "",
    exact: bool = True,
) -> PictureGroup:
    """Names and pictures of one thing, and how each differs from one of them.

    views: pictures are uint8 (H, W, 3); smaller ones, as an upscaler's source, are enlarged to the largest by repeating or mixing their
    pixels. against: number of the view that difference maps compare with; None: no maps. maps_of: numbers of the views that are
    compared with it; None: all others. exact: as in `View`.
    """
    height, width = (max(picture.shape[side] for _, picture in views) for side in (0, 1))
    longest = max(height, width)
    shown = [View(name, _of_size(picture, height, width), exact) for name, picture in views]
    maps = [] if against is None else _maps(shown, against, maps_of)
    kept = tuple(replace(view, picture=images.within(view.picture, _LONGEST)) for view in (*shown, *maps))
    notes = [caption] if caption else []
    if longest > _LONGEST:
        notes.append(f"Shown at {kept[0].picture.shape[1]} × {kept[0].picture.shape[0]} of {width} × {height} pixels.")
    height, width = kept[0].picture.shape[:2]
    if height * width > _LOSSLESS_PIXELS:
        notes.append("Kept in WebP of quality 92.")
    return PictureGroup(title, kept, " ".join(notes), height, width)


def difference_map(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """GAIN times the absolute difference of two pictures, uint8 (H, W, 3) each and so the result: black where they are equal."""
    apart = np.abs(one.astype(np.int16) - other.astype(np.int16))
    return np.minimum(GAIN * apart, 255).astype(np.uint8)


def _maps(views: Sequence[View], against: int, maps_of: Iterable[int] | None) -> list[View]:
    base = views[against]
    compared = [views[number] for number in (range(len(views)) if maps_of is None else maps_of) if number != against]
    return [
        View(f"difference ×{GAIN}: {view.name} − {base.name}", difference_map(view.picture, base.picture), exact=False)
        for view in compared
    ]


def _of_size(picture: np.ndarray, height: int, width: int) -> np.ndarray:
    """Enlarged where it is smaller: whole factors repeat pixels, so that one sees them."""
    if picture.shape[:2] == (height, width):
        return picture
    factor = height // picture.shape[0]
    if picture.shape[:2] == (height / factor, width / factor):
        return picture.repeat(factor, 0).repeat(factor, 1)
    from PIL import Image

    return np.asarray(Image.fromarray(picture).resize((width, height), Image.Resampling.BICUBIC))


def _data_uri(picture: np.ndarray, exact: bool) -> str:
    from PIL import Image

    stream = io.BytesIO()
    lossless = exact and picture.shape[0] * picture.shape[1] <= _LOSSLESS_PIXELS
    Image.fromarray(picture).save(stream, "WEBP", lossless=lossless, quality=92, method=2)
    return "data:image/webp;base64," + base64.b64encode(stream.getvalue()).decode()
