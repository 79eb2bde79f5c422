"""The backends by name. Each vendor's library is imported by one module, on first use."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from impasto.errors import BackendError, MissingDependency, OptionError
from impasto.package.engine_record import EngineRecord

from .base import Backend, SizeLimits, Slot, TensorSpec, is_x86_64

NAMES = ("tensorrt", "onnxruntime-cpu", "onnxruntime-cuda", "openvino")

__all__ = [
    "NAMES",
    "Backend",
    "Preference",
    "SizeLimits",
    "Slot",
    "TensorSpec",
    "open_engine",
    "open_graph",
    "preferred",
    "target_backend",
]


def target_backend(backend: str) -> str:
    """The kind of graphs that a backend of NAMES runs: "onnxruntime" for "onnxruntime-cpu" and "onnxruntime-cuda"."""
    return backend.split("-")[0]


@dataclass(frozen=True)
class Preference:
    """What "auto" takes."""

    names: tuple[str, ...]
    """Of NAMES, best first; at least one."""
    passed_over: str | None = None
    """Why one that would come first is not among them."""


def preferred(precision: str = "auto") -> Preference:
    """What "auto" takes for a graph of a precision, among what is installed and draws it right on this CPU.

    OpenVINO comes first on x86-64: there it was faster for every network and precision that was measured
    (`benchmarks/results/cpu/precision.json`). Elsewhere nobody has measured, and it is taken only where ONNX Runtime is missing.
    Nothing is measured when a model loads.
    """
    if find_spec("openvino") is None:
        return Preference(("onnxruntime-cpu",))
    if precision == "int8" and (why := _no_int8_on_openvino()):
        return Preference(("onnxruntime-cpu",), why if is_x86_64() else None)
    if is_x86_64():
        # A graph that OpenVINO does not read may be one that ONNX Runtime does.
        return Preference(("openvino", "onnxruntime-cpu"))
    return Preference(("openvino",) if find_spec("onnxruntime") is None else ("onnxruntime-cpu",))


def _no_int8_on_openvino() -> str | None:
    from . import openvino

    try:
        return None if openvino.computes_int8() else openvino.NO_INT8
    except (BackendError, MissingDependency) as error:
        return str(error)


def open_graph(path: Path, backend: str, device: int, *, features: bool = False) -> Backend:
    """Load a graph. backend: one of NAMES. device: the CUDA device's number, where one is used.

    features: whether it may have several outputs. Raises OptionError for an unknown name, MissingDependency, or BackendError
    where it cannot load or run here.
    """
    if backend not in NAMES:
        raise OptionError(f"unknown backend {backend!r}; choose one of auto, {', '.join(NAMES)}")
    if backend == "tensorrt":
        raise BackendError(f"{path.name} is a graph, and TensorRT runs engines: build one with impasto build {path}")
    return _checked(_open(path, backend, device), path, features)


def _open(path: Path, backend: str, device: int) -> Backend:
    if backend == "openvino":
        from .openvino import OpenVinoBackend

        return OpenVinoBackend(path)
    from .onnxruntime import OnnxRuntimeBackend

    return OnnxRuntimeBackend(path, backend, device)


def _checked(loaded: Backend, path: Path, features: bool) -> Backend:
    """The graph, unless it has several outputs and may not."""
    if len(loaded.outputs) > 1 and not features:
        loaded.close()
        raise BackendError(f"{path} has {len(loaded.outputs)} outputs; a picture model has one")
    return loaded


def open_engine(
    path: Path, record: EngineRecord | None, backend: str, device: int, rebuild: str, *, features: bool = False
) -> Backend:
    """Load a TensorRT engine whose bytes are trusted.

    record: None where nothing is known of it. rebuild: the command that builds a fitting one, for error messages. features: as
    for `open_graph`.
    Raises OptionError for a backend that runs no engines, EngineMismatch, MissingDependency, BackendError.
    """
    if backend not in ("auto", "tensorrt"):
        raise OptionError(f"{path.name} is a TensorRT engine; choose backend='tensorrt' or 'auto', not {backend!r}")
    from .tensorrt.engine import TensorRTBackend

    return _checked(TensorRTBackend(path.read_bytes(), record, device, rebuild), path, features)
