"""Pictures made by program: pages of text, line drawings, flat shapes and pale gradients, to be learnt beside photos.

A restorer that has seen photos alone softens letters and draws bands into an even sky. These pictures are seeded and clean.
"""

from __future__ import annotations

import string
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from impasto.errors import MissingDependency

from .photos import Photos

SIDE = 480
"""Pixels of a synthetic picture's sides."""
_FINER = 3
"""Shapes are drawn at so many times the size, and scaled down, for smooth edges."""

Colour = tuple[int, int, int]


def synthetic_pictures(count: int, seed: int) -> Photos:
    """So many pictures, uint8 (SIDE, SIDE, 3), in equal shares of text, lines, shapes and gradients; the same for the same seed.

    Raises MissingDependency where Pillow cannot draw letters of any size (before 10.1, or without FreeType).
    """
    makers: tuple[Callable[[np.random.Generator], Image.Image], ...] = (text_page, line_drawing, flat_shapes, gradient)
    pictures = [np.asarray(makers[n % len(makers)](np.random.default_rng([seed, n]))) for n in range(count)]
    return Photos(tuple(pictures), tuple(f"synthetic {number}" for number in range(count)), ())


def text_page(generator: np.random.Generator) -> Image.Image:
    """Lines of random words in several sizes and colours, on paper or on a coloured bar."""
    paper, inks = _paper_and_inks(generator)
    page = Image.new("RGB", (SIDE, SIDE), paper)
    draw = ImageDraw.Draw(page)
    top = int(generator.integers(0, 16))
    while top < SIDE:
        size = int(generator.integers(9, 40))
        height = size + int(generator.integers(2, 12))
        ink = inks[int(generator.integers(len(inks)))]
        if generator.random() < 0.15:
            draw.rectangle((0, top, SIDE, top + height), fill=ink)
            ink = paper
        draw.text(
            (int(generator.integers(0, 24)), top), _words(generator, 2 * SIDE // size), fill=ink, font=_font(size)
        )
        top += height
    return page


def line_drawing(generator: np.random.Generator) -> Image.Image:
    """Pen strokes: bent lines, circles and hatching of 1 to 4 pixels."""
    paper, inks = _paper_and_inks(generator)
    page, draw = _fine_page(paper)
    for _ in range(int(generator.integers(15, 50))):
        ink, width = inks[int(generator.integers(len(inks)))], int(generator.integers(_FINER, 4 * _FINER))
        x, y, reach = (generator.random(3) * (1, 1, 0.3) * SIDE * _FINER).tolist()
        kind = generator.random()
        if kind < 0.5:
            steps = np.array([x, y]) + np.cumsum(generator.normal(0, reach / 6, (8, 2)), 0)
            draw.line([(float(a), float(b)) for a, b in steps], fill=ink, width=width, joint="curve")
        elif kind < 0.75:
            draw.ellipse((x - reach, y - reach, x + reach, y + reach), outline=ink, width=width)
        else:
            gap, slant = generator.uniform(4, 12) * _FINER, generator.uniform(-1, 1) * reach
            for number in range(12):
                draw.line((x + number * gap, y, x + number * gap + slant, y + reach), fill=ink, width=width)
    return page.resize((SIDE, SIDE), Image.Resampling.BOX)


def flat_shapes(generator: np.random.Generator) -> Image.Image:
    """Overlapping polygons, discs and rectangles of even colour."""
    page, draw = _fine_page(_colour(generator))
    for _ in range(int(generator.integers(10, 60))):
        x, y, reach = (generator.random(3) * (1, 1, 0.25) * SIDE * _FINER).tolist()
        fill, kind = _colour(generator), generator.random()
        if kind < 0.35:
            draw.ellipse((x - reach, y - reach, x + reach, y + reach * generator.uniform(0.3, 1)), fill=fill)
        elif kind < 0.7:
            draw.rectangle((x - reach, y - reach, x + reach, y + reach * generator.uniform(0.1, 1)), fill=fill)
        else:
            corners = np.array([x, y]) + generator.normal(0, reach, (int(generator.integers(3, 7)), 2))
            draw.polygon([(float(a), float(b)) for a, b in corners], fill=fill)
    return page.resize((SIDE, SIDE), Image.Resampling.BOX)


def gradient(generator: np.random.Generator) -> Image.Image:
    """Smooth changes of colour, often pale, in which each false band shows."""
    y, x = np.mgrid[:SIDE, :SIDE] / SIDE
    ends = generator.uniform(0, 255, (4, 3)) if generator.random() < 0.5 else generator.uniform(150, 255, (4, 3))
    bend = generator.uniform(0.5, 2, 2)
    down, across = (y ** bend[0])[..., None], (x ** bend[1])[..., None]
    values = (1 - down) * ((1 - across) * ends[0] + across * ends[1]) + down * (
        (1 - across) * ends[2] + across * ends[3]
    )
    return Image.fromarray(np.rint(values).astype(np.uint8))


def _paper_and_inks(generator: np.random.Generator) -> tuple[Colour, list[Colour]]:
    """A bright paper with dark inks, or the reverse; one in three without any colour."""
    bright = np.clip(generator.integers(215, 256) + generator.integers(-12, 13, 3), 0, 255)
    darks = generator.integers(0, 110, (4, 3))
    darks[:2] = darks[:2, :1]  # black and gray are the commonest inks
    if generator.random() < 1 / 3:
        bright, darks = np.full(3, bright[0]), np.repeat(darks[:, :1], 3, 1)
    if generator.random() < 0.25:
        return _levels(darks[0]), [_levels(bright)]
    return _levels(bright), [_levels(dark) for dark in darks]


def _colour(generator: np.random.Generator) -> Colour:
    return _levels(generator.integers(0, 256, 3))


def _levels(values: np.ndarray) -> Colour:
    red, green, blue = (int(value) for value in values)
    return red, green, blue


def _fine_page(paper: Colour) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    page = Image.new("RGB", (SIDE * _FINER, SIDE * _FINER), paper)
    return page, ImageDraw.Draw(page)


def _words(generator: np.random.Generator, letters: int) -> str:
    """Random words, with capitals, digits and signs as a text has them."""
    alphabet = string.ascii_lowercase * 6 + string.ascii_uppercase + string.digits + ".,;:-()!?&%"
    words = ["".join(generator.choice(list(alphabet), int(generator.integers(1, 10)))) for _ in range(letters // 4)]
    return " ".join(words)


def _font(size: int) -> ImageFont.FreeTypeFont:
    try:
        font = ImageFont.load_default(size)
    except TypeError:  # before Pillow 10.1 it has no size
        font = None
    if not isinstance(font, ImageFont.FreeTypeFont):
        raise MissingDependency(
            "synthetic pictures need Pillow 10.1 or newer with FreeType: pip install 'pillow>=10.1'"
        )
    return font
