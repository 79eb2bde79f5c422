"""Stylizers that learn from whole photos, at several sizes of strokes, and what is new in their network."""

from __future__ import annotations

import pytest
import torch
from support.small_training import SMALL, photo, shaken
from torch.testing import assert_close

from impasto.errors import OptionError
from impasto.training import checkpoint
from impasto.training.backbones import load_vgg16
from impasto.training.data.crops import inside
from impasto.training.data.photos import Photos
from impasto.training.loop.task import TaskOptions
from impasto.training.networks import build
from impasto.training.style import STYLE_WEIGHTS, StyleTask, train_style

pytest_plugins = ("support.training_fixtures",)
CPU = torch.device("cpu")
PHOTOS = Photos((photo(96, 128, 0), photo(128, 96, 1)), ("0", "1"), ())
NONE = Photos((), (), ())


def style_task(network, vgg, painting=None, scales=1, photos=PHOTOS, **weights):
    return StyleTask(
        network,
        load_vgg16(vgg),
        [photo(64, 80, 9) if painting is None else painting],
        photos,
        NONE,
        TaskOptions(crop=32, batch=2, seed=0, device=CPU, weights={**STYLE_WEIGHTS, **weights}),
        whole=(128, 160),
        scales=scales,
    )


def test_a_step_on_whole_photos_has_all_terms_and_reaches_the_thumbnail_reader(vgg):
    network = shaken("thumbnail-stylizer").train()
    task = style_task(network, vgg, scales=2, **{"deep content": 0.5, "temporal": 1.0})
    terms = task(*task.batch(1))
    assert set(terms) == set(task.weights)
    assert all(bool(torch.isfinite(term)) for term in terms.values())
    sum(terms.values()).backward()
    assert float(network.reader.features[0].weight.grad.abs().sum()) > 0


def test_the_thumbnail_is_that_of_the_whole_photo_without_its_reflection(vgg):
    network = shaken("thumbnail-stylizer")
    task = style_task(network, vgg)
    pictures, _, _, thumbnails = task.batch(0)
    photos = inside(pictures, network.border).float()
    assert pictures.shape[2] == photos.shape[2] + 2 * network.border
    side = network.thumbnail
    assert_close(thumbnails.float().mean((2, 3)), photos.mean((2, 3)), atol=1.0, rtol=0)
    assert thumbnails.shape == (2, 3, side, side)


def test_a_drawing_that_is_the_painting_has_no_style_distance_at_any_scale(vgg):
    class Untouched(type(shaken("classic-stylizer"))):
        def forward(self, image, context=None):
            return image

    painting = photo(96, 128, 3)
    same = Photos((painting,), ("0",), ())
    for scales in (1, 3):
        task = StyleTask(
            Untouched(width=8, blocks=1),
            load_vgg16(vgg),
            [painting],
            same,
            NONE,
            TaskOptions(crop=32, batch=1, seed=0, device=CPU, weights={**STYLE_WEIGHTS, "shift": 0.0}),
            whole=(128, 128),
            scales=scales,
        )
        pictures, shift, colours = task.batch(next(s for s in range(20) if not task._sampler.batch(s).mirrored[0]))
        colours = torch.cat([torch.eye(3), torch.zeros(3, 1)], 1)[None]
        assert float(task(pictures, shift, colours)["style"]) < 1e-3
        assert len(task._pyramids[0]) == scales


def test_deep_content_is_that_of_the_deepest_layer(vgg):
    task = style_task(shaken("thumbnail-stylizer"), vgg, **{"deep content": 1.0})
    with torch.no_grad():
        terms = task(*task.batch(0))
    assert float(terms["deep content"]) > 0
    assert float(terms["deep content"]) != pytest.approx(float(terms["content"]), rel=0.01)


def test_whole_photos_and_scales_are_in_the_recipe_and_only_where_they_are_used(stylizing):
    result = train_style(stylizing(steps=1, whole=(128, 128), scales=2))
    recipe = checkpoint.load(result.checkpoint).recipe
    assert (recipe["whole"], recipe["scales"]) == ([128, 128], 2)
    plain = checkpoint.load(train_style(stylizing("plain", steps=1)).checkpoint).recipe
    assert not {"whole", "scales"} & plain.keys()


@pytest.mark.parametrize("given", [{"scales": 0}, {"scales": 9}, {"whole": (300, 200)}, {"whole": (10, 200)}])
def test_scales_and_sizes_that_cannot_be_are_refused(stylizing, given):
    with pytest.raises(OptionError):
        stylizing(**given)


def test_a_last_convolution_begins_by_changing_nothing():
    before = shaken("thumbnail-stylizer")
    after = build("thumbnail-stylizer", {**SMALL["thumbnail-stylizer"], "finish": True}).eval()
    after.adopt(before)
    image, small = torch.rand(1, 3, 48, 64), torch.rand(1, 3, 32, 32)
    assert_close(after(image, after.context(small)), before(image, before.context(small)), atol=1e-5, rtol=0)


def test_a_network_with_a_last_convolution_keeps_it_when_it_is_adopted():
    before = shaken("thumbnail-stylizer", finish=True)
    after = build("thumbnail-stylizer", before.config).eval()
    after.adopt(before)
    image, small = torch.rand(1, 3, 48, 64), torch.rand(1, 3, 32, 32)
    assert torch.equal(after(image, after.context(small)), before(image, before.context(small)))


def test_with_instance_norm_the_whole_picture_counts():
    network = shaken("thumbnail-stylizer", norm=True)
    assert network.receptive_field is None
    image, context = torch.rand(1, 3, 192, 192, requires_grad=True), network.context(torch.rand(1, 3, 32, 32))
    network(image, context)[..., :8, :8].sum().backward()
    assert float(image.grad[..., -8:, -8:].abs().sum()) > 0


@pytest.mark.parametrize("config", [{"finish": True}, {"norm": True}])
def test_every_parameter_belongs_to_one_stage(config):
    network = shaken("thumbnail-stylizer", **config)
    for name, _ in network.named_parameters():
        assert sum(name.startswith(f"{stage}.") for stage in network.stages()) == 1, name
