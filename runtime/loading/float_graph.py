"""What draws pictures of 16 bits and of float32: the graph with float ends, or its engine. It is opened with the first such picture."""

from __future__ import annotations

import shlex
from dataclasses import replace

from impasto.errors import ShapeError
from impasto.package.manifest import FLOAT, MANIFEST, verify
from impasto.runtime.backends import Backend
from impasto.runtime.backends.inner_values import wanted_always
from impasto.runtime.inference.depths import DTYPES

from .choosing import Candidate, OpenModel, load_graph
from .opening import rebuild_command
from .source import Source, is_shipped
from .stored_engines import StoredEngine, plan_to_load

_DEEP = " and ".join(DTYPES[1:])


class FloatGraph:
    """Opens the float graph of a model, or its engine, in the model's backend, and keeps it. Not thread-safe."""

    depths: tuple[str, ...]
    """Names of the dtypes of pictures that the model takes, among DTYPES."""
    refusal: str | None
    """Why this model takes no others, and what to do, as a sentence part; None if it takes all of DTYPES."""

    def __init__(self, model: OpenModel, device: int, check_values: bool | None) -> None:
        """device: number of the CUDA device. check_values: check every run for NaN, as `impasto.load` takes it."""
        self._source, self._name = model.source, model.backend.name
        self._device = device
        self._check_values = wanted_always() if check_values is None else check_values
        self._opened: Backend | None = None
        if model.source.engine and model.source.engine.role == FLOAT:  # a single plan, which draws nothing else
            self._opened = model.backend
            self.depths = DTYPES[1:]
            self.refusal = f"this engine of {model.spec.name} has float ends; for uint8 {_package_of(model.source)}"
        else:
            self.refusal = _refusal(model.source, model.spec.name)
            self.depths = DTYPES[:1] if self.refusal else DTYPES

    def opened(self) -> Backend:
        """The graph's backend: float32 (N, H, W, 3) in and out, from 0 to 1, and the other inputs of the model's own graph.

        Raises ShapeError with `refusal`, PackageError if the file is not the recorded one, and BackendError.
        """
        if self._opened is None:
            self._opened = load_graph(Candidate(self._float_source(), self._name), self._device, self._check_values)
        return self._opened

    def close(self) -> None:
        """Free the graph, if it was opened."""
        if self._opened:
            self._opened.close()

    def _float_source(self) -> Source:
        """The model's files with the float graph, or its engine, in place of the graph or engine for 8 bits."""
        source = self._source
        if isinstance(source.float_engine, StoredEngine):
            plan = plan_to_load(source.float_engine, source.trust)
            return replace(source, graph_path=plan, engine=source.float_engine.record)
        file = source.manifest.find(FLOAT) if source.manifest else None
        if self.refusal or file is None:
            raise ShapeError(self.refusal or "the package has no graph for such pictures")
        return replace(source, graph_path=source.path / file.name if source.trust else verify(source.path, file))


def _refusal(source: Source, name: str) -> str | None:
    """Why a model takes pictures of 8 bits alone, and what to do, as a sentence part; None if it takes all of DTYPES."""
    alone = f"{name} takes uint8 alone here"
    if source.manifest is None:
        kind = "engine" if source.is_engine else "graph"
        return f"{alone}: it was loaded as a single {kind}; for {_DEEP} {_package_of(source)}"
    if not source.is_engine and source.precision != "fp32":
        return f"{alone}: its {source.precision} graph is for 8 bits, and {_DEEP} are drawn in FP32; choose precision='fp32'"
    if source.manifest.find(FLOAT) is None:
        folder = source.path.resolve().name if is_shipped(source.path) else shlex.quote(str(source.path))
        return f"{alone}: its package has no graph for {_DEEP}; add it: impasto export {folder} --with-float"
    if source.is_engine and not isinstance(source.float_engine, StoredEngine):
        why = f"none runs here ({source.float_engine})" if source.float_engine else "none has been built"
        return (
            f"{alone}: {_DEEP} need an engine with float ends, and {why}; build one: {rebuild_command(source)} --with-float, "
            "or choose backend='onnxruntime-cuda' or 'onnxruntime-cpu'"
        )
    return None


def _package_of(source: Source) -> str:
    """How to get at the package of a single file, as a sentence part."""
    folder = source.graph_path.parent
    for package in (folder, folder.parent):  # an engine lies in its package's engines/
        if (package / MANIFEST).is_file():
            return f"load its package: {package}"
    if source.is_engine:
        return "load the package that it was built from"
    return f"make a package of it: impasto export {shlex.quote(str(source.graph_path))} -o FOLDER"
