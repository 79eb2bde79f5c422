"""Gram matrices of a painting and a drawing, side by side: what a stylizer is trained to make alike."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from impasto.runtime.backends import Backend
from impasto.runtime.style_distances import gram, relative_scale
from impasto.runtime.style_meter import open_network

SHOWN = 48
"""Channels of each layer: those that are strongest in the painting."""


@dataclass(frozen=True)
class StyleLayer:
    """One layer of the perceptual network."""

    name: str
    channels: int
    painting: np.ndarray
    drawing: np.ndarray
    """float32 (n, n): the part of the Gram matrices that belongs to the SHOWN channels, in the painting's order."""
    distance: float
    """mean((G − A)²) / mean(A²) of the drawing, over all channels: 0 is the painting's own style."""
    photo_distance: float
    """The distance of the photo from the painting's style, before it was drawn."""


def style_layers(network: str, painting: np.ndarray, drawing: np.ndarray, photo: np.ndarray) -> tuple[StyleLayer, ...]:
    """network: a perceptual network's package or ONNX file. Pictures: uint8 (H, W, 3). From shallow to deep.

    Raises ModelNotFound with the command that makes one, OptionError for a network that is none.
    """
    backend, _ = open_network(network, "onnxruntime-cpu", 0)
    try:
        names = [output.name for output in backend.outputs]
        of_painting, of_drawing, of_photo = (_grams(backend, picture) for picture in (painting, drawing, photo))
    finally:
        backend.close()
    return tuple(
        _layer(name, *grams) for name, grams in zip(names, zip(of_painting, of_drawing, of_photo, strict=True), strict=True)
    )  # fmt: skip


def _grams(backend: Backend, picture: np.ndarray) -> list[np.ndarray]:
    return [gram(features[0]) for features in backend.run_all((np.ascontiguousarray(picture[None]),))]


def _layer(name: str, painting: np.ndarray, drawing: np.ndarray, photo: np.ndarray) -> StyleLayer:
    scale = relative_scale(painting)
    distance, before = (scale * float(np.square(one - painting).mean(dtype=np.float64)) for one in (drawing, photo))
    strongest = np.argsort(-np.diag(painting), kind="stable")[:SHOWN]
    part = np.ix_(strongest, strongest)
    return StyleLayer(name, len(painting), painting[part], drawing[part], distance, before)
