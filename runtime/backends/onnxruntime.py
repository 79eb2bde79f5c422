"""Runs graphs in ONNX Runtime. This is the only module of the runtime that imports it."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from contextlib import AbstractContextManager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from impasto.errors import BackendError, MissingDependency, first_line, install
from impasto.kernels import cuda_driver

from .base import Backend, DeviceFrames, TensorSpec

# From 1.29 on, ONNX Runtime sends telemetry to Microsoft and keeps an identity in the home folder. Users of Impasto did not ask for
# that. ONNX Runtime reads this variable when it is first imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

_PROVIDERS = {"onnxruntime-cpu": "CPUExecutionProvider", "onnxruntime-cuda": "CUDAExecutionProvider"}
_DTYPES: dict[str, np.dtype] = {
    "tensor(uint8)": np.dtype(np.uint8),
    "tensor(float)": np.dtype(np.float32),
    "tensor(float16)": np.dtype(np.float16),
}


def cuda_advice() -> str:
    """How to install an ONNX Runtime with CUDA on this machine, for error messages."""
    alone = f"{install('gpu')} in a separate environment: it and the CPU package break each other"
    if platform.machine() != "aarch64":
        return alone
    # PyPI's aarch64 wheels need Python 3.11 and CUDA 13, which JetPack 6 and older lack.
    return (
        f"on JetPack 6 and older, the onnxruntime-gpu that NVIDIA builds for it; with Python 3.11 and CUDA 13, {alone}"
    )


def onnxruntime() -> Any:
    """The installed onnxruntime module. Raises MissingDependency with the command that installs it."""
    try:
        import onnxruntime
    except ImportError:
        cuda = "or 'impasto[gpu]' on a CUDA machine"
        if find_spec("openvino"):
            raise MissingDependency(f"ONNX Runtime is not installed: {install('cpu')} ({cuda})") from None
        raise MissingDependency(
            f"no backend is installed that runs ONNX files: {install('cpu')} (or 'impasto[openvino]', {cuda})"
        ) from None
    return onnxruntime


def session_options(*, exact: bool = True) -> Any:
    """The options of every session, so that a graph is judged and run by the same arithmetic.

    exact: compute INT8 products exactly on every CPU. ONNX Runtime (1.32) cannot do so if a dequantized tensor is an output.
    """
    options = onnxruntime().SessionOptions()
    options.log_severity_level = 4  # failures are raised as exceptions with the same text
    if exact:  # fast products saturate on x86-64 CPUs without VNNI; no effect on other CPUs
        options.add_session_config_entry("session.x64quantprecision", "1")
    return options


class OnnxRuntimeBackend(Backend):
    """An ONNX graph in an ONNX Runtime session on the CPU or on a CUDA device."""

    def __init__(self, path: Path, name: str, device: int) -> None:
        """Raises MissingDependency, or BackendError if the graph does not load or the provider does not run."""
        ort = onnxruntime()
        provider = _PROVIDERS[name]
        if provider not in ort.get_available_providers():
            raise BackendError(
                f"{name} cannot run: the installed ONNX Runtime {ort.__version__} has no {provider}; "
                f"choose backend='onnxruntime-cpu', or install one that has it ({cuda_advice()})"
            )
        try:
            choice = (provider, {"device_id": device}) if name == "onnxruntime-cuda" else provider
            self._session = ort.InferenceSession(str(path), session_options(), providers=[choice], enable_fallback=0)
        except Exception as error:  # the vendor's exceptions have no common base
            raise BackendError(f"ONNX Runtime cannot load {path}: {first_line(error)}") from error
        # Without CUDA, ONNX Runtime falls back to the CPU and only logs it. Here that is an error.
        if self._session.get_providers()[0] != provider:
            raise BackendError(
                f"{name} cannot run here: ONNX Runtime fell back to {self._session.get_providers()[0]}; "
                "check the CUDA and cuDNN libraries, or choose backend='onnxruntime-cpu'"
            )
        self.name = name
        self.device = "CPU" if name == "onnxruntime-cpu" else f"CUDA device {device}"
        self.inputs = tuple(_tensor(value, path) for value in self._session.get_inputs())
        self.outputs = tuple(_tensor(value, path) for value in self._session.get_outputs())
        self.metadata = dict(self._session.get_modelmeta().custom_metadata_map)
        self._binding = self._session.io_binding()
        self._ort = ort
        self._held = _DeviceTensors(ort, "cuda", device) if name == "onnxruntime-cuda" else None

    def _run(self, inputs: Sequence[np.ndarray], out: np.ndarray) -> None:
        if self._held:
            self._run_on_device(self._held, inputs, out)
            return
        binding = self._binding
        for spec, array in zip(self.inputs, inputs, strict=True):
            binding.bind_cpu_input(spec.name, array)
        self._bind_output(out)
        try:
            self._session.run_with_iobinding(binding, self._new_options())
        except Exception as error:
            raise BackendError(f"ONNX Runtime failed: {first_line(error)}") from error
        finally:
            binding.clear_binding_inputs()
            binding.clear_binding_outputs()

    def _run_on_device(self, held: _DeviceTensors, inputs: Sequence[np.ndarray], out: np.ndarray) -> None:
        """Run on inputs that stay on the device: one copy each way, and no allocation for each picture."""
        try:
            held.hold(self.inputs, inputs)
            held.upload(inputs)
            # For each run, and after the upload: a graph that begins on the CPU gets a copy at binding, not a pointer.
            held.bind(self._binding)
            self._bind_output(out)
            self._session.run_with_iobinding(self._binding, self._new_options())
        except Exception as error:
            held.forget()
            raise BackendError(f"ONNX Runtime failed: {first_line(error)}") from error

    def require_gpu(self) -> int:
        return self._held.number if self._held else super().require_gpu()

    def gpu_active(self) -> AbstractContextManager[None]:
        assert self._held is not None
        return cuda_driver.primary_context(self._held.number)

    def device_frames(self, shapes: tuple[tuple[int, ...], ...], result: tuple[int, ...]) -> DeviceFrames:
        assert self._held is not None
        return _OnnxRuntimeFrames(self, self._held, shapes[0], result)

    def run_where_it_lies(
        self, place: tuple[str, int], source: _Placed, target: _Placed, extra: Sequence[np.ndarray]
    ) -> None:
        """Run on a picture in device memory, and write the result to device memory. Returns when it is there.

        place: the device, as ONNX Runtime names it. extra: the inputs after the picture. Raises BackendError.
        """
        binding = self._session.io_binding()

        def run() -> None:
            try:
                # A graph that begins on the CPU gets a copy at binding, not a pointer: bind when the picture is complete.
                binding.bind_input(
                    self.inputs[0].name, *place, self.inputs[0].dtype.type, list(source.shape), source.pointer
                )
                for spec, array in zip(self.inputs[1:], extra, strict=True):
                    binding.bind_cpu_input(spec.name, array)
                binding.bind_output(
                    self.output.name, *place, self.output.dtype.type, list(target.shape), target.pointer
                )
                self._session.run_with_iobinding(binding, self._new_options())
                binding.synchronize_outputs()
            except Exception as error:
                raise BackendError(f"ONNX Runtime failed: {first_line(error)}") from error

        self._runner(run)

    def _bind_output(self, out: np.ndarray) -> None:
        """Let ONNX Runtime write the result into the caller's array, also from a device."""
        self._binding.bind_output(self.output.name, "cpu", 0, out.dtype, out.shape, out.ctypes.data)

    def _measure(self, inputs: Sequence[np.ndarray]) -> tuple[int, ...]:
        return self._run_all(inputs)[0].shape

    def _run_all(self, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        feeds = {spec.name: array for spec, array in zip(self.inputs, inputs, strict=True)}
        try:
            return list(self._session.run(None, feeds, self._new_options()))
        except Exception as error:
            raise BackendError(f"ONNX Runtime failed: {first_line(error)}") from error

    def _new_options(self) -> Any:
        """New options for each run: options that stopped one run would stop every later one."""
        self._options = self._ort.RunOptions()
        return self._options

    def _stop(self) -> None:
        self._options.terminate = True  # read between two nodes, also inside a loop's body

    def _close(self) -> None:
        self._held = None
        del self._binding
        del self._session


class _DeviceTensors:
    """A graph's inputs on a device, for one set of shapes at a time."""

    def __init__(self, ort: Any, kind: str, number: int) -> None:
        """kind, number: the device, as ONNX Runtime names it: "cuda", 0."""
        self._ort = ort
        self._device = (kind, number)
        self.number = number
        self._inputs: dict[str, Any] = {}
        self._shapes: tuple[tuple[int, ...], ...] = ()

    def hold(self, specs: Sequence[TensorSpec], inputs: Sequence[np.ndarray]) -> None:
        """Allocate memory for these shapes, unless they are the last call's."""
        shapes = tuple(array.shape for array in inputs)
        if shapes == self._shapes:
            return
        value = self._ort.OrtValue
        self._inputs = {
            spec.name: value.ortvalue_from_shape_and_type(list(array.shape), array.dtype, *self._device)
            for spec, array in zip(specs, inputs, strict=True)
        }
        self._shapes = shapes

    def bind(self, binding: Any) -> None:
        """Make these inputs the binding's, and clear its outputs."""
        binding.clear_binding_inputs()
        binding.clear_binding_outputs()
        for name, value in self._inputs.items():
            binding.bind_ortvalue_input(name, value)

    def upload(self, inputs: Sequence[np.ndarray]) -> None:
        """Copy the arrays to the device."""
        for value, array in zip(self._inputs.values(), inputs, strict=True):
            value.update_inplace(array)

    def forget(self) -> None:
        """Allocate again at the next run."""
        self._shapes = ()

    def picture(self, shape: tuple[int, ...], dtype: np.dtype) -> Any:
        """New memory for a tensor of this shape and dtype."""
        return self._ort.OrtValue.ortvalue_from_shape_and_type(list(shape), dtype, *self._device)

    @property
    def place(self) -> tuple[str, int]:
        """The device, as ONNX Runtime names it."""
        return self._device


class _Placed(NamedTuple):
    """A picture in device memory, of the graph's dtype."""

    pointer: int
    shape: tuple[int, ...]


class _OnnxRuntimeFrames(DeviceFrames):
    """A session's run on pictures that are on the device already.

    ONNX Runtime has a stream of its own, so the host waits for the picture before a run, and for the result after it.
    """

    def __init__(
        self, backend: OnnxRuntimeBackend, held: _DeviceTensors, shape: tuple[int, ...], result: tuple[int, ...]
    ) -> None:
        """shape, result: of the picture and the result. Raises BackendError."""
        self._backend = backend
        self._held = held
        try:
            self._window = held.picture(shape, backend.inputs[0].dtype)
            self._result = held.picture(result, backend.output.dtype)
        except Exception as error:
            raise BackendError(f"ONNX Runtime has no memory for {shape}: {first_line(error)}") from error
        self.window, self.result = self._window.data_ptr(), self._result.data_ptr()
        self._shape, self._result_shape = shape, result
        with cuda_driver.primary_context(held.number):
            self.stream = cuda_driver.new_stream()

    def begin(self, extra: Sequence[np.ndarray], source: int = 0, target: int = 0) -> None:
        cuda_driver.synchronize(self.stream)
        read = _Placed(source or self.window, self._shape)
        written = _Placed(target or self.result, self._result_shape)
        self._backend.run_where_it_lies(self._held.place, read, written, extra)

    def wait(self) -> None:
        cuda_driver.synchronize(self.stream)

    def close(self) -> None:
        with cuda_driver.primary_context(self._held.number):
            cuda_driver.synchronize(self.stream)
            cuda_driver.destroy_stream(self.stream)
        del self._window, self._result


def _tensor(value: Any, path: Path) -> TensorSpec:
    if value.type not in _DTYPES:
        raise BackendError(
            f"{path}: {value.name} is {value.type}; expected uint8, float32 or float16; export it again in float32"
        )
    shape = tuple(size if isinstance(size, int) and size > 0 else None for size in value.shape)
    return TensorSpec(value.name, _DTYPES[value.type], shape)
