"""Which precision is fastest on a target backend: measured where it runs, by a rule where it does not."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from impasto.errors import ImpastoError
from impasto.public_names import renamed
from impasto.runtime.backends import Backend, open_graph

from .calibration import Feed

_ROUNDS = 7
_BACKENDS = {"onnxruntime": "onnxruntime-cpu", "openvino": "openvino"}
"""The backend that measures for each target backend. TensorRT would have to build an engine first, on a GPU."""
_RULE = ("int8", "fp16", "fp32")
"""Fastest first, where nothing can be measured: tensor cores double their rate from FP32 to FP16 and from FP16 to INT8."""


@renamed(family="target_backend")
@dataclass(frozen=True)
class Timing:
    """What was compared."""

    target_backend: str
    chosen: str
    """The precision."""
    latency_ms: dict[str, float] | None
    """Median of a whole picture by precision, taken in turn; None where the rule decided."""
    size: tuple[int, int]
    """Height and width of the picture."""

    def __str__(self) -> str:
        if self.latency_ms is None:
            return f"{self.target_backend}: {self.chosen}, by rule ({', '.join(_RULE)}); nothing here runs it"
        times = ", ".join(f"{name} {value:.1f} ms" for name, value in self.latency_ms.items())
        return f"{self.target_backend}: {self.chosen}, the fastest of {times} at {self.size[0]} x {self.size[1]}"

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary."""
        found = asdict(self)
        return {"family": found.pop("target_backend"), **found}


def fastest(target_backend: str, graphs: Mapping[str, onnx.ModelProto], feed: Feed) -> Timing:
    """The fastest of these graphs by precision, on one picture."""
    _, height, width, _ = next(iter(feed.values())).shape
    latency = _measured(target_backend, graphs, feed)
    if latency is None:
        return Timing(target_backend, next(name for name in _RULE if name in graphs), None, (height, width))
    return Timing(target_backend, min(latency, key=lambda name: latency[name]), latency, (height, width))


def _measured(target_backend: str, graphs: Mapping[str, onnx.ModelProto], feed: Feed) -> dict[str, float] | None:
    if target_backend not in _BACKENDS:
        return None
    with ExitStack() as opened, tempfile.TemporaryDirectory() as folder:
        try:
            backends = {
                name: _open(graph, Path(folder) / f"{name}.onnx", target_backend) for name, graph in graphs.items()
            }
        except ImpastoError:  # not installed, or too old to know the backend
            return None
        for backend in backends.values():
            opened.callback(backend.close)
        inputs = tuple(feed.values())
        out = np.empty(next(iter(backends.values())).measure(inputs), np.uint8)
        times: dict[str, list[float]] = {name: [] for name in backends}
        for _ in range(_ROUNDS + 1):
            for name, backend in backends.items():
                began = time.perf_counter()
                backend.run(inputs, out)
                times[name].append(1000 * (time.perf_counter() - began))
        return {name: statistics.median(values[1:]) for name, values in times.items()}  # the first run warms up


def _open(graph: onnx.ModelProto, path: Path, target_backend: str) -> Backend:
    onnx.save(graph, str(path))
    return open_graph(path, _BACKENDS[target_backend], 0)
