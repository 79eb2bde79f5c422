"""Chooses the backend that runs a model: for "auto", the first that loads it and draws what ONNX Runtime draws.

If the choice is not the first one in the order of preference, the reason is reported.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path
from typing import TypeVar

import numpy as np

from impasto.errors import (
    BackendError,
    ImpastoError,
    MissingDependency,
    NoNumbers,
    OptionError,
    PackageError,
    ShapeError,
)
from impasto.metrics import independent, psnr
from impasto.package.manifest import Manifest
from impasto.package.spec import ModelSpec, Pixels
from impasto.runtime.backends import Backend, Preference, check_backend, open_graph, preferred, target_backend
from impasto.runtime.backends.inner_values import VARIABLE, ValuesBeforeRounding, open_watched, wanted_always

from .opening import describe, open_context_graph, open_source
from .source import ModelFiles, Source

LEVELS = 2
"""Largest difference between two backends that run a float32 graph, in levels of 255. Each is within 1 of the exact result."""
LEAST_PSNR = {"fp16": 50.0, "int8": 30.0}
"""Smallest PSNR between two backends that run an FP16 or INT8 graph, in dB. Each rounds in its own way."""
_COMPARED = (61, 83), (64, 96)
"""Heights and widths of the pictures for a comparison, rounded up to sizes that the graph takes. The second is for a graph that refuses
odd sizes."""
LEVELS_OF_PLAIN = {0: "black", 255: "white"}
"""Levels of pictures of one colour. A network that divides by a picture's contrast computes NaN for them. ONNX Runtime's operators keep
NaN; OpenVINO's Clip and Relu turn it into a number."""

Opened = TypeVar("Opened")


@dataclass(frozen=True)
class Candidate:
    """A graph or engine, and the backend to try it in."""

    source: Source
    backend: str
    """One of NAMES; "auto" for an engine."""


@dataclass(frozen=True)
class OpenModel:
    """A model whose graphs are loaded."""

    source: Source
    backend: Backend
    spec: ModelSpec
    context_graph: Backend | None
    """The context graph; None if the network has none."""

    def close(self) -> None:
        """Free the graphs."""
        self.backend.close()
        if self.context_graph:
            self.context_graph.close()


def open_model(
    path_or_name: str | os.PathLike[str],
    backend: str,
    precision: str,
    device: int,
    trust: bool,
    pixels: Pixels | None,
    check_values: bool | None,
) -> tuple[OpenModel, str | None]:
    """Open a model in the named backend, or for "auto" in the best one that draws it right.

    Returns the open model, and why its backend is not the first choice; None if it is. Arguments and errors are those of
    `impasto.load`; pixels: its `layout`.
    """
    always = wanted_always() if check_values is None else check_values

    def attempt(candidate: Candidate) -> OpenModel:
        return _open(candidate, device, pixels, always)

    reasons: list[str] = []
    candidates = choices(path_or_name, backend, precision, device, trust, reasons)
    model = first_to_open(candidates, attempt, reasons)
    if _needs_comparison(model) and (other := _next(candidates, attempt)):
        if why := difference(model, other):
            reasons.append(why)
            model, other = other, model
        other.close()
    return model, "; ".join([*reasons, f"{model.backend.name} runs it"]) if reasons else None


def choices(
    path_or_name: str | os.PathLike[str],
    backend: str,
    precision: str,
    device: int,
    trust: bool,
    reasons: list[str],
) -> Iterator[Candidate]:
    """The candidates to try, best first. Why a better one is left out is appended to `reasons`.

    Raises OptionError for an unknown backend, or a device that is not a number >= 0, and what `ModelFiles` raises.
    """
    check_backend(backend)
    if not isinstance(device, Integral) or isinstance(device, bool) or device < 0:
        raise OptionError(f"device is {device!r:.100}; give the number of a CUDA device, such as 0")
    files = ModelFiles(path_or_name, trust)
    if backend in ("auto", "tensorrt") and (
        source := files.engine_source(precision, device, required=backend == "tensorrt")
    ):
        yield Candidate(source, "auto")
        return
    wanted = "fp32" if precision == "auto" else precision
    manifest = files.source().manifest if backend in ("auto", "openvino") else None
    preference = preferred(wanted) if backend == "auto" else Preference((backend,))
    names = list(preference.names)
    if preference.passed_over:
        reasons.append(preference.passed_over)
    for name in preference.names[:-1] or preference.names:
        if manifest and (why := _against(manifest, wanted, name)):
            reasons.append(why)
            if len(names) > 1:
                names.remove(name)
    for name in names:
        yield Candidate(files.source(precision, target_backend(name)), name)


def _against(manifest: Manifest, precision: str, backend: str) -> str | None:
    """Why a package is not to be run by a backend, by its manifest; None if there is no reason."""
    if manifest.held("model", precision) and not manifest.find("model", precision, target_backend(backend)):
        return f"{manifest.spec.name} holds no {precision} graph for {backend}"
    found = manifest.backends.get(backend)
    if found is None or found.passed:
        return None
    if found.max_difference is None:
        return f"{backend} did not draw {manifest.spec.name} as ONNX Runtime does when it was exported"
    return f"{backend} draws {manifest.spec.name} {_apart(found.max_difference)}, as its export found"


def first_to_open(
    candidates: Iterator[Candidate], attempt: Callable[[Candidate], Opened], reasons: list[str]
) -> Opened:
    """The first candidate that `attempt` opens. Why those before it failed is appended to `reasons`.

    If all fail, raises the last error. A missing library counts only if every candidate's is missing; why a backend was left out before
    is then told too.
    """
    failed: ImpastoError | None = None
    failures: list[str] = []
    for candidate in candidates:
        try:
            return attempt(candidate)
        except (BackendError, MissingDependency) as error:
            if failed is None or not isinstance(error, MissingDependency):
                failed = error
            failures.append(f"{candidate.backend}: {error}")
            reasons.append(failures[-1])
    assert failed is not None
    left_out = [reason for reason in reasons if reason not in failures]
    if left_out and isinstance(failed, MissingDependency):
        raise MissingDependency(f"{'; '.join(left_out)}; and {failed}") from failed
    raise failed


def difference(one: OpenModel, other: OpenModel) -> str | None:
    """How the pictures of `one` differ from those of `other`, as a sentence part; None if they agree, or `other` cannot draw."""
    if one.spec.scale != other.spec.scale:
        return f"{one.backend.name} makes the picture {one.spec.scale} times as large, {other.backend.name} {other.spec.scale}"
    for size in _COMPARED:
        image = independent(*one.spec.size.padded(*size))[None]
        shape = (1, *(side * one.spec.scale for side in image.shape[1:3]), 3)
        wanted, drawn = np.empty(shape, np.uint8), np.empty(shape, np.uint8)
        try:
            other.backend.run((image,), wanted)
        except (BackendError, ShapeError):
            continue
        try:
            one.backend.run((image,), drawn)
        except (BackendError, ShapeError) as error:
            return f"{one.backend.name}: {error}"
        if not agree(drawn, wanted, one.backend.precision):
            return f"{one.backend.name} draws this model {_apart(largest_difference(drawn, wanted))}"
        break
    plain = next((level for level in LEVELS_OF_PLAIN if _refuses(other, level) and not _refuses(one, level)), None)
    return None if plain is None else f"{one.backend.name} {draws_no_numbers(plain)}"


def draws_no_numbers(level: int) -> str:
    """The reason against a backend that hides NaN, as a sentence part. level: the picture's, one of LEVELS_OF_PLAIN."""
    return f"draws a {LEVELS_OF_PLAIN[level]} picture for which the network computes NaN in ONNX Runtime"


def _refuses(model: OpenModel, level: int) -> bool:
    """Whether the backend raises NoNumbers for a picture of this level."""
    height, width = model.spec.size.padded(*_COMPARED[-1])
    scale = model.spec.scale
    try:
        model.backend.run(
            (np.full((1, height, width, 3), level, np.uint8),),
            np.empty((1, height * scale, width * scale, 3), np.uint8),
        )
    except NoNumbers:
        return True
    except (BackendError, ShapeError):
        return False
    return False


def agree(drawn: np.ndarray, wanted: np.ndarray, precision: str) -> bool:
    """Whether two backends' pictures, uint8, differ by no more than this precision's rounding explains."""
    least = LEAST_PSNR.get(precision)
    return largest_difference(drawn, wanted) <= LEVELS or (least is not None and psnr(drawn, wanted) >= least)


def largest_difference(one: np.ndarray, other: np.ndarray) -> int:
    """The largest difference between two uint8 pictures of the same shape, in levels of 255."""
    return int(np.abs(one.astype(np.int16) - other).max())


def _apart(levels: int) -> str:
    """The difference as a sentence part. levels: of 255."""
    return f"up to {levels} levels of 255 away from what ONNX Runtime draws"


def _open(candidate: Candidate, device: int, pixels: Pixels | None, check_values: bool) -> OpenModel:
    """Open the candidate's graphs. Raises BackendError and what `describe` raises."""
    source, backend = candidate.source, candidate.backend
    loaded = load_graph(candidate, device, check_values)
    try:
        loaded, spec = describe(loaded, source, pixels)
        if not spec.thumbnail:
            return OpenModel(source, loaded, spec, None)
        if source.context_path is None:
            raise BackendError(f"{source.path} needs its context graph beside it; load the package folder instead")
        return OpenModel(source, loaded, spec, open_context_graph(source, source.context_path, backend, device))
    except BaseException:
        loaded.close()
        raise


def load_graph(candidate: Candidate, device: int, check_values: bool) -> Backend:
    """The picture graph, with its check for NaN.

    Every run is checked if `check_values` asks for it, and if the network is external and its values are in the CPU's memory.
    """
    source, backend = candidate.source, candidate.backend
    if source.is_engine:
        if check_values:
            raise OptionError("an engine's values cannot be checked for NaN; choose backend='onnxruntime-cpu' for that")
        return open_source(source, backend, device)

    def open_copy(path: Path) -> Backend:
        return open_graph(path, backend, device, features=True)

    failure: Exception | None = None
    if check_values or (_is_external(source) and backend != "onnxruntime-cuda"):
        try:
            if watched := open_watched(source.graph_path, open_copy):
                return watched
        except (OSError, ValueError, BackendError, PackageError) as error:
            failure = error
    loaded = open_source(source, backend, device)  # raises if the graph itself is wrong
    if failure and check_values:
        loaded.close()
        raise BackendError(
            f"the values of {source.graph_path} cannot be checked for NaN: {failure}; leave check_values and ${VARIABLE} out"
        )
    if loaded.outputs and loaded.output.dtype == np.uint8:  # OpenVINO loads an empty file as a graph of nothing
        loaded.inner_values = ValuesBeforeRounding(source.graph_path, open_copy)
    return loaded


def _is_external(source: Source) -> bool:
    """Whether Impasto did not train the network. Networks of ours never divide by a value that may be 0."""
    return source.manifest is None or "origin" in source.manifest.recipe


def _next(candidates: Iterator[Candidate], attempt: Callable[[Candidate], OpenModel]) -> OpenModel | None:
    """The next candidate that opens, opened; None if none does."""
    for candidate in candidates:
        try:
            return attempt(candidate)
        except (BackendError, MissingDependency):
            continue
    return None


def _needs_comparison(model: OpenModel) -> bool:
    """Whether this backend's pictures must be compared: the network is external, and its export did not compare this backend."""
    manifest = model.source.manifest
    if len(model.backend.inputs) > 1 or model.source.engine:
        return False
    return _is_external(model.source) and (manifest is None or model.backend.name not in manifest.backends)
