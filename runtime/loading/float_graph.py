"""The graph with float ends, which draws pictures of 16 bits and of float32. It is opened with the first such picture."""

from __future__ import annotations

import shlex
from dataclasses import replace

from impasto.errors import ShapeError
from impasto.package.manifest import FLOAT, MANIFEST, verify
from impasto.runtime.backends import Backend
from impasto.runtime.backends.inner_values import wanted_always
from impasto.runtime.inference.depths import DTYPES

from .choosing import Candidate, OpenModel, load_graph
from .source import Source, is_shipped


class FloatGraph:
    """Opens the float graph of a model in the model's backend, and keeps it. Not thread-safe."""

    refusal: str | None
    """Why this model takes pictures of 8 bits alone, and what to do, as a sentence part; None if it takes all of DTYPES."""

    def __init__(self, model: OpenModel, device: int, check_values: bool | None) -> None:
        """device: number of the CUDA device. check_values: check every run for NaN, as `impasto.load` takes it."""
        self.refusal = _refusal(model.source, model.spec.name)
        self._source, self._name = model.source, model.backend.name
        self._device = device
        self._check_values = wanted_always() if check_values is None else check_values
        self._opened: Backend | None = None

    def opened(self) -> Backend:
        """The graph's backend: float32 (N, H, W, 3) in and out, from 0 to 1, and the other inputs of the model's own graph.

        Raises ShapeError with `refusal`, PackageError if the file is not the manifest's, and BackendError.
        """
        if self._opened is None:
            manifest = self._source.manifest
            file = manifest.find(FLOAT) if manifest else None
            if self.refusal or file is None:
                raise ShapeError(self.refusal or "the package has no graph for such pictures")
            path = self._source.path / file.name if self._source.trust else verify(self._source.path, file)
            source = replace(self._source, graph_path=path)
            self._opened = load_graph(Candidate(source, self._name), self._device, self._check_values)
        return self._opened

    def close(self) -> None:
        """Free the graph, if it was opened."""
        if self._opened:
            self._opened.close()


def _refusal(source: Source, name: str) -> str | None:
    others = " and ".join(DTYPES[1:])
    alone = f"{name} takes uint8 alone here"
    if source.is_engine:
        return (
            f"{alone}: TensorRT engines are built of the graph for 8 bits; for {others} choose backend='onnxruntime-cuda' or "
            "'onnxruntime-cpu'"
        )
    if source.precision != "fp32":
        return f"{alone}: its {source.precision} graph is for 8 bits, and {others} are drawn in FP32; choose precision='fp32'"
    if source.manifest is None:
        graph = shlex.quote(str(source.graph_path))
        if (source.path.parent / MANIFEST).is_file():
            return f"{alone}: it was loaded as a single graph; for {others} load its package: {source.path.parent}"
        return f"{alone}: it was loaded as a single graph; for {others} make a package of it: impasto export {graph} -o FOLDER"
    if source.manifest.find(FLOAT) is None:
        folder = source.path.resolve().name if is_shipped(source.path) else shlex.quote(str(source.path))
        return f"{alone}: its package has no graph for {others}; add it: impasto export {folder} --with-float"
    return None
