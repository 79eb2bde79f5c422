"""Which backend runs a model where the caller leaves the choice: the first that loads it and draws what ONNX says.

Whatever is not the preferred one has a reason, and that is told.
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
from impasto.runtime.backends import NAMES, Backend, Preference, open_graph, preferred, target_backend
from impasto.runtime.backends.inner_values import VARIABLE, ValuesBeforeRounding, open_watched, wanted_always

from .opening import describe, open_context_graph, open_source
from .source import ModelFiles, Source

LEVELS = 2
"""Of 255: how far two backends may differ in a graph of float32. Each is within 1 of what the graph says."""
LEAST_PSNR = {"fp16": 50.0, "int8": 30.0}
"""In dB, between two backends that round halves or INT8 each in its way."""
_COMPARED = (61, 83), (64, 96)
"""Heights and widths of pictures that two backends draw, rounded up to what the graph takes: odd ones, unless it refuses those."""
LEVELS_OF_PLAIN = {0: "black", 255: "white"}
"""Pictures of one colour, for which networks that divide by a picture's contrast give NaN: of these ONNX Runtime's operators make
NaN, and OpenVINO's Clip and Relu make numbers."""

Opened = TypeVar("Opened")


@dataclass(frozen=True)
class Candidate:
    """A graph, and a backend that may run it."""

    source: Source
    backend: str
    """One of NAMES; "auto" for an engine."""


@dataclass(frozen=True)
class OpenModel:
    """A model's files, loaded."""

    source: Source
    backend: Backend
    spec: ModelSpec
    context_graph: Backend | None
    """The context graph, where the network has one."""

    def close(self) -> None:
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
    """The model in the backend that was asked for, or in the best that draws it right, and why that is not the preferred one.

    Arguments as `impasto.load` takes them. Raises as that does.
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
    """What to load, and with which backend, best first; `reasons` gets why better ones are left out.

    Raises OptionError for an unknown backend or no device's number, and what `ModelFiles` raises.
    """
    if backend not in (*NAMES, "auto"):
        raise OptionError(f"unknown backend {backend!r}; choose one of auto, {', '.join(NAMES)}")
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
    """What a package says against running it with a backend."""
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
    """The first candidate that `attempt` opens; `reasons` gets why those before it were not.

    Raises what the last one raised, unless its library is not installed.
    """
    failed: ImpastoError | None = None
    for candidate in candidates:
        try:
            return attempt(candidate)
        except (BackendError, MissingDependency) as error:
            if failed is None or not isinstance(error, MissingDependency):
                failed = error
            reasons.append(f"{candidate.backend}: {error}")
    assert failed is not None
    raise failed


def difference(one: OpenModel, other: OpenModel) -> str | None:
    """How `one` draws a picture otherwise than `other`, as half a sentence; None where they agree, or `other` cannot draw it."""
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
    """What is said of a backend that hides NaN. level: of the picture, one of LEVELS_OF_PLAIN."""
    return f"draws something of a {LEVELS_OF_PLAIN[level]} picture, of which ONNX Runtime says that the network gives no numbers for it"


def _refuses(model: OpenModel, level: int) -> bool:
    """Whether the network gives no numbers for a picture that is all of this level."""
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
    """Whether two backends' pictures, uint8, differ by no more than the roundings of this precision."""
    least = LEAST_PSNR.get(precision)
    return largest_difference(drawn, wanted) <= LEVELS or (least is not None and psnr(drawn, wanted) >= least)


def largest_difference(one: np.ndarray, other: np.ndarray) -> int:
    """Of two uint8 pictures of one shape, in levels of 255."""
    return int(np.abs(one.astype(np.int16) - other).max())


def _apart(levels: int) -> str:
    return f"up to {levels} levels of 255 away from what ONNX Runtime draws"


def _open(candidate: Candidate, device: int, pixels: Pixels | None, check_values: bool) -> OpenModel:
    source, backend = candidate.source, candidate.backend
    loaded = _loaded(candidate, device, check_values)
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


def _loaded(candidate: Candidate, device: int, check_values: bool) -> Backend:
    """The picture path, looked at for NaN: in every run where that is wanted, or the network is somebody's and its floats are near."""
    source, backend = candidate.source, candidate.backend
    if source.is_engine:
        if check_values:
            raise OptionError(
                "nobody can look for NaN inside an engine; choose backend='onnxruntime-cpu', which shows them"
            )
        return open_source(source, backend, device)

    def open_copy(path: Path) -> Backend:
        return open_graph(path, backend, device, features=True)

    blind: Exception | None = None
    if check_values or (_is_somebodys(source) and backend != "onnxruntime-cuda"):
        try:
            if watched := open_watched(source.graph_path, open_copy):
                return watched
        except (OSError, ValueError, BackendError, PackageError) as error:
            blind = error
    loaded = open_source(source, backend, device)  # says what is wrong, if anything is
    if blind and check_values:
        loaded.close()
        raise BackendError(
            f"cannot look for NaN in {source.graph_path}: {blind}; leave check_values and ${VARIABLE} out"
        )
    if loaded.output.dtype == np.uint8:
        loaded.inner_values = ValuesBeforeRounding(source.graph_path, open_copy)
    return loaded


def _is_somebodys(source: Source) -> bool:
    """Whether others made the network: ours divide by nothing that can be 0."""
    return source.manifest is None or "origin" in source.manifest.recipe


def _next(candidates: Iterator[Candidate], attempt: Callable[[Candidate], OpenModel]) -> OpenModel | None:
    """The next candidate that opens; None where none does."""
    for candidate in candidates:
        try:
            return attempt(candidate)
        except (BackendError, MissingDependency):
            continue
    return None


def _needs_comparison(model: OpenModel) -> bool:
    """Whether nobody knows that this backend draws this graph right: it is somebody's, and its export, if any, did not compare."""
    manifest = model.source.manifest
    if len(model.backend.inputs) > 1 or model.source.engine:
        return False
    return _is_somebodys(model.source) and (manifest is None or model.backend.name not in manifest.backends)
