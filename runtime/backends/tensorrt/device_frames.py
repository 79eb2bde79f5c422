"""An engine's run on pictures that are on the GPU already and stay there."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np

from impasto.errors import ShapeError
from impasto.runtime.backends.base import DeviceFrames
from impasto.runtime.cuda import DeviceBlock, Stream

from .slot import OutputBinding, TensorRTSlot


class DeviceOutput(OutputBinding):
    """For an engine with one output, which stays in device memory."""

    keeps_pictures = True
    block: DeviceBlock

    def bind(self, slot: TensorRTSlot) -> None:
        """Give the output device memory."""
        (picture,) = slot.outputs
        self.shape = slot.output_shape(picture)
        self.block = slot.take(prod(self.shape) * picture.dtype.itemsize)
        slot.set_address(picture, self.block.pointer)

    def download(self, stream: Stream) -> None:
        """Copy nothing."""


class TensorRTFrames(DeviceFrames):
    """A slot whose picture and result are other work's of the same stream."""

    def __init__(self, slot: TensorRTSlot, output: DeviceOutput, result: tuple[int, ...]) -> None:
        """slot: of that output; `close` closes it. result: the shape that the caller expects. Raises ShapeError."""
        if output.shape != result:
            slot.close()
            raise ShapeError(f"this engine gives {output.shape} for such a picture; {result} was expected")
        self._slot = slot
        self.stream = slot.stream.handle
        self.window, self.result = slot.picture.pointer, output.block.pointer

    def begin(self, extra: Sequence[np.ndarray], source: int = 0, target: int = 0) -> None:
        for host, values in zip(self._slot.images, extra, strict=True):
            if not np.array_equal(host, values):
                self._slot.wait()  # the last run may still read it
                host[...] = values
        if not source and not target:
            self._slot.start()
            return
        with self._slot.device.active():
            try:
                self._point_to(source or self.window, target or self.result)
                self._slot.upload()
                self._slot.compute()  # the addresses change from call to call, so no CUDA graph holds them
            finally:
                self._point_to(self.window, self.result)

    def wait(self) -> None:
        self._slot.wait()

    def close(self) -> None:
        self._slot.close()

    def _point_to(self, source: int, target: int) -> None:
        self._slot.set_address(self._slot.inputs[0], source)
        self._slot.set_address(self._slot.outputs[0], target)
