"""What a server answers, without HTTP and without Ray."""

from __future__ import annotations

import io

import numpy as np
import pytest
from support.small_models import picture

import impasto
from impasto import images
from impasto.serving.answers import Answer, drawn

pytest.importorskip("tifffile")
pytest.importorskip("imagecodecs")


def content(array: np.ndarray, suffix: str, tmp_path) -> bytes:
    images.write(tmp_path / f"sent{suffix}", array)
    return (tmp_path / f"sent{suffix}").read_bytes()


def answer(sent: bytes, most_pixels: int = 10_000) -> Answer:
    with impasto.load("upscale-x2") as model:
        return drawn(model, sent, "tiff", 90, most_pixels)


@pytest.mark.parametrize(
    ("array", "suffix"),
    [
        (np.linspace(0, 1, 20 * 24, dtype=np.float32).reshape(20, 24), ".tif"),
        (np.arange(20 * 24, dtype=np.uint16).reshape(20, 24) * 100, ".npy"),
        (np.arange(20 * 24, dtype=np.uint16).reshape(20, 24) * 100, ".png"),
        (picture(20, 24), ".png"),
    ],
)
def test_a_picture_of_any_depth_is_drawn_at_its_own(array, suffix, tmp_path):
    got = answer(content(array, suffix, tmp_path))
    assert (got.status, got.media_type) == (200, "image/tiff")
    (tmp_path / "got.tif").write_bytes(got.content)
    result = images.read_deep(tmp_path / "got.tif").rgb
    assert (result.dtype, result.shape[:2]) == (array.dtype, (40, 48))


@pytest.mark.parametrize("suffix", [".tif", ".npy", ".png"])
def test_a_picture_of_more_pixels_is_refused(suffix, tmp_path):
    array = np.zeros((20, 24), np.uint16)
    got = answer(content(array, suffix, tmp_path), most_pixels=400)
    assert got.status == 413
    assert b"24 x 20" in got.content


def test_what_is_no_picture_is_refused():
    assert answer(b"no picture").status == 415


def test_a_bigtiffs_exif_block_is_one_that_other_files_may_hold(tmp_path):
    import tifffile
    from PIL import Image

    tags = [(271, "s", 0, "A camera", True)]
    tifffile.imwrite(tmp_path / "big.tif", picture(8, 9), bigtiff=True, extratags=tags, photometric="rgb")
    read = images.read(tmp_path / "big.tif")
    assert read.exif is None or b"II*\0" in read.exif[:12] or b"MM\0*" in read.exif[:12]
    images.write(tmp_path / "out.png", read)
    with Image.open(io.BytesIO((tmp_path / "out.png").read_bytes())) as held:
        assert held.getexif()[271] == "A camera"
