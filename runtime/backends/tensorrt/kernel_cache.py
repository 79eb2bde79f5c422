"""Keeps the kernels that TensorRT-RTX compiles on the device at an engine's first run, for the next process."""

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
    """The kernels of one engine for one kind of GPU, in the user's cache folder.

    It does nothing for TensorRT, which compiles all kernels when it builds an engine.
    """

    def __init__(self, api: TensorRT, engine: Any, plan: bytes, device: Device) -> None:
        """The device must be active: TensorRT-RTX compares GPU and version with those that the kernels were made for."""
        self._config: Any = None
        self._kept = b""
        if not hasattr(api.module, "IRuntimeCache"):
            return
        gpu = f"{device.name} {device.compute_capability} {device.driver_major}"  # machines with different GPUs may share a home folder
        name = f"{hashlib.sha256(plan).hexdigest()[:32]}-{hashlib.sha256(gpu.encode()).hexdigest()[:8]}"
        self._name = f"{name}.kernels"
        self._config = engine.create_runtime_config()
        strategies = getattr(api.module, "DynamicShapesKernelSpecializationStrategy", None)
        if strategies is not None:
            # A slot records the launches of its first frame. By default these launch generic kernels, until the specialised ones
            # are compiled.
            self._config.dynamic_shapes_kernel_specialization_strategy = strategies.EAGER
        self._cache = self._config.create_runtime_cache()
        with contextlib.suppress(OSError, OutputError):
            path = cache_folder() / self._name
            self._kept = path.read_bytes()
            os.utime(path)  # marks the file as used: the cache evicts the file used longest ago first
        if self._kept:
            self._cache.deserialize(self._kept)  # returns False, and stays empty, for another GPU, driver or version
        self._config.set_runtime_cache(self._cache)

    def create_execution_context(self, engine: Any) -> Any:
        """A new execution context with the cached kernels; None if TensorRT made none."""
        if self._config is None:
            return engine.create_execution_context()
        return engine.create_execution_context(self._config)

    def close(self) -> None:
        """Write the kernels that were compiled since, if the folder can be written. The device must be active."""
        if self._config is None:
            return
        serialized = self._cache.serialize()
        content = b"" if serialized is None else bytes(serialized)
        if content and content != self._kept:
            with contextlib.suppress(OutputError):  # without the file the next start takes longer, nothing else
                write_bytes(make_folder(cache_folder()) / self._name, content)
        self._config = self._cache = None
