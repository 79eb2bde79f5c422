"""CUDA for the runtime: devices, memory, streams and graphs, through PyCUDA. No other file imports PyCUDA.

PyCUDA lacks CUDA graphs. They come from `impasto.kernels.cuda_driver`, the one module that calls the driver's library.

Each object belongs to a `Device`, and is made and freed while that device is active in the calling thread. PyCUDA's destructors
cannot free objects here: in a thread that did not make the object they refuse to run, and leak.
"""

from __future__ import annotations

import ctypes
import functools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from impasto.errors import BackendError, KernelError, MissingDependency
from impasto.kernels import cuda_driver

_GRANULE = 1 << 16
"""Sizes of device memory blocks are multiples of this, in bytes, so that pictures of similar sizes can use the same blocks."""

_HOST_ALLOC_MAPPED = 2
_STREAM_NON_BLOCKING = 1


@functools.cache
def driver() -> Any:
    """PyCUDA's driver module, initialised. Raises MissingDependency, or BackendError if there is no CUDA device."""
    try:
        import pycuda.driver as cuda
    except (ImportError, OSError) as error:
        raise MissingDependency(
            f"CUDA needs PyCUDA and NVIDIA's driver ({error}); install it for this machine's CUDA: pip install pycuda"
        ) from None
    try:
        cuda.init()
    except cuda.Error as error:
        raise BackendError(
            f"no CUDA device can be used: {error}; see nvidia-smi, or choose backend='onnxruntime-cpu'"
        ) from None
    return cuda


@contextmanager
def translated(doing: str) -> Iterator[None]:
    """Turn PyCUDA's errors into BackendError. doing: the work inside the block, such as "copying a picture to the GPU"."""
    cuda = driver()
    try:
        yield
    except cuda.MemoryError as error:
        raise BackendError(
            f"the GPU is out of memory while {doing}: {error}; close other programs or models, or use smaller pictures"
        ) from error
    except cuda.Error as error:
        raise BackendError(f"CUDA failed while {doing}: {error}") from error


_devices: dict[int, Device] = {}
_opening = threading.Lock()


def device(ordinal: int = 0) -> Device:
    """The process's `Device` of this number. Raises BackendError if there is none, and MissingDependency without PyCUDA."""
    with _opening:  # two threads may not make two objects
        if ordinal not in _devices:
            _devices[ordinal] = Device(ordinal)
        return _devices[ordinal]


class Device:
    """One GPU, used through its primary CUDA context, which torch and the CUDA runtime use too.

    The CUDA context is kept until the process ends, as the CUDA runtime keeps it: vendor libraries hold objects in it.
    """

    def __init__(self, ordinal: int) -> None:
        """Get it from `device`."""
        cuda = driver()
        with translated(f"opening CUDA device {ordinal}"):
            count = cuda.Device.count()
            if not 0 <= ordinal < count:
                raise BackendError(
                    f"device={ordinal} does not exist; this machine has {count} CUDA device(s), counted from 0"
                )
            found = cuda.Device(ordinal)
            self.ordinal = ordinal
            self.name: str = found.name()
            major, minor = found.compute_capability()
            self.compute_capability = f"{major}.{minor}"
            self.driver_major: int = cuda.get_driver_version() // 1000
            """The CUDA version that the driver supports, such as 13."""
            self.integrated = bool(found.get_attribute(cuda.device_attribute.INTEGRATED))
            """Whether GPU and CPU share one memory, as on Jetson. Pictures need no copies then."""
            self._cuda_context = found.retain_primary_context()
        # At exit PyCUDA would destroy it by a call that primary CUDA contexts refuse, and print an error. The extra reference
        # prevents that.
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._cuda_context))
        self._active = threading.local()
        self._free: list[DeviceBlock] = []
        """Idle blocks, those given back last at the end."""
        self._free_lock = threading.Lock()
        self._used_bytes = self._most_bytes = 0

    @contextmanager
    def active(self) -> Iterator[None]:
        """Make this device's CUDA context current in this thread, and restore the previous one afterwards. Blocks may nest."""
        depth = getattr(self._active, "depth", 0)
        if not depth:
            with translated("making the GPU current"):
                self._cuda_context.push()
        self._active.depth = depth + 1
        try:
            yield
        finally:
            self._active.depth = depth
            if not depth:
                with translated("restoring the CUDA context that was current before"):
                    self._cuda_context.pop()

    def free_memory(self) -> int:
        """Device memory that no program uses, in bytes. Raises BackendError."""
        with self.active(), translated("asking for its free memory"):
            return int(driver().mem_get_info()[0])

    def take(self, nbytes: int) -> DeviceBlock:
        """A block of at least `nbytes` bytes: an idle one, or a new one. Raises BackendError."""
        size = -(-max(nbytes, 1) // _GRANULE) * _GRANULE
        block = self._idle(size) or self._allocate(size)
        with self._free_lock:
            self._used_bytes += size
            self._most_bytes = max(self._most_bytes, self._used_bytes)
        return block

    def give_back(self, block: DeviceBlock) -> None:
        """Make a block idle, for the next `take` of its size. No work on it may be running.

        Idle blocks and blocks in use together never exceed the largest sum that was in use at once. The oldest idle ones are freed.
        """
        with self._free_lock, self.active():
            self._used_bytes -= block.size
            self._free.append(block)
            while sum(kept.size for kept in self._free) > self._most_bytes - self._used_bytes:
                self._free.pop(0).allocation.free()

    def trim(self) -> None:
        """Free the idle blocks."""
        with self._free_lock, self.active():
            for block in self._free:
                block.allocation.free()
            self._free.clear()
            self._most_bytes = self._used_bytes

    def _idle(self, size: int) -> DeviceBlock | None:
        with self._free_lock:
            for index, block in enumerate(self._free):
                if block.size == size:
                    return self._free.pop(index)
        return None

    def _allocate(self, size: int) -> DeviceBlock:
        with self.active(), translated(f"allocating {size:,} bytes"):
            try:
                return DeviceBlock(driver().mem_alloc(size), size)
            except driver().MemoryError:
                self.trim()  # idle blocks of other sizes may hold the missing memory
                return DeviceBlock(driver().mem_alloc(size), size)


class DeviceBlock:
    """A block of device memory from a device's pool."""

    def __init__(self, allocation: Any, size: int) -> None:
        self.allocation = allocation
        self.size = size
        self.pointer = int(allocation)


class HostBuffer:
    """Pinned host memory. Copies from and to it run at full speed and without the CPU. An integrated GPU uses it directly."""

    def __init__(self, device: Device, shape: tuple[int, ...], dtype: np.dtype) -> None:
        """An array of this shape and dtype in pinned memory. Raises BackendError."""
        self._device = device
        cuda = driver()
        flags = _HOST_ALLOC_MAPPED if device.integrated else 0
        with device.active(), translated(f"pinning memory for a picture of shape {shape}"):
            self.array: np.ndarray = cuda.pagelocked_empty(shape, dtype, mem_flags=flags)
            self._base = self.array.base
            try:
                self.device_pointer = int(self._base.get_device_pointer()) if device.integrated else 0
                """The memory's address on the GPU; 0 on a discrete GPU."""
            except BaseException:
                self._base.free()
                raise

    def free(self) -> None:
        """Free the memory. `array` may not be used afterwards."""
        with self._device.active():
            self._base.free()


class Stream:
    """A CUDA stream: its work runs in order, and beside the work of other streams."""

    def __init__(self, device: Device) -> None:
        self._device = device
        with device.active(), translated("making a stream"):
            self._stream = driver().Stream(_STREAM_NON_BLOCKING)
        self.handle: int = self._stream.handle

    def upload(self, block: DeviceBlock, host: HostBuffer) -> None:
        """Begin to copy the host buffer to the device. The device must be active. Raises BackendError."""
        with translated("copying a picture to the GPU"):
            driver().memcpy_htod_async(block.pointer, host.array, self._stream)

    def download(self, host: HostBuffer, block: DeviceBlock, offset: int = 0) -> None:
        """Begin to copy the block, from `offset` in bytes on, into the host buffer. The device must be active.

        Raises BackendError.
        """
        with translated("copying a picture from the GPU"):
            driver().memcpy_dtoh_async(host.array, block.pointer + offset, self._stream)

    def wait(self) -> None:
        """Return when all work begun so far is done. Other Python threads run meanwhile. Raises BackendError."""
        with self._device.active(), translated("waiting for the GPU"):
            self._stream.synchronize()

    def time(self, work: Callable[[], None]) -> float:
        """Time that the GPU takes for the work that `work` begins on this stream, in ms, by CUDA events. Raises BackendError."""
        with self._device.active(), translated("timing"):
            events: list[Any] = []
            try:
                events += driver().Event(), driver().Event()
                events[0].record(self._stream)
                work()
                events[1].record(self._stream)
                events[1].synchronize()
                return float(events[0].time_till(events[1]))
            finally:
                events.clear()  # frees them while the device is active

    def capture(self, work: Callable[[], None]) -> CudaGraph | None:
        """Record the work that `work` begins on this stream, without running it. None if it cannot be recorded.

        `work` may not allocate or wait. Raises what `work` raises; the stream stays usable then.
        """
        with self._device.active():
            graph = cuda_driver.capture(self.handle, work)
        return None if graph is None else CudaGraph(self._device, graph, self.handle)

    def free(self) -> None:
        """Free the stream. Call `wait` first."""
        with self._device.active():
            del self._stream


class CudaGraph:
    """A CUDA graph: recorded work that one call runs again, on the stream on which it was recorded."""

    def __init__(self, device: Device, graph: cuda_driver.Graph, stream: int) -> None:
        """Get it from `Stream.capture`."""
        self._device = device
        self._graph = graph
        self._stream = stream

    def replay(self) -> None:
        """Begin the recorded work. The device must be active. Raises BackendError."""
        try:
            self._graph.launch(self._stream)
        except KernelError as error:
            raise BackendError(f"CUDA failed while replaying a graph: {error}") from error

    def free(self) -> None:
        """Free the graph. It may not be running."""
        with self._device.active():
            self._graph.destroy()
