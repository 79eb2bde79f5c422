"""Runs graphs in OpenVINO on the CPU. This is the only module that imports it."""

from __future__ import annotations

import ctypes
import os
import sys
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from impasto.errors import BackendError, MissingDependency, install
from impasto.locks import ReentrantLock

from .base import Backend, TensorSpec, is_x86_64

KEPT_SHAPES = 2
"""Number of input shapes whose compiled graphs are kept. Each holds memory for all its activations."""

NO_INT8 = "OpenVINO does not compute INT8 right on this CPU (on x86-64 it needs VNNI instructions)"
"""The reason to give if `computes_int8` is False."""

_DTYPES = ("uint8", "float32", "float16")

_loading = ReentrantLock()
"""Held while OpenVINO is imported and while graphs are loaded and compiled.

Its bindings create objects on first use, such as the table of types. They hold a C++ lock then and release Python's lock. A second
thread would wait for the C++ lock while it holds Python's, and both would wait for ever.
"""


def openvino() -> Any:
    """The installed openvino module. Raises MissingDependency with the command that installs it."""
    try:
        with _loading, _without_telemetry():
            import openvino
            import openvino.frontend
    except ImportError as error:
        raise MissingDependency(f"OpenVINO does not load ({error}): {install('openvino')}") from None
    return openvino


@contextmanager
def _without_telemetry() -> Iterator[None]:
    """Hide the module openvino_telemetry, so that importing OpenVINO sends nothing to Google Analytics.

    Users of Impasto did not ask for telemetry. It also keeps an identity in the home folder, and waits for the network when the
    process ends.
    """
    hidden = "openvino" not in sys.modules and "openvino_telemetry" not in sys.modules
    if hidden:
        sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        if hidden:
            del sys.modules["openvino_telemetry"]


@cache
def _core() -> Any:
    """The process's only core, which lives until the process ends. The caller holds `_loading`: `cache` does not keep two threads
    from making a core each.

    On CPUs with AMX, a core's CPU plugin gives the thread a signal stack, and restores the previous stack when the core is destroyed.
    If several cores are destroyed in another order, the restored stack is freed memory, and the next signal, such as Ctrl-C, kills
    the process (OpenVINO 2026.4).
    """
    return openvino().Core()


_compiled_in: int | None = None
"""Number of the process that last compiled a graph; None if none did."""


def _compile(graph: Any, options: dict[str, Any]) -> Any:
    """Compile a graph. The caller holds `_loading`. Raises what `require_own_threads` raises."""
    global _compiled_in
    require_own_threads()
    if _compiled_in is None and hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_keep_core)
    _compiled_in = os.getpid()
    return _core().compile_model(graph, "CPU", options)


def _keep_core() -> None:
    """Keep a forked process from destroying the core when Python ends: that would wait for threads of the parent process."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(_core()))


def require_own_threads() -> None:
    """Raises BackendError in a process that was forked from one that compiled a graph.

    OpenVINO keeps idle threads for its next graph. A forked process has a copy of their list, but not the threads, and compiling would
    wait for them for ever (OpenVINO 2026.4). Graphs that were compiled before the fork still run.
    """
    if _compiled_in not in (None, os.getpid()):
        raise BackendError(
            "this process was forked from one that had used OpenVINO, and a forked process has none of OpenVINO's threads; choose "
            "backend='onnxruntime-cpu', or start processes with multiprocessing's 'spawn'"
        )


@cache
def computes_int8() -> bool:
    """Whether OpenVINO computes INT8 convolutions right on this CPU. Raises MissingDependency.

    x86-64 CPUs without VNNI add pairs of 8-bit products in 16 bits, and large sums saturate. On aarch64 OpenVINO computes in FP16.
    The CPU's flags do not tell which instructions OpenVINO uses, so one convolution with the largest products is computed.
    """
    require_own_threads()
    with _loading:
        openvino()
        from openvino import Model
        from openvino import opset13 as op

        channels, most, weight = 32, 255, 127
        pixels = op.parameter([1, channels, 8, 8], np.float32)
        limits = [op.constant(np.float32(limit)) for limit in (0, most, 0, most)]
        weights = op.convert(op.constant(np.full((channels, channels, 3, 3), weight, np.int8)), "f32")
        scaled = op.multiply(weights, op.constant(np.ones((channels, 1, 1, 1), np.float32)))
        drawn = op.convolution(op.fake_quantize(pixels, *limits, most + 1), scaled, [1, 1], [0, 0], [0, 0], [1, 1])
        # A CPU with AMX would round the sum to BF16 at the output, which is another matter. On other CPUs graphs run with the
        # plugin's own choice, and so does this one.
        options = {"INFERENCE_PRECISION_HINT": "f32"} if is_x86_64() else {}
        compiled = _compile(Model([drawn], [pixels]), options)
        (sums,) = compiled.create_infer_request().infer({0: np.full((1, channels, 8, 8), most, np.float32)}).values()
        return bool((sums == most * weight * channels * 9).all())


class OpenVinoBackend(Backend):
    """An ONNX graph, compiled for each shape of its inputs.

    A graph compiled for free sizes would serve every shape, but is slower: by 10 % in FP32 and 76 % in INT8 (great-wave, 512 x 512,
    two cores, `python -m impasto.benchmarks.precision --variants`). Compiling takes 0.1 to 0.2 s for each shape.
    """

    name = "openvino"
    device = "CPU"

    def __init__(self, path: Path) -> None:
        """Raises MissingDependency, or BackendError if the graph does not load, or is INT8 that this CPU computes wrong."""
        require_own_threads()
        self._vendor = openvino()
        with _loading:
            self._load(path)
        self._requests: OrderedDict[tuple[tuple[int, ...], ...], Any] = OrderedDict()

    def _load(self, path: Path) -> None:
        try:
            # OpenVINO's general reader tries six formats in turn, and each prints its own complaint about a broken file.
            reader = self._vendor.frontend.FrontEndManager().load_by_framework("onnx")
            self._graph = reader.convert(reader.load(str(path)))
            self._core = _core()
        except Exception as error:  # the vendor's exceptions have no common base
            raise BackendError(f"OpenVINO cannot load {path}: {_reason(error)}") from error
        self.inputs = tuple(_tensor(port, path) for port in self._graph.inputs)
        self.outputs = tuple(_tensor(port, path) for port in self._graph.outputs)
        self.metadata = _metadata(self._graph)
        self.precision = _precision(self._graph)
        if self.precision == "int8" and not computes_int8():
            raise BackendError(
                f"{path} is INT8, which OpenVINO does not compute right on this CPU (on x86-64 it needs VNNI instructions); choose "
                "backend='onnxruntime-cpu' or precision='fp32'"
            )

    def _run(self, inputs: Sequence[np.ndarray], out: np.ndarray) -> None:
        try:
            request = self._fed(inputs)
            # OpenVINO writes the result into the caller's array.
            request.set_output_tensor(self._shared(out))
            request.infer(share_outputs=True)  # False would return a copy as well
        except BackendError:
            raise
        except Exception as error:
            raise BackendError(f"OpenVINO failed: {_reason(error)}") from error

    def _measure(self, inputs: Sequence[np.ndarray]) -> tuple[int, ...]:
        return self._run_all(inputs)[0].shape

    def _run_all(self, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        try:
            request = self._fed(inputs)
            request.infer()
            # Copies: the request writes into its own tensors again in the next run.
            return [np.array(request.get_output_tensor(index).data) for index in range(len(self.outputs))]
        except BackendError:
            raise
        except Exception as error:
            raise BackendError(f"OpenVINO failed: {_reason(error)}") from error

    def _close(self) -> None:
        self._requests.clear()
        del self._graph

    def _fed(self, inputs: Sequence[np.ndarray]) -> Any:
        """The request for these shapes, with these inputs set."""
        request = self._request(tuple(array.shape for array in inputs))
        for index, array in enumerate(inputs):
            request.set_input_tensor(index, self._shared(array))
        return request

    def _request(self, shapes: tuple[tuple[int, ...], ...]) -> Any:
        """The infer request for these shapes: a kept one, or one of a graph that is compiled now."""
        request = self._requests.pop(shapes, None)
        if request is None:
            while len(self._requests) >= KEPT_SHAPES:
                self._requests.popitem(last=False)
            request = self._compile(shapes)
        self._requests[shapes] = request
        return request

    def _compile(self, shapes: tuple[tuple[int, ...], ...]) -> Any:
        require_own_threads()  # before the lock: a thread of the parent process may have held it at the fork
        with _loading:
            graph = self._graph.clone()
            graph.reshape({graph.input(index): list(shape) for index, shape in enumerate(shapes)})
            return _compile(graph, self._options()).create_infer_request()

    def _options(self) -> dict[str, Any]:
        options = {"PERFORMANCE_HINT": "LATENCY"}
        if self.precision != "int8":
            # By default OpenVINO computes float32 layers in BF16 on CPUs with AMX. That is four times as fast, but it changes the
            # picture: 51 dB from FP32 on great-wave. In an INT8 graph BF16 is allowed, since INT8 rounds much more. It makes the
            # layers cheap that are excluded from INT8: 12.3 ms and 39.1 dB from FP32, against 15.9 ms and 38.1 dB in float32
            # (`python -m impasto.benchmarks.precision great-wave --variants`).
            options["INFERENCE_PRECISION_HINT"] = "f32"
        return options

    def _shared(self, array: np.ndarray) -> Any:
        """A tensor on the array's memory. The caller keeps the array alive during the run."""
        if not array.flags.writeable:  # OpenVINO refuses read-only memory, though it never writes to inputs
            memory = (ctypes.c_uint8 * array.nbytes).from_address(array.ctypes.data)
            array = np.frombuffer(memoryview(memory), array.dtype).reshape(array.shape)
        return self._vendor.Tensor(array, shared_memory=True)


def _tensor(port: Any, path: Path) -> TensorSpec:
    dtype = port.element_type.to_dtype().name
    if dtype not in _DTYPES:
        raise BackendError(
            f"{path}: {port.any_name} is {dtype}; expected uint8, float32 or float16; export it again in float32"
        )
    if port.partial_shape.rank.is_dynamic:
        raise BackendError(
            f"{path} does not say how many dimensions {port.any_name} has; export it again with a known number"
        )
    shape = tuple(size.get_length() if size.is_static else None for size in port.partial_shape)
    return TensorSpec(port.any_name, np.dtype(dtype), shape)


def _precision(graph: Any) -> str:
    """The lowest precision in which an operator of the graph computes. FP16 weights that are cast to FP32 do not count."""
    computing = [node for node in graph.get_ops() if node.get_type_name() != "Constant"]
    if any(node.get_type_name() == "FakeQuantize" for node in computing):
        return "int8"
    halves = any(port.get_element_type().to_string() == "f16" for node in computing for port in node.outputs())
    return "fp16" if halves else "fp32"


def _metadata(graph: Any) -> dict[str, str]:
    """The ONNX file's metadata. OpenVINO's reader keeps it under "framework"."""
    held = dict(graph.get_rt_info()).get("framework", {})
    return {str(key): str(value.value) for key, value in held.items()}


def _reason(error: Exception) -> str:
    """The lines of OpenVINO's error that say what is wrong, without those that name places in OpenVINO's sources."""
    lines = [line.strip() for line in str(error).splitlines()]
    told = [
        line for line in lines if line and not line.endswith(":") and not line.startswith(("Exception from", "Check '"))
    ]
    return " ".join(told) or type(error).__name__
