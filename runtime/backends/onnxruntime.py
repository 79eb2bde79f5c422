"""ONNX Runtime, the only module that imports it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from impasto.errors import BackendError, MissingDependency

from .base import Backend, TensorSpec

_PROVIDERS = {"onnxruntime-cpu": "CPUExecutionProvider", "onnxruntime-cuda": "CUDAExecutionProvider"}
_DTYPES: dict[str, np.dtype] = {
    "tensor(uint8)": np.dtype(np.uint8),
    "tensor(float)": np.dtype(np.float32),
    "tensor(float16)": np.dtype(np.float16),
}


def onnxruntime() -> Any:
    """The installed onnxruntime module. Raises MissingDependency with the command that installs it."""
    try:
        import onnxruntime
    except ImportError:
        raise MissingDependency(
            "no backend is installed that runs ONNX files: pip install 'impasto[cpu]' (or 'impasto[gpu]' on a CUDA machine)"
        ) from None
    return onnxruntime


class OnnxRuntimeBackend(Backend):
    """An ONNX graph in an ONNX Runtime session on the CPU or on a CUDA device."""

    def __init__(self, path: Path, name: str, device: int) -> None:
        """Raises MissingDependency, or BackendError where the graph does not load or the provider does not run."""
        ort = onnxruntime()
        provider = _PROVIDERS[name]
        if provider not in ort.get_available_providers():
            raise BackendError(
                f"{name} cannot run: the installed ONNX Runtime {ort.__version__} has no {provider}; "
                "pip install 'impasto[gpu]' in an environment without the CPU package, or choose backend='onnxruntime-cpu'"
            )
        options = ort.SessionOptions()
        options.log_severity_level = 4  # failures come back as exceptions, with the same text
        try:
            choice = (provider, {"device_id": device}) if name == "onnxruntime-cuda" else provider
            self._session = ort.InferenceSession(str(path), options, providers=[choice])
        except Exception as error:  # the vendor's exceptions have no common base
            raise BackendError(f"ONNX Runtime cannot load {path}: {_first_line(error)}") from error
        # Asked for CUDA, ONNX Runtime falls back to the CPU with a log line; we do not.
        if self._session.get_providers()[0] != provider:
            raise BackendError(
                f"{name} cannot run here: ONNX Runtime fell back to {self._session.get_providers()[0]}; "
                "check the CUDA and cuDNN libraries, or choose backend='onnxruntime-cpu'"
            )
        self.name = name
        self.device = "CPU" if name == "onnxruntime-cpu" else f"CUDA device {device}"
        self.inputs = tuple(_tensor(value, path) for value in self._session.get_inputs())
        outputs = self._session.get_outputs()
        if len(outputs) != 1:
            raise BackendError(f"{path} has {len(outputs)} outputs; a picture model has one")
        self.output = _tensor(outputs[0], path)
        self.metadata = dict(self._session.get_modelmeta().custom_metadata_map)
        self._binding = self._session.io_binding()

    def _run(self, inputs: Sequence[np.ndarray], out: np.ndarray) -> None:
        binding = self._binding
        for spec, array in zip(self.inputs, inputs, strict=True):
            binding.bind_cpu_input(spec.name, array)
        # The result is written straight into the caller's array.
        binding.bind_output(self.output.name, "cpu", 0, out.dtype, out.shape, out.ctypes.data)
        try:
            self._session.run_with_iobinding(binding)
        except Exception as error:
            raise BackendError(f"ONNX Runtime failed: {_first_line(error)}") from error
        finally:
            binding.clear_binding_inputs()
            binding.clear_binding_outputs()

    def _measure(self, inputs: Sequence[np.ndarray]) -> tuple[int, ...]:
        feeds = {spec.name: array for spec, array in zip(self.inputs, inputs, strict=True)}
        try:
            return self._session.run(None, feeds)[0].shape
        except Exception as error:
            raise BackendError(f"ONNX Runtime failed: {_first_line(error)}") from error

    def _close(self) -> None:
        del self._binding
        del self._session


def _tensor(value: Any, path: Path) -> TensorSpec:
    if value.type not in _DTYPES:
        raise BackendError(f"{path}: {value.name} is {value.type}; expected uint8, float32 or float16")
    shape = tuple(size if isinstance(size, int) and size > 0 else None for size in value.shape)
    return TensorSpec(value.name, _DTYPES[value.type], shape)


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
