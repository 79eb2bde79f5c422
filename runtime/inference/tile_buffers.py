"""The buffers for pictures of one size, and the steps of a run in them: pad, compute each tile, crop."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from impasto.runtime.backends.base import Backend
from impasto.runtime.host_copies import copy_into

from .padding import reflect_into
from .tile_plan import TilePlan


class TileBuffers:
    """The arrays that one `TilePlan` needs. Not thread-safe."""

    def __init__(self, plan: TilePlan, dtype: np.dtype) -> None:
        """dtype: of the graph's pictures, uint8 or float32."""
        self.plan = plan
        self._dtype = dtype
        if plan.padded:
            self._padded = np.empty((*plan.padded_size, 3), dtype)
            self._result = np.empty(plan.result_shape(plan.padded_size), dtype)
        if plan.tiled:
            self._tile = np.empty((*plan.window, 3), dtype)
            self._tile_result = np.empty(plan.result_shape(plan.window), dtype)

    @property
    def nbytes(self) -> int:
        """Size of all arrays, in bytes."""
        return sum(value.nbytes for value in vars(self).values() if isinstance(value, np.ndarray))

    def run(self, backend: Backend, image: np.ndarray, out: np.ndarray, extra: tuple[np.ndarray, ...]) -> None:
        """Pad the picture, compute it, and crop the result into `out`.

        image: (H, W, 3) of the plan's size and the buffers' dtype. out: (H x scale, W x scale, 3), the same dtype, C-contiguous.
        extra: the graph's inputs after the picture. Raises what `Backend.run` raises.
        """
        if not self.plan.padded:
            self._run_pieces(backend, np.ascontiguousarray(image), out, extra)
            return
        pad_into(self._padded, image, self.plan)
        self._run_pieces(backend, self._padded, self._result, extra)
        copy_into(out, self._result[self.plan.crop])

    def computation(
        self, backend: Backend, image: np.ndarray, out: np.ndarray, extra: tuple[np.ndarray, ...], *, batch: int = 1
    ) -> Callable[[], None]:
        """A function that repeats the graph's work of the last `run`, once for each tile, on the data that is still in the buffers.

        batch: how many copies of the tile one run of the backend takes.
        """
        if self.plan.tiled:
            image, out = self._tile, self._tile_result
        elif self.plan.padded:
            image, out = self._padded, self._result
        inputs = (image[None], *extra)
        if batch > 1:
            inputs = tuple(array.repeat(batch, 0) for array in inputs)
        once = backend.computation(inputs, out[None] if batch == 1 else np.empty((batch, *out.shape), self._dtype))

        def compute() -> None:
            for _ in range(len(self.plan.tiles) or 1):
                once()

        return compute

    def _run_pieces(self, backend: Backend, image: np.ndarray, out: np.ndarray, extra: tuple[np.ndarray, ...]) -> None:
        plan = self.plan
        if not plan.tiled:
            backend.run((image[None], *extra), out[None])
            return
        height, width = plan.window
        for row, column in plan.tiles:
            self._tile[...] = image[row.start : row.start + height, column.start : column.start + width]
            backend.run((self._tile[None], *extra), self._tile_result[None])
            kept = row.length, column.length
            top, left = row.keep_from - row.start, column.keep_from - column.start
            out[plan.scaled(row.keep_from, column.keep_from, *kept)] = self._tile_result[plan.scaled(top, left, *kept)]


def pad_into(padded: np.ndarray, image: np.ndarray, plan: TilePlan) -> None:
    """Write the picture and its border into `padded`, (*plan.padded_size, 3). image: (*plan.size, 3) of the same dtype."""
    if plan.padded:
        reflect_into(padded, image, plan.border, plan.border)
    else:
        copy_into(padded, image)
