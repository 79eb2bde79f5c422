"""The division of a launch: every pixel in exactly one run, every partial tile in its own place."""

from __future__ import annotations

import heapq
import math

import pytest
from hypothesis import given
from hypothesis import strategies as some

from impasto.kernels.plan import LONGEST_RUN, LayerShape, plan

shapes = some.builds(
    LayerShape,
    N=some.integers(1, 5),
    C=some.sampled_from([1, 3, 16, 64, 65, 128, 130, 256, 512]),
    pixels=some.integers(1, 70000),
    element_bytes=some.sampled_from([2, 4]),
)
VGG16 = tuple(LayerShape(4, C, side * side, 2) for C, side in ((64, 512), (128, 256), (256, 128), (512, 64)))


def run_start(layer, gang):
    """As in gram.cu."""
    return gang * layer.shape.N * layer.shape.chunks // layer.gangs


@given(
    some.lists(shapes, min_size=1, max_size=4), some.sampled_from([14, 16, 132, 264]), some.sampled_from([1, math.inf])
)
def test_every_share_of_an_image_has_its_own_partial_tile_and_the_finish_finds_it(layers, blocks, partials):
    for layer in plan(tuple(layers), blocks, partials).layers:
        shape = layer.shape
        assert 1 <= layer.gangs <= shape.N * shape.chunks
        written = []
        for gang in range(layer.gangs):
            start, stop = run_start(layer, gang), run_start(layer, gang + 1)
            assert start < stop
            written += [(gang + n, n) for n in range(start // shape.chunks, (stop - 1) // shape.chunks + 1)]
        line = shape.N * shape.chunks
        read = []
        for n in range(shape.N):  # `gathered` in gram.cu
            first = (n * shape.chunks * layer.gangs + layer.gangs - 1) // line
            last = ((n + 1) * shape.chunks * layer.gangs - 1) // line
            read += [(gang + n, n) for gang in range(first, last + 1)]
        assert sorted(written) == sorted(read)
        places = [place for place, _ in written]
        assert len(set(places)) == len(places)
        assert max(places) < layer.gangs + shape.N - 1


@given(some.lists(shapes, min_size=1, max_size=4))
def test_layers_follow_one_another_in_every_launch(layers):
    arrangement = plan(tuple(layers), 264)
    blocks = partial = 0
    for layer in arrangement.layers:
        assert (layer.first_forward, layer.partial_offset) == (blocks, partial)
        assert layer.partial_offset % 16 == 0
        blocks += layer.forward_blocks
        partial += layer.partial_bytes
    assert arrangement.forward_blocks == blocks
    assert arrangement.workspace_bytes > partial


@given(shapes, some.sampled_from([14, 132, 264]), some.sampled_from([0.5, 1, 2]))
def test_a_partial_tile_moves_no_more_than_its_run_reads(shape, blocks, partials):
    (layer,) = plan((shape,), blocks, partials).layers
    run = shape.N * shape.chunks / layer.gangs * shape.rows_read * 128
    assert layer.gangs == 1 or 2 * 4 * shape.tile**2 <= partials * run


@pytest.mark.parametrize(("C", "side", "blocks"), [(64, 512, 264), (128, 256, 128), (256, 128, 192), (512, 64, 160)])
def test_single_layers_of_one_picture_on_an_h100(C, side, blocks):
    assert plan((LayerShape(1, C, side * side, 2),), 264).forward_blocks == blocks


def test_vgg16_fills_an_h100_evenly():
    arrangement = plan(VGG16, 264)
    assert 0.9 * 264 <= arrangement.forward_blocks <= 264
    times = [time_of_a_block(layer) for layer in arrangement.layers]
    assert max(times) <= 1.35 * min(times)
    assert arrangement.loss_part_offset < 20e6


def time_of_a_block(layer):
    """Of a layer's longest block: what it reads, by how fast blocks of its kind read."""
    rows = math.ceil(layer.shape.N * layer.shape.chunks / layer.gangs) * layer.shape.rows_read
    return rows * layer.shape.microseconds_per_mb


def test_blocks_that_read_slower_get_less_to_read():
    """With equal bytes, those of 512 channels would end a third later than the rest on average."""
    equal, weighed = (plan(VGG16, 264, weighed=weighed) for weighed in (False, True))
    longest = [max(map(time_of_a_block, arrangement.layers)) for arrangement in (equal, weighed)]
    assert longest[1] <= 0.85 * longest[0]
    assert [layer.gangs for layer in equal.layers] == [90, 45, 23, 6]
    assert weighed.layers[1].gangs < equal.layers[1].gangs
    assert weighed.layers[3].gangs > equal.layers[3].gangs


def launch_over_even_division(arrangement, resident_blocks):
    """How much longer a launch takes than if all blocks worked all the time."""
    free = [0.0] * resident_blocks
    total = 0.0
    for layer in arrangement.layers:
        for _ in range(layer.forward_blocks):
            heapq.heapreplace(free, free[0] + time_of_a_block(layer))
        shape = layer.shape
        total += shape.N * shape.chunks * shape.rows_read * shape.tiles * shape.microseconds_per_mb
    return max(free) / (total / resident_blocks)


RESNET50 = tuple(LayerShape(8, C, side * side, 2) for C, side in ((64, 128), (256, 64), (512, 32), (1024, 16)))
FULL_HD = tuple(LayerShape(1, C, 1088 * 1920 >> 2 * level, 2) for level, C in enumerate((64, 128, 256, 512)))


@pytest.mark.parametrize("blocks", [8, 14, 16, 20, 46, 68, 132, 264])
@pytest.mark.parametrize("layers", [VGG16, RESNET50, FULL_HD], ids=["VGG16", "ResNet50", "VGG16 at 1080p"])
def test_chips_of_any_size_are_used_evenly(layers, blocks):
    """With one wave, an Orin's 14 multiprocessors took five times as long as they had to."""
    assert launch_over_even_division(plan(layers, blocks), blocks) <= 1.2


@given(
    some.integers(1, 4),
    some.sampled_from([3, 64, 130, 512]),
    some.integers(1, 1 << 26),
    some.sampled_from([1, 8, 14, 132, 264]),
)
def test_no_run_is_so_long_that_rounding_toward_zero_shows(N, C, pixels, blocks):
    (layer,) = plan((LayerShape(N, C, pixels, 2),), blocks).layers
    assert N * pixels / layer.gangs <= LONGEST_RUN


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--json", "none/gram.json"), "cannot write none/gram.json"),
        (("--plot", "gram.png"), "--plot needs matplotlib"),
    ],
)
def test_what_the_benchmark_cannot_write_is_told_before_it_measures(monkeypatch, capsys, arguments, words):
    from impasto.benchmarks import gram

    monkeypatch.setattr(gram.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SystemExit) as ended:
        gram.main(list(arguments))
    assert ended.value.code == 2
    assert words in capsys.readouterr().err
