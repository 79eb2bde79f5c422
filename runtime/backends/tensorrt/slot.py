"""Slots: the memory, stream and execution context of one picture on a GPU.

A slot has its own pinned memory, device memory, execution context and stream. After its first run it also has a CUDA graph of upload,
engine and download.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from math import prod
from typing import Any

import numpy as np

from impasto.errors import BackendError
from impasto.runtime.backends.base import Slot, TensorSpec
from impasto.runtime.cuda import CudaGraph, Device, DeviceBlock, HostBuffer, Stream

from .api import TensorRT
from .engine_copies import ProfileLease
from .kernel_cache import KernelCache

Shapes = tuple[tuple[int, ...], ...]
"""The shape of each input."""


class OutputBinding(ABC):
    """Decides where an engine's outputs go, and what runs after the engine on the GPU. It belongs to one slot.

    The slot calls each method while the device is active.
    """

    keeps_pictures = False
    """Whether the first input, the picture, is written on the GPU. It has device memory alone then, and is not uploaded."""

    @abstractmethod
    def bind(self, slot: TensorRTSlot) -> HostBuffer | None:
        """Give each output its memory. Returns the pinned buffer for the result, None if the result stays on the GPU.

        Raises BackendError, KernelError.
        """

    def compute(self, stream: Stream) -> None:  # noqa: B027 (most bindings do nothing)
        """Begin the work that follows the engine. Raises BackendError."""

    @abstractmethod
    def download(self, stream: Stream) -> None:
        """Begin to copy the result from the GPU. Raises BackendError."""


class PictureOutput(OutputBinding):
    """For an engine with one output, which is the result."""

    def bind(self, slot: TensorRTSlot) -> HostBuffer:
        """Give the output pinned memory, and device memory if the GPU has its own."""
        (picture,) = slot.outputs
        self._host, self._block = slot.attach(picture, slot.output_shape(picture))
        return self._host

    def download(self, stream: Stream) -> None:
        """Begin the copy. An integrated GPU needs none: it writes into the pinned memory."""
        if self._block is not None:
            stream.download(self._host, self._block)


class TensorRTSlot(Slot):
    """The memory, stream and execution context of one picture, for one set of shapes. Not thread-safe."""

    def __init__(
        self,
        device: Device,
        api: TensorRT,
        lease: ProfileLease,
        kernels: KernelCache,
        inputs: tuple[TensorSpec, ...],
        outputs: tuple[TensorSpec, ...],
        shapes: Shapes,
        output: OutputBinding,
    ) -> None:
        """lease: `close` releases it. shapes: of the inputs. output: decides where the outputs go.

        Raises BackendError, or KernelError from the binding; everything is freed then.
        """
        self.device = device
        self.outputs = outputs
        self._api = api
        self._lease: ProfileLease | None = lease
        self.inputs = inputs
        self._output = output
        self._uploads: list[tuple[DeviceBlock, HostBuffer]] = []
        self._hosts: list[HostBuffer] = []
        self._blocks: list[DeviceBlock] = []
        self._cuda_graph: CudaGraph | None = None
        self._execution_context: Any = None
        self._ran_before = False
        self.broken = False
        """Whether an error made this slot unusable. A new slot may work."""
        try:
            self._stream = Stream(device)
        except BaseException:
            lease.release()
            raise
        try:
            with device.active():
                result = self._prepare(lease, kernels, shapes)
        except BaseException:
            self.close()
            raise
        uploaded = len(inputs) - output.keeps_pictures
        self.images: list[np.ndarray] = [host.array for host in self._hosts[:uploaded]]
        """Pinned arrays to fill before `start`, one for each input that is uploaded."""
        if result is not None:
            self.result: np.ndarray = result.array
            """Pinned array that holds the result after `wait`. Missing if the result stays on the GPU."""

    def start(self) -> None:
        """Begin upload, engine and download of what `images` hold. Raises BackendError."""
        with self.device.active(), _ErrorGuard(self):
            if self._cuda_graph is not None:
                self._cuda_graph.replay()
            else:
                self._enqueue()
                self._capture()

    def wait(self) -> None:
        """Return when `result` is complete. Raises BackendError."""
        with _ErrorGuard(self):
            self._stream.wait()

    def compute(self, stream: Stream | None = None) -> None:
        """Begin the engine and the work that follows it, without copies. stream: None is the slot's own. The device must be active."""
        stream = stream or self._stream
        self._api.log.forget()
        if not self._execution_context.execute_async_v3(stream.handle):
            raise BackendError(f"TensorRT {self._api.version} refused to run: {self._api.log.errors()}")
        self._output.compute(stream)

    def upload(self) -> None:
        """Begin the copies to the GPU. The device must be active."""
        for block, host in self._uploads:
            self._stream.upload(block, host)

    def download(self) -> None:
        """Begin the copy from the GPU. The device must be active."""
        self._output.download(self._stream)

    def profile(self, profiler: Any) -> None:
        """Report each layer's time to a TensorRT IProfiler from now on. For benchmarks."""
        self._execution_context.profiler = profiler

    def output_shape(self, spec: TensorSpec) -> tuple[int, ...]:
        """An output's shape for the slot's input shapes."""
        return tuple(int(size) for size in self._execution_context.get_tensor_shape(spec.name))

    def attach(self, spec: TensorSpec, shape: tuple[int, ...]) -> tuple[HostBuffer, DeviceBlock | None]:
        """Give a tensor pinned memory and device memory. The block is None on a GPU that shares the CPU's memory.

        Raises BackendError.
        """
        host = self.pin(shape, spec.dtype)
        block = None if self.device.integrated else self.take(host.array.nbytes)
        self.set_address(spec, block.pointer if block else host.device_pointer)
        return host, block

    def set_address(self, spec: TensorSpec, pointer: int) -> None:
        """Let the engine read or write a tensor at this address. Raises BackendError."""
        if not self._execution_context.set_tensor_address(spec.name, pointer):
            raise BackendError(
                f"TensorRT {self._api.version} refused memory at {pointer:#x} for {spec.name}: {self._api.log.errors()}"
            )

    def pin(self, shape: tuple[int, ...], dtype: np.dtype) -> HostBuffer:
        """Pinned memory that `close` frees. Raises BackendError."""
        host = HostBuffer(self.device, shape, dtype)
        self._hosts.append(host)
        return host

    def take(self, nbytes: int) -> DeviceBlock:
        """Device memory that `close` gives back. Raises BackendError."""
        block = self.device.take(nbytes)
        self._blocks.append(block)
        return block

    def keep(self, block: DeviceBlock) -> DeviceBlock:
        """Hand a block of `take` over to the caller, who gives it back instead of `close`."""
        self._blocks.remove(block)
        return block

    @property
    def stream(self) -> Stream:
        """The slot's stream."""
        return self._stream

    @property
    def replays(self) -> bool:
        """Whether runs replay a CUDA graph."""
        return self._cuda_graph is not None

    def close(self) -> None:
        """Wait for the GPU and free all memory."""
        with self.device.active():
            try:
                self._stream.wait()
            except BackendError:
                self.broken = True  # `start` or `wait` has raised the error already
            if self._cuda_graph is not None:
                self._cuda_graph.free()
            self._cuda_graph = self._execution_context = None
            for host in self._hosts:
                host.free()
            for block in self._blocks:
                self.device.give_back(block)
            self._hosts, self._blocks, self._uploads = [], [], []
            self._stream.free()
            if self._lease is not None:
                self._lease.release()
            self._lease = None

    def _prepare(self, lease: ProfileLease, kernels: KernelCache, shapes: Shapes) -> HostBuffer | None:
        """Make the execution context, and bind its inputs and outputs. Returns the result's buffer."""
        self._api.log.forget()
        self._execution_context = kernels.create_execution_context(lease.engine)
        if (
            self._execution_context is None
        ):  # TensorRT allocates outside of our pool, whose idle blocks may hold the missing memory
            self.device.trim()
            self._execution_context = kernels.create_execution_context(lease.engine)
        if self._execution_context is None:
            raise BackendError(f"TensorRT {self._api.version} made no execution context: {self._api.log.errors()}")
        # Needed for a single profile too: an engine's second execution context begins without a profile.
        if not self._execution_context.set_optimization_profile_async(lease.profile, self._stream.handle):
            raise BackendError(
                f"TensorRT {self._api.version} refused optimization profile {lease.profile}: {self._api.log.errors()}"
            )
        for spec, shape in zip(self.inputs, shapes, strict=True):
            if not self._execution_context.set_input_shape(spec.name, shape):
                raise BackendError(
                    f"TensorRT {self._api.version} refused {spec.name} {shape}: {self._api.log.errors()}"
                )
            if self._output.keeps_pictures and spec is self.inputs[0]:
                self.picture = self.take(prod(shape) * spec.dtype.itemsize)
                self.set_address(spec, self.picture.pointer)
                continue
            host, block = self.attach(spec, shape)
            if block is not None:
                self._uploads.append((block, host))
        result = self._output.bind(self)
        self._stream.wait()
        return result

    def _enqueue(self) -> None:
        self.upload()
        self.compute()
        self.download()

    def _capture(self) -> None:
        """Record the run as a CUDA graph, after a first run without one: TensorRT prepares itself in the first run."""
        if self._ran_before:
            return
        self._ran_before = True
        self._stream.wait()
        if not getattr(self._execution_context, "is_stream_capturable", lambda _: True)(self._stream.handle):
            return  # TensorRT-RTX cannot record some of its engines, and says so
        try:
            self._cuda_graph = self._stream.capture(self._enqueue)
        except BackendError:
            self._cuda_graph = None  # this engine does something that a CUDA graph cannot hold; it runs without one


class _ErrorGuard:
    """A `with` block that marks its slot as broken if an error leaves it. Raises BackendError if the slot is broken already."""

    def __init__(self, slot: TensorRTSlot) -> None:
        self._slot = slot

    def __enter__(self) -> None:
        if self._slot.broken:
            raise BackendError(
                "an earlier error on the GPU made this slot unusable; run again, or load the model again"
            )

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        self._slot.broken = self._slot.broken or error is not None
