"""Engines of TensorRT and TensorRT-RTX on a CUDA device.

A picture runs in a `TensorRTSlot`. Several slots may run at once: the copies of one picture then overlap with the computing of another.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

import numpy as np

from impasto.errors import BackendError, EngineMismatch, ShapeError
from impasto.kernels import frames
from impasto.package.engine_record import EngineRecord
from impasto.runtime.backends.base import Backend, SizeLimits, TensorSpec
from impasto.runtime.cuda import device as cuda_device
from impasto.runtime.host_copies import copy_into

from .api import tensorrt
from .compatibility import require_match
from .device_frames import DeviceOutput, TensorRTFrames
from .engine_copies import EngineCopies, ProfileLease
from .kernel_cache import KernelCache
from .slot import OutputBinding, PictureOutput, Shapes, TensorRTSlot

KEPT_SLOTS = 4
"""Number of input shapes whose slots are kept. The shapes used longest ago are dropped."""


class TensorRTBackend(Backend):
    """One engine, ready to run on one GPU."""

    name = "tensorrt"

    def __init__(self, plan: bytes, record: EngineRecord | None, device: int, rebuild: str) -> None:
        """plan: the engine's bytes, from a trusted source: a plan is executable code.

        record: the engine's record, which is compared with this machine first; None if it has none. device: number of the CUDA device.
        rebuild: the command that builds a fitting engine, for error messages.
        Raises EngineMismatch for an engine for another GPU, version or product, MissingDependency, BackendError.
        """
        self._api = tensorrt(record.product if record else "auto")
        self._rebuild = rebuild
        self._device = cuda_device(device)
        if record:
            require_match(record, self._api, self._device, rebuild)
        with self._device.active():
            dla_core = record.dla.core if record and record.dla else None
            runtime = self._api.create_runtime(dla_core)  # outside of the `try`: an error here is not about the engine
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
        return self.bound_slot(shapes, PictureOutput())

    def bound_slot(self, shapes: Shapes, output: OutputBinding) -> TensorRTSlot:
        """A new slot whose outputs go to `output`; the caller closes it. Raises ShapeError, BackendError."""
        self.require_open()
        with self._device.active():
            lease = self._copies.lease(self._profile(shapes))
        watched = replace(lease, release=lambda: self._slot_closed(lease))
        return TensorRTSlot(self._device, self._api, watched, self._kernels, self.inputs, self.outputs, shapes, output)

    def require_gpu(self) -> int:
        return self._device.ordinal

    def converts_depths(self) -> bool:
        with self._device.active():
            return frames.run_here()

    def gpu_active(self) -> AbstractContextManager[None]:
        return self._device.active()

    def device_frames(self, shapes: Shapes, result: tuple[int, ...]) -> TensorRTFrames:
        output = DeviceOutput()
        return TensorRTFrames(self.bound_slot(shapes, output), output, result)

    def _slot_closed(self, lease: ProfileLease) -> None:
        lease.release()
        if not self._open and not self._copies.leases:  # the last slot of a stream that outlived the model
            self._device.trim()

    def _run(self, inputs: Sequence[np.ndarray], out: np.ndarray) -> None:
        slot = self._slot_for(tuple(array.shape for array in inputs))
        if out.shape != slot.result.shape:
            raise ShapeError(f"out is {out.shape}; this engine gives {slot.result.shape} for such a picture")
        for host, array in zip(slot.images, inputs, strict=True):
            copy_into(host, array)
        slot.start()
        slot.wait()
        copy_into(out, slot.result)

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
        """Index of the optimization profile that takes these shapes, with the nearest opt shape if several do. Raises ShapeError."""
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
                f"this engine takes {self.inputs[0].name} of {' or '.join(ranges)} (N, H, W, C), and got {shapes[0]}; "
                f"build one for it: {self._rebuild}{size} --batch {shapes[0][0]}"
            )
        return min(fitting)[1]

    def _describe(self) -> None:
        """Read the names, types and shapes of inputs and outputs from the engine."""
        engine, api = self._engine, self._api
        names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
        inputs = [name for name in names if engine.get_tensor_mode(name) == api.module.TensorIOMode.INPUT]
        # Engines list their inputs in any order; the picture comes first here.
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


def _profile_shape(engine: Any, name: str, profile: int) -> tuple[tuple[int, ...], ...]:
    """The min, opt and max shape of an input in an optimization profile."""
    return tuple(tuple(int(n) for n in shape) for shape in engine.get_tensor_profile_shape(name, profile))


def _inside(shape: tuple[int, ...], low: tuple[int, ...], high: tuple[int, ...]) -> bool:
    return len(shape) == len(low) and all(a <= n <= b for a, n, b in zip(low, shape, high, strict=True))


def _distance(shape: tuple[int, ...], opt: tuple[int, ...]) -> float:
    """Sum over axes of |log(size / opt size)|."""
    return float(sum(abs(np.log(n / o)) for n, o in zip(shape, opt, strict=True)))
