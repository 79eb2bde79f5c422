"""Style distances on the GPU: an engine writes feature maps to device memory, and the Gram kernel compares them with a painting's.

A picture's pixels are copied to the GPU, and a few hundred numbers are copied back. The kernel runs on the engine's stream, and is
part of the slot's CUDA graph.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from itertools import accumulate

import numpy as np

from impasto.errors import BackendError, KernelError
from impasto.kernels import launch
from impasto.kernels.feature_map import FeatureMap
from impasto.runtime.backends.base import TensorSpec
from impasto.runtime.cuda import Device, DeviceBlock, HostBuffer, Stream
from impasto.runtime.style_distances import StyleDistances, relative_scale

from .engine import TensorRTBackend
from .slot import OutputBinding, TensorRTSlot

_DTYPES = {"float32": "f32", "float16": "f16"}
"""The Gram kernel's dtype for each type of feature maps. Sums are float32 in both."""

_FLOAT32 = np.dtype(np.float32)


class DeviceDistances(StyleDistances):
    """Compares pictures with one painting's Gram matrices, on the GPU of a perceptual engine."""

    def __init__(self, backend: TensorRTBackend, painting: np.ndarray) -> None:
        """painting: uint8 (1, H, W, 3), of a size that the engine takes. Raises ShapeError, BackendError, KernelError."""
        self._backend = backend
        self._last: FeatureSlot | None = None
        output = GramOutput()
        feature_slot = FeatureSlot(backend, painting.shape, output)
        try:
            scales = [relative_scale(gram) for gram in feature_slot.run(painting)]
            block = feature_slot.slot.keep(output.grams)
            self._targets = Targets(feature_slot.slot.device, block, output.sizes, scales)
        finally:
            feature_slot.slot.close()

    def of(self, picture: np.ndarray) -> list[float]:
        parts = self._slot_for(picture.shape).run(picture)
        return [float(part.sum(dtype=np.float64)) for part in parts]

    def close(self) -> None:
        self._close_slot()
        self._targets.free()

    def _slot_for(self, shape: tuple[int, ...]) -> FeatureSlot:
        """The last picture's slot if the size is the same, as in a video; otherwise a new slot."""
        if self._last is not None and (self._last.slot.broken or self._last.slot.images[0].shape != shape):
            self._close_slot()
        if self._last is None:
            self._last = FeatureSlot(self._backend, shape, DistanceOutput(self._targets))
        return self._last

    def _close_slot(self) -> None:
        if self._last is not None:
            self._last.slot.close()
            self._last = None


class FeatureSlot:
    """A slot of a perceptual engine, which gives the kernel's results for each layer."""

    def __init__(self, backend: TensorRTBackend, shape: tuple[int, ...], output: FeatureOutput) -> None:
        """shape: of the pictures, (1, H, W, 3). Raises ShapeError, BackendError, KernelError."""
        self._output = output
        self.slot = backend.bound_slot((shape,), output)
        """The caller closes it."""

    def run(self, picture: np.ndarray) -> list[np.ndarray]:
        """The results of each layer, float32, valid until the next run. picture: uint8 (1, H, W, 3) of the slot's size."""
        self.slot.images[0][...] = picture
        self.slot.start()
        self.slot.wait()
        sizes = self._output.sizes
        return [self.slot.result[start : start + size] for start, size in zip(_starts(sizes), sizes, strict=True)]


class Targets:
    """A painting's Gram matrices in one block of device memory, one after the other."""

    def __init__(self, device: Device, block: DeviceBlock, sizes: Sequence[int], scales: Sequence[float]) -> None:
        """block: holds the matrices; `free` gives it back. sizes: number of values of each matrix. scales: of `relative_scale`."""
        self._device = device
        self._block: DeviceBlock | None = block
        self.pointers = [block.pointer + offset for offset in _offsets(sizes)]
        self.scales = scales

    def free(self) -> None:
        """Give the memory back. No slot may use it any more. Freeing twice does nothing."""
        if self._block is not None:
            self._device.give_back(self._block)
            self._block = None


class FeatureOutput(OutputBinding):
    """Leaves outputs in device memory, where the Gram kernel reads them. The result is the kernel's."""

    sizes: tuple[int, ...]
    """Number of result values of each layer. Layers lie one after the other."""

    def bind(self, slot: TensorRTSlot) -> HostBuffer:
        """Give each output device memory, and the result pinned memory. Raises BackendError, KernelError."""
        self._dtype = _dtype(slot.outputs)
        self._layers = self._kernel_layers(slot, [_feature_map(slot, spec) for spec in slot.outputs])
        needed = launch.workspace_bytes(self._layers, self._dtype)
        self._workspace = slot.take(needed + _FLOAT32.itemsize)
        self._loss = self._workspace.pointer + needed
        self.sizes = self._result_sizes()
        self._host = slot.pin((sum(self.sizes),), _FLOAT32)
        return self._host

    def compute(self, stream: Stream) -> None:
        """Begin the Gram kernel. Raises BackendError."""
        try:
            launch.forward(self._layers, self._dtype, self._workspace.pointer, self._loss, stream.handle)
        except KernelError as error:
            raise BackendError(f"the Gram kernel failed: {error}") from error

    def download(self, stream: Stream) -> None:
        """Begin the copy of the result, also on an integrated GPU: the kernel's results are in device memory."""
        stream.download(self._host, *self._result_place())

    @abstractmethod
    def _kernel_layers(self, slot: TensorRTSlot, maps: list[FeatureMap]) -> list[launch.Layer]:
        """The kernel's task for each layer's feature maps."""

    @abstractmethod
    def _result_sizes(self) -> tuple[int, ...]: ...

    @abstractmethod
    def _result_place(self) -> tuple[DeviceBlock, int]:
        """Where the kernel writes the result: a block and an offset in bytes."""


class GramOutput(FeatureOutput):
    """Computes the Gram matrices of a picture."""

    grams: DeviceBlock
    """The matrices in device memory, one layer after the other."""

    def _kernel_layers(self, slot: TensorRTSlot, maps: list[FeatureMap]) -> list[launch.Layer]:
        self._squares = tuple(features.shape[1] ** 2 for features in maps)
        self.grams = slot.take(sum(self._squares) * _FLOAT32.itemsize)
        offsets = _offsets(self._squares)
        return [
            launch.Layer(features, gram=self.grams.pointer + offset)
            for features, offset in zip(maps, offsets, strict=True)
        ]

    def _result_sizes(self) -> tuple[int, ...]:
        return self._squares

    def _result_place(self) -> tuple[DeviceBlock, int]:
        return self.grams, 0


class DistanceOutput(FeatureOutput):
    """Computes the distances of a picture's Gram matrices from a painting's: the addends of the kernel's loss."""

    def __init__(self, targets: Targets) -> None:
        """targets: the caller frees them after the slot is closed."""
        self._targets = targets

    def _kernel_layers(self, slot: TensorRTSlot, maps: list[FeatureMap]) -> list[launch.Layer]:
        targets = zip(maps, self._targets.pointers, self._targets.scales, strict=True)
        return [launch.Layer(features, target=target, weight=scale) for features, target, scale in targets]

    def _result_sizes(self) -> tuple[int, ...]:
        self._offset, sizes = launch.loss_parts(self._layers, self._dtype)
        return sizes

    def _result_place(self) -> tuple[DeviceBlock, int]:
        return self._workspace, self._offset


def _feature_map(slot: TensorRTSlot, spec: TensorSpec) -> FeatureMap:
    """Give an output device memory."""
    N, C, H, W = slot.output_shape(spec)
    block = slot.take(N * C * H * W * spec.dtype.itemsize)
    slot.set_address(spec, block.pointer)
    return FeatureMap(block.pointer, (N, C, H, W), (C * H * W, H * W, W, 1))


def _dtype(outputs: tuple[TensorSpec, ...]) -> str:
    """The Gram kernel's dtype for these feature maps, such as "f16". Raises BackendError if the kernel cannot compare them."""
    types = sorted({spec.dtype.name for spec in outputs})
    if len(types) > 1 or types[0] not in _DTYPES or len(outputs) > launch.MAX_LAYERS:
        raise BackendError(
            f"this engine gives {len(outputs)} feature maps of {' and '.join(types)}; the Gram kernel compares up to "
            f"{launch.MAX_LAYERS}, all float32 or all float16"
        )
    return _DTYPES[types[0]]


def _starts(sizes: Sequence[int]) -> list[int]:
    """The start of each run of values, if runs of these lengths follow one another."""
    return [0, *accumulate(sizes)][:-1]


def _offsets(sizes: Sequence[int]) -> list[int]:
    """The start of each run of float32 values, in bytes."""
    return [start * _FLOAT32.itemsize for start in _starts(sizes)]
