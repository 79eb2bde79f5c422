"""What steers a place of the drawing: never more than the network's receptive field, but for its thumbnail."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from support.small_training import SMALL, photo

from impasto.training.checkpoint import save_checkpoint
from impasto.training.input_gradient import input_gradients
from impasto.training.networks import build


@pytest.fixture
def saved(tmp_path):
    def save(architecture: str):
        torch.manual_seed(0)
        network = build(architecture, SMALL[architecture])
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.add_(0.05 * torch.randn_like(parameter))
        path = tmp_path / f"{architecture}.safetensors"
        save_checkpoint(path, network, name="tiny", task="denoise", recipe={})
        return path, network

    return save


def test_nothing_beyond_the_receptive_field_steers_a_place(saved):
    path, network = saved("unet-restorer")
    side = 2 * network.receptive_field + 64
    (found,) = input_gradients(path, photo(side, side), [(side // 2, side // 2)])
    assert found.influence.shape == (side, side) and found.influence.sum() == pytest.approx(1, abs=1e-4)
    assert found.through_thumbnail == 0
    seen = np.argwhere(found.influence > 0)
    assert np.abs(seen - side // 2).max() <= network.receptive_field + 4  # a place is 8 pixels wide
    assert 0 <= found.radius_of(0.5) <= found.radius_of(0.9) <= network.receptive_field + 4


def test_the_thumbnail_of_the_whole_photo_steers_too(saved):
    path, _ = saved("thumbnail-stylizer")
    corner, middle = input_gradients(path, photo(72, 104), [(0, 0), (36, 52)])
    for found in (corner, middle):
        assert 0 < found.through_thumbnail < 1
        assert (found.influence > 0).mean() > 0.9  # everywhere
    assert not np.array_equal(corner.influence, middle.influence)


def test_a_gradient_is_a_difference_quotient(saved):
    path, network = saved("unet-restorer")
    image = photo(64, 64)
    (found,) = input_gradients(path, image, [(32, 32)])
    network = network.folded()
    extra = (torch.ones(1, 1),) if network.strength else ()

    def place(changed: np.ndarray) -> float:
        padded = np.pad(changed, ((network.border,) * 2, (network.border,) * 2, (0, 0)), mode="reflect")
        drawn = network(torch.from_numpy(padded).permute(2, 0, 1)[None].float(), *extra)
        at = slice(network.border + 28, network.border + 36)
        return float(drawn[..., at, at].double().sum())

    def moved(row: int, column: int) -> float:
        total = 0.0
        for colour in range(3):
            up, down = (np.array(image, np.float64) / 255 for _ in range(2))
            up[row, column, colour] += 1e-3
            down[row, column, colour] -= 1e-3
            total += abs(place(up) - place(down)) / 2e-3
        return total

    with torch.no_grad():
        ratio = moved(32, 32) / moved(30, 37)
    # Weights in a checkpoint are halves, and ReLUs have corners.
    assert found.influence[32, 32] / found.influence[30, 37] == pytest.approx(ratio, rel=0.15)
