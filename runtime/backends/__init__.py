"""Opens graphs and engines in backends by name. One module imports each vendor's library, on first use."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from impasto.errors import BackendError, MissingDependency, OptionError
from impasto.package.engine_record import EngineRecord

from .base import Backend, SizeLimits, Slot, TensorSpec, is_x86_64

NAMES = ("tensorrt", "onnxruntime-cpu", "onnxruntime-cuda", "openvino")
"""Names of backends, as in `impasto.load(backend=…)`."""

__all__ = [
    "NAMES",
    "Backend",
    "Preference",
    "SizeLimits",
    "Slot",
    "TensorSpec",
    "check_backend",
    "open_engine",
    "open_graph",
    "preferred",
    "target_backend",
]


def check_backend(backend: str) -> None:
    """Raises OptionError unless the name is "auto" or one of NAMES."""
    if backend not in ("auto", *NAMES):
        raise OptionError(f"unknown backend {backend!r}; choose one of auto, {', '.join(NAMES)}")


def target_backend(backend: str) -> str:
    """The target backend of the graphs that a backend runs: "onnxruntime" for "onnxruntime-cpu" and "onnxruntime-cuda"."""
    return backend.split("-")[0]


@dataclass(frozen=True)
class Preference:
    """The backends that "auto" tries."""

    names: tuple[str, ...]
    """At least one of NAMES, best first."""
    passed_over: str | None = None
    """Why the backend that would come first is not in `names`; None if it is."""


def preferred(precision: str = "auto") -> Preference:
    """The backends that "auto" tries for a graph of this precision: those that are installed and compute it right on this CPU.

    OpenVINO comes first on x86-64, where it was faster for every measured network and precision
    (`benchmarks/results/cpu/precision.json`). On other CPUs there are no measurements, and OpenVINO is taken only if ONNX Runtime is
    missing. Loading a model measures nothing.
    """
    if find_spec("openvino") is None:
        return Preference(("onnxruntime-cpu",))
    if precision == "int8" and (why := _no_int8_on_openvino()):
        return Preference(("onnxruntime-cpu",), why if is_x86_64() else None)
    if is_x86_64():
        # ONNX Runtime reads some graphs that OpenVINO does not.
        return Preference(("openvino", "onnxruntime-cpu"))
    return Preference(("openvino",) if find_spec("onnxruntime") is None else ("onnxruntime-cpu",))


def _no_int8_on_openvino() -> str | None:
    """Why OpenVINO cannot run INT8 graphs here; None if it can."""
    from . import openvino

    try:
        return None if openvino.computes_int8() else openvino.NO_INT8
    except (BackendError, MissingDependency) as error:
        return str(error)


def open_graph(path: Path, backend: str, device: int, *, features: bool = False) -> Backend:
    """Load a graph. backend: one of NAMES. device: number of the CUDA device, for a backend that uses one.

    features: allow several outputs, as of a perceptual network. Raises OptionError for an unknown backend, MissingDependency, or
    BackendError if the graph cannot be loaded or run here.
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
    """The loaded graph. Raises BackendError if it has several outputs and `features` is False."""
    if len(loaded.outputs) > 1 and not features:
        loaded.close()
        raise BackendError(f"{path} has {len(loaded.outputs)} outputs; a picture model has one")
    return loaded


def open_engine(
    path: Path, record: EngineRecord | None, backend: str, device: int, rebuild: str, *, features: bool = False
) -> Backend:
    """Load a TensorRT engine whose bytes are trusted.

    record: the engine's record; None if it has none. rebuild: the command that builds a fitting engine, for error messages.
    features: allow several outputs, as of a perceptual network.
    Raises OptionError for a backend that runs no engines, EngineMismatch, MissingDependency, BackendError.
    """
    if backend not in ("auto", "tensorrt"):
        raise OptionError(f"{path.name} is a TensorRT engine; choose backend='tensorrt' or 'auto', not {backend!r}")
    from .tensorrt.engine import TensorRTBackend

    return _checked(TensorRTBackend(path.read_bytes(), record, device, rebuild), path, features)
