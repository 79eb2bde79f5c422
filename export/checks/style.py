"""Whether precision changed the style: the distances to the painting of what two graphs of one network draw."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import impasto
from impasto.errors import CheckFailed, OptionError, ShapeError
from impasto.progress import Progress, silent
from impasto.runtime import Model, StyleDistance, StyleMeter
from impasto.runtime.loading.source import quantize_command, resolve
from impasto.styles import painted

from .against_torch import SYNTHETIC, given_pictures, synthetic_pictures
from .engine import require_graph

Graphs = list[tuple[str, Callable[[], Model]]]
"""Names, and what loads each; the reference first."""

MAX_CHANGE = 0.03
"""Largest relative change of the mean style distance, by default."""


@dataclass(frozen=True)
class StyleReference:
    """What a style is measured by, and how much it may change."""

    painting: str | os.PathLike[str]
    """The picture that was learnt."""
    network: str | os.PathLike[str] = "vgg16"
    """The perceptual network, as `StyleMeter` takes it."""
    max_change: float = MAX_CHANGE
    """Largest relative change of the mean style distance, such as 0.03."""

    def __post_init__(self) -> None:
        if self.max_change < 0:
            raise OptionError(f"the style may not change by {100 * self.max_change:g} %; give 0 or more")


@dataclass(frozen=True)
class Drawn:
    """How far a graph's drawings are from the painting."""

    graph: str
    """The precision and, where there is one, the target backend: "int8 openvino"."""
    backend: str
    distances: tuple[StyleDistance, ...]
    """One for each picture."""

    def mean(self, layer: str | None = None) -> float:
        """Over pictures, of one layer or of the total."""
        return float(np.mean([found.total if layer is None else found.layers[layer] for found in self.distances]))

    def to_json(self) -> dict[str, Any]:
        return {
            "graph": self.graph,
            "backend": self.backend,
            "distances": [found.to_json() for found in self.distances],
        }


@dataclass(frozen=True)
class StyleCheck:
    """What `check_style` found."""

    model: str
    painting: str
    network: str
    max_change: float
    """The budget, as a share."""
    layers: tuple[str, ...]
    pictures: tuple[str, ...]
    reference: Drawn
    others: tuple[Drawn, ...]

    def change(self, other: Drawn, layer: str | None = None) -> float:
        """Change of the mean distance against the reference's, as a share: 0.01 is one percent further from the painting."""
        return other.mean(layer) / self.reference.mean(layer) - 1

    def holds(self, other: Drawn) -> bool:
        """Whether this one's total is within the budget."""
        return abs(self.change(other)) <= self.max_change

    def require(self) -> None:
        """Raises CheckFailed where a graph is outside of the budget."""
        for other in self.others:
            if not self.holds(other):
                raise CheckFailed(
                    f"{other.graph} of {self.model} changes the style distance to {self.painting} by "
                    f"{100 * self.change(other):+.2f} %; wanted within {100 * self.max_change:g} %. Quantize it again with "
                    "--budget style=…, or allow more with --max-style-change"
                )

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary."""
        return {
            "model": self.model,
            "painting": self.painting,
            "network": self.network,
            "max_change": self.max_change,
            "pictures": list(self.pictures),
            "reference": self.reference.to_json(),
            "others": [
                {
                    **other.to_json(),
                    "change": {
                        "total": self.change(other),
                        "layers": {layer: self.change(other, layer) for layer in self.layers},
                    },
                }
                for other in self.others
            ],
        }


def check_style(
    model: str | os.PathLike[str],
    style: StyleReference,
    pictures: Sequence[str | os.PathLike[str]] = (),
    *,
    against: str | os.PathLike[str] | None = None,
    backend: str = "auto",
    device: int = 0,
    progress: Progress = silent,
) -> StyleCheck:
    """Draw pictures with a package's FP32 graph and each of its others, or with an engine and its graph, and measure both.

    model: a package by path or name; with `against`, an engine's .plan or a package that holds a fitting one.
    pictures: files; two synthetic ones where there are none. device: as `StyleMeter` takes it, which chooses its backend itself.
    A network of several styles draws in the one that is called like the painting's file.
    against: the graph that an engine was built from, which ONNX Runtime draws on the CPU.
    backend: draws a package's graphs; "auto" is ONNX Runtime on the CPU, which draws those of all target backends.
    Raises OptionError where there is nothing to compare, and what `StyleMeter` and `impasto.load` raise.
    """
    painting = Path(style.painting)
    given = given_pictures(pictures) or synthetic_pictures(SYNTHETIC)
    graphs = _graphs(model, backend, device) if against is None else _engine_and_graph(model, against, device)
    with StyleMeter(painting, style.network, device=device) as meter:
        found = []
        for name, load in graphs:
            with load() as loaded:
                _choose_style(loaded, painting)
                progress(f"drawing with {name}")
                distances = tuple(_measured(meter, loaded(image), picture) for picture, image in given)
                found.append(Drawn(name, loaded.info.backend, distances))
        reference, *others = found
        measured = f"{style.network} on {meter.backend}"
        return StyleCheck(
            model=str(model),
            painting=painting.name,
            network=measured,
            max_change=style.max_change,
            layers=meter.layers,
            pictures=tuple(name for name, _ in given),
            reference=reference,
            others=tuple(others),
        )


def _choose_style(model: Model, painting: Path) -> None:
    names = painted(model.info.spec.styles)
    if len(names) < 2:
        return
    if painting.stem not in names:
        raise OptionError(
            f"{model.info.name} paints like {', '.join(names)}, and {painting.name} is called like none of them; rename the file"
        )
    model.set_style(painting.stem)


def _measured(meter: StyleMeter, drawing: np.ndarray, picture: str) -> StyleDistance:
    try:
        return meter(drawing)
    except ShapeError as error:
        raise ShapeError(f"{picture}: {error}") from None


def _graphs(model: str | os.PathLike[str], backend: str, device: int) -> Graphs:
    """Every graph of a package, FP32 first."""
    source = resolve(model)
    if source.manifest is None:
        raise OptionError(
            f"{source.path} is a single graph; name the package folder that holds all its precisions, or for an engine what it "
            "must draw like: --against MODEL.onnx"
        )
    graphs = source.graphs()
    if len(graphs) < 2 or "fp32" not in graphs:
        raise OptionError(
            f"{source.path} holds {', '.join(source.manifest.precisions())} alone, so there is nothing to compare; make other "
            f"precisions: {quantize_command(source.path, 'int8')}. An engine is compared with --against"
        )
    drawn_by = "onnxruntime-cpu" if backend == "auto" else backend
    return [(name, partial(impasto.load, path, backend=drawn_by, device=device)) for name, path in graphs.items()]


def _engine_and_graph(engine: str | os.PathLike[str], against: str | os.PathLike[str], device: int) -> Graphs:
    require_graph(against)
    return [
        (f"{against}", partial(impasto.load, against, backend="onnxruntime-cpu")),
        (f"{engine}", partial(impasto.load, engine, backend="tensorrt", device=device)),
    ]
