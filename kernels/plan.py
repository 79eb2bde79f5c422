"""How one launch is divided among layers: tiles, gangs of blocks, and the workspace between the two passes.

The pixels of a layer, all images behind one another, are cut into equal runs. A gang is the blocks of one run, one block for each
tile of G. gram.cu explains the map of blocks. This module is arithmetic only and is tested without a GPU.
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
"""Least blocks for each tile, over all layers. Where the device runs fewer at once, they come in several waves."""
LONGEST_RUN = 1 << 17
"""Most pixels of one block. Tensor cores round toward zero and lose 2.2e-8 of a sum at every step (on the emulated GPU). That is 1.8e-4
for so many pixels, and 3.5e-4 on Turing, whose steps are 8 pixels instead of 16. The tolerance of float16 is 1e-3, and rounding the
operands needs a part of it."""
MICROSECONDS_PER_MB = {64: 77, 128: 49, 256: 83, 512: 113}
"""Time in which a block reads a MB of features, by the layer's number of channels (up to the key). Measured on an H100: slopes from
batch 1 to batch 4 in benchmarks/results/h100/gram.json, divided by what a block read then. Only their ratios matter here."""


@dataclass(frozen=True)
class LayerShape:
    """The sizes of one layer that decide its part of the plan."""

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
        """Rows of a chunk that a block copies: one tile of channels on the diagonal, two off it. The largest in a gang."""
        return self.tile if self.side == 1 else 2 * self.tile

    @property
    def microseconds_per_mb(self) -> int:
        most = next((channels for channels in MICROSECONDS_PER_MB if channels >= self.C), max(MICROSECONDS_PER_MB))
        return MICROSECONDS_PER_MB[most]

    @property
    def partial_tile_bytes(self) -> int:
        return 4 * self.tile**2

    def run(self, gangs: int) -> float:
        """Pixels of one block if this many gangs share the layer."""
        return self.N * self.pixels / gangs

    def most_gangs(self, partials: float) -> int:
        """Most gangs that pay: writing and reading a partial tile moves at most `partials` times the bytes of a run."""
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
    """One layer's part of the launches."""

    shape: LayerShape
    gangs: int
    """Number of equal runs into which the chunks of all images are cut. 1 <= gangs <= N * chunks."""
    first_forward: int
    first_finish: int
    first_pack: int
    first_backward: int
    """The layer's first block in each launch."""
    partial_offset: int
    """Offset of the layer's partial tiles in the workspace, in bytes, a multiple of 16."""

    @property
    def forward_blocks(self) -> int:
        return self.gangs * self.shape.tiles

    @property
    def partial_bytes(self) -> int:
        """Bytes of all partial tiles. Each gang and each border between images begins a new one."""
        return (self.gangs + self.shape.N - 1) * self.shape.tiles * self.shape.partial_tile_bytes


@dataclass(frozen=True)
class Plan:
    """All layers of one launch. In the workspace: partial tiles, parts of the loss, a counter of finished blocks, in this order."""

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
    """Number of tiles on and above the diagonal of a matrix of side x side tiles."""
    return side * (side + 1) // 2


@lru_cache(maxsize=256)
def plan(
    shapes: tuple[LayerShape, ...],
    resident_blocks: int,
    partials: float = 1.0,
    least_blocks: int = LEAST_BLOCKS,
    weighed: bool = True,
) -> Plan:
    """Divide the blocks that the device runs at once, `resident_blocks`, among the layers, so that all layers end together.

    Where that gives a tile too few blocks, or a block more than LONGEST_RUN pixels, the launch has several waves of as many blocks.
    Small feature maps get fewer blocks: on 16 MB, partial tiles of all blocks would move twice as many bytes as F itself.
    partials: limit of the bytes that a partial tile moves, as a multiple of the bytes that its run reads.
    weighed: let blocks take equally long, by `LayerShape.microseconds_per_mb`; otherwise they read equally many bytes.
    The same shapes and number of blocks always give the same plan, so results repeat bit by bit on one kind of device.
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
    """Gangs of each layer, with the fewest waves that keep both limits."""
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
    """Give each layer one gang, then one more to the layer whose blocks take longest, until no blocks are left."""
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
        # This layer can have no more gangs and ends last. More gangs for the others would not end the launch sooner.
        if shape.tiles > left or gangs[layer] == shape.most_gangs(partials):
            break
        gangs[layer] += 1
        left -= shape.tiles
        heapq.heappush(slowest, (-time_of_a_block(layer), layer))
    return gangs
