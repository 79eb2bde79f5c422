"""Laws of the runtime's parts."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.small_models import picture

from impasto.images import thumbnail
from impasto.package.spec import ModelSpec, Pixels, SizeRule
from impasto.runtime.inference.padding import reflect_into
from impasto.runtime.inference.tile_plan import spans

sides = st.integers(1, 12)
margins = st.integers(0, 30)


@given(sides, sides, margins, margins, margins, margins)
def test_reflection_is_numpys(height, width, top, bottom, left, right):
    image = picture(height, width)
    padded = np.full((top + height + bottom, left + width + right, 3), 99, np.uint8)
    reflect_into(padded, image, top, left)
    # NumPy reflects a single pixel by repeating it as well.
    assert np.array_equal(padded, np.pad(image, ((top, bottom), (left, right), (0, 0)), mode="reflect"))


@given(st.integers(1, 400), st.integers(1, 20), st.integers(0, 40))
def test_spans_cover_everything_once_with_enough_around_it(length, step, overlap):
    window = step + 2 * overlap
    covered = []
    for span in spans(length, window, overlap):
        end = min(span.start + window, length)
        assert 0 <= span.start <= span.keep_from < span.keep_to <= end
        assert span.start == 0 or span.keep_from - span.start >= overlap
        assert end == length or end - span.keep_to >= overlap
        covered += range(span.keep_from, span.keep_to)
    assert covered == list(range(length))


def test_spans_refuse_a_window_that_is_all_overlap():
    with pytest.raises(ValueError, match=r"^a tile of \d+ positions is too small for an overlap of \d+ on each side$"):
        spans(100, 20, 10)


@given(st.integers(1, 5000), st.integers(1, 64))
def test_padded_sizes_are_the_smallest_multiples(length, multiple):
    padded = SizeRule(multiple).padded(length, 1)[0]
    assert padded % multiple == 0
    assert padded - multiple < length <= padded


@pytest.mark.parametrize("text", ["rgb 0..1", "bgr 0..255", "RGB -1..1"])
def test_pixels_survive_the_round_trip(text):
    pixels = Pixels.parse(text)
    levels = np.arange(256, dtype=np.uint8).repeat(3).reshape(1, 16, 16, 3)
    assert np.array_equal(pixels.decode(pixels.encode(levels, np.dtype(np.float32))), levels)


def test_pixels_beyond_the_range_are_clipped():
    planes = np.array([-5.0, 0.5, 7.0], np.float32).reshape(1, 3, 1, 1)
    assert Pixels().decode(planes).ravel().tolist() == [0, 128, 255]


def test_a_spec_survives_the_round_trip():
    spec = ModelSpec("a", "upscale", 2, size=SizeRule(8, 16, (32, 40)), border=3, receptive_field=50, thumbnail=96)
    assert ModelSpec.from_json(spec.to_json(), "test") == spec


@given(st.integers(1, 200), st.integers(1, 200), st.sampled_from([8, 16, 96]))
def test_a_thumbnail_of_one_colour_is_that_colour(height, width, side):
    image = np.full((height, width, 3), (3, 200, 77), np.uint8)
    small = thumbnail(image, side)
    assert small.shape == (side, side, 3)
    assert (small == (3, 200, 77)).all()


def test_a_thumbnail_keeps_means_and_mirrors_with_the_picture():
    image = picture(480, 640)
    small = thumbnail(image, 96)
    assert np.abs(small.mean((0, 1)) - image.mean((0, 1))).max() < 1
    assert np.abs(thumbnail(image[:, ::-1], 96).astype(int) - small[:, ::-1]).mean() < 8
