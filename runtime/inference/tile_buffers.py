"""From a picture of any size to what a graph runs on, and back: reflected border, tiles, crop, and the buffers for them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from impasto.package.spec import ModelSpec
from impasto.runtime.backends import Backend
from impasto.runtime.backends.base import SizeLimits

from .padding import reflect_into
from .tile_plan import Span, spans

TILE = 1024
"""Side of a tile's window, in pixels; bounds the memory that a network takes for large pictures."""

WHOLE_PIXELS = 1920 * 1280
"""A padded picture of at most this many pixels runs in one piece."""


class WorkArea:
    """The buffers and the tiles for one picture size."""

    def __init__(
        self, spec: ModelSpec, limits: SizeLimits | None, height: int, width: int, buffers: bool = True
    ) -> None:
        """limits: as `size_limits` gives them. buffers: whether to allocate; without, only `pad_into` and `crop` work,
        on memory of the caller's. Raises ShapeError for a picture that the limits neither hold nor can be cut for.
        """
        self._border = spec.border
        self._scale = spec.scale
        rule = replace(spec.size, fixed=None)  # one size alone is a limit, of what a window holds
        self._padded_size = rule.padded(height + 2 * spec.border, width + 2 * spec.border)
        self._crop = self._scaled(spec.border, spec.border, height, width)
        self._tiles: list[tuple[Span, Span]] = []
        self._window = self._padded_size
        if limits:
            self._fit(limits, spec, height, width)
        elif self._padded_size[0] * self._padded_size[1] > WHOLE_PIXELS and spec.receptive_field is not None:
            overlap = spec.size.round_up(spec.receptive_field)
            # A window that is mostly overlap would compute everything several times.
            side = spec.size.round_up(max(TILE, 4 * overlap))
            self._plan_tiles((min(side, self._padded_size[0]), min(side, self._padded_size[1])), overlap)
        self._direct = self._padded_size == (height, width)
        if not buffers:
            return
        if not self._direct:
            self._padded = np.empty((*self._padded_size, 3), np.uint8)
            self._result = np.empty(self._scaled_shape(self._padded_size), np.uint8)
        if self._tiles:
            self._tile = np.empty((*self._window, 3), np.uint8)
            self._tile_result = np.empty(self._scaled_shape(self._window), np.uint8)

    @property
    def padded_size(self) -> tuple[int, int]:
        return self._padded_size

    @property
    def nbytes(self) -> int:
        """What the buffers take."""
        return sum(value.nbytes for value in vars(self).values() if isinstance(value, np.ndarray))

    @property
    def tiled(self) -> bool:
        return bool(self._tiles)

    def pad_into(self, padded: np.ndarray, image: np.ndarray) -> None:
        """Write what the network sees of the picture: uint8 (*padded_size, 3)."""
        if self._direct:
            padded[...] = image
        else:
            reflect_into(padded, image, self._border, self._border)

    def crop(self, result: np.ndarray) -> np.ndarray:
        """The picture's own part of the network's result, as a view."""
        return result[self._crop]

    def run(self, graph: Backend, image: np.ndarray, out: np.ndarray, extra: tuple[np.ndarray, ...]) -> None:
        """Pad, compute, crop into `out`."""
        if self._direct:
            image = np.ascontiguousarray(image)
        else:
            reflect_into(self._padded, image, self._border, self._border)
        if self._direct:
            self._run_pieces(graph, image, out, extra)
            return
        self._run_pieces(graph, self._padded, self._result, extra)
        out[...] = self._result[self._crop]

    def computation(
        self, graph: Backend, image: np.ndarray, out: np.ndarray, extra: tuple[np.ndarray, ...], *, batch: int = 1
    ) -> Callable[[], None]:
        """A function that repeats the graph's work of the `run` before, on what that has left in the buffers: as often as there are
        tiles. batch: how many copies it works on at once."""
        if self._tiles:
            image, out = self._tile, self._tile_result
        elif not self._direct:
            image, out = self._padded, self._result
        inputs = (
            tuple(array.repeat(batch, 0) for array in (image[None], *extra)) if batch > 1 else (image[None], *extra)
        )
        once = graph.computation(inputs, out[None] if batch == 1 else np.empty((batch, *out.shape), np.uint8))

        def compute() -> None:
            for _ in range(len(self._tiles) or 1):
                once()

        return compute

    def _run_pieces(self, graph: Backend, image: np.ndarray, out: np.ndarray, extra: tuple[np.ndarray, ...]) -> None:
        if not self._tiles:
            graph.run((image[None], *extra), out[None])
            return
        height, width = self._window
        for row, column in self._tiles:
            self._tile[...] = image[row.start : row.start + height, column.start : column.start + width]
            graph.run((self._tile[None], *extra), self._tile_result[None])
            kept = self._tile_result[
                self._scaled(row.keep_from - row.start, column.keep_from - column.start, *_kept(row, column))
            ]
            out[self._scaled(row.keep_from, column.keep_from, *_kept(row, column))] = kept

    def _fit(self, limits: SizeLimits, spec: ModelSpec, height: int, width: int) -> None:
        """Pad up to what the engine takes, or cut into windows of its largest size."""
        whole = limits.whole(*self._padded_size)
        if whole:
            self._padded_size = self._window = whole
            return
        if spec.receptive_field is None:
            raise limits.refusal(height, width, "this network cannot be cut into tiles")
        overlap = spec.size.round_up(spec.receptive_field)
        window = limits.window(*self._padded_size)
        padded = (max(self._padded_size[0], window[0]), max(self._padded_size[1], window[1]))
        # At least a quarter of a window must be new, or everything is computed again and again.
        if any(all_ > side and side < 2.5 * overlap for all_, side in zip(padded, window, strict=True)):
            raise limits.refusal(height, width, f"tiles of that size are mostly their overlap of {overlap}")
        self._padded_size = padded
        self._plan_tiles(window, overlap)

    def _plan_tiles(self, window: tuple[int, int], overlap: int) -> None:
        height, width = self._padded_size
        self._window = window
        self._tiles = [
            (row, column)
            for row in spans(height, self._window[0], overlap)
            for column in spans(width, self._window[1], overlap)
        ]

    def _scaled(self, top: int, left: int, height: int, width: int) -> tuple[slice, slice]:
        s = self._scale
        return slice(top * s, (top + height) * s), slice(left * s, (left + width) * s)

    def _scaled_shape(self, size: tuple[int, int]) -> tuple[int, int, int]:
        return size[0] * self._scale, size[1] * self._scale, 3


def _kept(row: Span, column: Span) -> tuple[int, int]:
    return row.keep_to - row.keep_from, column.keep_to - column.keep_from


def size_limits(spec: ModelSpec, graph: Backend) -> SizeLimits | None:
    """The engine's, or those of a graph that was exported for one size; None where any size will do."""
    fixed = spec.size.fixed
    return graph.limits or (SizeLimits(((fixed, fixed),), None) if fixed else None)


def tiling_text(spec: ModelSpec, limits: SizeLimits | None) -> str:
    """When a model is tiled, in words."""
    if spec.receptive_field is None:
        return "never: the network looks at the whole picture, or its receptive field is unknown"
    if limits:
        held = " or ".join(f"{high[0]} x {high[1]}" for _, high in limits.ranges)
        return f"pictures that with their border exceed {held}, in windows of that size overlapping by {spec.receptive_field}"
    return f"above {WHOLE_PIXELS:,} pixels, windows of {TILE} or more overlapping by {spec.receptive_field}"
