"""How one launch is divided among layers: tiles, gangs of blocks and the workspace between the two passes.

Pure arithmetic, shared by every way into the kernel and tested without a GPU. gram.cu explains the map itself.
"""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass
from functools import lru_cache

CHUNK_BYTES = 128
"""Bytes of pixels (per channel) that one step of the kernel's pipeline holds; ROW_BYTES in gram.cu."""
FINISH_BLOCK = 32
"""Side of the squares into which the second pass divides G; BLOCK in gram.cu."""
FINISH_STRIPS = 4
"""Blocks that share such a square; BLOCK / STRIP in gram.cu."""
LEAST_BLOCKS = 4
"""Blocks to a tile, over all layers, where the device runs fewer at once: with so few, a launch cannot be cut evenly in one wave."""
LONGEST_RUN = 1 << 17
"""Pixels of one block. Tensor cores round toward zero, which takes 2.2e-8 of a sum at every step, on the emulated GPU: 1.8e-4 then, and
3.5e-4 on Turing, whose steps are 8 pixels instead of 16. Of float16's tolerance, 1e-3, that leaves the rest to operands' rounding."""
MICROSECONDS_PER_MB = {64: 77, 128: 49, 256: 83, 512: 113}
"""In how long a block reads a MB of features, for layers of up to so many channels: their tiles stand alone, 64 or 128 wide, or in
pairs. Slopes from batch 1 to batch 4 in benchmarks/results/h100/gram.json, over what a block read by the plan of that day. Only how
they compare matters here."""


@dataclass(frozen=True)
class LayerShape:
    """What the plan needs to know of one layer."""

    N: int
    C: int
    pixels: int
    element_bytes: int

    @property
    def tile(self) -> int:
        """Side of a block's tile of G, in channels."""
        return 64 if self.C <= 64 else 128

    @property
    def side(self) -> int:
        """Tiles along one axis of G."""
        return -(-self.C // self.tile)

    @property
    def tiles(self) -> int:
        """Tiles of the upper triangle: the blocks of one gang."""
        return triangle(self.side)

    @property
    def chunks(self) -> int:
        """Pipeline steps through one image."""
        return -(-self.pixels * self.element_bytes // CHUNK_BYTES)

    @property
    def rows_read(self) -> int:
        """Rows of a chunk that the busiest block of a gang copies; off the diagonal, two tiles of channels."""
        return self.tile if self.side == 1 else 2 * self.tile

    @property
    def microseconds_per_mb(self) -> int:
        most = next((channels for channels in MICROSECONDS_PER_MB if channels >= self.C), max(MICROSECONDS_PER_MB))
        return MICROSECONDS_PER_MB[most]

    @property
    def partial_tile_bytes(self) -> int:
        return 4 * self.tile**2

    def run(self, gangs: int) -> float:
        """Pixels of a block, where so many gangs share the layer."""
        return self.N * self.pixels / gangs

    def most_gangs(self, partials: float) -> int:
        """Runs that are worth cutting: writing a partial tile and reading it again moves `partials` times a run's bytes at most."""
        line = self.N * self.chunks
        worth = partials * line * self.rows_read * CHUNK_BYTES / (2 * self.partial_tile_bytes)
        return max(1, min(line, math.floor(min(worth, line))))

    @property
    def packed_stride(self) -> int:
        """Elements from row to row of D as an operand: rows start on 16 bytes."""
        unit = 16 // self.element_bytes
        return -(-self.C // unit) * unit

    @property
    def finish_blocks(self) -> int:
        return self.N * triangle(-(-self.C // FINISH_BLOCK)) * FINISH_STRIPS

    @property
    def pack_blocks(self) -> int:
        return self.N * self.C

    @property
    def backward_blocks(self) -> int:
        return self.N * self.side * -(-self.pixels * self.element_bytes // (2 * CHUNK_BYTES))


@dataclass(frozen=True)
class LayerPlan:
    """One layer's share of the launches."""

    shape: LayerShape
    gangs: int
    """Equal runs that the chunks of all images are cut into. 1 <= gangs <= N * chunks."""
    first_forward: int
    first_finish: int
    first_pack: int
    first_backward: int
    """The layer's first block in each launch."""
    partial_offset: int
    """Where the layer's partial tiles begin in the workspace, in bytes, a multiple of 16."""

    @property
    def forward_blocks(self) -> int:
        return self.gangs * self.shape.tiles

    @property
    def partial_bytes(self) -> int:
        """Each gang and each border between images begins a new partial tile."""
        return (self.gangs + self.shape.N - 1) * self.shape.tiles * self.shape.partial_tile_bytes


@dataclass(frozen=True)
class Plan:
    """All layers of one launch. The workspace holds partial tiles, loss parts and a ticket, in this order."""

    layers: tuple[LayerPlan, ...]

    @property
    def forward_blocks(self) -> int:
        return sum(layer.forward_blocks for layer in self.layers)

    @property
    def finish_blocks(self) -> int:
        return sum(layer.shape.finish_blocks for layer in self.layers)

    @property
    def pack_blocks(self) -> int:
        return sum(layer.shape.pack_blocks for layer in self.layers)

    @property
    def backward_blocks(self) -> int:
        return sum(layer.shape.backward_blocks for layer in self.layers)

    @property
    def loss_part_offset(self) -> int:
        return sum(layer.partial_bytes for layer in self.layers)

    @property
    def ticket_offset(self) -> int:
        return self.loss_part_offset + 4 * self.finish_blocks

    @property
    def workspace_bytes(self) -> int:
        return self.ticket_offset + 4


def triangle(side: int) -> int:
    """Squares on and above the diagonal of a square of squares."""
    return side * (side + 1) // 2


@lru_cache(maxsize=256)
def plan(
    shapes: tuple[LayerShape, ...],
    resident_blocks: int,
    partials: float = 1.0,
    least_blocks: int = LEAST_BLOCKS,
    weighed: bool = True,
) -> Plan:
    """Divides `resident_blocks`, what the device runs at once, so that all layers end together.

    Where those are few for so many tiles, or runs would be longer than LONGEST_RUN, it is several times as many, which follow one
    another in waves. Small feature maps get fewer: with all blocks at work on 16 MB, partial tiles would move twice as many bytes as
    F itself.
    partials: how many times the bytes that a run reads its partial tile may cost, written and read again.
    weighed: blocks take equally long by `LayerShape.microseconds_per_mb`; otherwise they read equally much.
    The same shapes and number of blocks always give the same plan: results repeat bit by bit on one kind of device.
    """
    gangs = divide(shapes, resident_blocks, partials, least_blocks, weighed)
    layers = []
    forward = finish = pack = backward = partial = 0
    for shape, count in zip(shapes, gangs, strict=True):
        layer = LayerPlan(shape, count, forward, finish, pack, backward, partial)
        layers.append(layer)
        forward += layer.forward_blocks
        finish += shape.finish_blocks
        pack += shape.pack_blocks
        backward += shape.backward_blocks
        partial += layer.partial_bytes
    return Plan(tuple(layers))


def divide(
    shapes: tuple[LayerShape, ...],
    resident_blocks: int,
    partials: float,
    least_blocks: int = LEAST_BLOCKS,
    weighed: bool = True,
) -> list[int]:
    """Gangs per layer, of as few waves of blocks as give every layer enough of them."""
    wanted = max(
        sum(least_blocks * shape.tiles for shape in shapes),
        sum(math.ceil(shape.run(1) / LONGEST_RUN) * shape.tiles for shape in shapes),
    )
    waves = max(1, math.ceil(wanted / resident_blocks))
    while True:
        gangs = _share(shapes, waves * resident_blocks, partials, weighed)
        if all(
            shape.run(count) <= LONGEST_RUN or count == shape.most_gangs(partials)
            for shape, count in zip(shapes, gangs, strict=True)
        ):
            return gangs
        waves += 1


def _share(shapes: tuple[LayerShape, ...], blocks: int, partials: float, weighed: bool) -> list[int]:
    """One gang each, then always one more for the layer whose blocks take the longest, while blocks last."""
    gangs = [1] * len(shapes)
    left = blocks - sum(shape.tiles for shape in shapes)

    def time_of_a_block(layer: int) -> float:
        shape = shapes[layer]
        rows = math.ceil(shape.N * shape.chunks / gangs[layer]) * shape.rows_read
        return rows * (shape.microseconds_per_mb if weighed else 1)

    slowest = [(-time_of_a_block(layer), layer) for layer in range(len(shapes))]
    heapq.heapify(slowest)
    while slowest:
        _, layer = heapq.heappop(slowest)
        shape = shapes[layer]
        # A layer that cannot be helped any more ends the launch anyway; the others need not be cut finer than it.
        if shape.tiles > left or gangs[layer] == shape.most_gangs(partials):
            break
        gangs[layer] += 1
        left -= shape.tiles
        heapq.heappush(slowest, (-time_of_a_block(layer), layer))
    return gangs
