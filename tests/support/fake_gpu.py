"""A driver and a TensorRT made of NumPy: enough to test what our code keeps account of, and nothing about speed or kernels.

Work on a stream runs at once. The engine inverts pictures. Every allocation is counted until it is freed.
"""

from __future__ import annotations

import enum
import types
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np


class FakeDriver(types.SimpleNamespace):
    """What `runtime/cuda.py` uses of `pycuda.driver`."""

    class Error(Exception):
        pass

    class MemoryError(Error):
        pass

    def __init__(
        self, *, name: str = "Fake GPU", capability: tuple[int, int] = (8, 7), integrated: bool = False
    ) -> None:
        self.live: dict[int, np.ndarray] = {}
        self.live_events = 0
        self.stack: list[Any] = []
        self.fail_next: str | None = None
        driver = self

        class Context:
            def push(self) -> None:
                driver.stack.append(self)

            @staticmethod
            def pop() -> None:
                driver.stack.pop()

        class Device:
            count = staticmethod(lambda: 1)

            def __init__(self, ordinal: int) -> None: ...

            name = staticmethod(lambda: name)
            compute_capability = staticmethod(lambda: capability)
            retain_primary_context = staticmethod(Context)
            get_attribute = staticmethod(lambda _: int(integrated))

        class Stream:
            def __init__(self, flags: int = 0) -> None:
                self.handle = 7

            def synchronize(self) -> None:
                driver.check("synchronize")

        class Event:
            def record(self, stream: Any) -> None: ...

            def synchronize(self) -> None: ...

            def time_till(self, other: Any) -> float:
                return 1.0

        self.Device, self.Stream, self.Event = Device, Stream, Event
        self.device_attribute = types.SimpleNamespace(INTEGRATED=18)

    def check(self, operation: str) -> None:
        assert self.stack, f"{operation} without an active context"
        if self.fail_next == operation:
            self.fail_next = None
            raise self.Error(f"{operation} failed: an illegal memory access was encountered")

    def init(self) -> None: ...

    def get_driver_version(self) -> int:
        return 12060

    def mem_get_info(self) -> tuple[int, int]:
        return 10**9 - sum(block.nbytes for block in self.live.values()), 10**9

    def mem_alloc(self, size: int) -> Any:
        self.check("mem_alloc")
        return _Allocation(self, np.zeros(size, np.uint8))

    def pagelocked_empty(self, shape: tuple[int, ...], dtype: Any, mem_flags: int = 0) -> np.ndarray:
        self.check("pagelocked_empty")
        memory = np.zeros(int(np.prod(shape)) * np.dtype(dtype).itemsize, np.uint8)
        base = _Allocation(self, memory)
        return _Pinned(shape, dtype, memory.data, base=base)

    def memcpy_htod_async(self, pointer: int, array: np.ndarray, stream: Any) -> None:
        self.check("memcpy_htod_async")
        self.live[pointer][: array.nbytes] = np.asarray(array).reshape(-1).view(np.uint8)

    def memcpy_dtoh_async(self, array: np.ndarray, pointer: int, stream: Any) -> None:
        self.check("memcpy_dtoh_async")
        np.asarray(array).reshape(-1).view(np.uint8)[:] = self.memory(pointer, array.nbytes)

    def begin(self, stream: int, work: Callable[[], None]) -> None:
        """Put work on a stream, where it runs at once."""
        work()

    def memory(self, pointer: int, nbytes: int) -> np.ndarray:
        """The bytes from this address on, which may lie inside an allocation but not leave it."""
        for start, block in self.live.items():
            if start <= pointer and pointer + nbytes <= start + block.nbytes:
                return block[pointer - start : pointer - start + nbytes]
        raise AssertionError(f"{nbytes} bytes at {pointer:#x} are not allocated")


class _Allocation:
    def __init__(self, driver: FakeDriver, memory: np.ndarray) -> None:
        self._driver = driver
        self._memory = memory
        self._pointer = memory.ctypes.data
        driver.live[self._pointer] = memory

    def __int__(self) -> int:
        return self._pointer

    def get_device_pointer(self) -> int:
        return self._pointer

    def free(self) -> None:
        self._driver.check("free")
        del self._driver.live[self._pointer]


class _Pinned(np.ndarray):
    """An array whose `base` is an allocation, as PyCUDA's are."""

    def __new__(cls, shape: Any, dtype: Any, buffer: Any, base: Any) -> _Pinned:
        made = super().__new__(cls, shape, dtype, buffer)
        made._allocation = base
        return made

    def __array_finalize__(self, source: Any) -> None:
        self._allocation = getattr(source, "_allocation", None)

    @property
    def base(self) -> Any:
        return self._allocation


class _Mode(enum.Enum):
    INPUT = 1
    OUTPUT = 2


class _Type(enum.Enum):
    UINT8 = 1
    FLOAT = 2


CONTEXT, THUMBNAIL = 5, 8
PLANS = {
    b"plan": ("image", "picture"),
    b"plan+context": ("context", "image", "picture"),
    b"float": ("image", "picture"),
    b"float+context": ("context", "image", "picture"),
    b"context": ("thumbnail", "context"),
    b"perceptual": ("image", "shallow", "deep"),
}
OUTPUTS = ("picture", "shallow", "deep")


def features(image: np.ndarray) -> dict[str, np.ndarray]:
    """What the plan b"perceptual" makes of a uint8 (H, W, 3) picture: float32 (3, H, W) and (40, H // 2, W // 2)."""
    shallow = image.transpose(2, 0, 1).astype(np.float32) / 255
    half = shallow[:, : image.shape[0] // 2 * 2 : 2, : image.shape[1] // 2 * 2 : 2]
    return {"shallow": shallow, "deep": np.concatenate([half**power for power in range(1, 15)])[:40]}


class FakeTensorRT(types.SimpleNamespace):
    """What `runtime/backends/tensorrt/engine.py` uses of TensorRT.

    driver: where the work goes, by `begin`, and finds its `memory`.
    Plans are b"plan" (inverts pictures), b"plan+context" (the same, brightened by the context), b"float" and b"float+context" (the
    same of float32 from 0 to 1), b"context" (five times a thumbnail's mean) and b"perceptual" (two feature maps); anything else does
    not deserialize.
    As in 8.5, one context alone may use an engine's optimization profile.
    """

    def __init__(self, driver: Any, version: str = "8.5.3.1", sizes: tuple[int, int] = (16, 64)) -> None:
        self.__version__ = version
        self.fail_next_run = False
        self.refused_address = ""
        """The name of a tensor whose memory is refused."""
        self.live_contexts = self.live_engines = 0
        fake = self
        low, high = sizes

        class Logger:
            def __init__(self) -> None: ...

        class Context:
            def __init__(self, plan: bytes, alone: bool) -> None:
                fake.live_contexts += 1
                self._plan = plan
                self._alone = alone
                self._profile: int | None = None
                self._addresses: dict[str, int] = {}
                self._shape: tuple[int, ...] = ()

            def __del__(self) -> None:
                fake.live_contexts -= 1

            def set_optimization_profile_async(self, profile: int, stream: int) -> bool:
                if not self._alone:
                    return False  # "Profile 0 has been chosen by another IExecutionContext"
                self._profile = profile
                return True

            def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
                if self._profile is None:
                    return False  # "No optimization profile has been set"
                if len(shape) == 4:
                    self._shape = tuple(shape)
                return True

            def get_tensor_shape(self, name: str) -> tuple[int, ...]:
                if self._plan == b"perceptual":
                    return (1, *features(np.zeros(self._shape[1:], np.uint8))[name].shape)
                return (1, CONTEXT) if self._plan == b"context" else self._shape

            def set_tensor_address(self, name: str, pointer: int) -> bool:
                if name == fake.refused_address:
                    return False
                self._addresses[name] = pointer
                return True

            def execute_async_v3(self, stream: int) -> bool:
                if fake.fail_next_run:
                    fake.fail_next_run = False
                    return False
                driver.begin(stream, self._compute)
                return True

            def _compute(self) -> None:
                size = int(np.prod(self._shape))
                if self._plan == b"perceptual":
                    image = self._memory("image", size).reshape(self._shape[1:])
                    for name, values in features(image).items():
                        self._memory(name, values.nbytes)[:] = values.reshape(-1).view(np.uint8)
                    return
                if self._plan == b"context":
                    values = np.full(CONTEXT, self._memory("thumbnail", size).mean(), np.float32)
                    self._memory("context", values.nbytes)[:] = values.view(np.uint8)
                    return
                floats = self._plan.startswith(b"float")
                dtype, white = (np.float32, np.float32(1)) if floats else (np.uint8, 255.0)
                nbytes = size * np.dtype(dtype).itemsize
                inverted = white - self._memory("image", nbytes).view(dtype)
                if self._plan.endswith(b"+context"):
                    inverted += self._memory("context", 4 * CONTEXT).view(np.float32).mean() * (white / 255)
                self._memory("picture", nbytes)[:] = np.clip(inverted, 0, white).astype(dtype).view(np.uint8)

            def _memory(self, name: str, nbytes: int) -> np.ndarray:
                return driver.memory(self._addresses[name], nbytes)

        class Engine:
            num_optimization_profiles = 1

            def __init__(self, plan: bytes) -> None:
                self._plan = plan
                self._names = PLANS[plan]
                self.num_io_tensors = len(self._names)
                self._contexts: weakref.WeakSet[Context] = weakref.WeakSet()
                fake.live_engines += 1

            def __del__(self) -> None:
                fake.live_engines -= 1

            def get_tensor_name(self, index: int) -> str:
                return self._names[index]

            def get_tensor_mode(self, name: str) -> _Mode:
                return _Mode.OUTPUT if name in OUTPUTS or name == self._names[-1] else _Mode.INPUT

            def get_tensor_shape(self, name: str) -> tuple[int, ...]:
                if name == "context":
                    return (1, CONTEXT)
                if name in ("shallow", "deep"):
                    return (1, 3 if name == "shallow" else 40, -1, -1)
                return (1, THUMBNAIL, THUMBNAIL, 3) if name == "thumbnail" else (1, -1, -1, 3)

            def get_tensor_dtype(self, name: str) -> _Type:
                floats = name in ("context", "shallow", "deep") or self._plan.startswith(b"float")
                return _Type.FLOAT if floats else _Type.UINT8

            def get_tensor_profile_shape(self, name: str, profile: int) -> list[tuple[int, ...]]:
                if name in ("context", "thumbnail"):
                    return [self.get_tensor_shape(name)] * 3
                return [(1, low, low, 3), (1, low, low, 3), (1, high, high, 3)]

            def create_execution_context(self) -> Context:
                context = Context(self._plan, alone=not self._contexts)
                self._contexts.add(context)
                return context

        class Runtime:
            def __init__(self, logger: Any) -> None: ...

            def deserialize_cuda_engine(self, plan: bytes) -> Engine | None:
                return Engine(plan) if plan in PLANS else None

        self.context = Context
        self.ILogger, self.Runtime, self.TensorIOMode = Logger, Runtime, _Mode
        self.NetworkDefinitionCreationFlag = types.SimpleNamespace(EXPLICIT_BATCH=0)
        self.BuilderFlag = types.SimpleNamespace(FP16=0, INT8=1)
        self.IBuilderConfig = types.SimpleNamespace(create_timing_cache=None)
