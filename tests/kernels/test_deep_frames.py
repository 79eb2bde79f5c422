"""The kernels for pictures of uint16 and float32 on the emulated GPU: to the bit what NumPy does on the host."""

from __future__ import annotations

import numpy as np
import pytest
from support.emulated_frames import deep_picture, rgb_picture

from impasto.images import thumbnail
from impasto.kernels.frames import read_window, write_part, write_thumbnail
from impasto.runtime.inference.depths import from_rgb, to_rgb

pytest_plugins = ("support.engine_fixtures", "support.frame_fixtures")

SIZES = [(1, 1), (1, 7), (2, 3), (20, 31)]
DTYPES = [np.uint16, np.float32]


def drawn(shape: tuple[int, ...], dtype: type, seed: int = 0) -> np.ndarray:
    """An array with bytes between its rows."""
    generator = np.random.default_rng(seed)
    floats = dtype is np.float32
    values = generator.random(shape, np.float32) if floats else generator.integers(0, 1 << 16, shape, np.uint16)
    return in_wider_rows(values)


def in_wider_rows(values: np.ndarray) -> np.ndarray:
    rows = np.full((len(values), values[0].size + 5), 77, values.dtype)
    inner = rows[:, : values[0].size].reshape(values.shape)
    inner[...] = values
    return inner


def test_every_level_of_16_bits_survives_there_and_back(frame_kernels):
    for levels in (
        np.arange(65536, dtype=np.uint16).reshape(256, 256),
        np.random.default_rng(0).permutation(65536 * 3).astype(np.uint16).reshape(256, 256, 3),
    ):
        window, back = np.empty((256, 256, 3), np.float32), np.zeros_like(levels)
        read_window(deep_picture(levels), deep_picture(window), 0, 0, 0)
        np.testing.assert_array_equal(window, to_rgb(levels))
        write_part(deep_picture(window), deep_picture(back), 0, 0, 0)
        np.testing.assert_array_equal(back, levels)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("channels", [(), (3,)], ids=["gray", "RGB"])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_a_window_is_the_picture_reflected_at_its_edges(frame_kernels, size, channels, dtype):
    image = drawn((*size, *channels), dtype)
    for top, left, height, width in ((0, 0, *size), (-3, -2, size[0] + 7, size[1] + 5), (1, 2, 9, 11)):
        window = in_wider_rows(np.zeros((height, width, 3), np.float32))
        read_window(deep_picture(image), deep_picture(window), top, left, 0)
        rows, columns = (
            np.pad(np.arange(of), 64, "reflect" if of > 1 else "edge")[start + 64 : start + 64 + length]
            for start, length, of in zip((top, left), (height, width), size, strict=True)
        )
        np.testing.assert_array_equal(window, to_rgb(image)[rows][:, columns])
        assert (window.base[:, -5:] == 77).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("channels", [(), (3,)], ids=["gray", "RGB"])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_a_part_is_rounded_as_on_the_host_and_written_where_it_belongs(frame_kernels, size, channels, dtype):
    image = drawn((*size, *channels), dtype)
    part = drawn((max(1, size[0] - 1), max(1, size[1] // 2), 3), np.float32, seed=1) * 1.2 - 0.1
    wanted, expected = image.copy(), np.empty((*part.shape[:2], *channels), dtype)
    from_rgb(part, expected)
    top, left = size[0] - part.shape[0], size[1] - part.shape[1]
    wanted[top:, left:] = expected
    write_part(deep_picture(part), deep_picture(image), top, left, 0)
    np.testing.assert_array_equal(image, wanted)
    assert (image.base[:, -5:] == 77).all(), "the bytes between the rows are another's"


def test_gray_of_equal_channels_is_exactly_their_value(frame_kernels):
    gray = drawn((64, 64), np.float32)
    window, back = np.empty((64, 64, 3), np.float32), np.empty((64, 64), np.float32)
    read_window(deep_picture(gray), deep_picture(window), 0, 0, 0)
    write_part(deep_picture(window), deep_picture(back), 0, 0, 0)
    np.testing.assert_array_equal(back, gray)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("channels", [(), (3,)], ids=["gray", "RGB"])
@pytest.mark.parametrize("side", [1, 8, 12])
@pytest.mark.parametrize("size", [(1, 1), (5, 7), (96, 100), (301, 203)], ids=str)
def test_a_thumbnail_is_that_of_the_host(frame_kernels, size, side, channels, dtype):
    image, small = drawn((*size, *channels), dtype), np.zeros((side, side, 3), np.uint8)
    write_thumbnail(deep_picture(image), rgb_picture(small), 0)
    np.testing.assert_array_equal(small, thumbnail(to_rgb(image), side))
