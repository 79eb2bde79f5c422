"""The comparisons with classical methods: what they damage, how they score, what they refuse."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

import impasto
from impasto import images
from impasto.benchmarks import deblur, dejpeg, denoise, inpaint, upscale
from impasto.benchmarks.baselines import mean_psnr
from impasto.errors import OptionError

SIDES = (64, 96)


@pytest.fixture(scope="module")
def photos() -> list[np.ndarray]:
    """Two pictures with smooth parts, edges and texture."""
    y, x = np.mgrid[: SIDES[0], : SIDES[1]]
    generator = np.random.default_rng(0)
    planes = [np.sin(x / 9), np.cos(y / 7), np.sign(np.sin((x + y) / 11))]
    smooth = np.stack(planes, 2) * 80 + 128
    return [np.clip(smooth + generator.normal(0, s, smooth.shape), 0, 255).astype(np.uint8) for s in (2, 10)]


def idle(picture: np.ndarray) -> np.ndarray:
    """A model that does nothing."""
    return picture


def test_a_model_that_does_nothing_scores_as_its_input(photos):
    for row in dejpeg.compare(idle, photos).values():
        assert row["model"] == row["jpeg"]
    for row in inpaint.compare(idle, photos).values():
        assert row["model"] == row["damaged"]
        assert row["opencv"] > row["damaged"] + 3
    for row in deblur.compare(idle, photos).values():
        assert row["model"] == row["shaken"]


def test_baselines_undo_what_they_are_told(photos):
    for row in deblur.compare(idle, photos).values():
        assert min(row["wiener"], row["richardson_lucy"]) > row["shaken"]
        assert row["wiener"] > row["wiener_blind"], "who knows the path does better"
    noise = denoise.compare(idle, photos)
    assert noise["25"]["noisy"] == pytest.approx(20.3, abs=0.5)  # 20 log10(255 / 25), a little better for the clipping
    assert noise["50"]["opencv"] > noise["50"]["noisy"] + 3


def test_opencv_takes_red_for_red(photos):
    import cv2

    wanted = cv2.cvtColor(
        cv2.fastNlMeansDenoisingColored(photos[1][..., ::-1].copy(), None, 9, 9, 7, 21), cv2.COLOR_BGR2RGB
    )
    np.testing.assert_array_equal(denoise._non_local_means(photos[1], 9), wanted)


def test_worse_damage_scores_worse(photos):
    for compare, key in ((dejpeg.compare, "jpeg"), (deblur.compare, "shaken"), (inpaint.compare, "damaged")):
        scores = [row[key] for row in compare(idle, photos).values()]
        assert scores == sorted(scores, reverse=compare is not dejpeg.compare)


def test_an_upscaler_is_wanted_and_measured(photos, make_package):
    with impasto.load(make_package(scale=2)) as nearest:
        row = upscale.compare(nearest, photos)["×2"]
    assert row["model"] < row["bicubic"]
    with impasto.load(make_package("same-size")) as other, pytest.raises(OptionError, match="does not enlarge"):
        upscale.compare(other, photos)


@pytest.mark.parametrize("extent", deblur.EXTENTS)
def test_a_shake_kernel_spans_its_extent_and_keeps_the_light(extent):
    for seed in range(5):
        kernel = deblur.shake_kernel(extent, seed)
        assert kernel.sum() == pytest.approx(1)
        assert kernel.shape[0] % 2 == 1
        rows, columns = (np.flatnonzero(kernel.sum(axis)) for axis in (1, 0))
        assert max(np.ptp(rows), np.ptp(columns)) in (extent - 1, extent)


def test_mean_psnr_is_a_mean_of_decibels(photos):
    other = [np.clip(photo.astype(int) + 1, 0, 255).astype(np.uint8) for photo in photos]
    expected = [10 * np.log10(255**2 / np.mean((a.astype(float) - b) ** 2)) for a, b in zip(photos, other, strict=True)]
    assert mean_psnr(photos, other) == pytest.approx(np.mean(expected))


def test_the_command_writes_its_figures(photos, make_package, tmp_path):
    (tmp_path / "photos").mkdir()
    for index, photo in enumerate(photos):
        images.write(tmp_path / "photos" / f"{index}.png", photo)
    command = [sys.executable, "-m", "impasto.benchmarks.dejpeg", str(tmp_path / "photos"), "--model"]
    done = subprocess.run(
        [*command, str(make_package()), "--json", str(tmp_path / "r.json")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == len(dejpeg.QUALITIES)
    report = json.loads((tmp_path / "r.json").read_text())
    assert report["photos"] == 2
    assert set(report["psnr_db"]) == {str(quality) for quality in dejpeg.QUALITIES}
    for model, said in (
        ("no-such-model", "no-such-model"),
        (str(make_package("larger", scale=2)), "impasto.benchmarks.upscale"),
    ):
        failed = subprocess.run([*command, model], capture_output=True, text=True, check=False)
        assert failed.returncode == 1
        assert said in failed.stderr
        assert "Traceback" not in failed.stderr
