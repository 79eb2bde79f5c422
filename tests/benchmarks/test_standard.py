"""The standard sets: what the damage keeps and does, how a restored picture is judged, and what the command says."""

from __future__ import annotations

import json
from itertools import pairwise

import numpy as np
import pytest
from support.small_models import picture

import impasto
from impasto import images
from impasto.benchmarks.standard import damage
from impasto.benchmarks.standard import evaluate as standard
from impasto.benchmarks.standard.peers import read_peers
from impasto.errors import OptionError

PICTURE = picture(96, 120, 3)
TRIALS = [(kind, trial) for kind, trials in standard.KINDS.items() for trial in trials]


@pytest.mark.parametrize(("kind", "trial"), TRIALS)
def test_damage_depends_on_the_seed_alone(kind, trial):
    once, again = ([s.picture for s in trial.damage(PICTURE, 1)] for _ in range(2))
    for one, other in zip(once, again, strict=True):
        assert one.dtype == np.uint8
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("kind", ["denoise", "gray", "camera", "deblur", "inpaint"])
def test_another_seed_is_other_damage(kind):
    (trial,) = standard.KINDS[kind]
    for one, other in zip(trial.damage(PICTURE, 1), trial.damage(PICTURE, 2), strict=True):
        assert (one.picture != other.picture).any()


@pytest.mark.parametrize("sigma", [5, 20])
def test_noise_has_the_strength_that_it_is_said_to_have(sigma):
    middle = np.full((200, 200, 3), 128, np.uint8)
    added = damage.noisy(middle, sigma, 0).astype(float) - 128
    assert added.std() == pytest.approx(sigma, rel=0.02)
    alike = damage.noisy(middle, sigma, 0, alike=True)
    assert (alike == alike[..., :1]).all()


def test_gray_is_what_pillow_calls_gray():
    from PIL import Image

    wanted = np.asarray(Image.fromarray(PICTURE).convert("L")).astype(int)
    assert np.abs(damage.gray(PICTURE)[..., 1] - wanted).max() <= 1


def test_luminance_is_16_for_black_and_235_for_white():
    grays = np.array([[[0, 0, 0], [255, 255, 255]]], np.uint8)
    np.testing.assert_allclose(damage.luminance(grays), [[16, 235]])


def test_a_camera_without_noise_gives_the_undamaged_picture():
    clean, caught = damage.camera(PICTURE, 1e12, 0)
    assert np.abs(clean.astype(int) - caught).max() <= 1
    assert (clean != caught).mean() < 1e-3


def test_more_electrons_are_less_noise():
    errors = [damage.capped_psnr(*damage.camera(PICTURE, electrons, 0)) for electrons in (40, 100, 400)]
    assert all(fewer < more for fewer, more in pairwise(errors))


def test_developing_keeps_what_the_sensors_saw_and_even_colours():
    even = np.broadcast_to(np.array([0.2, 0.5, 0.8]) ** damage._GAMMA, (10, 12, 3))
    np.testing.assert_allclose(damage.developed(damage.mosaic(even)), np.broadcast_to([51, 128, 204], (10, 12, 3)))
    seen = np.random.default_rng(0).random((10, 12))
    made = damage.developed(seen)
    np.testing.assert_array_equal(made[::2, ::2, 0], damage.levels(seen[::2, ::2] ** (1 / 2.2) * 255))
    np.testing.assert_array_equal(made[1::2, 1::2, 2], damage.levels(seen[1::2, 1::2] ** (1 / 2.2) * 255))


def test_kernels_keep_the_light_and_the_place():
    places = np.arange(damage.KERNEL_SIDE) - damage.KERNEL_SIDE // 2
    for name, kernel in damage.kernels().items():
        assert kernel.sum() == pytest.approx(1), name
        assert (kernel >= 0).all()
        assert abs(kernel.sum(0) @ places) <= 0.5, name
        assert abs(kernel.sum(1) @ places) <= 0.5, name
    assert len(damage.kernels()) == 8


def test_a_blur_is_a_convolution():
    from scipy.ndimage import convolve

    kernel = damage.kernels()["shake 8"]
    wanted = np.stack([convolve(PICTURE[..., c].astype(float), kernel, mode="mirror") for c in range(3)], 2)
    made = damage.blurred(PICTURE, kernel, 0).astype(float)
    noise = damage.noisy(wanted, 2, 0).astype(float)
    assert np.abs(made - noise).max() <= 1


@pytest.mark.parametrize("kind", damage.HOLES)
def test_holes_are_some_of_the_pixels_and_nothing_else_is_touched(kind):
    hole = damage.holes(kind, 200, 300, 0)
    assert (hole.shape, hole.dtype) == ((200, 300), bool)
    assert 0.01 < hole.mean() < 0.6
    (sample,) = (s for s in standard.missing_pixels(picture(200, 300), 0) if s.damage == kind)
    np.testing.assert_array_equal((sample.picture == (255, 0, 255)).all(2), hole)
    np.testing.assert_array_equal(sample.picture[~hole], picture(200, 300)[~hole])


def test_holes_are_of_the_sizes_that_they_are_said_to_have():
    assert damage.holes("30 % of pixels", 400, 400, 1).mean() == pytest.approx(0.3, abs=0.01)
    disc = np.pi * 32**2 / 300**2
    assert disc < damage.holes("discs of 64", 300, 300, 1).mean() < 4.2 * disc


def test_half_of_a_picture_has_half_its_even_sides():
    large, small = damage.halved(picture(31, 41))
    assert (large.shape, small.shape) == ((30, 40, 3), (15, 20, 3))


def test_the_page_holds_text():
    page = damage.letters()
    assert page.shape == (320, 480, 3)
    assert (page[40:] < 200).any(2).mean() > 0.02


def test_psnr_is_of_the_mean_squared_error_and_never_infinite():
    assert damage.capped_psnr(PICTURE, PICTURE) == damage.HIGHEST_PSNR
    ten_off = np.full((8, 8, 3), 110, np.uint8)
    assert damage.capped_psnr(np.full((8, 8, 3), 100, np.uint8), ten_off) == pytest.approx(20 * np.log10(25.5))


def test_each_judge_looks_where_it_says():
    spoiled = PICTURE.copy()
    spoiled[:2], spoiled[:, -2:] = 0, 255
    assert damage.luminance_psnr(PICTURE, spoiled) == damage.HIGHEST_PSNR
    moved = np.roll(PICTURE, (2, -1), (0, 1))
    assert damage.shifted_psnr(PICTURE, moved) == damage.HIGHEST_PSNR
    assert damage.shifted_psnr(PICTURE, np.roll(PICTURE, 3, 0)) < 40
    for sample in standard.missing_pixels(PICTURE, 0):
        hole = (sample.picture == (255, 0, 255)).all(2)
        elsewhere = np.where(hole[..., None], PICTURE, 255 - PICTURE)
        assert sample.judge(elsewhere) == damage.HIGHEST_PSNR


@pytest.fixture
def data(tmp_path):
    """A data folder that holds Set5 and CBSD68, of a few small pictures, and no other set."""
    for name, count in (("Set5", 2), ("CBSD68", 7)):
        (tmp_path / "sets" / name).mkdir(parents=True)
        for index in range(count):
            images.write(tmp_path / "sets" / name / f"{index}.png", picture(80, 96, index))
    return tmp_path


def test_rows_are_means_over_the_pictures_of_a_set(data, make_package):
    package = make_package()
    rows, models = standard.measure(["denoise", "clean"], data, str(package))
    assert [(row.kind, row.row.split(",")[0], row.pictures) for row in rows] == [
        *(("denoise", f"CBSD68 sigma {sigma}", 7) for sigma in (15, 25, 50)),
        ("clean", "CBSD68 clean", 2),
    ]
    noise = [damage.noisy(picture(80, 96, i), 25, i) for i in range(7)]
    wanted = np.mean([damage.capped_psnr(picture(80, 96, i), noise[i]) for i in range(7)])
    assert rows[1].damaged_db == pytest.approx(wanted)
    (known,) = models.values()
    assert len(known["sha256"]["model.onnx"]) == 64
    with impasto.load(package) as model:
        drawn = np.mean([damage.capped_psnr(picture(80, 96, i), model(noise[i])) for i in range(7)])
    assert rows[1].restored_db == pytest.approx(drawn)


def test_the_command_names_what_is_missing_measures_the_rest_and_writes_it(data, make_package, capsys, monkeypatch):
    monkeypatch.setenv("IMPASTO_DATA", str(data))
    model = str(make_package(scale=2))
    standard.main(["upscale", "--model", model, "--limit", "1", "--json", str(data / "found.json")])
    printed = capsys.readouterr()
    assert "Set14 is missing" in printed.err
    assert "cszn/DnCNN" in printed.err
    assert "Set5 x2" in printed.out
    found = json.loads((data / "found.json").read_text())
    assert [(row["row"], row["pictures"]) for row in found["rows"]] == [("Set5 x2", 1)]
    assert (found["limit"], len(found["missing"])) == (1, 1)
    assert {"processor", "libraries", "date"} <= set(found["environment"])
    assert list(found["models"]) == [model]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["sharpen"], "unknown kind 'sharpen'"),
        (["--model", "denoise"], "name the kinds"),
        (["gray", "--limit", "0"], "at least 1"),
        (["upscale", "--model", "denoise"], "denoise enlarges ×1"),
        (["gray", "--data", "nowhere"], "nowhere is not there"),
    ],
)
def test_wrong_options_are_one_line(words, said, data, monkeypatch):
    monkeypatch.setenv("IMPASTO_DATA", str(data))
    with pytest.raises(SystemExit, match=said):
        standard.main(words)


def test_without_a_data_folder_the_variable_is_named(monkeypatch):
    monkeypatch.delenv("IMPASTO_DATA", raising=False)
    with pytest.raises(SystemExit, match=r"\$IMPASTO_DATA"):
        standard.main([])


def test_peers_stand_beside_rows_of_the_same_pictures():
    peers = read_peers()
    row = standard.Row("camera", "McMaster 400 electrons", "denoise", 6, 30.0, 31.0)
    six = standard.table("camera", [row], peers, 6)
    assert "FFDNet-clip, best σ" in [column.header for column in six.columns]
    whole = standard.table("camera", [row], peers, None)
    assert len(whole.columns) == 5
    assert "--limit 6" in str(whole.caption)


def test_every_figure_of_a_peer_is_of_a_row_that_is_measured(monkeypatch):
    """Otherwise a renamed row would lose its opponents without a word."""
    rows = {
        kind: {
            trial.row(of, sample.damage, name)
            for trial in trials
            for of in trial.sets
            for name in trial.models
            for sample in trial.damage(PICTURE, 0)
        }
        for kind, trials in standard.KINDS.items()
    }
    for peer in read_peers():
        for kind, figures in peer.figures.items():
            assert set(figures.psnr_db) <= rows[kind], (peer.name, kind)


def test_opponents_are_named_exactly():
    for peer in read_peers():
        assert peer.weights
        assert peer.told
        assert peer.cost or peer.weights.startswith("none: ")


def test_a_measurement_needs_a_model_of_its_scale(data, make_package):
    with pytest.raises(OptionError, match="×2"):
        standard.measure(["denoise"], data, str(make_package(scale=2)))
