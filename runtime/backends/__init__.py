"""The backends by name. Each vendor's library is imported by one module, on first use."""

from __future__ import annotations

from pathlib import Path

from impasto.errors import BackendError, OptionError

from ..engine_record import EngineRecord
from .base import Backend, Lane, SizeLimits, TensorSpec

NAMES = ("tensorrt", "onnxruntime-cpu", "onnxruntime-cuda")

__all__ = ["NAMES", "Backend", "Lane", "SizeLimits", "TensorSpec", "open_engine", "open_graph"]


def open_graph(path: Path, backend: str, device: int) -> Backend:
    """Load a graph. backend: one of NAMES, or "auto". device: the CUDA device's number, where one is used.

    Raises OptionError for an unknown name, MissingDependency, or BackendError where it cannot load or run here.
    """
    if backend not in (*NAMES, "auto"):
        raise OptionError(f"unknown backend {backend!r}; choose one of auto, {', '.join(NAMES)}")
    if backend == "tensorrt":
        raise BackendError(f"{path.name} is a graph, and TensorRT runs engines: build one with impasto build {path}")
    from .onnxruntime import OnnxRuntimeBackend

    return OnnxRuntimeBackend(path, "onnxruntime-cpu" if backend == "auto" else backend, device)


def open_engine(path: Path, record: EngineRecord | None, backend: str, device: int, rebuild: str) -> Backend:
    """Load a TensorRT engine whose bytes are trusted.

    record: None where nothing is known of it. rebuild: the command that builds a fitting one, for error messages.
    Raises OptionError for a backend that runs no engines, EngineMismatch, MissingDependency, BackendError.
    """
    if backend not in ("auto", "tensorrt"):
        raise OptionError(f"{path.name} is a TensorRT engine; choose backend='tensorrt' or 'auto', not {backend!r}")
    from .tensorrt import TensorRTBackend

    return TensorRTBackend(path.read_bytes(), record, device, rebuild)
