"""The backends by name. Each vendor's library is imported by one module, on first use."""

from __future__ import annotations

from pathlib import Path

from impasto.errors import OptionError

from .base import Backend, TensorSpec

NAMES = ("onnxruntime-cpu", "onnxruntime-cuda")

__all__ = ["NAMES", "Backend", "TensorSpec", "open_graph"]


def open_graph(path: Path, backend: str, device: int) -> Backend:
    """Load a graph. backend: one of NAMES, or "auto". device: the CUDA device's number, where one is used.

    Raises OptionError for an unknown name, MissingDependency, or BackendError where it cannot load or run here.
    """
    if backend not in (*NAMES, "auto"):
        raise OptionError(f"unknown backend {backend!r}; choose one of auto, {', '.join(NAMES)}")
    from .onnxruntime import OnnxRuntimeBackend

    return OnnxRuntimeBackend(path, "onnxruntime-cpu" if backend == "auto" else backend, device)
