"""What every network promises, whatever it draws."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from support.small_training import SMALL, photo, shaken
from torch.testing import assert_close

from impasto.errors import OptionError
from impasto.training.inference import draw
from impasto.training.networks import ARCHITECTURES, Network, build, kmac_per_pixel

LOCAL = ("thumbnail-stylizer", "unet-restorer", "plain-upscaler")


def run(network: Network, image: torch.Tensor, seed: int = 0) -> torch.Tensor:
    if not network.thumbnail:
        return network(image)
    side = network.thumbnail
    small = torch.rand(len(image), 3, side, side, generator=torch.Generator().manual_seed(seed))
    return network(image, network.context(small))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_size_is_kept_and_a_batch_is_its_pictures(architecture):
    network = shaken(architecture)
    images = torch.rand(2, 3, 4 * network.multiple, 6 * network.multiple)
    if network.thumbnail:
        context = network.context(torch.rand(2, 3, network.thumbnail, network.thumbnail))
        both = network(images, context)
        single = torch.cat([network(images[i : i + 1], context[i : i + 1]) for i in range(2)])
    else:
        both, single = network(images), torch.cat([network(image[None]) for image in images])
    assert both.shape == (2, 3, *(network.scale * side for side in images.shape[2:]))
    assert_close(both, single, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("architecture", LOCAL)
@pytest.mark.parametrize("deeper", [False, True])
def test_no_pixel_depends_on_an_input_beyond_the_receptive_field(architecture, deeper):
    config = {
        "thumbnail-stylizer": {"blocks": 2, "before": 2, "finish": True},
        "unet-restorer": {"middle": 2, "encoder": [2, 1]},
    }
    config["plain-upscaler"] = {"layers": 3, "cell": 2, "gates": False}
    network = shaken(architecture, **(config.get(architecture, {}) if deeper else {}))
    side = 8 * (network.receptive_field // 4 + 4)
    image = torch.rand(1, 3, side, side, requires_grad=True)
    drawn = run(network, image)
    reach = 0
    for place in range(side // 2 // 8 * 8, side // 2 // 8 * 8 + 8):  # every place in a cell
        seen = network.scale * place + network.scale - 1
        (gradient,) = torch.autograd.grad(drawn[..., seen, seen].sum(), image, retain_graph=True)
        touched = gradient.abs().sum((0, 1)).nonzero()
        reach = max(reach, int((touched - place).abs().max()))
    assert reach <= network.receptive_field
    assert reach > network.receptive_field - 8, "a looser claim makes tiles overlap more than they need"


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_folded_draws_the_same_and_holds_no_gradients(architecture):
    network = shaken(architecture)
    image = torch.rand(1, 3, 48, 64)
    folded = network.folded()
    assert_close(run(folded, image), run(network, image), atol=1e-4, rtol=0)
    assert not any(parameter.requires_grad for parameter in folded.parameters())
    assert folded.architecture == network.architecture


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_config_builds_the_same_network_again(architecture):
    network = shaken(architecture)
    again = build(architecture, network.config)
    again.load_state_dict(network.state_dict())
    image = torch.rand(1, 3, 48, 48)
    assert torch.equal(run(again.eval(), image), run(network, image))


@pytest.mark.parametrize("architecture", LOCAL)
def test_a_fresh_network_draws_no_grid(architecture):
    torch.manual_seed(0)
    network = build(architecture, SMALL[architecture]).eval()
    flat = run(network, torch.full((1, 3, 192, 192), 0.4)).detach()
    middle = flat[..., 88:104, 88:104]
    assert float((middle.amax((2, 3)) - middle.amin((2, 3))).max()) < 1e-5


def test_a_fresh_restorer_returns_the_picture_nearly():
    image = torch.rand(1, 3, 64, 64)
    assert float((build("unet-restorer", {}).eval()(image) - image).abs().mean().detach()) < 0.1


def test_a_fresh_upscaler_repeats_pixels_nearly():
    image = torch.rand(1, 3, 24, 24)
    repeated = image.repeat_interleave(2, 2).repeat_interleave(2, 3)
    assert float((build("plain-upscaler", {}).eval()(image) - repeated).abs().mean().detach()) < 0.15


def test_a_restorer_may_enlarge():
    network = shaken("unet-restorer", scale=2)
    assert network(torch.rand(1, 3, 32, 48)).shape == (1, 3, 64, 96)
    assert draw(network, photo(21, 30)).shape == (42, 60, 3)


def test_scales_and_shifts_come_from_the_thumbnail():
    network = shaken("thumbnail-stylizer")
    image = torch.rand(1, 3, 64, 64)
    assert float((run(network, image, 1) - run(network, image, 2)).detach().abs().max()) > 1e-4


@pytest.mark.parametrize(
    ("architecture", "budget", "parameters"),
    [
        ("thumbnail-stylizer", 40, 1_160_000),
        ("unet-restorer", 70, 830_000),
        ("classic-stylizer", 154, 1_700_000),
        ("plain-upscaler", 53, 51_000),
    ],
)
def test_default_networks_keep_to_their_budget(architecture, budget, parameters):
    network = build(architecture, {})
    assert 0.6 * budget < kmac_per_pixel(network) <= budget
    assert sum(parameter.numel() for parameter in network.parameters()) <= parameters


def test_kmac_counts_what_a_convolution_does():
    # Stem and head of 3 x 3 on cells of 2, nothing between but the convolutions that go down and up.
    network = build("unet-restorer", {"widths": [32, 32, 32], "encoder": [0, 0], "middle": 0, "decoder": [0, 0]})
    stem_and_head = 2 * 9 * 12 * 32 / 4
    down = 9 * 32 * 32 * (1 / 16 + 1 / 64)
    up = 32 * 128 * (1 / 64 + 1 / 16)
    assert kmac_per_pixel(network) == pytest.approx((stem_and_head + down + up) / 1000)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("size", [(48, 64), (37, 51)])
def test_draw_takes_any_size(architecture, size):
    network = shaken(architecture)
    drawn = draw(network, photo(*size))
    assert drawn.shape == (*(network.scale * side for side in size), 3)
    assert drawn.dtype == np.uint8


def test_unknown_names_and_configs_are_refused():
    with pytest.raises(OptionError, match="choose one of"):
        build("resnet", {})
    with pytest.raises(OptionError, match="cannot be built"):
        build("unet-restorer", {"depth": 3})


@pytest.mark.parametrize(
    ("architecture", "config"),
    [
        ("unet-restorer", {"encoder": [4]}),
        ("unet-restorer", {"widths": [-1, 8, 8]}),
        ("thumbnail-stylizer", {"thumbnail": 20}),
        ("thumbnail-stylizer", {"thumbnail": 0}),
        ("plain-upscaler", {"scale": 1}),
        ("plain-upscaler", {"cell": 3}),
    ],
)
def test_configs_that_torch_stumbles_over_are_refused(architecture, config):
    with pytest.raises(OptionError, match="cannot be built from"):
        build(architecture, config)


def test_with_a_marker_only_pixels_of_that_colour_are_drawn():
    network = shaken("unet-restorer", marker=[1.0, 0.0, 1.0])
    levels = torch.from_numpy(photo(32, 48)).permute(2, 0, 1)[None]
    levels[..., 4:9, 5:20] = torch.tensor([255, 0, 255], dtype=torch.uint8).view(1, 3, 1, 1)
    levels[..., 20, 20] = torch.tensor([255, 1, 255], dtype=torch.uint8)  # nearly, and so not missing
    drawn = network(levels / 255)
    missing = torch.zeros(32, 48, dtype=torch.bool)
    missing[4:9, 5:20] = True
    changed = (drawn - levels / 255).abs().amax(1)[0]
    assert (changed[missing] > 1e-3).all()
    assert (changed[~missing] == 0).all()
    without = shaken("unet-restorer")
    without.adopt(network)
    assert_close(drawn[..., missing], without(levels / 255)[..., missing])


@pytest.mark.parametrize("config", [{"marker": [1.0, 0.0]}, {"marker": [1.0, 0.0, 1.0], "scale": 2}])
def test_a_marker_is_one_colour_and_for_scale_1(config):
    with pytest.raises(OptionError, match="a marker is one colour, and for scale 1"):
        build("unet-restorer", config)
