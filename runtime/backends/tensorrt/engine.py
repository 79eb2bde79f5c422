"""TensorRT and TensorRT-RTX engines on a CUDA device.

One slot is one picture's way through the GPU: pinned memory, device memory, an execution context and a stream of its own,
and a CUDA graph of upload, engine and download. Several slots run at once, so that one picture's copies hide behind
another's computing.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np

from impasto.errors import BackendError, EngineMismatch, ShapeError
from impasto.package.engine_record import EngineRecord
from impasto.runtime.backends.base import Backend, SizeLimits, Slot, TensorSpec
from impasto.runtime.cuda import Device, DeviceBlock, Graph, HostBuffer, Stream
from impasto.runtime.cuda import device as cuda_device
from impasto.runtime.loading.stored_engines import mismatch

from .api import TensorRT, tensorrt
from .copies import EngineCopies, Seat
from .kernel_cache import KernelCache

KEPT_SLOTS = 4
"""Slots kept for the shapes used last."""

Shapes = tuple[tuple[int, ...], ...]


AnySlot = TypeVar("AnySlot", bound="TensorRTSlot")


class TensorRTBackend(Backend):
    """One engine, ready to run on one GPU."""

    name = "tensorrt"

    def __init__(self, plan: bytes, record: EngineRecord | None, device: int, rebuild: str) -> None:
        """plan: trusted bytes; a plan is executable code. record: what is known of it, checked against this machine first.

        rebuild: the command that builds a fitting engine, for error messages.
        Raises EngineMismatch for another GPU, version or flavour, MissingDependency, BackendError.
        """
        self._api = tensorrt(record.flavour if record else "auto")
        self._rebuild = rebuild
        self._device = cuda_device(device)
        if record:
            require_match(record, self._api, self._device, rebuild)
        with self._device.active():
            runtime = self._api.create_runtime()  # what stops this has nothing to do with the engine
            try:
                self._copies = EngineCopies(self._api, runtime, plan)
            except BackendError as error:
                raise EngineMismatch(f"{error}. Build it again: {rebuild}") from None
            self._engine = self._copies.first
            self._kernels = KernelCache(self._api, self._engine, plan, self._device)
        self._describe()
        self.device = f"{self._device.name} (CUDA device {device})"
        self.metadata = {}
        self._slots: OrderedDict[Shapes, TensorRTSlot] = OrderedDict()

    def slot(self, shapes: Shapes) -> TensorRTSlot:
        """A new slot for inputs of these shapes; the caller closes it. Raises ShapeError, BackendError."""
        return self.slot_of(TensorRTSlot, shapes)

    def slot_of(self, kind: Callable[..., AnySlot], shapes: Shapes) -> AnySlot:
        """The same of another kind. kind: takes what TensorRTSlot takes."""
        self.require_open()
        with self._device.active():
            seat = self._copies.seat(self._profile(shapes))
        left = replace(seat, leave=lambda: self._slot_gone(seat))
        return kind(self._device, self._api, left, self._kernels, self.inputs, self.outputs, shapes)

    def _slot_gone(self, seat: Seat) -> None:
        seat.leave()
        if not self._open and not self._copies.seated:  # the last of a stream that outlived the model
            self._device.trim()

    def _run(self, inputs: Sequence[np.ndarray], out: np.ndarray) -> None:
        slot = self._slot_for(tuple(array.shape for array in inputs))
        if out.shape != slot.result.shape:
            raise ShapeError(f"out is {out.shape}; this engine gives {slot.result.shape} for such a picture")
        for host, array in zip(slot.images, inputs, strict=True):
            host[...] = array
        slot.start()
        slot.wait()
        out[...] = slot.result

    def _measure(self, inputs: Sequence[np.ndarray]) -> tuple[int, ...]:
        return self._slot_for(tuple(array.shape for array in inputs)).result.shape

    def _slot_for(self, shapes: Shapes) -> TensorRTSlot:
        slot = self._slots.pop(shapes, None)
        if slot is None or slot.broken:
            if slot:
                slot.close()
            slot = self.slot(shapes)
        self._slots[shapes] = slot
        if len(self._slots) > KEPT_SLOTS:
            self._slots.popitem(last=False)[1].close()
        return slot

    def _profile(self, shapes: Shapes) -> int:
        """The optimization profile whose best shape is nearest among those that hold these shapes. Raises ShapeError."""
        fitting: list[tuple[float, int]] = []
        ranges = []
        for index in range(self._engine.num_optimization_profiles):
            limits = [_profile_shape(self._engine, spec.name, index) for spec in self.inputs]
            ranges.append(f"{limits[0][0]} to {limits[0][2]}")
            if all(_inside(shape, low, high) for shape, (low, _, high) in zip(shapes, limits, strict=True)):
                fitting.append((_distance(shapes[0], limits[0][1]), index))
        if not fitting:
            size = f" --size {shapes[0][1]}x{shapes[0][2]}" if self.limits else ""
            raise ShapeError(
                f"this engine takes {self.inputs[0].name} of {' or '.join(ranges)} (N, H, W, C), and this one is {shapes[0]}. "
                f"Build one for it: {self._rebuild}{size} --batch {shapes[0][0]}"
            )
        return min(fitting)[1]

    def _describe(self) -> None:
        """Read the names, types and shapes of inputs and outputs off the engine."""
        engine, api = self._engine, self._api
        names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
        inputs = [name for name in names if engine.get_tensor_mode(name) == api.module.TensorIOMode.INPUT]
        # The picture first: engines may list their inputs in any order.
        inputs.sort(key=lambda name: len(engine.get_tensor_shape(name)) != 4)
        self.inputs = tuple(self._tensor(name) for name in inputs)
        self.outputs = tuple(self._tensor(name) for name in names if name not in inputs)
        if len(self.inputs[0].shape) == 4:
            profiles = [_profile_shape(engine, inputs[0], index) for index in range(engine.num_optimization_profiles)]
            ranges = tuple(((low[1], low[2]), (high[1], high[2])) for low, _, high in profiles)
            self.limits = SizeLimits(ranges, self._rebuild)

    def _tensor(self, name: str) -> TensorSpec:
        shape = tuple(None if size < 0 else int(size) for size in self._engine.get_tensor_shape(name))
        return TensorSpec(name, self._api.numpy_dtype(self._engine.get_tensor_dtype(name)), shape)

    def _close(self) -> None:
        with self._device.active():
            for slot in self._slots.values():
                slot.close()
            self._slots.clear()
            self._kernels.close()
            del self._engine
            self._copies.close()
        self._device.trim()


class TensorRTSlot(Slot):
    """One picture's way through the GPU, for one set of shapes. One thread at a time."""

    def __init__(
        self,
        device: Device,
        api: TensorRT,
        seat: Seat,
        kernels: KernelCache,
        inputs: tuple[TensorSpec, ...],
        outputs: tuple[TensorSpec, ...],
        shapes: Shapes,
    ) -> None:
        """seat: the slot's until `close`. Raises BackendError, with everything freed that was taken."""
        self._device = device
        self._api = api
        self._seat: Seat | None = seat
        self._inputs = inputs
        self._outputs = outputs
        self._hosts: list[HostBuffer] = []
        self._blocks: list[DeviceBlock] = []
        self._graph: Graph | None = None
        self._context: Any = None
        self._warm = False
        self.broken = False
        """Whether an error left it unusable; a new slot may work."""
        try:
            self._stream = Stream(device)
        except BaseException:
            seat.leave()
            raise
        try:
            with device.active():
                self._prepare(seat, kernels, shapes)
        except BaseException:
            self.close()
            raise
        self.images: list[np.ndarray] = [host.array for host in self._hosts[: len(inputs)]]
        """Pinned arrays to fill before `start`, one for each input."""
        self.result: np.ndarray = self._hosts[-1].array
        """Pinned array that holds the picture after `wait`."""

    def start(self) -> None:
        """Begin upload, engine and download of what `images` hold. Raises BackendError."""
        with self._device.active(), self._watched():
            if self._graph is not None:
                self._graph.replay()
            else:
                self._enqueue()
                self._capture()

    def wait(self) -> None:
        """Return when `result` is complete. Raises BackendError."""
        with self._watched():
            self._stream.wait()

    def compute(self, stream: Stream | None = None) -> None:
        """Begin the engine alone, without copies, on this slot's stream or another. The device is active."""
        self._api.log.forget()
        if not self._context.execute_async_v3((stream or self._stream).handle):
            raise BackendError(f"TensorRT {self._api.version} refused to run: {self._api.log.errors()}")

    def upload(self) -> None:
        """Begin the copies to the GPU; the device is active."""
        if not self._device.integrated:
            count = len(self._inputs)
            for block, host in zip(self._blocks[:count], self._hosts[:count], strict=True):
                self._stream.upload(block, host)

    def download(self) -> None:
        """Begin the copy from the GPU; the device is active."""
        if not self._device.integrated:
            self._stream.download(self._hosts[-1], self._blocks[-1])

    def profile(self, profiler: Any) -> None:
        """Report each layer's time to a vendor's profiler from now on. For benchmarks."""
        self._context.profiler = profiler

    @property
    def stream(self) -> Stream:
        return self._stream

    @property
    def replays(self) -> bool:
        """Whether frames run as one graph replay."""
        return self._graph is not None

    def close(self) -> None:
        """Wait for the GPU and free everything."""
        with self._device.active():
            try:
                self._stream.wait()
            except BackendError:
                self.broken = True  # the GPU's error is reported where the work was begun or awaited
            if self._graph is not None:
                self._graph.free()
            self._graph = self._context = None
            for host in self._hosts:
                host.free()
            for block in self._blocks:
                self._device.give_back(block)
            self._hosts, self._blocks = [], []
            self._stream.free()
            if self._seat is not None:
                self._seat.leave()
            self._seat = None

    def _prepare(self, seat: Seat, kernels: KernelCache, shapes: Shapes) -> None:
        self._api.log.forget()
        self._context = kernels.context(seat.engine)
        if self._context is None:  # TensorRT takes its memory past our pool, which may hold what is missing
            self._device.trim()
            self._context = kernels.context(seat.engine)
        if self._context is None:
            raise BackendError(f"TensorRT {self._api.version} made no execution context: {self._api.log.errors()}")
        # Also where there is one: a second context of an engine begins without any.
        if not self._context.set_optimization_profile_async(seat.profile, self._stream.handle):
            raise BackendError(
                f"TensorRT {self._api.version} refused optimization profile {seat.profile}: {self._api.log.errors()}"
            )
        for spec, shape in zip(self._inputs, shapes, strict=True):
            if not self._context.set_input_shape(spec.name, shape):
                raise BackendError(
                    f"TensorRT {self._api.version} refused {spec.name} {shape}: {self._api.log.errors()}"
                )
            self._attach(spec, shape)
        self._attach_outputs()
        self._stream.wait()

    def _attach_outputs(self) -> None:
        (picture,) = self._outputs
        self._attach(picture, self._output_shape(picture))

    def _output_shape(self, spec: TensorSpec) -> tuple[int, ...]:
        return tuple(int(size) for size in self._context.get_tensor_shape(spec.name))

    def _attach(self, spec: TensorSpec, shape: tuple[int, ...]) -> None:
        """Give a tensor its memory, on both sides."""
        host = HostBuffer(self._device, shape, spec.dtype)
        self._hosts.append(host)
        pointer = host.device_pointer
        if not self._device.integrated:
            block = self._device.take(host.array.nbytes)
            self._blocks.append(block)
            pointer = block.pointer
        self._set_address(spec, pointer)

    def _set_address(self, spec: TensorSpec, pointer: int) -> None:
        if not self._context.set_tensor_address(spec.name, pointer):
            raise BackendError(
                f"TensorRT {self._api.version} refused memory at {pointer:#x} for {spec.name}: {self._api.log.errors()}"
            )

    def _enqueue(self) -> None:
        self.upload()
        self.compute()
        self.download()

    def _capture(self) -> None:
        """Record the way as a graph, after one eager frame: TensorRT finishes its own preparation on the first run."""
        if self._warm:
            return
        self._warm = True
        self._stream.wait()
        if not getattr(self._context, "is_stream_capturable", lambda _: True)(self._stream.handle):
            return  # TensorRT-RTX knows of some of its engines that they cannot be recorded
        try:
            self._graph = self._stream.capture(self._enqueue)
        except BackendError:
            self._graph = None  # this engine does something that a graph cannot hold; it runs eagerly

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


def require_match(record: EngineRecord, api: TensorRT, device: Device, rebuild: str) -> None:
    """Raises EngineMismatch where an engine cannot run here, with what it is, what is here and what to do."""
    reason = mismatch(record, api, device)
    if reason:
        raise EngineMismatch(f"{reason}. Build one for it: {rebuild}")


def _profile_shape(engine: Any, name: str, profile: int) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(int(n) for n in shape) for shape in engine.get_tensor_profile_shape(name, profile))


def _inside(shape: tuple[int, ...], low: tuple[int, ...], high: tuple[int, ...]) -> bool:
    return len(shape) == len(low) and all(a <= n <= b for a, n, b in zip(low, shape, high, strict=True))


def _distance(shape: tuple[int, ...], best: tuple[int, ...]) -> float:
    return float(sum(abs(np.log(n / b)) for n, b in zip(shape, best, strict=True)))
