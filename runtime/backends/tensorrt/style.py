"""Style on the GPU: feature maps stay where a TensorRT engine leaves them, and the Gram kernel compares them with a painting's.

A picture's pixels go to the GPU, and a few hundred numbers come back. The kernel is launched on the engine's own stream, and
becomes part of the slot's CUDA graph.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from functools import partial
from itertools import accumulate
from typing import Any

import numpy as np

from impasto.errors import BackendError, KernelError
from impasto.kernels import launch
from impasto.runtime.backends.base import TensorSpec
from impasto.runtime.cuda import Device, DeviceBlock, HostBuffer
from impasto.runtime.style_meter import Judge, relative_scale

from .engine import TensorRTBackend, TensorRTSlot

_FLAVOURS = {"float32": "f32", "float16": "f16"}
"""The Gram kernel's flavour by the type of the feature maps; sums are float32 in each."""

_FLOAT32 = np.dtype(np.float32)


class DeviceJudge(Judge):
    """A perceptual engine and a painting's Gram matrices on one GPU."""

    def __init__(self, graph: TensorRTBackend, painting: np.ndarray) -> None:
        """painting: uint8 (1, H, W, 3), of a size that the engine takes. Raises ShapeError, BackendError, KernelError."""
        self._graph = graph
        self._slot: DistanceSlot | None = None
        slot = graph.slot_of(GramSlot, (painting.shape,))
        try:
            scales = [relative_scale(gram) for gram in slot.run(painting)]
            self._targets = Targets(slot.device, slot.keep_grams(), slot.sizes, scales)
        finally:
            slot.close()

    def distances(self, picture: np.ndarray) -> list[float]:
        parts = self._slot_for(picture.shape).run(picture)
        return [float(part.sum(dtype=np.float64)) for part in parts]

    def close(self) -> None:
        if self._slot is not None:
            self._slot.close()
            self._slot = None
        self._targets.free()

    def _slot_for(self, shape: tuple[int, ...]) -> DistanceSlot:
        """The last picture's slot where that was of this size, as a video's are; a new one otherwise."""
        if self._slot is not None and (self._slot.broken or self._slot.images[0].shape != shape):
            self._slot.close()
            self._slot = None
        if self._slot is None:
            self._slot = self._graph.slot_of(partial(DistanceSlot, self._targets), (shape,))
        return self._slot


class Targets:
    """A painting's Gram matrices on the GPU, one behind another."""

    def __init__(self, device: Device, block: DeviceBlock, sizes: Sequence[int], scales: Sequence[float]) -> None:
        """block: device memory that holds the matrices; `free` gives it back. sizes: their values. scales: `relative_scale`."""
        self._device = device
        self._block: DeviceBlock | None = block
        self.pointers = [block.pointer + offset for offset in _offsets(sizes)]
        self.scales = scales

    def free(self) -> None:
        """Give the memory back; no slot may use it any more. Freeing twice does nothing."""
        if self._block is not None:
            self._device.give_back(self._block)
            self._block = None


class FeatureSlot(TensorRTSlot):
    """A slot whose outputs stay on the GPU, where the Gram kernel reads them; `result` is what the kernel makes of them."""

    sizes: tuple[int, ...]
    """Values of `result` for each layer, one layer's behind another's."""

    def run(self, picture: np.ndarray) -> list[np.ndarray]:
        """Each layer's part of `result`, valid until the next run. picture: uint8 (1, H, W, 3) of the slot's size."""
        self.images[0][...] = picture
        self.start()
        self.wait()
        return [self.result[start : start + size] for start, size in zip(_starts(self.sizes), self.sizes, strict=True)]

    @property
    def device(self) -> Device:
        return self._device

    def compute(self, stream: Any = None) -> None:
        """Begin the engine and the kernel, without copies. The device is active. Raises BackendError."""
        super().compute(stream)
        handle = (stream or self._stream).handle
        try:
            launch.forward(self._layers, self._flavour, self._workspace.pointer, self._loss, handle)
        except KernelError as error:
            raise BackendError(f"the Gram kernel failed: {error}") from error

    def download(self) -> None:
        """Begin the copy from the GPU, also where it shares the CPU's memory: the kernel's results lie in its own."""
        self._stream.download(self._hosts[-1], *self._made())

    def _attach_outputs(self) -> None:
        self._flavour = _flavour(self._outputs)
        self._layers = self._arranged([self._attach_features(spec) for spec in self._outputs])
        needed = launch.workspace_bytes(self._layers, self._flavour)
        self._workspace = self._take(needed + _FLOAT32.itemsize)
        self._loss = self._workspace.pointer + needed
        self.sizes = self._result_sizes()
        self._hosts.append(HostBuffer(self._device, (sum(self.sizes),), _FLOAT32))

    @abstractmethod
    def _arranged(self, maps: list[launch.FeatureMap]) -> list[launch.Layer]:
        """What the kernel is to do with each layer's feature maps."""

    @abstractmethod
    def _result_sizes(self) -> tuple[int, ...]: ...

    @abstractmethod
    def _made(self) -> tuple[DeviceBlock, int]:
        """Where the kernel leaves the result: a block and an offset in bytes."""

    def _attach_features(self, spec: TensorSpec) -> launch.FeatureMap:
        """Give an output its memory, on the GPU alone."""
        N, C, H, W = self._output_shape(spec)
        block = self._take(N * C * H * W * spec.dtype.itemsize)
        self._set_address(spec, block.pointer)
        return launch.FeatureMap(block.pointer, (N, C, H, W), (C * H * W, H * W, W, 1))

    def _take(self, nbytes: int) -> DeviceBlock:
        """Device memory that `close` gives back."""
        block = self._device.take(nbytes)
        self._blocks.append(block)
        return block


class GramSlot(FeatureSlot):
    """To the Gram matrices of a picture."""

    def keep_grams(self) -> DeviceBlock:
        """The matrices on the GPU, the caller's from now on; the slot may only be closed afterwards."""
        self._blocks.remove(self._grams)
        return self._grams

    def _arranged(self, maps: list[launch.FeatureMap]) -> list[launch.Layer]:
        self._squares = tuple(features.shape[1] ** 2 for features in maps)
        self._grams = self._take(sum(self._squares) * _FLOAT32.itemsize)
        offsets = _offsets(self._squares)
        return [
            launch.Layer(features, gram=self._grams.pointer + offset)
            for features, offset in zip(maps, offsets, strict=True)
        ]

    def _result_sizes(self) -> tuple[int, ...]:
        return self._squares

    def _made(self) -> tuple[DeviceBlock, int]:
        return self._grams, 0


class DistanceSlot(FeatureSlot):
    """To the distances of a picture's Gram matrices from a painting's: what the kernel adds its loss up from."""

    def __init__(self, targets: Targets, *arguments: Any) -> None:
        """targets: outlive the slot. arguments: TensorRTSlot's. Raises BackendError, KernelError."""
        self._targets = targets
        super().__init__(*arguments)

    def _arranged(self, maps: list[launch.FeatureMap]) -> list[launch.Layer]:
        targets = zip(maps, self._targets.pointers, self._targets.scales, strict=True)
        return [launch.Layer(features, target=target, weight=scale) for features, target, scale in targets]

    def _result_sizes(self) -> tuple[int, ...]:
        self._offset, sizes = launch.loss_parts(self._layers, self._flavour)
        return sizes

    def _made(self) -> tuple[DeviceBlock, int]:
        return self._workspace, self._offset


def _flavour(outputs: tuple[TensorSpec, ...]) -> str:
    """The Gram kernel's flavour for these feature maps. Raises BackendError where it has none for all of them."""
    types = sorted({spec.dtype.name for spec in outputs})
    if len(types) > 1 or types[0] not in _FLAVOURS or len(outputs) > launch.MAX_LAYERS:
        raise BackendError(
            f"this engine gives {len(outputs)} feature maps of {' and '.join(types)}; the Gram kernel compares up to "
            f"{launch.MAX_LAYERS}, all float32 or all float16"
        )
    return _FLAVOURS[types[0]]


def _starts(sizes: Sequence[int]) -> list[int]:
    """Where runs of these lengths begin that follow one another."""
    return [0, *accumulate(sizes)][:-1]


def _offsets(sizes: Sequence[int]) -> list[int]:
    """The same in bytes of float32."""
    return [start * _FLOAT32.itemsize for start in _starts(sizes)]
