"""One picture's memory, stream and execution context on a GPU.

A slot has pinned memory, device memory, an execution context and a stream of its own, and after its first run a CUDA graph of
upload, engine and download.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
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
    """Where an engine's outputs go, and what follows the engine on the GPU. It belongs to one slot.

    The slot calls every method while the device is active.
    """

    @abstractmethod
    def bind(self, slot: TensorRTSlot) -> HostBuffer:
        """Give each output its memory. Returns the pinned buffer that holds the result. Raises BackendError, KernelError."""

    def compute(self, stream: Stream) -> None:  # noqa: B027 (most do nothing)
        """Begin what follows the engine. Raises BackendError."""

    @abstractmethod
    def download(self, stream: Stream) -> None:
        """Begin the copy of the result from the GPU. Raises BackendError."""


class PictureOutput(OutputBinding):
    """One output, which is the result."""

    def bind(self, slot: TensorRTSlot) -> HostBuffer:
        """Pinned memory of the output's shape, and a block on a GPU with memory of its own."""
        (picture,) = slot.outputs
        self._host, self._block = slot.attach(picture, slot.output_shape(picture))
        return self._host

    def download(self, stream: Stream) -> None:
        """Begin the copy; an integrated GPU writes into the pinned memory itself."""
        if self._block is not None:
            stream.download(self._host, self._block)


class TensorRTSlot(Slot):
    """One picture's memory, stream and execution context, for one set of shapes. One thread at a time."""

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
        """lease: released by `close`. shapes: of the inputs. output: receives the outputs.

        Raises BackendError, or KernelError from the binding, with everything freed that was taken.
        """
        self.device = device
        self.outputs = outputs
        self._api = api
        self._lease: ProfileLease | None = lease
        self._inputs = inputs
        self._output = output
        self._uploads: list[tuple[DeviceBlock, HostBuffer]] = []
        self._hosts: list[HostBuffer] = []
        self._blocks: list[DeviceBlock] = []
        self._cuda_graph: CudaGraph | None = None
        self._execution_context: Any = None
        self._warm = False
        self.broken = False
        """Whether an error left it unusable; a new slot may work."""
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
        self.images: list[np.ndarray] = [host.array for host in self._hosts[: len(inputs)]]
        """Pinned arrays to fill before `start`, one for each input."""
        self.result: np.ndarray = result.array
        """Pinned array that holds the result after `wait`."""

    def start(self) -> None:
        """Begin upload, engine and download of what `images` hold. Raises BackendError."""
        with self.device.active(), self._watched():
            if self._cuda_graph is not None:
                self._cuda_graph.replay()
            else:
                self._enqueue()
                self._capture()

    def wait(self) -> None:
        """Return when `result` is complete. Raises BackendError."""
        with self._watched():
            self._stream.wait()

    def compute(self, stream: Stream | None = None) -> None:
        """Begin the engine and what follows it, without copies, on this slot's stream or another. The device is active."""
        stream = stream or self._stream
        self._api.log.forget()
        if not self._execution_context.execute_async_v3(stream.handle):
            raise BackendError(f"TensorRT {self._api.version} refused to run: {self._api.log.errors()}")
        self._output.compute(stream)

    def upload(self) -> None:
        """Begin the copies to the GPU; the device is active."""
        for block, host in self._uploads:
            self._stream.upload(block, host)

    def download(self) -> None:
        """Begin the copy from the GPU; the device is active."""
        self._output.download(self._stream)

    def profile(self, profiler: Any) -> None:
        """Report each layer's time to a vendor's profiler from now on. For benchmarks."""
        self._execution_context.profiler = profiler

    def output_shape(self, spec: TensorSpec) -> tuple[int, ...]:
        """The shape of an output for the slot's input shapes."""
        return tuple(int(size) for size in self._execution_context.get_tensor_shape(spec.name))

    def attach(self, spec: TensorSpec, shape: tuple[int, ...]) -> tuple[HostBuffer, DeviceBlock | None]:
        """Give a tensor pinned memory, and a block of the GPU's own memory; None on a GPU that shares the CPU's memory."""
        host = self.pin(shape, spec.dtype)
        block = None if self.device.integrated else self.take(host.array.nbytes)
        self.set_address(spec, block.pointer if block else host.device_pointer)
        return host, block

    def set_address(self, spec: TensorSpec, pointer: int) -> None:
        """Let the engine read or write a tensor there. Raises BackendError."""
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
        """A block that `take` gave, which `close` no longer gives back: the caller does."""
        self._blocks.remove(block)
        return block

    @property
    def stream(self) -> Stream:
        return self._stream

    @property
    def replays(self) -> bool:
        """Whether frames run as one graph replay."""
        return self._cuda_graph is not None

    def close(self) -> None:
        """Wait for the GPU and free everything."""
        with self.device.active():
            try:
                self._stream.wait()
            except BackendError:
                self.broken = True  # the GPU's error is reported where the work was begun or awaited
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

    def _prepare(self, lease: ProfileLease, kernels: KernelCache, shapes: Shapes) -> HostBuffer:
        """Make the execution context and bind its inputs and outputs. Returns the result's buffer."""
        self._api.log.forget()
        self._execution_context = kernels.create_execution_context(lease.engine)
        if self._execution_context is None:  # TensorRT takes its memory past our pool, which may hold what is missing
            self.device.trim()
            self._execution_context = kernels.create_execution_context(lease.engine)
        if self._execution_context is None:
            raise BackendError(f"TensorRT {self._api.version} made no execution context: {self._api.log.errors()}")
        # Also where there is one: a second context of an engine begins without any.
        if not self._execution_context.set_optimization_profile_async(lease.profile, self._stream.handle):
            raise BackendError(
                f"TensorRT {self._api.version} refused optimization profile {lease.profile}: {self._api.log.errors()}"
            )
        for spec, shape in zip(self._inputs, shapes, strict=True):
            if not self._execution_context.set_input_shape(spec.name, shape):
                raise BackendError(
                    f"TensorRT {self._api.version} refused {spec.name} {shape}: {self._api.log.errors()}"
                )
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
        """Record the run as a CUDA graph, after one run without: TensorRT finishes its own preparation on the first run."""
        if self._warm:
            return
        self._warm = True
        self._stream.wait()
        if not getattr(self._execution_context, "is_stream_capturable", lambda _: True)(self._stream.handle):
            return  # TensorRT-RTX knows of some of its engines that they cannot be recorded
        try:
            self._cuda_graph = self._stream.capture(self._enqueue)
        except BackendError:
            self._cuda_graph = None  # this engine does something that a graph cannot hold; it runs eagerly

    def _watched(self) -> _Watch:
        return _Watch(self)


class _Watch:
    """Marks a slot as broken when an error leaves the block."""

    def __init__(self, slot: TensorRTSlot) -> None:
        self._slot = slot

    def __enter__(self) -> None:
        if self._slot.broken:
            raise BackendError(
                "an earlier error broke this picture's way through the GPU; run again, or load the model again"
            )

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        self._slot.broken = self._slot.broken or error is not None
