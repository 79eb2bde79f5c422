"""Which layers a precision hurts, and the fewest to exclude from it so that a budget holds."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import onnx

from impasto.errors import OptionError, PrecisionError
from impasto.export.graph.helpers import producers
from impasto.export.tensorrt.layer_report import LEAST_SHARE
from impasto.progress import Progress

from .quality import Budget, Judge, Quality

Build = Callable[[Collection[str]], onnx.ModelProto]
"""Makes the graph to judge in which the named layers are excluded from the precision."""


class NoAssignment(PrecisionError):
    """The budget does not hold even with half of the layers excluded."""


@dataclass(frozen=True)
class LayerLoss:
    """What it costs to have this layer alone in the precision."""

    layer: str
    """The name of the layer's node."""
    label: str
    """What people call it: the name of its weights, where there is one."""
    psnr: float
    """PSNR against FP32 in dB, mean over the pieces."""

    @property
    def levels(self) -> float:
        """The loss as a root mean square difference, in levels of 255."""
        return float(255 / 10 ** (self.psnr / 20))

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary."""
        return {**asdict(self), "levels": self.levels}


@dataclass(frozen=True)
class Assignment:
    """Which layers are excluded, and what that gives on whole pictures."""

    excluded: tuple[str, ...]
    excluded_labels: tuple[str, ...]
    quality: Quality
    losses: tuple[LayerLoss, ...]
    """The loss of every layer, in the graph's order; empty where none had to be measured."""


def losses_of(layers: Mapping[str, str], build: Build, judge: Judge, progress: Progress) -> tuple[LayerLoss, ...]:
    """Put each layer alone into the precision and compare. layers: names and labels, in the graph's order."""
    found = []
    for number, (layer, label) in enumerate(layers.items()):
        progress(f"what {label} costs", number, len(layers))
        quality = judge.on_few_pieces(build([other for other in layers if other != layer]))
        found.append(LayerLoss(layer, label, quality.mean_psnr))
    return tuple(found)


def assign(
    layers: Mapping[str, str],
    build: Build,
    judge: Judge,
    budget: Budget,
    losses: Callable[[], Sequence[LayerLoss]],
    progress: Progress,
) -> Assignment:
    """Exclude the layers that cost most, as few as hold the budget: found on pieces by bisection, verified on whole pictures.

    layers: names and labels. losses: called once, where excluding none does not do.
    Raises NoAssignment where not even excluding half of the layers does.
    """
    most = math.floor(len(layers) * (1 - LEAST_SHARE))
    known: tuple[LayerLoss, ...] = ()

    def worst(count: int) -> tuple[str, ...]:
        nonlocal known
        if count and not known:
            known = tuple(losses())
        return tuple(loss.layer for loss in sorted(known, key=lambda loss: loss.psnr)[:count])

    def whole(count: int) -> Quality:
        progress(f"drawing whole pictures with {count} of {len(layers)} layers excluded")
        return judge.on_whole(build(worst(count)))

    def holds_on_pieces(count: int) -> bool:
        progress(f"excluding {count} of {len(layers)} layers")
        return not budget.misses(judge.on_pieces(build(worst(count))))

    count = 0
    while missed := budget.misses(quality := whole(count)):
        if count >= most:
            raise NoAssignment(
                f"no assignment holds the budget {budget}: with {count} of {len(layers)} layers excluded, the most that still "
                f"leaves half of them, {'; '.join(missed)}. Nothing was written. Allow more, calibrate on more pictures, or "
                "train the model for it"
            )
        # The first guess is made on pieces; where they promised more than whole pictures give, a few more are excluded.
        count = min(most, count + max(1, len(layers) // 16)) if count else _fewest(most, holds_on_pieces)
    excluded = worst(count)
    return Assignment(excluded, tuple(layers[name] for name in excluded), quality, known)


def assigned(
    layers: Mapping[str, str], excluded: Collection[str], build: Build, judge: Judge, budget: Budget
) -> Assignment:
    """The layers that somebody names are excluded, and whole pictures tell whether the budget holds.

    layers: names and labels. excluded: labels. Raises OptionError for a label that no layer has, and NoAssignment where more than half
    of the layers are named or the budget does not hold.
    """
    if unknown := sorted(set(excluded) - set(layers.values())):
        raise OptionError(f"no layer is called {', '.join(unknown)}; the layers are {', '.join(layers.values())}")
    names = tuple(name for name, label in layers.items() if label in excluded)
    if len(names) > math.floor(len(layers) * (1 - LEAST_SHARE)):
        raise NoAssignment(f"{len(names)} of {len(layers)} layers are to be excluded; at least half must stay")
    quality = judge.on_whole(build(names))
    if missed := budget.misses(quality):
        raise NoAssignment(
            f"the budget {budget} does not hold with {', '.join(excluded)} excluded: {'; '.join(missed)}. Nothing was written. Leave "
            "--exclude out, and the layers are searched for"
        )
    return Assignment(names, tuple(layers[name] for name in names), quality, ())


def labels(model: onnx.ModelProto, layers: Sequence[str]) -> dict[str, str]:
    """What to call each layer in lists: "body.0.first" rather than "node_conv2d_4"."""
    weights = {node.name: node.input[1] for node in model.graph.node if node.name in layers}
    named = {layer: weights[layer].removeprefix("network.").removesuffix(".weight") for layer in layers}
    return named if len(set(named.values())) == len(layers) else {layer: layer for layer in layers}


def groups(model: onnx.ModelProto, layers: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Each layer with what follows it up to the next one: nodes that share its fate. What comes before all shares the first's."""
    by = producers(model.graph)
    number = {name: index for index, name in enumerate(layers)}
    belongs: dict[str, int] = {}
    for node in model.graph.node:  # in the order of computation
        before = [belongs[by[name].name] for name in node.input if name in by]
        belongs[node.name] = number.get(node.name, max(before, default=0))
    found: dict[str, list[str]] = {layer: [] for layer in layers}
    for name, index in belongs.items():
        found[layers[index]].append(name)
    return {layer: tuple(nodes) for layer, nodes in found.items()}


def _fewest(most: int, holds: Callable[[int], bool]) -> int:
    """The smallest number in 1..most that holds, if more never hold worse; `most` where none does."""
    low, high = 0, most
    while high - low > 1:
        middle = (low + high) // 2
        if holds(middle):
            high = middle
        else:
            low = middle
    return high
