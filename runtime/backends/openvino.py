"""OpenVINO on the CPU, the only module that imports it."""

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
"""Compiled graphs kept for the input shapes used last, each with memory for all that passes between its layers."""

NO_INT8 = "OpenVINO does not compute INT8 right on this CPU (on x86-64 it needs VNNI instructions)"
"""Said where `computes_int8` is false."""

_DTYPES = ("uint8", "float32", "float16")

_loading = ReentrantLock()
"""Taken to import OpenVINO, load and compile. What its bindings make on first use, such as the table of types, they make with
C++'s lock held and Python's given away: a second thread that comes then waits for the first with Python's held, for ever."""


def openvino() -> Any:
    """The installed openvino module. Raises MissingDependency with the command that installs it."""
    try:
        with _loading, _untold():
            import openvino
            import openvino.frontend
    except ImportError as error:
        raise MissingDependency(f"OpenVINO does not load ({error}): {install('openvino')}") from None
    return openvino


@contextmanager
def _untold() -> Iterator[None]:
    """Importing OpenVINO tells Google Analytics, unless there is no openvino_telemetry: who runs a model did not ask for that.

    It also leaves an identity in the home folder, and waits for the network when the process ends.
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
    """The process's one core, kept to its end; to be called with `_loading` taken, since `cache` makes one for each thread at once.

    On CPUs with AMX each core's CPU plugin gives the thread a signal stack of its own, and puts back the one before when it ends. Where
    several end out of order, that one is freed already, and the next signal, such as Ctrl-C, kills the process (OpenVINO 2026.4).
    """
    return openvino().Core()


_compiled_in: int | None = None
"""The process that compiled a graph first, by its number."""


def _compile(graph: Any, options: dict[str, Any]) -> Any:
    """A compiled graph; to be called with `_loading` taken. Raises BackendError in a process that was forked from one that compiled."""
    global _compiled_in
    require_own_threads()
    if _compiled_in is None and hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_keep_core)
    _compiled_in = os.getpid()
    return _core().compile_model(graph, "CPU", options)


def _keep_core() -> None:
    """Never destroy the core in a forked process: that would wait for the threads that did not come along, when Python ends."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(_core()))


def require_own_threads() -> None:
    """Raises BackendError in a process that was forked from one that compiled a graph.

    OpenVINO keeps idle threads for its next graph. A fork takes the list of them along and not the threads, and compiling would
    wait for them for ever (OpenVINO 2026.4). What was compiled before runs on.
    """
    if _compiled_in not in (None, os.getpid()):
        raise BackendError(
            "this process was forked from one that had used OpenVINO, whose threads did not come along; choose "
            "backend='onnxruntime-cpu', or start processes with multiprocessing's 'spawn'"
        )


@cache
def computes_int8() -> bool:
    """Whether OpenVINO's INT8 convolutions are right on this CPU, tried on one. Raises MissingDependency.

    x86-64 CPUs without VNNI add products of 8 bits in pairs to 16, and large pairs saturate; on aarch64 OpenVINO computes in halves.
    Which instructions it takes is its own affair, so a sum of the largest products is computed instead of reading the CPU's flags.
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
        # A CPU with AMX would round the right sum to BF16 on its way out, which is not what is asked here. Elsewhere graphs run
        # as the plugin likes, and are tried so.
        options = {"INFERENCE_PRECISION_HINT": "f32"} if is_x86_64() else {}
        compiled = _compile(Model([drawn], [pixels]), options)
        (sums,) = compiled.create_infer_request().infer({0: np.full((1, channels, 8, 8), most, np.float32)}).values()
        return bool((sums == most * weight * channels * 9).all())


class OpenVinoBackend(Backend):
    """An ONNX graph, compiled anew for every shape of its inputs.

    A graph compiled for free sizes would serve all of them, but is slower: by 10 % in FP32 and 76 % in INT8 (great-wave, 512 x 512,
    two cores, `python -m impasto.benchmarks.precision --variants`). Compiling takes 0.1 to 0.2 s, once a size.
    """

    name = "openvino"
    device = "CPU"

    def __init__(self, path: Path) -> None:
        """Raises MissingDependency, or BackendError where the graph does not load, or would be drawn wrong on this CPU."""
        require_own_threads()
        self._vendor = openvino()
        with _loading:
            self._load(path)
        self._requests: OrderedDict[tuple[tuple[int, ...], ...], Any] = OrderedDict()

    def _load(self, path: Path) -> None:
        try:
            # Its general reader tries the readers of six formats in turn, and each prints what it thinks of a broken file.
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
                f"{path} is INT8, which OpenVINO does not compute right on this CPU (on x86-64 it needs VNNI instructions). Choose "
                "backend='onnxruntime-cpu', which does, or precision='fp32'"
            )

    def _run(self, inputs: Sequence[np.ndarray], out: np.ndarray) -> None:
        try:
            request = self._fed(inputs)
            # The result is written straight into the caller's array.
            request.set_output_tensor(self._shared(out))
            request.infer(share_outputs=True)  # otherwise it also returns a copy
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
            # The request keeps its tensors for the next run.
            return [np.array(request.get_output_tensor(index).data) for index in range(len(self.outputs))]
        except BackendError:
            raise
        except Exception as error:
            raise BackendError(f"OpenVINO failed: {_reason(error)}") from error

    def _close(self) -> None:
        self._requests.clear()
        del self._graph

    def _fed(self, inputs: Sequence[np.ndarray]) -> Any:
        """The request for inputs of these shapes, given them."""
        request = self._request(tuple(array.shape for array in inputs))
        for index, array in enumerate(inputs):
            request.set_input_tensor(index, self._shared(array))
        return request

    def _request(self, shapes: tuple[tuple[int, ...], ...]) -> Any:
        """What runs the graph for inputs of these shapes: kept, or compiled now."""
        request = self._requests.pop(shapes, None)
        if request is None:
            while len(self._requests) >= KEPT_SHAPES:
                self._requests.popitem(last=False)
            request = self._compile(shapes)
        self._requests[shapes] = request
        return request

    def _compile(self, shapes: tuple[tuple[int, ...], ...]) -> Any:
        require_own_threads()  # before the lock, which a thread of the other process may have held
        with _loading:
            graph = self._graph.clone()
            graph.reshape({graph.input(index): list(shape) for index, shape in enumerate(shapes)})
            return _compile(graph, self._options()).create_infer_request()

    def _options(self) -> dict[str, Any]:
        options = {"PERFORMANCE_HINT": "LATENCY"}
        if self.precision != "int8":
            # Left alone, OpenVINO computes float32 layers in BF16 where the CPU can (AMX): four times as fast, and another
            # picture, 51 dB from FP32 on great-wave. In an INT8 graph it may: INT8 has rounded much more than BF16 does, and the
            # layers that were excluded from INT8 are cheap then: 12.3 ms and 39.1 dB from FP32, with float32 15.9 ms and 38.1 dB
            # (`python -m impasto.benchmarks.precision great-wave --variants`).
            options["INFERENCE_PRECISION_HINT"] = "f32"
        return options

    def _shared(self, array: np.ndarray) -> Any:
        """The array as a tensor on the same memory, which the caller keeps alive for the run."""
        if not array.flags.writeable:  # OpenVINO shares no read-only memory; it does not write to inputs
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
        raise BackendError(f"{path} does not say how many dimensions {port.any_name} has; a picture model does")
    shape = tuple(size.get_length() if size.is_static else None for size in port.partial_shape)
    return TensorSpec(port.any_name, np.dtype(dtype), shape)


def _precision(graph: Any) -> str:
    """The lowest precision that an operator of the graph computes in; weights may be stored in halves and widened."""
    computing = [node for node in graph.get_ops() if node.get_type_name() != "Constant"]
    if any(node.get_type_name() == "FakeQuantize" for node in computing):
        return "int8"
    halves = any(port.get_element_type().to_string() == "f16" for node in computing for port in node.outputs())
    return "fp16" if halves else "fp32"


def _metadata(graph: Any) -> dict[str, str]:
    """The ONNX file's key-value pairs, which OpenVINO's reader keeps under "framework"."""
    held = dict(graph.get_rt_info()).get("framework", {})
    return {str(key): str(value.value) for key, value in held.items()}


def _reason(error: Exception) -> str:
    """The part of the vendor's text that tells what is wrong; its other lines tell where in its sources that was noticed."""
    lines = [line.strip() for line in str(error).splitlines()]
    told = [
        line for line in lines if line and not line.endswith(":") and not line.startswith(("Exception from", "Check '"))
    ]
    return " ".join(told) or type(error).__name__
