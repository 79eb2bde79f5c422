"""What each stage of a network sees in a photo: its feature maps, as pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx

from impasto.export.graph.helpers import with_names
from impasto.export.graph.layers import Layer, layers_of
from impasto.export.quantization.ranges import Session, opened
from impasto.package.spec import ModelSpec
from impasto.runtime.backends import open_graph
from impasto.runtime.inference.context import ChosenStrength, ContextGraph, ContextSource
from impasto.runtime.inference.padding import reflect_into
from impasto.runtime.loading.source import Source
from impasto.styles import mixture

CHANNELS = 8
"""Shown of each stage: those that vary most over the photo."""
STAGES = 12
"""Shown of a network with more: spread evenly, with the first and the last."""
_SILENT = 1e-3
"""A channel that varies by less than this share of the stage's largest says nothing about the photo."""


@dataclass(frozen=True)
class Stage:
    """One stage, looking at the photo."""

    name: str
    channels: int
    stride: float
    """Pixels of the photo for each of its values, along a side."""
    radius: int | None
    """How far its values see, in pixels of the photo."""
    zeros: float
    """Share of values that are 0, as behind a ReLU."""
    silent: int
    """Channels that hold the same value all over the photo."""
    maps: tuple[np.ndarray, ...]
    """Maps of the CHANNELS channels that vary most, uint8 (h, w). Dark is little, bright is much, each by its own extremes."""


def stages_of(source: Source, model: onnx.ModelProto, spec: ModelSpec, photo: np.ndarray) -> tuple[Stage, ...]:
    """Run the graph once in ONNX Runtime and look at the last tensor of each stage. photo: uint8 (H, W, 3)."""
    model = with_names(model)
    feed = _feed(source, model, spec, photo)
    padded = next(iter(feed.values())).shape[1:3]
    layers = layers_of(model, *padded)
    shown = _spread(_lasts(layers))
    values = Session(opened(model, [layer.output for layer in shown]), exact=False).all(feed)
    return tuple(_stage(layer, values[layer.output][0], spec, photo.shape[:2], padded) for layer in shown)


def _lasts(layers: Sequence[Layer]) -> list[Layer]:
    """The last layer of each stage that gives feature maps: it has more channels than a picture, and does more than move values."""
    found = {}
    for layer in layers:
        maps = len(layer.shape) == 4 and layer.shape[1] > 3 and layer.shape[2] > 1
        if layer.stage and maps and (layer.macs or layer.operations):
            found[layer.stage] = layer
    return list(found.values())


def _spread(found: list[Layer]) -> list[Layer]:
    if len(found) <= STAGES:
        return found
    return [found[round(number * (len(found) - 1) / (STAGES - 1))] for number in range(STAGES)]


def _stage(layer: Layer, values: np.ndarray, spec: ModelSpec, size: tuple[int, int], padded: tuple[int, int]) -> Stage:
    """values: float (C, h, w) of the padded photo."""
    stride = padded[0] / values.shape[1]
    first = round(spec.border / stride)
    height, width = (max(1, round(side / stride)) for side in size)
    inside = values[:, first : first + height, first : first + width].astype(np.float32)
    spread = inside.std(axis=(1, 2))
    silent = int((spread <= _SILENT * max(float(spread.max()), 1e-12)).sum())
    order = np.argsort(-spread, kind="stable")[: min(CHANNELS, len(spread))]
    return Stage(
        layer.stage,
        len(values),
        stride,
        layer.radius,
        float((inside == 0).mean()),
        silent,
        tuple(_levels(inside[channel]) for channel in order),
    )


def _levels(values: np.ndarray) -> np.ndarray:
    """Between the channel's 1st and 99th percentile, so that one bright value does not leave the rest dark."""
    low, high = np.percentile(values, (1, 99))
    return np.asarray(np.clip(255 * (values - low) / max(float(high - low), 1e-12), 0, 255), np.uint8)


def _feed(source: Source, model: onnx.ModelProto, spec: ModelSpec, photo: np.ndarray) -> dict[str, np.ndarray]:
    """The photo as the runtime gives it to the graph, with its context."""
    inputs = [value.name for value in model.graph.input]
    height, width = (side + 2 * spec.border for side in photo.shape[:2])
    padded = np.empty((*spec.size.padded(height, width), 3), np.uint8)
    reflect_into(padded, photo, spec.border, spec.border)
    feed = {inputs[0]: padded[None]}
    context: ContextSource | None = ChosenStrength() if spec.strength else None
    if source.context_path is not None and spec.thumbnail:
        graph = open_graph(source.context_path, "onnxruntime-cpu", 0)
        context = ContextGraph(graph, spec.thumbnail, mixture(spec.styles))
    if context is not None:
        feed[inputs[1]] = context.of_picture(photo).copy()
        context.close()
    return feed
