"""The page of `impasto inspect`: what a model is made of, and what it does with one photo."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from .charts import bars, curves, figure
from .page import Figure, Grid, Part, Report, Section, Words
from .pictures import gallery, group, heat

if TYPE_CHECKING:
    from impasto.export.inside.feature_maps import Stage
    from impasto.export.inside.look import Inside, Sensitivity
    from impasto.export.inside.style_layers import StyleLayer
    from impasto.training.input_gradient import InputGradient


def inspection_report(found: Inside, machine: Mapping[str, Any], command: str = "") -> Report:
    """Layers, feature maps, style, what steers the drawing, training curves, and what INT8 costs."""
    macs = sum(layer.macs for layer in found.layers)
    pixels = found.padded[0] * found.padded[1]
    radius = found.spec.receptive_field
    sections = (
        Section(
            "The photo and its drawing", _drawn(found), "Drag the handle, or focus the slider and press the arrow keys."
        ),
        Section("Layers", (_layers(found),), _LAYERS),
        Section("Where the work is", (_work(found), _reach(found)), _WORK),
        Section("What each stage sees", _stages(found), _STAGES if found.stages else ""),
        Section("Style", _style(found), _STYLE if not isinstance(found.style, str) else ""),
        Section("What steers the drawing", _steering(found), _STEERING if not isinstance(found.steering, str) else ""),
        Section("Training", _curves(found), _CURVES if not isinstance(found.curves, str) else ""),
        Section(
            "What INT8 costs each layer",
            _sensitivity(found),
            _SENSITIVITY if not isinstance(found.sensitivity, str) else "",
        ),
    )
    return Report(
        f"Inside {found.spec.name}",
        f"{found.spec.task}; counted for a picture of {found.width} × {found.height} pixels and its border",
        sections,
        machine,
        (
            Figure(f"{figure(macs / pixels / 1000)} k", "multiplications for each pixel"),
            Figure(f"{macs / 1e9:.2f} billion", "for this picture"),
            Figure(f"{found.parameters:,}", "parameters"),
            Figure("the whole picture" if radius is None else f"± {radius} pixels", "receptive field"),
            Figure(str(len(found.layers)), "layers, as an engine fuses them"),
        ),
        command,
    )


_LAYERS = (
    "In the order of computation, fused as TensorRT fuses them: convolutions take up the sum and the activation behind them. “Sees” is "
    "how far away from its own place a value of the layer looks, in pixels of the picture. “Moves” is what it reads and writes."
)
_WORK = "Which stages do the arithmetic, and how the view widens from stage to stage."
_STAGES = (
    "Feature maps: of each stage the eight channels that vary most over this photo, each between its own extremes; dark is little, "
    "bright is much. Early stages show edges and colours where they are in the photo; later ones are coarser and answer to "
    "larger things."
)
_STYLE = (
    "A Gram matrix says which features of a picture occur together, whatever their place: what Gatys et al. call its style. Rows and "
    "columns are the 48 channels that are strongest in the painting; bright is strong. A drawing in the painting's style has a "
    "matrix like the painting's, and a distance near 0."
)
_STEERING = (
    "The gradient of one place of the drawing (white square) with respect to every pixel of the photo: bright pixels change it most. A "
    "broad veil comes from the thumbnail of the whole photo, where the network has one; the rest lies within the network's view."
)
_CURVES = (
    "From the recipe that the package keeps. Each curve is divided by its first value, so that all fit one picture."
)
_SENSITIVITY = (
    "With this layer alone in INT8 and all others in FP32: how far the drawing moves, as a root mean square in levels of 255. Long "
    "bars are what quantization has to be careful with; red ones the graph leaves out of INT8."
)


def _drawn(found: Inside) -> tuple[Part, ...]:
    if found.photo is None or found.drawing is None:
        return (Words("Name a photo with --photo to see what the network makes of it, and what its stages see in it."),)
    return (group("photo and drawing", [("the photo", found.photo), ("the drawing", found.drawing)]),)


def _layers(found: Inside) -> Grid:
    graphs = list(found.precisions)
    rows = []
    for layer in found.layers:
        size = "\N{NO-BREAK SPACE}×\N{NO-BREAK SPACE}".join(str(side) for side in layer.shape[1:])
        name = layer.name if layer.macs else f"after {layer.label}" if layer.label else "the picture"
        sees = "everything" if layer.radius is None else f"± {layer.radius}"
        computes = [found.precisions[graph].get(layer.nodes[0], "–") for graph in graphs]
        weights = f"{layer.weight_bytes / 1e3:,.1f}" if layer.macs else ""
        million = f"{layer.macs / 1e6:,.0f}" if layer.macs else ""
        rows.append((name, layer.kind, size, million, weights, f"{layer.bytes / 1e6:,.1f}", sees, *computes))
    headings = ("layer", "operators", "result", "million MACs", "weights kB", "moves MB", "sees px")
    return Grid((*headings, *(f"in {graph}" for graph in graphs)), tuple(rows), words=3)


def _work(found: Inside) -> Part:
    whole = sum(layer.macs for layer in found.layers) or 1
    stages: dict[str, int] = {}
    for layer in found.layers:
        if layer.macs:
            stages[layer.stage] = stages.get(layer.stage, 0) + layer.macs
    return bars(
        "multiplications of each stage",
        [(name, float(macs), f"{100 * macs / whole:.0f} %") for name, macs in stages.items()],
    )


def _reach(found: Inside) -> Part:
    stages = {layer.stage: layer.radius for layer in found.layers if layer.macs}
    return bars(
        "how far each stage sees, in pixels of the picture",
        [
            (name, float(radius or 0), "everything" if radius is None else f"± {radius}")
            for name, radius in stages.items()
        ],
    )


def _stages(found: Inside) -> tuple[Part, ...]:
    return tuple(
        gallery(
            stage.name,
            [(f"channel {number}", picture) for number, picture in enumerate(stage.maps, 1)],
            _said(stage),
            named=False,
        )
        for stage in found.stages
    )


def _said(stage: Stage) -> str:
    sees = "the whole photo" if stage.radius is None else f"± {stage.radius} pixels of the photo"
    size = "one for each pixel" if stage.stride == 1 else f"one for every {stage.stride:g} × {stage.stride:g} pixels"
    told = [f"{stage.channels} channels, {size}; each value sees {sees}."]
    if stage.zeros > 0.05:
        told.append(f"{100 * stage.zeros:.0f} % of the values are 0: the stage answers to few things at a time.")
    if stage.silent:
        told.append(f"{stage.silent} channels say nothing about this photo.")
    return " ".join(told)


def _style(found: Inside) -> tuple[Part, ...]:
    if isinstance(found.style, str):
        return (Words(found.style),) if found.style else ()
    distances = [
        row
        for layer in found.style
        for row in (
            (f"{layer.name}, the photo", layer.photo_distance, figure(layer.photo_distance)),
            (f"{layer.name}, the drawing", layer.distance, figure(layer.distance)),
        )
    ]
    marked = [name.endswith("drawing") for name, _, _ in distances]
    return (
        bars("distance from the painting's style, by layer", distances, marked, "the drawing"),
        *(_grams(layer) for layer in found.style),
    )


def _grams(layer: StyleLayer) -> Part:
    largest = max(float(np.abs(one).max()) for one in (layer.painting, layer.drawing)) or 1.0
    # Roots show the weak correlations beside the strong.
    shown = [np.sqrt(np.abs(one) / largest) for one in (layer.painting, layer.drawing, layer.drawing - layer.painting)]
    closer = layer.photo_distance / max(layer.distance, 1e-12)
    compared = f"{figure(closer)} times nearer" if closer >= 1 else f"{figure(1 / closer)} times further away"
    return gallery(
        f"{layer.name} ({layer.channels} channels)",
        list(zip(("the painting", "the drawing", "their difference"), map(heat, shown), strict=True)),
        f"The drawing's distance is {figure(layer.distance)}, the photo's {figure(layer.photo_distance)}: {compared} than it was.",
        columns=3,
        narrow=3,
    )


def _steering(found: Inside) -> tuple[Part, ...]:
    if isinstance(found.steering, str) or found.photo is None or found.drawing is None:
        return (Words(str(found.steering)),) if found.steering else ()
    return tuple(_steered(place, found.photo, found.drawing, found.spec.scale) for place in found.steering)


def _steered(place: InputGradient, photo: np.ndarray, drawing: np.ndarray, scale: int) -> Part:
    near, most = place.radius_of(0.5), place.radius_of(0.9)
    said = f"Half of what steers this place lies within {near} pixels of it, nine tenths within {most}."
    if place.through_thumbnail:
        said = (
            f"{100 * place.through_thumbnail:.0f} % of what steers this place goes through the thumbnail of the whole photo. "
            f"Of the rest, half lies within {near} pixels, nine tenths within {most}."
        )
    return gallery(
        f"the place at row {place.row}, column {place.column}",
        [
            ("the drawing, with the place", _marked(drawing, place.row * scale, place.column * scale)),
            ("the photo, as bright as it steers the place", _overlaid(photo, place)),
        ],
        said,
        columns=2,
        narrow=1,
        pixels=False,
    )


def _overlaid(photo: np.ndarray, place: InputGradient) -> np.ndarray:
    """The photo in dark gray, and on it what steers the place."""
    gray = photo.mean(2, keepdims=True) * 0.35
    strength = np.sqrt(place.influence / max(float(np.percentile(place.influence, 99)), 1e-30)).clip(0, 1)
    share = strength[..., None]
    mixed = (gray * (1 - share) + heat(strength) * share).clip(0, 255).astype(np.uint8)
    return _marked(mixed, place.row, place.column)


def _marked(picture: np.ndarray, row: int, column: int) -> np.ndarray:
    """With a white square on black around the place."""
    made = picture.copy()
    unit = max(1, round(min(picture.shape[:2]) / 160))
    for reach, level in ((6 * unit, 0), (5 * unit, 255), (4 * unit, 0)):
        top, left = max(row - reach, 0), max(column - reach, 0)
        made[top : row + reach, left : column + reach] = level
    inner = slice(max(row - 3 * unit, 0), row + 3 * unit), slice(max(column - 3 * unit, 0), column + 3 * unit)
    made[inner] = picture[inner]
    return made


def _curves(found: Inside) -> tuple[Part, ...]:
    if isinstance(found.curves, str):
        return (Words(found.curves),)
    parts: list[Part] = []
    for kind, caption in (("losses", "losses in training"), ("validation", "figures on the photos held out")):
        curve = found.curves.get(kind, {})
        steps = curve.get("steps", [])
        lines = [
            (name, steps, [value / values[0] for value in values])
            for name, values in curve.items()
            if name != "steps" and len(values) == len(steps) and values and values[0]
        ]
        if len(steps) > 1 and lines:
            parts.append(curves("steps", f"{caption}, each divided by its first value (the last in brackets):", lines))
    return tuple(parts) or (Words("The recipe's curves have a single point: the training was too short to draw."),)


def _sensitivity(found: Inside) -> tuple[Part, ...]:
    if isinstance(found.sensitivity, str):
        return (Words(found.sensitivity),)
    return tuple(_costs(one) for one in found.sensitivity)


def _costs(found: Sensitivity) -> Part:
    levels = {label: float(255 / 10 ** (psnr / 20)) for label, psnr in found.psnr.items()}
    return bars(
        found.graph,
        [(label, value, f"{figure(value)}; {found.psnr[label]:.1f} dB") for label, value in levels.items()],
        [label in found.excluded for label in levels],
        "left out of INT8",
    )
