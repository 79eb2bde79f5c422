"""Plans how a picture of one size is padded and cut into overlapping tiles, so that the results join exactly."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from impasto.package.spec import ModelSpec
from impasto.runtime.backends.base import Backend, SizeLimits

TILE = 1024
"""Side of a tile, in pixels. It bounds the memory that a network needs for large pictures."""

WHOLE_PIXELS = 1920 * 1280
"""A padded picture with at most this many pixels is not cut."""

Size = tuple[int, int]
"""Height and width, in pixels."""


@dataclass(frozen=True)
class Span:
    """One tile along one axis."""

    start: int
    """The tile's first position in the padded picture."""
    keep_from: int
    """First position, in the padded picture, whose result comes from this tile."""
    keep_to: int
    """One past the last position whose result comes from this tile."""

    @property
    def length(self) -> int:
        """Number of positions whose result comes from this tile."""
        return self.keep_to - self.keep_from


@dataclass(frozen=True)
class TilePlan:
    """The geometry for pictures of one size. `TileBuffers` holds the memory."""

    size: Size
    """The picture's size, without border."""
    border: int
    """Pixels of reflection above and to the left of the picture, >= 0. Below and to the right there may be more."""
    scale: int
    """Side of the result divided by side of the picture, >= 1."""
    padded_size: Size
    """Size of the picture with its border."""
    window: Size
    """Size of one run's input: a tile, or the whole padded picture."""
    tiles: tuple[tuple[Span, Span], ...] = ()
    """Rows and columns of each tile; empty if the padded picture is not cut."""

    @property
    def tiled(self) -> bool:
        """Whether the picture is cut into tiles."""
        return bool(self.tiles)

    @property
    def padded(self) -> bool:
        """Whether the picture gets a border."""
        return self.padded_size != self.size

    @property
    def crop(self) -> tuple[slice, slice]:
        """Rows and columns of the result that belong to the picture, without border."""
        return self.scaled(self.border, self.border, *self.size)

    def scaled(self, top: int, left: int, height: int, width: int) -> tuple[slice, slice]:
        """Rows and columns of the result that belong to this rectangle of the padded picture."""
        s = self.scale
        return slice(top * s, (top + height) * s), slice(left * s, (left + width) * s)

    def result_shape(self, size: Size) -> tuple[int, int, int]:
        """(H, W, 3) of the result for an input of this size."""
        return size[0] * self.scale, size[1] * self.scale, 3


def plan_tiles(spec: ModelSpec, limits: SizeLimits | None, height: int, width: int) -> TilePlan:
    """The plan for pictures of height x width pixels.

    limits: from `size_limits`. Raises ShapeError if a picture exceeds the limits and cannot be cut.
    """
    rule = replace(spec.size, fixed=None)  # `limits` holds a fixed size
    padded = rule.padded(height + 2 * spec.border, width + 2 * spec.border)
    plan = TilePlan((height, width), spec.border, spec.scale, padded, padded)
    if limits:
        return _within(plan, limits, spec)
    if padded[0] * padded[1] <= WHOLE_PIXELS or spec.receptive_field is None:
        return plan
    overlap = spec.size.round_up(spec.receptive_field)
    # In a small tile most pixels would belong to the overlap, and would be computed several times.
    side = spec.size.round_up(max(TILE, 4 * overlap))
    return _cut(plan, (min(side, padded[0]), min(side, padded[1])), overlap)


def size_limits(spec: ModelSpec, backend: Backend) -> SizeLimits | None:
    """The sizes that the backend takes: those of an engine's optimization profiles, or a graph's fixed size. None: any size."""
    fixed = spec.size.fixed
    return backend.limits or (SizeLimits(((fixed, fixed),), None) if fixed else None)


def tiling_text(spec: ModelSpec, limits: SizeLimits | None) -> str:
    """A sentence part that says which pictures are cut into tiles."""
    if spec.receptive_field is None:
        return "never: the network looks at the whole picture, or its receptive field is unknown"
    if limits:
        held = " or ".join(f"{high[0]} x {high[1]}" for _, high in limits.ranges)
        return f"pictures that with their border exceed {held}, in windows of that size overlapping by {spec.receptive_field}"
    return f"above {WHOLE_PIXELS:,} pixels, windows of {TILE} or more overlapping by {spec.receptive_field}"


def spans(length: int, window: int, overlap: int) -> list[Span]:
    """Tiles of `window` positions that cover `length` positions. Neighbouring tiles share at least 2 x `overlap` positions.

    A kept position is at least `overlap` away from its tile's ends, except where an end of the tile is an end of the picture. If
    `overlap` is at least the receptive field's radius, the position's result is therefore the same as without tiles.
    Raises ValueError if the window is not larger than two overlaps.
    """
    if window >= length:
        return [Span(0, 0, length)]
    step = window - 2 * overlap
    if step < 1:
        raise ValueError(f"a tile of {window} positions is too small for an overlap of {overlap} on each side")
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
    """The plan with the picture padded to a size within the limits, or cut into tiles of the largest size within them."""
    whole = limits.whole(*plan.padded_size)
    if whole:
        return replace(plan, padded_size=whole, window=whole)
    if spec.receptive_field is None:
        raise limits.refusal(*plan.size, "this network's pictures cannot be cut into tiles")
    overlap = spec.size.round_up(spec.receptive_field)
    window = limits.window(*plan.padded_size)
    padded = (max(plan.padded_size[0], window[0]), max(plan.padded_size[1], window[1]))
    # At least a fifth of a tile must be new pixels. Below that, nearly every pixel would be computed many times.
    if any(all_ > side and side < 2.5 * overlap for all_, side in zip(padded, window, strict=True)):
        raise limits.refusal(*plan.size, f"tiles of that size are mostly their overlap of {overlap}")
    return _cut(replace(plan, padded_size=padded), window, overlap)


def _cut(plan: TilePlan, window: Size, overlap: int) -> TilePlan:
    height, width = plan.padded_size
    columns = spans(width, window[1], overlap)
    tiles = tuple((row, column) for row in spans(height, window[0], overlap) for column in columns)
    return replace(plan, window=window, tiles=tiles)
