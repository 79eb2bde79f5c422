"""What a training step may see and what not."""

from __future__ import annotations

import pytest
import torch
from support.small_training import photo, shaken
from torch.testing import assert_close

from impasto.errors import OptionError
from impasto.training import checkpoint
from impasto.training.backbones import load_vgg16
from impasto.training.data.photos import Photos
from impasto.training.degrade import parse
from impasto.training.loop.options import FitOptions
from impasto.training.loop.task import TaskOptions
from impasto.training.restoration import RestoreTask, train_restorer
from impasto.training.style import SHIFT_MARGIN, STYLE_WEIGHTS, StyleTask

pytest_plugins = ("support.training_fixtures",)
CPU = torch.device("cpu")
PHOTOS = Photos((photo(72, 104, 0), photo(80, 96, 1)), ("0", "1"), ())
NONE = Photos((), (), ())


def style_task(network, vgg, crop=32, **weights):
    return StyleTask(
        network,
        load_vgg16(vgg),
        [photo(48, 64, 9)],
        PHOTOS,
        NONE,
        TaskOptions(crop=crop, batch=2, seed=0, device=CPU, weights={**STYLE_WEIGHTS, **weights}),
    )


def test_no_loss_of_a_stylizer_depends_on_where_the_input_ends(vgg):
    network = shaken("thumbnail-stylizer")
    task = style_task(network, vgg)
    pictures, *rest = task.batch(0)
    before = task(pictures, *rest)
    # One more cell all around: the same terms, though the zero padding lies elsewhere.
    task._around += network.multiple
    wider = torch.nn.functional.pad(pictures.float(), (network.multiple,) * 4, mode="constant", value=255.0)
    after = task(wider.to(torch.uint8), *rest)
    assert_close(after, before, atol=1e-5, rtol=1e-4)


def test_the_shift_term_is_zero_for_a_network_without_cells_and_not_for_one_with(vgg):
    class Cells(type(shaken("classic-stylizer"))):
        def forward(self, image, context=None):
            cells = torch.zeros_like(image)
            cells[..., ::8, ::8] = self.strength
            return image + cells

    network = Cells(width=8, blocks=1)
    for strength, expected in ((0.0, 0.0), (0.5, 2 * 0.25 / 64)):
        network.strength = strength
        task = style_task(network, vgg, crop=96)
        steps = [task.batch(step) for step in range(4)]
        moved = [float(task(*batch)["shift"]) for batch in steps if bool(batch[1].any())]
        assert moved
        assert sum(moved) / len(moved) == pytest.approx(expected, abs=1e-3)


def test_crops_of_which_the_shift_term_sees_nothing_are_refused(vgg):
    network = shaken("classic-stylizer")
    edge = 2 * SHIFT_MARGIN + network.multiple
    with pytest.raises(OptionError, match="shift term sees nothing of crops of"):
        style_task(network, vgg, crop=edge)
    task = style_task(network, vgg, crop=edge + 8)
    assert torch.isfinite(task(*task.batch(0))["shift"])
    style_task(network, vgg, crop=32, shift=0.0)


def test_terms_without_weight_cost_nothing(vgg):
    network = shaken("thumbnail-stylizer")
    calls = []
    network.register_forward_hook(lambda *_: calls.append(0))
    task = style_task(network, vgg, shift=0.0)
    assert float(task(*task.batch(0))["shift"]) == 0
    assert len(calls) == 1


def test_the_photo_is_looked_at_no_deeper_than_its_content(vgg):
    backbone = load_vgg16(vgg)
    picture = torch.rand(1, 3, 32, 32)
    shallow, whole = backbone(picture, "relu3_3"), backbone(picture)
    assert list(shallow) == list(whole)[:3]
    assert torch.equal(shallow["relu3_3"], whole["relu3_3"])


def test_each_term_has_a_weight_and_a_gradient_reaches_the_thumbnail_reader(vgg):
    network = shaken("thumbnail-stylizer").train()
    task = style_task(network, vgg)
    terms = task(*task.batch(3))
    assert set(terms) == set(task.weights)
    sum(terms.values()).backward()
    assert float(network.reader.features[0].weight.grad.abs().sum()) > 0


def test_a_restorers_batch_is_a_function_of_seed_and_step():
    def task(seed):
        return RestoreTask(
            shaken("unet-restorer"),
            PHOTOS,
            NONE,
            TaskOptions(crop=32, batch=2, seed=seed, device=CPU, weights={"charbonnier": 1}),
            degradation=parse("noise:0-55"),
        )

    noisy, clean = task(0).batch(5)
    assert all(torch.equal(a, b) for a, b in zip(task(0).batch(5), (noisy, clean), strict=True))
    assert not torch.equal(task(0).batch(6)[0], noisy)
    assert not torch.equal(task(1).batch(5)[0], noisy)
    assert 0 < float((noisy - clean).abs().mean()) < 0.2


@pytest.mark.parametrize(("text", "task", "scale"), [("down:2", "upscale", 2), ("missing:30", "inpaint", 1)])
def test_the_damage_chooses_task_scale_and_figures(text, task, scale, restoring):
    result = train_restorer(restoring(steps=1, degradation=parse(text)))
    made = checkpoint.load(result.checkpoint)
    assert (made.task, made.network.scale) == (task, scale)
    assert made.recipe["degradation"] == str(parse(text))
    names = ("down:2",) if scale == 2 else ("missing:0-0", "missing:15-15", "missing:30-30")
    assert set(result.quality) == {f"psnr_{name}" for name in names}
    assert (result.checkpoint.parent / "preview.png").exists()


def test_a_network_of_another_scale_lends_all_but_its_head(restoring):
    start = train_restorer(restoring("start", steps=1)).checkpoint
    still = FitOptions(steps=1, learning_rate=1e-12, device="cpu")
    result = train_restorer(restoring(start=start, config={}, degradation=parse("down:2"), fit=still))
    lent, made = (checkpoint.load(path).network for path in (start, result.checkpoint))
    assert made.scale == 2
    different = {key for key, value in made.state_dict().items() if value.shape != lent.state_dict()[key].shape}
    assert different == {"head.weight", "head.bias"}
    for key in made.state_dict().keys() - different:
        assert torch.equal(made.state_dict()[key], lent.state_dict()[key]), key


def test_an_argument_against_the_damage_is_refused(restoring):
    with pytest.raises(OptionError, match="enlarges ×1"):
        train_restorer(restoring(config={"scale": 1}, degradation=parse("down:2")))
