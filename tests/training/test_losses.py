"""Losses: their formulas against float64 NumPy, and what they must not see."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from small_training import photo
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
