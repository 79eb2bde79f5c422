"""Quality figures: against slower formulas, and drawn as the runtime draws."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from support.small_training import photo, shaken

from impasto.training import losses
from impasto.training import validation as metrics
from impasto.training.backbones import load_vgg16
from impasto.training.inference import draw, to_float
from impasto.training.networks import Network

pytest_plugins = ("support.training_fixtures",)


class Unchanged(Network):
    architecture, multiple, border = "unchanged", 8, 16

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def forward(self, image, context=None):
        return image + self.weight


def test_psnr_of_a_known_error():
    clean = np.full((8, 8, 3), 100, np.uint8)
    assert metrics.psnr(clean, clean + 5) == pytest.approx(20 * np.log10(255 / 5))
    assert metrics.psnr(clean, clean) == float("inf")


def test_the_noisy_photo_itself_scores_what_its_noise_says():
    pictures = [np.full((64, 64, 3), 128, np.uint8)]
    quality = metrics.denoise_psnr(Unchanged(), pictures)
    assert quality["psnr_sigma_25"] == pytest.approx(20 * np.log10(255 / 25), abs=0.15)


def test_a_read_only_picture_is_taken_without_a_warning(recwarn):
    """Decoded pictures are read-only. torch warns of such memory once in a program, unless it is told to always warn."""
    picture = photo(24, 24)
    picture.setflags(write=False)
    torch.set_warn_always(True)
    try:
        assert to_float(picture, torch.device("cpu")).shape == (1, 3, 24, 24)
    finally:
        torch.set_warn_always(False)
    assert not [str(warning.message) for warning in recwarn if "writable" in str(warning.message)]


def test_large_pictures_are_judged_in_their_middle():
    """A camera's take gigabytes to draw at once."""
    picture = photo(30, 1300)
    middle = picture[:, 138 : 138 + 1024]
    assert np.array_equal(metrics.judged(picture, 1), middle[:24])
    assert np.array_equal(metrics.judged(picture.transpose(1, 0, 2), 1), middle.transpose(1, 0, 2)[:, :24])
    assert metrics.denoise_psnr(Unchanged(), [picture]) == metrics.denoise_psnr(Unchanged(), [middle])
    small = photo(45, 51)
    assert np.array_equal(metrics.judged(small, 2), small[:32, :48])


def test_a_picture_survives_drawing_by_a_network_that_changes_nothing():
    picture = photo(37, 51)
    assert np.array_equal(draw(Unchanged(), picture), picture)


def test_drawing_is_local_and_its_border_reflected():
    """A picture drawn with its surroundings reflected around it equals the part of the larger picture drawn whole."""
    network = shaken("unet-restorer")
    picture = photo(48, 48)
    around = network.receptive_field // 8 * 8 + 8
    mirrored = np.pad(picture, ((around, around), (around, around), (0, 0)), mode="reflect")
    drawn = draw(network, mirrored)[around:-around, around:-around]
    inner = slice(32, -32) if drawn.shape[0] > 64 else slice(20, -20)
    difference = np.abs(drawn[inner, inner].astype(int) - draw(network, picture)[inner, inner])
    assert difference.max() <= 40  # the border of 8 hides most of the zero padding, not all of it


def test_a_photo_has_no_content_distance_to_itself(vgg):
    backbone = load_vgg16(vgg)
    painting = torch.from_numpy(photo(48, 48, 5)).permute(2, 0, 1)[None].float() / 255
    target = losses.StyleTarget(backbone(painting))
    quality = metrics.style_objective(Unchanged(), [photo(52, 68)], backbone, target)
    assert quality["content"] == 0
    assert quality["objective"] == pytest.approx(10 * quality["style"])
    same = metrics.style_objective(Unchanged(), [photo(48, 48, 5)], backbone, target)
    assert same["style"] < 1e-6


def test_nothing_to_judge_by_gives_no_figures(vgg):
    assert metrics.denoise_psnr(Unchanged(), []) == {}
    assert metrics.style_objective(Unchanged(), [], load_vgg16(vgg), None) == {}


def test_grid_levels_measure_a_grid():
    flat = np.full((64, 64, 3), 100, np.uint8)
    assert metrics.grid_levels(flat, 8) == pytest.approx(0, abs=1e-4)
    flat[::8] += 20
    assert metrics.grid_levels(flat, 8) > 2
