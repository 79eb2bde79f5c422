"""The compiled kernels in a CUDA context: which binary it is given, and its kernels ready to launch."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from impasto.errors import KernelError

from . import binaries, cuda_driver
from .feature_map import BulkTensor

THREADS = 256
"""Threads of a block; as in gram.cu."""
BULK_COPY_SIDE = 64
"""Channels and pixels of what one bulk copy brings; as in gram.cu."""
CHOICE = "IMPASTO_GRAM"
"""Environment variable. `wgmma` selects Hopper's own forward kernel, which is checked but not timed yet; `mma` or unset, the other.

With either value `gram` runs the kernel also where cuBLAS is faster (operators.py).
"""
WGMMA = "_wgmma"
"""The end of the names of Hopper's own kernels."""
_BARRIER_BYTES = 8 * 8
"""Shared memory behind the pipeline's stages, for the barrier of each (MOST_STAGES of gram.cu), where bulk copies fill them."""
_WGMMA_SINCE = (12, 1)
"""The first CUDA that launches kernels with more than 4 KiB of parameters, which Hopper's own kernels have."""


@dataclass
class Module:
    """The kernels in one context."""

    handle: ctypes.c_void_p
    shared_bytes: int
    """Dynamic shared memory of a block of the forward and backward kernels."""
    multiprocessors: int
    """Number of multiprocessors of the context's device."""
    use_wgmma: bool = False
    """Whether to launch Hopper's own forward kernel where the features allow it."""
    _kernels: dict[str, ctypes.c_void_p] = field(default_factory=dict)
    _resident_blocks: dict[str, int] = field(default_factory=dict)

    def resident_blocks(self, name: str) -> int:
        """Blocks of this forward or backward kernel that the whole device runs at once."""
        if name not in self._resident_blocks:
            shared = block_shared_bytes(name, self.shared_bytes)
            blocks = cuda_driver.blocks_per_multiprocessor(self._kernel(name), THREADS, shared)
            if blocks == 0:
                raise KernelError(f"{name} needs {shared} bytes of shared memory; this GPU has less.")
            self._resident_blocks[name] = blocks * self.multiprocessors
        return self._resident_blocks[name]

    def launch(
        self,
        name: str,
        blocks: int,
        threads: int,
        shared_bytes: int,
        parameters: Sequence[ctypes.Structure],
        stream: int,
    ) -> None:
        """Put one kernel on a stream of the current context. shared_bytes: dynamic shared memory of a block."""
        cuda_driver.launch(self._kernel(name), blocks, threads, shared_bytes, parameters, stream)

    def tensor_map(self, tensor: BulkTensor) -> bytes:
        """The tensor map of these feature maps for bulk copies of 64 x 64 elements, 128 bytes."""
        return _tensor_map(tensor)

    def _kernel(self, name: str) -> ctypes.c_void_p:
        if name not in self._kernels:
            is_large = name.startswith(("gram_forward", "gram_backward"))
            shared = block_shared_bytes(name, self.shared_bytes) if is_large else 0
            self._kernels[name] = cuda_driver.kernel(self.handle, name, shared)
        return self._kernels[name]


@lru_cache(maxsize=256)
def _tensor_map(tensor: BulkTensor) -> bytes:
    box = (BULK_COPY_SIDE, BULK_COPY_SIDE, 1)
    return cuda_driver.tensor_map(tensor.dtype, tensor.pointer, tensor.extents, tensor.strides, box)


_modules: dict[int, Module] = {}


def loaded() -> Module:
    """The kernels in the current context, loaded once per context. Raises KernelError."""
    context = cuda_driver.current_context()
    if context not in _modules:
        _modules[context] = load()
    return _modules[context]


def load() -> Module:
    """The kernels, loaded into the current context. Raises KernelError."""
    capability = cuda_driver.compute_capability()
    use_wgmma = _use_wgmma(capability)
    binary, image = binaries.for_gpu(capability)
    try:
        handle = cuda_driver.load_module(image)
    except cuda_driver.ImageError as error:
        raise KernelError(f"{error} {_advice(binary, capability)}") from error
    return Module(handle, dynamic_shared_bytes(capability[0]), cuda_driver.multiprocessors(), use_wgmma)


def _advice(binary: binaries.Binary, capability: tuple[int, int]) -> str:
    """Which binary the driver refused, and what to do."""
    known = cuda_driver.cuda_version()[0]
    tried = (
        f"The Gram kernel's {binary}, for this GPU of compute capability {capability[0]}.{capability[1]}, "
        f"needs a driver that supports CUDA {binary.cuda_major} or later; {cuda_driver.supported_cuda()}."
    )
    if known < binary.cuda_major:
        return f"{tried} Update NVIDIA's driver (docs/kernels.md says which), or compute on the CPU."
    return f"{tried} So it should load: reinstall Impasto, and if that does not help, report this message."


def _use_wgmma(capability: tuple[int, int]) -> bool:
    """Whether the user selects Hopper's own forward kernel. Raises KernelError where the GPU or the driver cannot run it."""
    if not wgmma_is_selected(capability):
        return False
    if cuda_driver.cuda_version() < _WGMMA_SINCE:
        raise KernelError(
            f"{CHOICE}=wgmma needs a driver that supports CUDA 12.1, for parameters of more than 4 KiB; "
            f"{cuda_driver.supported_cuda()}. Update NVIDIA's driver, or unset {CHOICE}."
        )
    return True


def wgmma_is_selected(compute_capability: tuple[int, int]) -> bool:
    """What the environment variable says. Raises KernelError for an unknown value, and for `wgmma` on another GPU than Hopper."""
    choice = os.environ.get(CHOICE, "")
    if choice not in ("", "mma", "wgmma"):
        raise KernelError(f"{CHOICE} is {choice!r}: set it to mma or wgmma, or leave it unset.")
    if choice == "wgmma" and compute_capability != (9, 0):
        has = ".".join(map(str, compute_capability))
        raise KernelError(
            f"{CHOICE}=wgmma needs a GPU of compute capability 9.0 (Hopper); this one has {has}. Unset it."
        )
    return choice == "wgmma"


def dynamic_shared_bytes(compute_capability_major: int) -> int:
    """SHARED_BYTES of gram.cu: pipeline stages of two 16 KiB panels, as many as a block of the smallest chip holds."""
    return (2 if compute_capability_major < 8 else 3) * 2 * 16384


def block_shared_bytes(name: str, shared_bytes: int) -> int:
    """Dynamic shared memory of a block of this forward or backward kernel. shared_bytes: that of its pipeline's stages."""
    return shared_bytes + _BARRIER_BYTES if name.endswith(WGMMA) else shared_bytes
