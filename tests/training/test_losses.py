"""Losses: their formulas against float64 NumPy, and what they must not see."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from support.small_training import photo
from torch.testing import assert_close

from impasto.training import losses

GENERATOR = np.random.default_rng(0)
ONE, OTHER = (GENERATOR.uniform(0, 1, (2, 3, 16, 24)) for _ in range(2))


def tensor(array):
    return torch.from_numpy(array).float()


def test_content_is_the_relative_squared_error():
    expected = np.square(ONE - OTHER).mean() / np.square(OTHER).mean()
    assert float(losses.content(tensor(ONE), tensor(OTHER))) == pytest.approx(expected, rel=1e-5)
    assert float(losses.content(3 * tensor(ONE), 3 * tensor(OTHER))) == pytest.approx(expected, rel=1e-5)


def test_charbonnier_is_the_absolute_error_with_a_soft_corner():
    expected = np.sqrt(np.square(ONE - OTHER) + 1e-6).mean() - 1e-3
    assert float(losses.charbonnier(tensor(ONE), tensor(OTHER))) == pytest.approx(expected, rel=1e-5)
    assert abs(float(losses.charbonnier(tensor(ONE), tensor(ONE)))) < 1e-8


def test_total_variation_is_the_mean_step():
    expected = np.abs(np.diff(ONE, axis=2)).mean() + np.abs(np.diff(ONE, axis=3)).mean()
    assert float(losses.total_variation(tensor(ONE))) == pytest.approx(expected, rel=1e-5)


def test_out_of_range_counts_only_what_is_outside():
    assert float(losses.out_of_range(torch.tensor([0.0, 0.5, 1.0]))) == 0
    assert float(losses.out_of_range(torch.tensor([-0.5, 0.5, 1.25, 1.0]))) == pytest.approx(0.75 / 4)


def style_maps(seed, sizes=((8, 12, 10), (16, 6, 5))):
    generator = np.random.default_rng(seed)
    return {f"layer{i}": generator.uniform(0, 3, (1, *size)) for i, size in enumerate(sizes)}


def test_style_distance_is_the_mean_over_layers_of_relative_gram_errors():
    painting, drawing = style_maps(0), style_maps(1)
    terms = []
    for layer, features in painting.items():
        a, g = (x[0].reshape(x.shape[1], -1) for x in (features, drawing[layer]))
        a, g = (x @ x.T / x.size for x in (a, g))
        terms.append(np.square(g - a).mean() / np.square(a).mean())
    target = losses.StyleTarget({key: tensor(value) for key, value in painting.items()})
    distance = float(target.distance({key: tensor(value) for key, value in drawing.items()}))
    assert distance == pytest.approx(np.mean(terms), rel=1e-4)


def test_style_does_not_see_where_things_are_nor_how_large_the_picture_is():
    painting = {key: tensor(value) for key, value in style_maps(0).items()}
    target = losses.StyleTarget(painting)
    mixed = {key: value.flip(3).roll(2, 2) for key, value in painting.items()}
    twice = {key: value.repeat(2, 1, 1, 3) for key, value in painting.items()}
    assert float(target.distance(painting)) < 1e-10
    assert float(target.distance(mixed)) < 1e-10
    assert float(target.distance(twice)) < 1e-10


def picture(seed=0, side=96):
    return tensor(photo(side, side, seed) / 255).permute(2, 0, 1)[None]


def test_a_grid_is_seen_and_its_place_does_not_matter():
    grid = torch.zeros(1, 1, 8, 8)
    grid[..., 0, :] = 0.05
    grid = grid.repeat(1, 3, 12, 12)
    clean, marked = (float(losses.cell_pattern(p, 8)) for p in (picture(), picture() + grid))
    moved = float(losses.cell_pattern(picture() + grid.roll((3, 5), (2, 3)), 8))
    assert marked > 10 * clean
    assert moved == pytest.approx(marked, rel=0.2)


def test_a_grid_of_grain_is_seen():
    grain = torch.randn(1, 3, 96, 96, generator=torch.Generator().manual_seed(0)) * 0.05
    kept = torch.zeros(8, 8)
    kept[::4, ::4] = 1
    assert float(losses.cell_pattern(picture() + grain * kept.repeat(12, 12), 8)) > 5 * float(
        losses.cell_pattern(picture() + grain, 8)
    )


def test_places_in_cells_are_sorted_out():
    values = torch.arange(64.0).view(1, 1, 8, 8).repeat(1, 3, 2, 2)
    blurred = F.avg_pool2d(F.pad(values, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    places = losses.by_place(values, 8)
    assert places.shape == (1, 3, 64, 2, 2)
    assert_close(places[0, 0, 10, 1, 0], (values - blurred)[0, 0, 8 + 1, 2])


def test_weighted_is_the_sum():
    terms = {"a": torch.tensor(2.0), "b": torch.tensor(3.0)}
    assert float(losses.weighted(terms, {"a": 1.5, "b": 10})) == 33


def test_frequency_is_the_mean_modulus_of_the_spectrum():
    expected = np.abs(np.fft.rfft2(ONE - OTHER, norm="ortho")).mean()
    assert float(losses.frequency(tensor(ONE), tensor(OTHER))) == pytest.approx(expected, rel=1e-5)
    assert float(losses.frequency(tensor(ONE), tensor(ONE))) == 0


def test_frequency_grows_with_the_error_and_not_with_its_place():
    one, other = tensor(ONE), tensor(OTHER)
    error = float(losses.frequency(one, other))
    assert float(losses.frequency(other + 3 * (one - other), other)) == pytest.approx(3 * error, rel=1e-5)
    assert float(losses.frequency(one.roll((3, 5), (2, 3)), other.roll((3, 5), (2, 3)))) == pytest.approx(
        error, rel=1e-5
    )


def test_a_wave_is_one_frequency():
    x = torch.arange(24) / 24
    wave = 0.1 * torch.cos(2 * np.pi * 3 * x).expand(1, 1, 16, 24)
    # One of 16 x 13 frequencies holds it: 0.1 / 2 of the mean times the root of the number of pixels.
    expected = 0.05 * (16 * 24) ** 0.5 / (16 * 13)
    assert float(losses.frequency(wave, torch.zeros_like(wave))) == pytest.approx(expected, rel=1e-5)


def test_frequency_has_a_gradient_at_equal_pictures():
    one = tensor(ONE).requires_grad_()
    losses.frequency(one, one.detach()).backward()
    assert float(one.grad.abs().max()) == 0


def test_log_error_is_what_is_missing_of_the_psnr():
    one, other = tensor(ONE), tensor(OTHER)
    near = other + 0.1 * (one - other)
    ceiling = 10 * np.log10(12 * 255**2)  # of a picture rounded to 8 bits, in dB
    for picture in (one, near):
        psnr = -10 * np.log10(np.square(picture.numpy() - OTHER).mean((1, 2, 3)))
        assert 10 * float(losses.log_error(picture, other)) == pytest.approx(ceiling - psnr.mean(), abs=0.01)
    assert float(losses.log_error(one, one)) == 0


def test_log_error_hears_the_good_picture_of_a_batch_as_well_as_the_bad_one():
    """A tenth less error of either gains the same; the mean error hears the bad one alone."""
    clean = tensor(ONE)
    errors = torch.tensor([0.2, 0.02]).view(2, 1, 1, 1)
    loss = losses.log_error(clean + errors, clean)
    gains = [
        float(loss - losses.log_error(clean + errors * torch.tensor(better).view(2, 1, 1, 1), clean))
        for better in ((0.9, 1.0), (1.0, 0.9))
    ]
    assert gains[0] == pytest.approx(gains[1], rel=0.01)


def test_log_error_has_a_gradient_at_equal_pictures():
    one = tensor(ONE).requires_grad_()
    losses.log_error(one, one.detach()).backward()
    assert float(one.grad.abs().max()) == 0


def motion(count=1, zoom=1.0, across=0.0, down=0.0, side=32):
    return torch.tensor([[[zoom, 0, across * 2 / side], [0, zoom, down * 2 / side]]]).repeat(count, 1, 1)


def test_moved_by_whole_pixels_is_rolled():
    one = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    assert_close(losses.moved(one, motion(2)), one, atol=1e-5, rtol=0)
    shifted = losses.moved(one, motion(2, across=3, down=-2))
    assert_close(shifted[..., 4:-4, 4:-4], one.roll((2, -3), (2, 3))[..., 4:-4, 4:-4], atol=1e-4, rtol=0)


def test_what_a_zoom_shows_is_larger():
    x = (torch.arange(32) + 0.5 - 16).expand(1, 1, 32, 32)
    assert_close(losses.moved(x, motion(zoom=0.5))[..., 8:-8], 0.5 * x[..., 8:-8], atol=1e-4, rtol=0)


def test_only_painting_by_place_or_noise_flickers():
    one = picture(side=32)
    go = motion(zoom=1.01, across=1.5, down=-2.25)
    brighter = 0.5 * one + 0.25  # what a pixel becomes depends on the pixel alone
    assert float(losses.temporal(0.5 * losses.moved(one, go) + 0.25, brighter, go, 6)) < 1e-10
    texture = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    assert float(losses.temporal(losses.moved(one, go) + texture, one + texture, go, 6)) > 0.01


def test_the_edges_are_left_out_of_flicker():
    one = picture(side=32)
    other = losses.moved(one, motion())
    other[..., :6, :] = 0
    assert float(losses.temporal(other, one, motion(), 6)) < 1e-10
    assert float(losses.temporal(other, one, motion(), 5)) > 1e-4
