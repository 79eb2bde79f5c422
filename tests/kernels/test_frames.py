"""frames.cu on the emulated GPU: against NumPy, byte by byte, and against the standards' own formulas."""

from __future__ import annotations

import ctypes
import json

import numpy as np
import pytest
from support.emulated_frames import nv12_picture, rgb_picture

from impasto.errors import KernelError
from impasto.images import thumbnail
from impasto.kernels import binaries, build, cuda_driver, frames
from impasto.kernels.binaries import Binary
from impasto.kernels.frames import Picture, read_window, write_part, write_thumbnail

pytest_plugins = ("support.frame_fixtures",)

SIZES = [(1, 1), (1, 7), (2, 3), (6, 8), (20, 31)]
EVEN = [(2, 2), (2, 6), (8, 6), (20, 30)]
WEIGHTS = {"bt601": (0.299, 0.587, 0.114), "bt709": (0.2126, 0.7152, 0.0722)}


def drawn(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def in_wider_rows(array: np.ndarray, more: int = 13) -> np.ndarray:
    """The same picture as a video decoder lays it out: with bytes between the rows."""
    rows = np.full((array.shape[0], array[0].size + more), 77, np.uint8)
    inner = rows[:, : array[0].size].reshape(array.shape)
    inner[...] = array
    return inner


def exact_rgb(surface: np.ndarray, matrix: str) -> np.ndarray:
    """BT.601's and BT.709's own formulas in float64, before rounding; limited range."""
    height, width = surface.shape[0] * 2 // 3, surface.shape[1]
    luma = (surface[:height].astype(float) - 16) / 219
    pairs = surface[height:].reshape(height // 2, width // 2, 2).repeat(2, 0).repeat(2, 1)
    cb, cr = np.moveaxis((pairs.astype(float) - 128) / 224, -1, 0)
    red, green, blue = WEIGHTS[matrix]
    r, b = luma + 2 * (1 - red) * cr, luma + 2 * (1 - blue) * cb
    return np.stack([r, (luma - red * r - blue * b) / green, b], -1).clip(0, 1) * 255


def exact_nv12(image: np.ndarray, matrix: str) -> np.ndarray:
    """The same the other way; a chroma pair is the mean of its four pixels'."""
    red, green, blue = WEIGHTS[matrix]
    r, g, b = np.moveaxis(image.astype(float) / 255, -1, 0)
    luma = red * r + green * g + blue * b
    halves = [(b - luma) / (2 * (1 - blue)), (r - luma) / (2 * (1 - red))]
    height, width = luma.shape
    means = [each.reshape(height // 2, 2, width // 2, 2).mean((1, 3)) * 224 + 128 for each in halves]
    return np.concatenate([luma * 219 + 16, np.stack(means, -1).reshape(height // 2, width)])


@pytest.mark.parametrize("size", SIZES)
def test_a_window_is_the_picture_reflected_at_its_edges(frame_kernels, size):
    image = in_wider_rows(drawn(*size, 3))
    for top, left, height, width in ((0, 0, *size), (-3, -2, size[0] + 7, size[1] + 5), (1, 2, 9, 11)):
        window = np.zeros((height, width, 3), np.uint8)
        read_window(rgb_picture(image), rgb_picture(window), top, left, 0)
        rows, columns = (places(start, all_, of) for start, all_, of in zip((top, left), (height, width), size))  # noqa: B905
        np.testing.assert_array_equal(window, image[rows][:, columns])


def places(start: int, length: int, of: int) -> np.ndarray:
    """By NumPy's own reflection, as far as it goes."""
    line = np.pad(np.arange(of), 64, "reflect" if of > 1 else "edge")
    return line[start + 64 : start + 64 + length]


@pytest.mark.parametrize("size", SIZES)
def test_a_part_is_written_where_it_belongs_and_nowhere_else(frame_kernels, size):
    image, wanted = in_wider_rows(drawn(*size, 3)), drawn(*size, 3)
    wanted[...] = image
    part = drawn(max(1, size[0] - 1), max(1, size[1] // 2), 3, seed=1)
    top, left = size[0] - part.shape[0], size[1] - part.shape[1]
    wanted[top:, left:] = part
    write_part(rgb_picture(in_wider_rows(part, 5)), rgb_picture(image), top, left, 0)
    np.testing.assert_array_equal(image, wanted)
    assert (image.base[:, -13:] == 77).all(), "the bytes between the rows are another's"


@pytest.mark.parametrize("matrix", frames.MATRICES)
@pytest.mark.parametrize("size", EVEN)
def test_nv12_is_read_as_the_standards_say(frame_kernels, size, matrix):
    surface = in_wider_rows(drawn(size[0] * 3 // 2, size[1]))
    window = np.zeros((*size, 3), np.uint8)
    read_window(nv12_picture(surface, matrix), rgb_picture(window), 0, 0, 0)
    assert np.abs(window - exact_rgb(surface, matrix)).max() < 0.51


@pytest.mark.parametrize("matrix", frames.MATRICES)
@pytest.mark.parametrize("size", EVEN)
def test_nv12_is_written_as_the_standards_say(frame_kernels, size, matrix):
    image = drawn(*size, 3)
    surface = in_wider_rows(np.zeros((size[0] * 3 // 2, size[1]), np.uint8))
    write_part(rgb_picture(image), nv12_picture(surface, matrix), 0, 0, 0)
    assert np.abs(surface - exact_nv12(image, matrix)).max() < 0.51
    assert (surface.base[:, -13:] == 77).all()


@pytest.mark.parametrize("matrix", frames.MATRICES)
def test_black_white_and_gray_are_exact_both_ways(frame_kernels, matrix):
    levels = np.arange(256, dtype=np.uint8).repeat(2)
    image = np.stack([np.stack([levels, levels])] * 3, -1)
    surface = np.zeros((3, 512), np.uint8)
    write_part(rgb_picture(image), nv12_picture(surface, matrix), 0, 0, 0)
    assert (surface[0, 0], surface[0, -1]) == (16, 235)
    assert (surface[2] == 128).all()
    back = np.zeros_like(image)
    read_window(nv12_picture(surface, matrix), rgb_picture(back), 0, 0, 0)
    assert (back[..., 0] == back[..., 1]).all() and (back[..., 0] == back[..., 2]).all()
    assert np.abs(back.astype(int) - image).max() <= 1
    assert (back[0, 0, 0], back[0, -1, 0]) == (0, 255)


def test_the_two_matrices_differ(frame_kernels):
    surface = drawn(30, 20)
    windows = [np.zeros((20, 20, 3), np.uint8) for _ in frames.MATRICES]
    for matrix, window in zip(frames.MATRICES, windows, strict=True):
        read_window(nv12_picture(surface, matrix), rgb_picture(window), 0, 0, 0)
    assert (windows[0] != windows[1]).any()


@pytest.mark.parametrize("side", [1, 8, 12])
@pytest.mark.parametrize("size", [(1, 1), (5, 7), (96, 100), (301, 203)])
def test_a_thumbnail_is_that_of_the_host(frame_kernels, size, side):
    """To the byte: the context of a network follows from it."""
    image, small = drawn(*size, 3), np.zeros((side, side, 3), np.uint8)
    write_thumbnail(rgb_picture(image), rgb_picture(small), 0)
    np.testing.assert_array_equal(small, thumbnail(image, side))


def test_a_thumbnail_of_nv12_is_that_of_its_rgb(frame_kernels):
    surface, window, small = drawn(60, 36), np.zeros((40, 36, 3), np.uint8), np.zeros((8, 8, 3), np.uint8)
    read_window(nv12_picture(surface, "bt709"), rgb_picture(window), 0, 0, 0)
    write_thumbnail(nv12_picture(surface, "bt709"), rgb_picture(small), 0)
    np.testing.assert_array_equal(small, thumbnail(window, 8))


def test_the_committed_files_belong_together():
    table, files = json.loads(build.FRAMES.table.read_text()), build.FRAMES.committed()
    stale = "frames.cu or frames.zip changed alone: run `python kernels/build.py frames` and commit all three files"
    assert table["source_sha256"] == build.FRAMES.source_hash(), stale
    assert table["files_sha256"] == build.hashes(files), stale
    found = [Binary.named(name) for name in files]
    assert [each.architecture for each in found] == [*build.ARCHITECTURES, build.PTX[0]]
    for kernels in table["architectures"].values():
        assert set(kernels) == {f"{kind}_{name}" for kind in ("frame", "deep") for name in ("in", "out", "thumbnail")}
        assert all(needs["spill_bytes"] == needs["stack_bytes"] == 0 for needs in kernels.values())


@pytest.mark.parametrize("capability", [(7, 5), (8, 7), (9, 0), (11, 0), (12, 1)])
def test_every_gpu_is_given_a_binary_that_runs_on_it(capability):
    binary, image = binaries.for_gpu(capability, binaries.FRAMES_FILE)
    assert binary.runs_on(capability)
    assert image


def test_the_parameters_are_as_large_as_the_compilers_make_them():
    assert ctypes.sizeof(frames._Frame) == 136


def test_a_kernel_is_loaded_once_for_each_cuda_context(monkeypatch):
    launched, loaded = [], []
    monkeypatch.setattr(cuda_driver, "current_context", lambda: 41)
    monkeypatch.setattr(cuda_driver, "compute_capability", lambda: (8, 7))
    monkeypatch.setattr(cuda_driver, "load_module", lambda image: loaded.append(image) or ctypes.c_void_p(1))
    monkeypatch.setattr(cuda_driver, "kernel", lambda module, name, shared: ctypes.c_void_p(2))
    monkeypatch.setattr(cuda_driver, "launch", lambda *arguments: launched.append(arguments))
    image = Picture(4096, 48, 16, 16)
    for stream in (7, 8):
        read_window(image, image, 0, 0, stream)
    frames._module.cache_clear()
    frames._kernel.cache_clear()
    assert len(loaded) == 1
    assert [(blocks, threads, stream) for _, blocks, threads, _, _, stream in launched] == [(1, 256, 7), (1, 256, 8)]


@pytest.mark.parametrize(("capability", "here"), [((8, 7), True), ((7, 2), False)])
def test_whether_there_are_kernels_for_a_gpu_is_known(monkeypatch, capability, here):
    monkeypatch.setattr(cuda_driver, "current_context", lambda: 41)
    monkeypatch.setattr(cuda_driver, "compute_capability", lambda: capability)
    monkeypatch.setattr(cuda_driver, "load_module", lambda image: ctypes.c_void_p(1))
    assert frames.run_here() == here
    frames._module.cache_clear()
    frames._has_module.cache_clear()


def test_a_gpu_that_is_too_old_is_one_sentence():
    with pytest.raises(KernelError, match=r"frames.zip has nothing for this GPU, of compute capability 6.1"):
        binaries.for_gpu((6, 1), binaries.FRAMES_FILE)
