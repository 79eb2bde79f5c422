"""Everything that can be seen of a model at once: its layers, and what they do with one photo."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

import impasto
from impasto import images
from impasto.errors import CheckpointError, OptionError, first_line, install
from impasto.export.graph.helpers import read_graph, spec_text
from impasto.export.graph.layers import Layer, layers_of
from impasto.package.spec import ModelSpec
from impasto.progress import Progress, silent
from impasto.runtime.loading.opening import spec_in_metadata
from impasto.runtime.loading.source import Source, quantize_command, resolve

from .feature_maps import Stage, stages_of
from .style_layers import StyleLayer, style_layers

if TYPE_CHECKING:
    from impasto.training.input_gradient import InputGradient

LONGEST = 512
"""Pixels of the longest side at which a photo is looked at: feature maps of more would not fit a page."""
PLACES = ((0.3, 0.3), (0.5, 0.55), (0.75, 0.4))
"""Places of the drawing, as shares of its height and width: a third from the top left, the middle, and low on the left."""


@dataclass(frozen=True)
class Sensitivity:
    """What INT8 costs, layer by layer."""

    graph: str
    """Such as "int8 for openvino"."""
    psnr: Mapping[str, float]
    """With this layer alone in INT8, against FP32, in dB."""
    excluded: tuple[str, ...]
    """Layers that the graph leaves out of INT8."""


@dataclass(frozen=True)
class Inside:
    """What was seen. What could not be shown is a sentence that says how to get it."""

    spec: ModelSpec
    height: int
    width: int
    """Size in pixels of the photo, or of the picture that stands for one."""
    padded: tuple[int, int]
    """Height and width with the border: the size that layers are counted for."""
    parameters: int
    layers: tuple[Layer, ...]
    """The layers of the FP32 graph."""
    precisions: Mapping[str, Mapping[str, str]]
    """For each graph of the package, such as "int8 openvino", what each layer computes in, by its first node."""
    photo: np.ndarray | None
    drawing: np.ndarray | None
    stages: tuple[Stage, ...]
    style: tuple[StyleLayer, ...] | str
    steering: tuple[InputGradient, ...] | str
    curves: Mapping[str, Mapping[str, list[float]]] | str
    sensitivity: tuple[Sensitivity, ...] | str


def look_inside(
    model: str | os.PathLike[str],
    photo: str | os.PathLike[str] | None = None,
    painting: str | os.PathLike[str] | None = None,
    *,
    network: str = "vgg16",
    sensitivity: str | os.PathLike[str] | None = None,
    progress: Progress = silent,
) -> Inside:
    """Look inside a package or an ONNX file.

    Args:
        model: a name, a package or an .onnx file of ours.
        photo: a picture to see with; of more than LONGEST pixels a side, it is scaled down.
        painting: whose style to compare the drawing with.
        network: the perceptual network for that, as `impasto export vgg16` makes it.
        sensitivity: JSON of `impasto quantize --sensitivity --json`, where the package does not hold it.
        progress: called with a line before each step.

    Raises:
        OptionError: an engine, a painting without a photo, or a file of another kind.
        ModelNotFound, PackageError, PictureError: as elsewhere.
        ExportError: a graph whose layers cannot be counted.

    Example:
        >>> from impasto.export.inside.look import look_inside
        >>> found = look_inside("denoise", photo)
        >>> found.stages[0].channels
        48
    """
    if painting is not None and photo is None:
        raise OptionError("a painting is compared with the drawing of a photo; name one with --photo")
    source = resolve(model)
    if source.is_engine:
        raise OptionError(
            f"{source.path} is an engine, whose layers are no longer the model's; name its package or .onnx file"
        )
    graph = read_graph(source.graph_path)
    spec = _spec(source, graph)
    picture = _middle(images.within(images.read(Path(photo)).rgb, LONGEST), spec) if photo is not None else None
    height, width = picture.shape[:2] if picture is not None else (LONGEST, LONGEST)
    progress("counting layers")
    padded = spec.size.padded(height + 2 * spec.border, width + 2 * spec.border)
    layers = layers_of(graph, *padded)
    drawing = None
    stages: tuple[Stage, ...] = ()
    if picture is not None:
        progress("drawing the photo")
        with impasto.load(
            source.path, backend="onnxruntime-cpu", precision=source.precision, working_size=None
        ) as loaded:
            drawing = loaded(picture)
        progress("looking at what each stage sees")
        stages = stages_of(source, graph, spec, picture)
    return Inside(
        spec, height, width, padded, sum(int(np.prod(tensor.dims)) for tensor in graph.graph.initializer), layers,
        _precisions(source, layers, padded), picture, drawing, stages,
        _style(spec, network, painting, drawing, picture, progress),
        _steering(source, picture, progress),
        _curves(source),
        _sensitivity(source, sensitivity),
    )  # fmt: skip


def _middle(photo: np.ndarray, spec: ModelSpec) -> np.ndarray:
    """As much of a photo as a network of a fixed size takes at once; all of it for others."""
    if spec.size.fixed is None:
        return photo
    most = [max(side - 2 * spec.border, 1) for side in spec.size.fixed]
    top, left = (max(have - side, 0) // 2 for have, side in zip(photo.shape, most, strict=False))
    return np.ascontiguousarray(photo[top : top + most[0], left : left + most[1]])


def _spec(source: Source, graph: onnx.ModelProto) -> ModelSpec:
    if source.manifest:
        return source.manifest.spec
    text = spec_text(graph)
    if text is None:
        raise OptionError(
            f"{source.path} was not written by Impasto; make a package of it first: impasto export {source.path} -o FOLDER"
        )
    return spec_in_metadata(text, source.graph_path)


def _precisions(source: Source, layers: tuple[Layer, ...], padded: tuple[int, int]) -> dict[str, dict[str, str]]:
    if source.manifest is None:
        return {source.precision: {layer.nodes[0]: layer.precision for layer in layers}}
    return {
        name: {layer.nodes[0]: layer.precision for layer in layers_of(read_graph(path), *padded)}
        for name, path in source.graphs().items()
    }


def _style(
    spec: ModelSpec,
    network: str,
    painting: str | os.PathLike[str] | None,
    drawing: np.ndarray | None,
    photo: np.ndarray | None,
    progress: Progress,
) -> tuple[StyleLayer, ...] | str:
    if spec.task != "stylize":
        return ""
    if painting is None or drawing is None or photo is None:
        return "Name the painting with --painting, and a photo with --photo, to see what of its style the drawing has."
    progress("comparing Gram matrices")
    return style_layers(network, images.read_painting(Path(painting)), drawing, photo)


def _steering(source: Source, photo: np.ndarray | None, progress: Progress) -> tuple[InputGradient, ...] | str:
    if photo is None:
        return "Name a photo with --photo to see which of its parts steer a place of the drawing."
    try:
        from impasto.training.input_gradient import input_gradients
    except ImportError as error:
        return f"Gradients are computed with torch, which is not installed ({error}): {install('train')}"
    progress("asking what steers the drawing")
    height, width = photo.shape[:2]
    places = [(int(down * height), int(across * width)) for down, across in PLACES]
    try:
        return tuple(input_gradients(source.path, photo, places))
    except CheckpointError as error:
        return f"Gradients need the network as training knows it, and this package does not hold it: {error}"


def _curves(source: Source) -> Mapping[str, Mapping[str, list[float]]] | str:
    recipe = source.manifest.recipe if source.manifest else {}
    found = recipe.get("curves")
    if not found:
        return (
            "This package does not hold them: it was trained before they were kept, or elsewhere. "
            "Trainings keep their curves in the recipe from now on."
        )
    try:
        curves = {
            str(kind): {str(name): [float(value) for value in values] for name, values in curve.items()}
            for kind, curve in found.items()
        }
        if all(math.isfinite(value) for curve in curves.values() for values in curve.values() for value in values):
            return curves
    except (AttributeError, TypeError, ValueError, OverflowError):
        pass
    return "The package's recipe holds curves in another form than training writes."


def _sensitivity(source: Source, path: str | os.PathLike[str] | None) -> tuple[Sensitivity, ...] | str:
    """From the file, else from the manifest, else how to get it. Raises OptionError for a file of another kind."""
    if path is not None:
        return _from_file(Path(path))
    made = source.manifest.quality.get("precision") if source.manifest else None
    found = [_recorded(key, known) for key, known in made.items()] if isinstance(made, dict) else []
    if kept := tuple(one for one in found if one):
        return kept
    return (
        f"Nobody has looked yet: {quantize_command(source.path, 'int8')} --sensitivity puts each layer alone into INT8 and "
        "keeps what that costs in the package. With --json FILE it also writes a file for --sensitivity FILE."
    )


def _recorded(key: str, known: Any) -> Sensitivity | None:
    """What the manifest says of one graph; None where it says nothing of its layers, or in another form than quantize writes."""
    losses = known.get("losses") if isinstance(known, dict) else None
    if not key.startswith("int8") or not isinstance(losses, dict) or not losses:
        return None
    if any(type(psnr) not in (int, float) or not 0 < psnr < 1000 for psnr in losses.values()):
        return None
    return Sensitivity(key.replace("-", " for ", 1), losses, tuple(map(str, known.get("spared") or ())))


def _from_file(path: Path) -> tuple[Sensitivity, ...]:
    try:
        data: Any = json.loads(path.read_text(encoding="utf-8"))
        found = tuple(
            Sensitivity(
                f"{made['precision']} for {made['family']}",
                {loss["label"]: float(loss["psnr"]) for loss in made["losses"]},
                tuple(made["spared"]),
            )
            for made in data["made"]
            if made["precision"] == "int8" and made["losses"]
        )
    except OSError as error:
        raise OptionError(f"cannot read {path}: {error.strerror or error}") from None
    except (ValueError, KeyError, TypeError) as error:
        raise OptionError(f"{path} is no JSON of impasto quantize --json: {first_line(error)}") from None
    if not found:
        raise OptionError(
            f"{path} holds no layer's loss in INT8; write it with impasto quantize --to int8 --sensitivity --json FILE"
        )
    return found
