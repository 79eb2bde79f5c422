"""TensorRT-RTX finishes an engine's kernels on the device when they first run; here they are kept for the next process."""

from __future__ import annotations

import contextlib
import hashlib
import os
from typing import Any

from impasto.errors import OutputError
from impasto.files import make_folder, write_bytes
from impasto.runtime.cache_folder import cache_folder
from impasto.runtime.cuda import Device

from .api import TensorRT


class KernelCache:
    """The kernels of one engine on one kind of GPU, in the user's cache folder. Products that compile all when building have none."""

    def __init__(self, api: TensorRT, engine: Any, plan: bytes, device: Device) -> None:
        """The device is active: TensorRT-RTX compares it, and itself, with where the kernels were made."""
        self._config: Any = None
        self._kept = b""
        if not hasattr(api.module, "IRuntimeCache"):
            return
        gpu = f"{device.name} {device.compute_capability} {device.driver_major}"  # machines with different ones may share a home
        name = f"{hashlib.sha256(plan).hexdigest()[:32]}-{hashlib.sha256(gpu.encode()).hexdigest()[:8]}"
        self._name = f"{name}.kernels"
        self._config = engine.create_runtime_config()
        strategies = getattr(api.module, "DynamicShapesKernelSpecializationStrategy", None)
        if strategies is not None:
            # Slots record their first frame's launches; by default those are of makeshift kernels while the right ones are compiled.
            self._config.dynamic_shapes_kernel_specialization_strategy = strategies.EAGER
        self._cache = self._config.create_runtime_cache()
        with contextlib.suppress(OSError, OutputError):
            path = cache_folder() / self._name
            self._kept = path.read_bytes()
            os.utime(path)  # loading is use: what was used longest ago is evicted first
        if self._kept:
            self._cache.deserialize(self._kept)  # says False, and stays empty, for another GPU, driver or version
        self._config.set_runtime_cache(self._cache)

    def create_execution_context(self, engine: Any) -> Any:
        """A new execution context that takes its kernels from here, or None where TensorRT made none."""
        if self._config is None:
            return engine.create_execution_context()
        return engine.create_execution_context(self._config)

    def close(self) -> None:
        """Write what was compiled since, where the folder can be written; the device is active."""
        if self._config is None:
            return
        serialized = self._cache.serialize()
        content = b"" if serialized is None else bytes(serialized)
        if content and content != self._kept:
            with contextlib.suppress(OutputError):  # it costs time at the next start, nothing else
                write_bytes(make_folder(cache_folder()) / self._name, content)
        self._config = self._cache = None
