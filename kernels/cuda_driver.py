"""The CUDA driver's library, called through ctypes. No other module loads the library or names one of its calls.

PyCUDA is the runtime's way to CUDA (`runtime/cuda.py`). This module has what PyCUDA lacks or what must work without it:
kernels are loaded and launched beside torch, tensor maps are encoded, work is captured into CUDA graphs, the streams of other
libraries are waited for.
Each call but two is older than CUDA 11.4, the release that JetPack 5 has: graphs need CUDA 11.4, tensor maps 12.0.

All functions raise KernelError where the driver is missing, lacks a call, or reports an error. `capture` and `has_graphs`
report a missing call by their result instead.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

from impasto.errors import KernelError

_IMAGE_ERRORS = {200, 209, 218, 222}
"""CUDA_ERROR_INVALID_IMAGE, _NO_BINARY_FOR_GPU, _INVALID_PTX, _UNSUPPORTED_PTX_VERSION."""
_MULTIPROCESSOR_COUNT, _CAPABILITY_MAJOR, _CAPABILITY_MINOR = 16, 75, 76
"""CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT, _COMPUTE_CAPABILITY_MAJOR, _COMPUTE_CAPABILITY_MINOR."""
_POINTER_DEVICE_ORDINAL = 9  # CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL
_DISABLE_TIMING = 2  # CU_EVENT_DISABLE_TIMING
_NON_BLOCKING = 1  # CU_STREAM_NON_BLOCKING
_MAX_DYNAMIC_SHARED_SIZE_BYTES = 8  # CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
_CAPTURE_THREAD_LOCAL = 1  # CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
_TENSOR_MAP_BYTES, _TENSOR_MAP_ALIGNMENT = 128, 64
_GRAPH_CALLS = (
    "cuStreamBeginCapture_v2",
    "cuStreamEndCapture",
    "cuGraphInstantiateWithFlags",
    "cuGraphLaunch",
    "cuGraphDestroy",
    "cuGraphExecDestroy",
)


class ImageError(KernelError):
    """The driver cannot use a cubin or PTX: it is damaged, for another GPU, or of a newer CUDA than the driver knows."""


@lru_cache(maxsize=1)
def library() -> Any:
    """The driver's library. Raises KernelError where there is none."""
    name = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
    try:
        return ctypes.CDLL(name)
    except OSError as error:
        raise KernelError(f"The CUDA driver ({name}) cannot be loaded: {error}. Install NVIDIA's driver.") from error


def call(name: str, *arguments: Any) -> None:
    """Make one call. Raises KernelError with the driver's own description of an error."""
    result = _result(name, *arguments)
    if result:
        raise KernelError(_description(name, result))


def _result(name: str, *arguments: Any) -> int:
    """Make one call and return its CUresult, 0 for success. Raises KernelError where the driver lacks the call."""
    function = getattr(library(), name, None)
    if function is None:
        raise KernelError(
            f"The CUDA driver has no {name}: {supported_cuda()}, and that is too old for what was asked. "
            "Update NVIDIA's driver."
        )
    return function(*arguments)


def _description(name: str, result: int) -> str:
    text = ctypes.c_char_p()
    library().cuGetErrorString(result, ctypes.byref(text))
    return f"{name} failed with error {result}: {(text.value or b'unknown').decode()}."


def cuda_version() -> tuple[int, int]:
    """The newest CUDA release that the driver supports, such as (11, 4) on JetPack 5."""
    version = ctypes.c_int()
    call("cuDriverGetVersion", ctypes.byref(version))
    return version.value // 1000, version.value % 1000 // 10


def supported_cuda() -> str:
    """A clause for messages, such as "it supports CUDA 11.4"."""
    return "it supports CUDA {}.{}".format(*cuda_version())


# ---- contexts and devices ----


def current_context() -> int:
    """The handle of this thread's current context. Raises KernelError where none is current."""
    context = ctypes.c_void_p()
    call("cuCtxGetCurrent", ctypes.byref(context))
    if not context.value:
        raise KernelError("No CUDA context is current in this thread; make one before launching.")
    return context.value


def make_context_current(device: int) -> None:
    """Make the device's primary context current, unless this thread has one. torch and PyCUDA share the primary context."""
    context, handle = ctypes.c_void_p(), ctypes.c_int()
    call("cuCtxGetCurrent", ctypes.byref(context))
    if not context.value:
        call("cuDeviceGet", ctypes.byref(handle), device)
        call("cuDevicePrimaryCtxRetain", ctypes.byref(context), handle)
        call("cuCtxSetCurrent", context)


@contextmanager
def primary_context(device: int) -> Iterator[None]:
    """Make the device's primary context current in this thread, and afterwards the one that was current before."""
    call("cuCtxPushCurrent_v2", ctypes.c_void_p(_retained(device)))
    try:
        yield
    finally:
        call("cuCtxPopCurrent_v2", ctypes.byref(ctypes.c_void_p()))


@lru_cache
def _retained(device: int) -> int:
    """The handle of the device's primary context, which is kept until the process ends."""
    context, handle = ctypes.c_void_p(), ctypes.c_int()
    call("cuInit", 0)
    call("cuDeviceGet", ctypes.byref(handle), device)
    call("cuDevicePrimaryCtxRetain", ctypes.byref(context), handle)
    assert context.value is not None
    return context.value


def compute_capability() -> tuple[int, int]:
    """Compute capability of the current context's device, such as (8, 7)."""
    return _attribute(_CAPABILITY_MAJOR), _attribute(_CAPABILITY_MINOR)


def multiprocessors() -> int:
    """How many the current context's device has."""
    return _attribute(_MULTIPROCESSOR_COUNT)


def _attribute(attribute: int) -> int:
    device, value = ctypes.c_int(), ctypes.c_int()
    call("cuCtxGetDevice", ctypes.byref(device))
    call("cuDeviceGetAttribute", ctypes.byref(value), attribute, device)
    return value.value


# ---- memory and streams; a primary context must be current ----


def allocate(nbytes: int) -> int:
    """The address of new device memory."""
    pointer = ctypes.c_void_p()
    call("cuMemAlloc_v2", ctypes.byref(pointer), ctypes.c_size_t(nbytes))
    assert pointer.value is not None
    return pointer.value


def free(pointer: int) -> None:
    """Free what `allocate` gave, after all work on it has ended."""
    call("cuMemFree_v2", ctypes.c_void_p(pointer))


def device_of(pointer: int) -> int:
    """The number of the CUDA device on which this address lies. Raises KernelError for an address that CUDA does not know."""
    ordinal = ctypes.c_int()
    call("cuPointerGetAttribute", ctypes.byref(ordinal), _POINTER_DEVICE_ORDINAL, ctypes.c_void_p(pointer))
    return ordinal.value


def copy_to_host(address: int, pointer: int, nbytes: int, stream: int) -> None:
    """Wait for the stream's work, and copy device memory to this address in host memory, which need not be pinned."""
    synchronize(stream)
    call("cuMemcpyDtoH_v2", ctypes.c_void_p(address), ctypes.c_void_p(pointer), ctypes.c_size_t(nbytes))


def copy_to_device(pointer: int, address: int, nbytes: int, stream: int) -> None:
    """Copy memory of the host, which is not pinned, to device memory on this stream. Returns when the host's memory may change."""
    places = ctypes.c_void_p(pointer), ctypes.c_void_p(address)
    call("cuMemcpyHtoDAsync_v2", *places, ctypes.c_size_t(nbytes), ctypes.c_void_p(stream))


def new_stream() -> int:
    """The handle of a new stream, which does not wait for the legacy default stream."""
    stream = ctypes.c_void_p()
    call("cuStreamCreate", ctypes.byref(stream), _NON_BLOCKING)
    assert stream.value is not None
    return stream.value


def destroy_stream(stream: int) -> None:
    """Destroy what `new_stream` gave."""
    call("cuStreamDestroy_v2", ctypes.c_void_p(stream))


def synchronize(stream: int) -> None:
    """Return when the stream's work is done."""
    call("cuStreamSynchronize", ctypes.c_void_p(stream))


def wait_for(running: int, waiting: int) -> None:
    """Let the stream `waiting` begin nothing new until `running` has done what it has been given so far. Returns at once."""
    event = ctypes.c_void_p()
    call("cuEventCreate", ctypes.byref(event), _DISABLE_TIMING)
    try:
        call("cuEventRecord", event, ctypes.c_void_p(running))
        call("cuStreamWaitEvent", ctypes.c_void_p(waiting), event, 0)
    finally:
        call("cuEventDestroy_v2", event)  # the driver keeps it until the stream has passed it


# ---- modules and kernels ----


def load_module(image: bytes) -> ctypes.c_void_p:
    """A cubin or PTX text in the current context. Raises ImageError where the driver cannot use the image."""
    module = ctypes.c_void_p()
    result = _result("cuModuleLoadData", ctypes.byref(module), image)  # ctypes ends bytes with a NUL, as PTX needs
    if result:
        kind = ImageError if result in _IMAGE_ERRORS else KernelError
        raise kind(_description("cuModuleLoadData", result))
    return module


def kernel(module: ctypes.c_void_p, name: str, dynamic_shared_bytes: int) -> ctypes.c_void_p:
    """A kernel of a module, which may be launched with up to this much dynamic shared memory."""
    function = ctypes.c_void_p()
    call("cuModuleGetFunction", ctypes.byref(function), module, name.encode())
    if dynamic_shared_bytes:
        call("cuFuncSetAttribute", function, _MAX_DYNAMIC_SHARED_SIZE_BYTES, dynamic_shared_bytes)
    return function


def blocks_per_multiprocessor(function: ctypes.c_void_p, threads: int, dynamic_shared_bytes: int) -> int:
    """How many blocks of this kernel one multiprocessor runs at once; 0 where not even one fits."""
    blocks = ctypes.c_int()
    shared = ctypes.c_size_t(dynamic_shared_bytes)
    call("cuOccupancyMaxActiveBlocksPerMultiprocessor", ctypes.byref(blocks), function, threads, shared)
    return blocks.value


def launch(
    function: ctypes.c_void_p,
    blocks: int,
    threads: int,
    shared_bytes: int,
    parameters: Sequence[ctypes.Structure],
    stream: int,
) -> None:
    """Put a kernel on a stream of the current context. The parameters are copied before this returns."""
    addresses = (ctypes.c_void_p * len(parameters))(*map(ctypes.addressof, parameters))
    grid, block = (blocks, 1, 1), (threads, 1, 1)
    call("cuLaunchKernel", function, *grid, *block, shared_bytes, ctypes.c_void_p(stream), addresses, None)


def tensor_map(
    data_type: str, pointer: int, extents: tuple[int, int, int], strides: tuple[int, int], box: tuple[int, int, int]
) -> bytes:
    """The driver's description of a 3-dimensional tensor for bulk copies, as a kernel's parameter holds it.

    data_type: f16 or bf16. extents: elements along each axis, the inner axis first. strides: bytes along the two outer axes,
    multiples of 16. box: elements of one copy. Shared memory is swizzled by 128 bytes; elements beyond the edges are zero.
    """
    room = (ctypes.c_ubyte * (_TENSOR_MAP_BYTES + _TENSOR_MAP_ALIGNMENT))()
    start = -ctypes.addressof(room) % _TENSOR_MAP_ALIGNMENT
    number = {"f16": 6, "bf16": 9}[data_type]  # CU_TENSOR_MAP_DATA_TYPE_FLOAT16, _BFLOAT16
    no_interleave, swizzle_128, promotion_256, zeros = 0, 3, 3, 0
    call(
        "cuTensorMapEncodeTiled",
        ctypes.c_void_p(ctypes.addressof(room) + start),
        number,
        ctypes.c_uint32(len(extents)),
        ctypes.c_void_p(pointer),
        (ctypes.c_uint64 * 3)(*extents),
        (ctypes.c_uint64 * 2)(*strides),
        (ctypes.c_uint32 * 3)(*box),
        (ctypes.c_uint32 * 3)(1, 1, 1),
        no_interleave,
        swizzle_128,
        promotion_256,
        zeros,
    )
    return bytes(room[start : start + _TENSOR_MAP_BYTES])


# ---- graphs ----


def has_graphs() -> bool:
    """Whether this driver has every call that `capture` makes. False where there is no driver."""
    try:
        found = library()
    except KernelError:
        return False
    return all(hasattr(found, name) for name in _GRAPH_CALLS)


class Graph:
    """Captured work that one call replays. Its context must be current for both methods."""

    def __init__(self, executable: ctypes.c_void_p) -> None:
        """Get it from `capture`."""
        self._executable = executable

    def launch(self, stream: int) -> None:
        """Begin the work on this stream."""
        call("cuGraphLaunch", self._executable, ctypes.c_void_p(stream))

    def destroy(self) -> None:
        """Free the graph, which may not be running."""
        library().cuGraphExecDestroy(self._executable)


def capture(stream: int, work: Callable[[], None]) -> Graph | None:
    """Record what `work` begins on a stream of the current context, without running it.

    Returns None where the driver lacks the calls or refuses. Raises what `work` raises; the stream stays usable.
    """
    if not has_graphs():
        return None
    driver, handle, graph, executable = library(), ctypes.c_void_p(stream), ctypes.c_void_p(), ctypes.c_void_p()
    if driver.cuStreamBeginCapture_v2(handle, _CAPTURE_THREAD_LOCAL):
        return None
    try:
        work()
    except BaseException:
        if not driver.cuStreamEndCapture(handle, ctypes.byref(graph)):
            driver.cuGraphDestroy(graph)
        raise
    if driver.cuStreamEndCapture(handle, ctypes.byref(graph)):
        return None
    failed = driver.cuGraphInstantiateWithFlags(ctypes.byref(executable), graph, ctypes.c_ulonglong(0))
    driver.cuGraphDestroy(graph)
    return None if failed else Graph(executable)
