"""The Gram kernel in NumPy, on the memory of `fake_gpu`: reads the parameters that gram.cu gets, and writes what it writes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from impasto.errors import KernelError
from impasto.kernels.plan import FINISH_BLOCK, FINISH_STRIPS


class FakeModule:
    """Stands in for `Module` of kernels/module.py. driver: where the `memory` is."""

    shared_bytes = 0
    use_wgmma = False

    def __init__(self, driver: Any) -> None:
        self._driver = driver
        self.launches: list[str] = []
        self.fail_next = False

    def resident_blocks(self, name: str) -> int:
        assert self._driver.stack, "the kernel was asked for without an active context"
        return 264

    def launch(
        self, name: str, blocks: int, threads: int, shared_bytes: int, parameters: Sequence[Any], stream: int
    ) -> None:
        assert self._driver.stack, "a launch without an active context"
        assert stream == 7, "not the stream of the engine"
        self.launches.append(name)
        if self.fail_next:
            self.fail_next = False
            raise KernelError("cuLaunchKernel failed with error 719: unspecified launch failure.")
        self.compute(name, blocks, parameters[0])

    def compute(self, name: str, blocks: int, group: Any) -> None:
        """What one kernel does. group: the parameters, `_Group` of kernels/launch.py."""
        if name == "gram_finish":
            self._finish(group, blocks)
        else:
            assert name == "gram_forward_f32_nchw"
            partial = min(layer.partial for layer in group.layer[: group.layers])
            # Whatever nobody writes is poison.
            self._driver.memory(partial, group.ticket + 4 - partial)[:] = 0xFF

    def _finish(self, group: Any, blocks: int) -> None:
        parts = self._floats(group.loss_part, blocks)
        done = 0
        for layer in group.layer[: group.layers]:
            assert (layer.N, layer.first_finish) == (1, done)
            gram = self._gram(layer)
            if layer.gram:
                self._floats(layer.gram, layer.C**2)[:] = gram.reshape(-1)
            squared = np.zeros_like(gram)
            if layer.target:
                squared = (gram - self._floats(layer.target, layer.C**2).reshape(gram.shape)) ** 2
            for row in range(0, layer.C, FINISH_BLOCK):
                for column in range(row, layer.C, FINISH_BLOCK):
                    square = squared[row : row + FINISH_BLOCK, column : column + FINISH_BLOCK].sum()
                    # As if its strips had equal shares: nobody looks at fewer than a layer's.
                    parts[done : done + FINISH_STRIPS] = (
                        layer.loss_scale * square * (1 if row == column else 2) / FINISH_STRIPS
                    )
                    done += FINISH_STRIPS
        assert done == blocks
        self._floats(group.loss, 1)[:] = parts.sum()

    def _gram(self, layer: Any) -> np.ndarray:
        image, channel, row, column = layer.feature_stride
        height = layer.pixels // layer.width
        assert (image, channel, row, column) == (layer.C * layer.pixels, layer.pixels, layer.width, 1)
        pixels = self._floats(layer.features, layer.C * height * layer.width).reshape(layer.C, -1)
        return pixels @ pixels.T / pixels.size

    def _floats(self, pointer: int, count: int) -> np.ndarray:
        return self._driver.memory(pointer, 4 * count).view(np.float32)
