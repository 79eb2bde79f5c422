"""The page of `impasto quantize`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import impasto
from impasto import images
from impasto.errors import ImpastoError

from .charts import bars, figure, scatter
from .page import Figure, Grid, Listing, Part, Report, Section, Words
from .pictures import PictureGroup, group

if TYPE_CHECKING:
    from impasto.export.quantization.quantized_graph import QuantizedGraph
    from impasto.export.quantization.search import QuantizeResult

SHOWN = 4
"""Pictures that are drawn with every graph."""
_LONGEST = 768
"""Pixels of what is drawn: enough to see with, and drawn by every graph in seconds."""


def quantization_report(result: QuantizeResult, folder: Path, machine: Mapping[str, Any], command: str = "") -> Report:
    """What lower precisions do to pictures, what they cost and which layers they leave out.

    folder: of pictures to draw, such as those of the calibration; they are drawn as they are, without damage.
    """
    sections = (
        Section("Pictures", _pictures(result, folder), _SEEN),
        Section("Likeness to the FP32 drawing", _likeness(result), _LIKENESS),
        Section(
            "Latency against quality",
            _fronts(result),
            "Where a target backend is installed, its graphs were timed in turn.",
        ),
        Section("Layers that were excluded", _excluded(result), _SPARED),
        Section("What each layer costs", _costs(result), "With this layer alone in the precision, against FP32."),
        Section("Left out", (Listing(result.skipped),) if result.skipped else ()),
    )
    done = "" if result.damage == "none" else f", damaged by {result.damage}"
    figures = tuple(
        figure_
        for made in result.made
        for figure_ in (
            Figure(f"{made.quality.psnr:.1f} dB", f"{_name(made)}: worst picture against FP32"),
            Figure(f"{len(made.excluded)} of {made.layers}", f"{_name(made)}: layers excluded"),
        )
    )
    return Report(
        f"{result.model} in lower precision",
        f"calibrated and judged on {result.pictures} pictures{done}, in {result.seconds:.0f} s",
        sections if result.made else (Section("Nothing was written", (Words(str(result)),)), sections[2]),
        machine,
        figures,
        command,
    )


_SEEN = (
    "Drawn by ONNX Runtime on the CPU, which draws the graphs of all target backends. The maps show how each drawing differs from "
    "FP32's, times 8. Drag the handle, or focus the slider and press the arrow keys."
)
_LIKENESS = (
    "PSNR of the picture that came off worst, and the mean. Above 40 dB nobody sees a difference, below 30 dB one does."
)
_SPARED = "They stay in FP32 or FP16, because the budget would not hold with them."


def _name(made: QuantizedGraph) -> str:
    return f"{made.precision} for {made.target_backend}" if made.target_backend else made.precision


def _pictures(result: QuantizeResult, folder: Path) -> tuple[PictureGroup, ...]:
    """The first few readable pictures, each drawn by FP32 and by every new graph."""
    if not result.made:
        return ()
    photos: list[tuple[str, np.ndarray]] = []
    for file in images.list_folder(folder):
        try:
            photos.append((file.name, images.within(images.read(file).rgb, _LONGEST)))
        except ImpastoError:  # which the result lists already
            continue
        if len(photos) == SHOWN:
            break
    from impasto.runtime.loading.source import resolve

    graphs = resolve(result.made[0].path.parent).graphs()
    drawn: dict[str, list[np.ndarray]] = {}
    for name, graph in graphs.items():
        with impasto.load(graph, backend="onnxruntime-cpu", working_size=None) as model:
            drawn[name] = [model(photo) for _, photo in photos]
    names = list(drawn)
    return tuple(
        group(
            title,
            [*((name, pictures[number]) for name, pictures in drawn.items()), ("the photo", photo)],
            against=0,
            maps_of=range(1, len(names)),
        )
        for number, (title, photo) in enumerate(photos)
    )


def _likeness(result: QuantizeResult) -> tuple[Part, ...]:
    rows = []
    for made in result.made:
        quality = made.quality
        rows.append(
            (
                _name(made),
                f"{quality.psnr:.1f}",
                f"{quality.mean_psnr:.1f}",
                "–" if quality.ssim is None else f"{quality.ssim:.4f}",
                "–" if quality.truth is None else f"{-quality.truth:+.2f}",
                f"{made.artificial:.1f}",
                f"{made.path.stat().st_size / 1e6:.2f}",
                made.method or "–",
            )
        )
    headings = ("graph", "worst dB", "mean dB", "SSIM", "against the truth dB", "artificial dB", "MB", "calibration")
    return (Grid(headings, tuple(rows)),)


def _fronts(result: QuantizeResult) -> tuple[Part, ...]:
    parts: list[Part] = []
    for timing in result.timings:
        if timing.latency_ms is None:
            parts.append(Words(str(timing)))
            continue
        quality = {
            made.precision: made.quality.psnr
            for made in result.made
            if made.target_backend in (None, timing.target_backend)
        }
        points = [
            (f"{timing.target_backend}, {name}", milliseconds, float("inf") if name == "fp32" else quality[name])
            for name, milliseconds in timing.latency_ms.items()
            if name == "fp32" or name in quality
        ]
        parts.append(scatter("median latency, ms", "PSNR against FP32, dB", points))
    return tuple(parts)


def _excluded(result: QuantizeResult) -> tuple[Part, ...]:
    parts: list[Part] = []
    for made in result.made:
        said = f"{_name(made)}: {len(made.excluded)} of {made.layers} layers"
        parts.append(Words(said + ("" if made.excluded else "; none had to be excluded")))
        if made.excluded:
            parts.append(Listing(made.excluded))
        if made.fp32_nodes:
            parts.append(Words(f"{_name(made)}: nodes in FP32 beside them"))
            parts.append(Listing(tuple(f"{fp32_node.node}: {fp32_node.reason}" for fp32_node in made.fp32_nodes)))
    return tuple(parts)


def _costs(result: QuantizeResult) -> tuple[Part, ...]:
    return tuple(
        bars(
            f"{_name(made)}: RMS difference in levels of 255",
            [(loss.label, loss.levels, f"{figure(loss.levels)}; {loss.psnr:.1f} dB") for loss in made.losses],
            [loss.label in made.excluded for loss in made.losses],
            "excluded",
        )
        for made in result.made
        if made.losses
    )
