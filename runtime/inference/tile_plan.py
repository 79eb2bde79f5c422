"""How a picture of one size is padded and cut into overlapping windows, so that the results join exactly."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from impasto.package.spec import ModelSpec
from impasto.runtime.backends.base import Backend, SizeLimits

TILE = 1024
"""Side of a window, in pixels. It bounds the memory that a network takes for large pictures."""

WHOLE_PIXELS = 1920 * 1280
"""A padded picture of at most this many pixels runs in one piece."""

Size = tuple[int, int]
"""Height and width, in pixels."""


@dataclass(frozen=True)
class Span:
    """One window along one axis."""

    start: int
    """Where the window begins in the padded picture."""
    keep_from: int
    """First position, in the padded picture, whose result is taken from this window."""
    keep_to: int
    """One past the last such position."""

    @property
    def length(self) -> int:
        """Positions whose result is taken from this window."""
        return self.keep_to - self.keep_from


@dataclass(frozen=True)
class TilePlan:
    """The geometry for pictures of one size. It holds no memory; `TileBuffers` does."""

    size: Size
    """The picture's own."""
    border: int
    """Pixels of reflection above and left of the picture; below and right there may be more."""
    scale: int
    """Side of the result divided by the side of the picture."""
    padded_size: Size
    """What the network sees, unless it is cut into tiles."""
    window: Size
    """What one run of the backend takes: a tile, or the whole padded picture."""
    tiles: tuple[tuple[Span, Span], ...] = ()
    """Rows and columns of each tile. Empty: the padded picture runs in one piece."""

    @property
    def tiled(self) -> bool:
        """Whether the picture is cut."""
        return bool(self.tiles)

    @property
    def padded(self) -> bool:
        """Whether the network sees more than the picture itself."""
        return self.padded_size != self.size

    @property
    def crop(self) -> tuple[slice, slice]:
        """The picture's own part of the result: rows and columns."""
        return self.scaled(self.border, self.border, *self.size)

    def scaled(self, top: int, left: int, height: int, width: int) -> tuple[slice, slice]:
        """Rows and columns of the result that belong to this rectangle of the padded picture."""
        s = self.scale
        return slice(top * s, (top + height) * s), slice(left * s, (left + width) * s)

    def result_shape(self, size: Size) -> tuple[int, int, int]:
        """(H, W, 3) of the result for an input of this size."""
        return size[0] * self.scale, size[1] * self.scale, 3


def plan_tiles(spec: ModelSpec, limits: SizeLimits | None, height: int, width: int) -> TilePlan:
    """The plan for pictures of height x width.

    limits: what `size_limits` gives. Raises ShapeError if a picture exceeds the limits and cannot be cut.
    """
    rule = replace(spec.size, fixed=None)  # a fixed size is one of the limits
    padded = rule.padded(height + 2 * spec.border, width + 2 * spec.border)
    plan = TilePlan((height, width), spec.border, spec.scale, padded, padded)
    if limits:
        return _within(plan, limits, spec)
    if padded[0] * padded[1] <= WHOLE_PIXELS or spec.receptive_field is None:
        return plan
    overlap = spec.size.round_up(spec.receptive_field)
    # In a small window most pixels belong to the overlap and are computed several times.
    side = spec.size.round_up(max(TILE, 4 * overlap))
    return _cut(plan, (min(side, padded[0]), min(side, padded[1])), overlap)


def size_limits(spec: ModelSpec, backend: Backend) -> SizeLimits | None:
    """The sizes that the backend takes: an engine's profiles or a graph's fixed size. None: any size."""
    fixed = spec.size.fixed
    return backend.limits or (SizeLimits(((fixed, fixed),), None) if fixed else None)


def tiling_text(spec: ModelSpec, limits: SizeLimits | None) -> str:
    """Which pictures are cut into tiles, in words."""
    if spec.receptive_field is None:
        return "never: the network looks at the whole picture, or its receptive field is unknown"
    if limits:
        held = " or ".join(f"{high[0]} x {high[1]}" for _, high in limits.ranges)
        return f"pictures that with their border exceed {held}, in windows of that size overlapping by {spec.receptive_field}"
    return f"above {WHOLE_PIXELS:,} pixels, windows of {TILE} or more overlapping by {spec.receptive_field}"


def spans(length: int, window: int, overlap: int) -> list[Span]:
    """Windows of `window` positions that cover `length`. Neighbours share at least 2 x `overlap` positions.

    A kept position is at least `overlap` away from a window's end, unless that end is the picture's own. If `overlap` is at
    least the receptive field's radius, the position therefore sees exactly what it sees in the whole picture.
    Raises ValueError if the window is not larger than both overlaps.
    """
    if window >= length:
        return [Span(0, 0, length)]
    step = window - 2 * overlap
    if step < 1:
        raise ValueError(f"a window of {window} with an overlap of {overlap} on each side never moves on")
    result = []
    kept = 0
    for start in _starts(length, window, step):
        keep_to = length if start + window == length else start + window - overlap
        result.append(Span(start, kept, keep_to))
        kept = keep_to
    return result


def _starts(length: int, window: int, step: int) -> Iterator[int]:
    start = 0
    while start + window < length:
        yield start
        start += step
    yield length - window


def _within(plan: TilePlan, limits: SizeLimits, spec: ModelSpec) -> TilePlan:
    """The plan with the picture padded to a size that the limits allow, or cut into windows of the largest such size."""
    whole = limits.whole(*plan.padded_size)
    if whole:
        return replace(plan, padded_size=whole, window=whole)
    if spec.receptive_field is None:
        raise limits.refusal(*plan.size, "this network cannot be cut into tiles")
    overlap = spec.size.round_up(spec.receptive_field)
    window = limits.window(*plan.padded_size)
    padded = (max(plan.padded_size[0], window[0]), max(plan.padded_size[1], window[1]))
    # At least a quarter of a window must be new, or everything is computed again and again.
    if any(all_ > side and side < 2.5 * overlap for all_, side in zip(padded, window, strict=True)):
        raise limits.refusal(*plan.size, f"tiles of that size are mostly their overlap of {overlap}")
    return _cut(replace(plan, padded_size=padded), window, overlap)


def _cut(plan: TilePlan, window: Size, overlap: int) -> TilePlan:
    height, width = plan.padded_size
    columns = spans(width, window[1], overlap)
    tiles = tuple((row, column) for row in spans(height, window[0], overlap) for column in columns)
    return replace(plan, window=window, tiles=tiles)
