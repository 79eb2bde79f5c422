"""From a quality to graphs: FP16 and INT8 versions of a model that draw the same picture within a budget."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Hashable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import onnx

from impasto.errors import OptionError, PrecisionError
from impasto.export.graph import int8
from impasto.export.graph.fp16 import exact_pixels, find_fp32_nodes, rounded, to_half
from impasto.export.graph.helpers import LEAST_OPSET, opset, read_graph, with_names
from impasto.export.graph.qdq_lint import require_parsable
from impasto.export.graph.weight_storage import without_fp16_storage
from impasto.package.manifest import TARGET_BACKENDS
from impasto.package.spec import PERCEPTUAL
from impasto.progress import Progress, silent
from impasto.public_names import renamed
from impasto.runtime.loading.source import resolve

from . import modelopt
from .calibration import Pictures, read_pictures
from .package_graphs import package_of, target_of, write_graphs
from .quality import Budget, Judge, Quality
from .quantized_graph import QuantizedGraph
from .ranges import observe, require_finite
from .sensitivity import Assignment, Build, LayerLoss, NoAssignment, assign, assigned, groups, labels, losses_of
from .speed import Timing, fastest
from .style_distance import Distance, paintings_of, style_distance

_Result = TypeVar("_Result")

TARGETS = ("fp16", "int8", "auto")
_WORTHWHILE = 0.1
"""Gain in dB from which equalized channels are kept."""
_QUANTIZED = ("QuantizeLinear", "DequantizeLinear", "QLinearConv", "ConvInteger", "MatMulInteger", "QLinearMatMul")


@renamed(families="target_backends")
@dataclass(frozen=True)
class QuantizeOptions:
    """Options of `quantize`: the precision, the pictures to calibrate on, and the budget of quality."""

    calibrate: Path
    """Folder of pictures like those that the model will get; for a restorer, clean pictures (see `damage`)."""
    to: str = "int8"
    """One of TARGETS; "auto" is the fastest precision that holds the budget."""
    target_backends: tuple[str, ...] = ()
    """Some of `impasto.package.manifest.TARGET_BACKENDS`; empty for all."""
    budget: Budget | None = None
    """None for `Budget.default` of each precision."""
    method: str | None = None
    """How INT8 ranges are found, one of `graph.int8.METHODS`. None: the ranges that training has learnt (--qat), otherwise the method
    that draws best."""
    damage: str | None = None
    """The damage that is added to a restorer's pictures first, such as "noise:0-55"; None for the damage in its recipe."""
    paintings: tuple[Path, ...] = ()
    """For a budget of style: the paintings, one for each style of the stylizer, in a file of the style's name."""
    vgg: Path | None = None
    """VGG16's weights; None for those in the cache."""
    output: Path | None = None
    """Folder of the copy to write; None for the model's own folder."""
    modelopt: Path | None = None
    """A Python that has NVIDIA ModelOpt, which then quantizes for TensorRT; None for ONNX Runtime's quantizer."""
    sensitivity: bool = False
    """Measure what each layer costs, even if the budget holds anyway."""
    exclude: tuple[str, ...] = ()
    """Labels of the layers to exclude, as an earlier search found them. Empty: search for them."""

    def __post_init__(self) -> None:
        if self.to not in TARGETS:
            raise OptionError(f"unknown precision {self.to!r}; choose one of {', '.join(TARGETS)}")
        if unknown := set(self.target_backends) - set(TARGET_BACKENDS):
            raise OptionError(
                f"unknown target backend {', '.join(sorted(unknown))}; choose among {', '.join(TARGET_BACKENDS)}"
            )
        if self.method is not None and self.method not in int8.METHODS:
            raise OptionError(f"unknown calibration {self.method!r}; choose one of {', '.join(int8.METHODS)}")
        if self.to == "fp16" and self.target_backends:
            raise OptionError("one FP16 graph suits every target backend; leave --for out")
        if self.to == "fp16" and self.method is not None:
            raise OptionError(f"FP16 needs no calibration by {self.method}; leave --calibration out, or say --to int8")
        if self.modelopt is not None and (self.target_backends != ("tensorrt",) or self.to != "int8"):
            raise OptionError("ModelOpt quantizes to INT8 for TensorRT; say --to int8 --for tensorrt beside --modelopt")
        if self.modelopt is not None and self.method not in (None, *modelopt.METHODS):
            raise OptionError(f"ModelOpt does not calibrate by {self.method}; choose {' or '.join(modelopt.METHODS)}")
        if self.budget and self.budget.style is not None and not self.paintings:
            raise OptionError("a budget of style needs the painting to compare with: --painting FILE")
        if self.paintings and not (self.budget and self.budget.style is not None):
            raise OptionError("the painting is for a budget of style, and there is none; add one: --budget style=3%")


@dataclass(frozen=True)
class QuantizeResult:
    """The result of `quantize`."""

    model: str
    """The model's name."""
    made: tuple[QuantizedGraph, ...]
    """The graphs that were written; empty if FP32 is the fastest."""
    timings: tuple[Timing, ...]
    """What "auto" measured, for each target backend."""
    pictures: int
    """Number of pictures that were used."""
    skipped: tuple[str, ...]
    """Files that could not be used, with the reason."""
    damage: str
    """The damage that was added to the pictures; "none" without one."""
    seconds: float
    """Time that the search took."""

    def __str__(self) -> str:
        lines = [str(timing) for timing in self.timings]
        for made in self.made:
            excluded = f", {len(made.excluded)} of {made.layers} layers excluded" if made.excluded else ""
            method = f", {made.method}" if made.method else ""
            lines.append(
                f"wrote {made.path}: {made.quality}; artificial pictures {made.artificial:.1f} dB{method}{excluded}"
            )
        return "\n".join(lines) or "nothing was written: FP32 is the fastest that holds the budget"

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary."""
        return {
            "model": self.model,
            "made": [made.to_json() for made in self.made],
            "timings": [timing.to_json() for timing in self.timings],
            "pictures": self.pictures,
            "skipped": list(self.skipped),
            "damage": self.damage,
            "seconds": self.seconds,
        }


def quantize(model: str | os.PathLike[str], options: QuantizeOptions, progress: Progress = silent) -> QuantizeResult:
    """Write FP16 or INT8 graphs of a package that hold a budget of quality: all that was asked for, or nothing.

    Args:
        model: a package by path or name.
        options: the precision, the pictures to calibrate on and judge by, and the budget.
        progress: called with one line for each step, and with the layers that are done while each one's cost is measured.

    Returns:
        QuantizeResult: the graphs that were written, their quality, and which layers were left out.

    Raises:
        PrecisionError: where no assignment of layers holds the budget, or the graph cannot take the precision.
        PictureError: for too few pictures.
        OptionError, PackageError, ModelNotFound: for options or a model that cannot be used.
        MissingDependency: where the quantizer is missing.
        OutputError: where the graphs cannot be written.

    Example:
        >>> from impasto.export import Budget, QuantizeOptions, quantize
        >>> result = quantize(package, QuantizeOptions(photos, "fp16", budget=Budget(psnr=40)))
        >>> [graph.path.name for graph in result.made]
        ['model.fp16.onnx']
    """
    began = time.monotonic()
    source = resolve(model)
    if source.engine or source.graph_path.suffix != ".onnx":
        raise OptionError(f"{source.path} is an engine; quantize the package that it was built from")
    manifest = package_of(source)
    target, spec = target_of(source, options.output), manifest.spec
    if spec.task == PERCEPTUAL:
        raise OptionError(
            f"{spec.name} is a perceptual network, which draws no pictures; it measures styles in FP32. Quantize a stylizer or a "
            "restorer"
        )
    graph = _load(source.graph_path)
    if options.modelopt is not None:
        modelopt.require(options.modelopt)
    style = style_distance(paintings_of(spec.styles, options.paintings), options.vgg) if options.paintings else None
    progress("reading pictures")
    recipe = manifest.recipe
    inputs = [value.name for value in graph.graph.input]
    pictures = read_pictures(options.calibrate, spec, inputs, source.context_path, damage=options.damage, recipe=recipe)
    if options.budget and options.budget.truth is not None and not pictures.truth:
        raise OptionError(
            f"a budget of truth is for a restorer, given clean pictures and what to do to them; {spec.name} got pictures as they "
            "are. Say --degrade noise:0-55 or another damage, or leave truth out of the budget"
        )
    search = PrecisionSearch(graph, pictures, options, progress, style, recipe.get("int8", {}).get("ranges", {}))
    drafts, timings = search.drafts()
    about = {"pictures": {"calibration": len(pictures.calibration), "damage": pictures.damage}}
    made = tuple(write_graphs(source, target, [replace(draft, about=about) for draft in drafts]) if drafts else ())
    seconds = time.monotonic() - began
    return QuantizeResult(spec.name, made, timings, pictures.used, pictures.skipped, pictures.damage, seconds)


class PrecisionSearch:
    """Makes graphs of one model that hold a budget; what several of them need is computed once and kept (`_once`)."""

    def __init__(
        self, model: onnx.ModelProto, pictures: Pictures, options: QuantizeOptions, progress: Progress,
        style: Distance | None, learnt: Mapping[str, float],
    ) -> None:  # fmt: skip
        """learnt: what a quantization-aware training says of the layers' ranges; empty without one."""
        self._model = model
        self._pictures = pictures
        self._options = options
        self._progress = progress
        self._layers = int8.layers_of(model)
        if not self._layers:
            raise PrecisionError(
                f"this graph has no {', '.join(int8.ARITHMETIC)} with stored weights, which is all that a lower precision "
                "makes faster; leave it in FP32"
            )
        self._groups = groups(model, self._layers)
        self._labels = labels(model, self._layers)
        progress("looking at ranges")
        self._fp32_nodes = find_fp32_nodes(
            model, observe(model, (*pictures.calibration, *(one.feed for one in pictures.extremes)))
        )
        progress("drawing in FP32")
        similarity = options.budget is not None and options.budget.ssim is not None
        self._judge = Judge(model, pictures.judged, pictures.whole, style, similarity)
        self._artificial = Judge(model, pictures.extremes, ())
        self._learnt = int8.learnt_ranges(model, learnt) if learnt else None
        self._known: dict[Hashable, Any] = {}

    def _once(self, key: Hashable, make: Callable[[], _Result]) -> _Result:
        """What `make` gives; computed at the first call with this key."""
        if key not in self._known:
            self._known[key] = make()
        found: _Result = self._known[key]
        return found

    def drafts(self) -> tuple[list[QuantizedGraph], tuple[Timing, ...]]:
        """What was asked for; with "auto", what was compared for it."""
        target_backends = self._options.target_backends or TARGET_BACKENDS
        if self._options.to == "fp16":
            return [self._half()], ()
        if self._options.to == "int8":
            return [self._whole(target_backend) for target_backend in target_backends], ()
        drafts: list[QuantizedGraph] = []
        timings = []
        for target_backend in target_backends:
            found = self._holding(target_backend)
            graphs = {"fp32": self._model} | {draft.precision: draft.model for draft in found}
            self._progress(f"timing {', '.join(graphs)} for {target_backend}")
            timing = fastest(target_backend, graphs, self._pictures.whole[0].feed)
            timings.append(timing)
            drafts += [draft for draft in found if draft.precision == timing.chosen and draft not in drafts]
        return drafts, tuple(timings)

    def _holding(self, target_backend: str) -> list[QuantizedGraph]:
        """Each lower precision that holds its budget for this target backend."""
        found: list[QuantizedGraph] = []
        makers: tuple[Callable[[], QuantizedGraph], ...] = (self._half, lambda: self._whole(target_backend))
        for make in makers:
            try:
                found.append(make())
            except PrecisionError as error:
                self._progress(str(error))
        return found

    def _half(self) -> QuantizedGraph:
        """The FP16 graph."""
        return self._once("half", self._find_half)

    def _find_half(self) -> QuantizedGraph:
        model = exact_pixels(self._model)
        added = {node.name for node in model.graph.node} - {node.name for node in self._model.graph.node}

        def build(excluded: Collection[str]) -> onnx.ModelProto:
            return to_half(model, self._half_fp32_nodes(excluded) | added)

        assignment = self._assign("fp16", lambda excluded: rounded(build(excluded)), "fp16")
        result = build(assignment.excluded)
        self._require_finite(result, "FP16")
        artificial = self._on_artificial(result)
        return QuantizedGraph(result, "fp16", None, len(self._layers), assignment, self._fp32_nodes, None, artificial)

    def _whole(self, target_backend: str) -> QuantizedGraph:
        """An INT8 graph with the calibration that is best without excluding a layer; where that misses the budget, with others."""
        refused: NoAssignment | None = None
        for model, ranges, method in self._bases(target_backend):
            try:
                return self._calibrated(target_backend, model, ranges, method)
            except NoAssignment as error:
                self._progress(f"{method}: {error}")
                refused = refused or error
        assert refused
        raise refused

    def _calibrated(self, target_backend: str, model: onnx.ModelProto, ranges: Any, method: str) -> QuantizedGraph:
        placement = int8.PLACEMENTS[target_backend]

        def ours(excluded: Collection[str]) -> onnx.ModelProto:
            return int8.quantized(model, ranges, excluded, target_backend)

        plain = self._modelopt if self._options.modelopt else ours

        def build(excluded: Collection[str]) -> onnx.ModelProto:
            graph = plain(excluded)
            return to_half(graph, self._half_fp32_nodes(())) if placement.half else graph

        judged: Build = (lambda excluded: rounded(build(excluded))) if placement.half else build
        # Target backends that want the same Q/DQ lose the same by a layer, whatever the rest computes in.
        assignment = self._assign("int8", judged, (placement.outputs, placement.unsigned, method), ours)
        result = build(assignment.excluded)
        if target_backend == "tensorrt":
            require_parsable(result, "the graph that was just made")
        if placement.half:
            self._require_finite(result, "INT8 with FP16")
        artificial = self._on_artificial(result)
        return QuantizedGraph(result, "int8", target_backend, len(self._layers), assignment, (), method, artificial)

    def _budget(self, precision: str) -> Budget:
        return self._options.budget or Budget.default(precision, restores=self._pictures.truth)

    def _assign(self, precision: str, judged: Build, key: Hashable, alone: Build | None = None) -> Assignment:
        budget = self._budget(precision)

        def losses() -> tuple[LayerLoss, ...]:
            build = alone or judged
            return self._once(("losses", key), lambda: losses_of(self._labels, build, self._judge, self._progress))

        if self._options.exclude:
            found = assigned(self._labels, self._options.exclude, judged, self._judge, budget)
        else:
            found = assign(self._labels, judged, self._judge, budget, losses, self._progress)
        if self._options.sensitivity and not found.losses:
            found = replace(found, losses=losses())
        return found

    def _bases(self, target_backend: str) -> Iterator[tuple[onnx.ModelProto, Any, str]]:
        """Graphs to quantize, with ranges and the calibration that gave them: what promises most, then whatever else there is."""
        best = self._once(("base", target_backend), lambda: self._find_base(target_backend))
        yield best
        if best[2].split(",")[0] in int8.METHODS and self._options.method is None:
            for method in int8.METHODS:
                if method != best[2]:
                    yield self._model, self._ranges(method), method

    def _find_base(self, target_backend: str) -> tuple[onnx.ModelProto, Any, str]:
        """The FP32 graph to quantize for a target backend, with its ranges, and the calibration that gave them: the best on pieces."""
        options = self._options
        if options.modelopt is not None:  # it finds its own; these only tell which layers cost most
            return self._model, self._ranges("min-max"), f"ModelOpt, {options.method or 'entropy'}"
        if self._learnt is not None and options.method is None and not int8.PLACEMENTS[target_backend].outputs:
            return self._model, self._learnt, "learnt"  # the weights are used to these, whatever pictures suggest

        def quality(model: onnx.ModelProto, ranges: Any) -> Quality:
            return self._judge.on_pieces(int8.quantized(model, ranges, (), target_backend))

        def best() -> str:
            return max(found, key=lambda name: found[name].mean_psnr)

        found: dict[str, Quality] = {}
        budget = self._budget("int8")
        for method in (options.method,) if options.method else int8.METHODS:
            # Entropy comes last and takes as long as the others together: only where they do not do.
            if method != "entropy" or not found or budget.misses(found[best()]):
                found[method] = quality(self._model, self._ranges(method))
        method = best()
        equal, ranges = self._once(("equalized", method), lambda: self._find_equal(method))
        if equal is not None and quality(equal, ranges).mean_psnr > found[method].mean_psnr + _WORTHWHILE:
            return equal, ranges, f"{method}, equalized"
        return self._model, self._ranges(method), method

    def _modelopt(self, excluded: Collection[str]) -> onnx.ModelProto:
        names = tuple(sorted(excluded))
        return self._once(("ModelOpt", names), lambda: self._run_modelopt(names))

    def _run_modelopt(self, excluded: tuple[str, ...]) -> onnx.ModelProto:
        assert self._options.modelopt
        self._progress(f"ModelOpt quantizes all but {len(excluded)} of {len(self._layers)} layers")
        feeds, method = self._pictures.calibration, self._options.method or "entropy"
        return modelopt.quantized(self._options.modelopt, self._model, feeds, method, excluded)

    def _ranges(self, method: str) -> Any:
        """The ranges of the layers' inputs by one calibration."""
        return self._once(("ranges", method), lambda: self._find_ranges(method))

    def _find_ranges(self, method: str) -> Any:
        self._progress(f"calibrating by {method}")
        return int8.find_ranges(self._model, self._pictures.calibration, method)

    def _find_equal(self, method: str) -> tuple[onnx.ModelProto | None, Any]:
        """The graph with equalized channels and its ranges; None where no channels can be equalized."""
        equal = int8.equalized(self._model, self._pictures.calibration)
        if equal is self._model:
            return None, None
        self._progress(f"calibrating with equalized channels by {method}")
        return equal, int8.find_ranges(equal, self._pictures.calibration, method)

    def _half_fp32_nodes(self, excluded: Collection[str]) -> set[str]:
        """Nodes that stay in FP32 where these layers are excluded from FP16."""
        return {fp32_node.node for fp32_node in self._fp32_nodes}.union(*(self._groups[layer] for layer in excluded))

    def _require_finite(self, model: onnx.ModelProto, what: str) -> None:
        self._progress("looking for overflows")
        feeds = [picture.feed for picture in (*self._pictures.judged, *self._pictures.extremes)]
        require_finite(rounded(model), feeds, what)

    def _on_artificial(self, model: onnx.ModelProto) -> float:
        """The worst PSNR against FP32 on artificial pictures, in dB."""
        return self._artificial.on_pieces(rounded(model)).psnr


def _load(path: Path) -> onnx.ModelProto:
    """The FP32 graph with node names. Raises PrecisionError for one that cannot take another precision."""
    model = read_graph(path)
    operators = {node.op_type for node in model.graph.node}
    if found := sorted(operators.intersection(_QUANTIZED)):
        raise PrecisionError(
            f"{path} is quantized already (it has {found[0]}); quantize the FP32 model that it was made of"
        )
    model = without_fp16_storage(model)
    if any(tensor.data_type == onnx.TensorProto.FLOAT16 for tensor in model.graph.initializer):
        raise PrecisionError(f"{path} is in FP16 already; start from the FP32 model that it was made of")
    if branching := sorted(operators & {"If", "Loop", "Scan"}):
        raise PrecisionError(f"{path} branches ({branching[0]}); only straight graphs can be quantized")
    if opset(model) < LEAST_OPSET:
        raise PrecisionError(
            f"{path} has opset {opset(model)}; quantization needs {LEAST_OPSET} or later. Export the model again"
        )
    return with_names(model)
