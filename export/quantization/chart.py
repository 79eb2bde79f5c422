"""What each layer costs in a precision, as a picture of bars. Drawn with Pillow, which the command line has anyway: Matplotlib
would be a dozen more packages for one chart.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from .search import Made
    from .sensitivity import LayerLoss

_TEXT, _ROW, _HEAD, _MARGIN = 15, 22, 34, 16
_NAMES, _BARS, _FIGURES = 280, 480, 190
_KEPT, _SPARED, _INK = (70, 110, 170), (200, 90, 60), (30, 30, 30)


def draw_chart(model: str, made: Sequence[Made]) -> np.ndarray:
    """Bars for every layer of every graph that has been looked at: uint8 (H, W, 3). Spared layers stand out."""
    from PIL import Image, ImageDraw, ImageFont

    charts = [graph for graph in made if graph.losses]
    height = 2 * _MARGIN + sum(_HEAD + _ROW * len(graph.losses) for graph in charts)
    image = Image.new("RGB", (2 * _MARGIN + _NAMES + _BARS + _FIGURES, height), "white")
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(_TEXT)
    top = _MARGIN
    for graph in charts:
        family = f" for {graph.family}" if graph.family else ""
        title = f"{model}, {graph.precision}{family}: RMS difference to FP32 with one layer in it"
        draw.text((_MARGIN, top), title, _INK, font)
        top += _HEAD
        worst = max(loss.levels for loss in graph.losses)
        for loss in graph.losses:
            _row(draw, font, top, loss, worst, loss.label in graph.spared)
            top += _ROW
    return np.asarray(image)


def _row(draw, font, top: int, loss: LayerLoss, worst: float, spared: bool) -> None:  # type: ignore[no-untyped-def]
    name = loss.label
    while draw.textlength(name, font) > _NAMES - 8:
        name = "…" + name[2:]
    draw.text((_MARGIN, top), name, _INK, font)
    left = _MARGIN + _NAMES
    length = max(1, round(_BARS * loss.levels / worst))
    draw.rectangle((left, top + 2, left + length, top + _ROW - 6), _SPARED if spared else _KEPT)
    figures = f"{loss.levels:.3f} levels, {loss.psnr:.1f} dB" + (" (spared)" if spared else "")
    draw.text((left + length + 8, top), figures, _INK, font)
