"""Loss terms on request: computed where they have a weight, and then they are made smaller."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from support.small_training import SMALL, photo

from impasto.errors import OptionError
from impasto.training import checkpoint, losses
from impasto.training.backbones import load_vgg16
from impasto.training.data.photos import Photos
from impasto.training.loop import trainer as fit
from impasto.training.loop.options import FitOptions
from impasto.training.loop.processes import ALONE, Processes
from impasto.training.loop.task import TaskOptions
from impasto.training.networks import build
from impasto.training.restoration import RESTORE_WEIGHTS, train_restorer
from impasto.training.style import MOVED_NOISE, STYLE_WEIGHTS, StyleTask

pytest_plugins = ("support.training_fixtures",)
PHOTOS = Photos((photo(64, 80), photo(72, 64, 1)), ("a", "b"), ())


def stylizer(vgg, architecture="thumbnail-stylizer", crop=48, batch=2, processes=ALONE, **weights):
    torch.manual_seed(0)
    return StyleTask(
        build(architecture, SMALL[architecture]),
        load_vgg16(vgg),
        [photo(48, 64, 9)],
        PHOTOS,
        Photos((), (), ()),
        TaskOptions(
            crop=crop,
            batch=batch,
            seed=0,
            device=torch.device("cpu"),
            weights={**STYLE_WEIGHTS, **weights},
            processes=processes,
        ),
    )


def test_without_a_weight_they_are_not_computed(vgg, restoring, monkeypatch):
    for name in ("log_error", "frequency", "perceptual", "temporal"):
        monkeypatch.setattr(losses, name, lambda *_: pytest.fail("computed"))
    task = stylizer(vgg)
    assert "temporal" not in task(*task.batch(0))
    assert set(checkpoint.load(train_restorer(restoring(steps=1)).checkpoint).recipe["losses"]) == {"charbonnier"}


def test_restorers_learn_by_them(restoring, vgg, monkeypatch):
    monkeypatch.setattr(fit, "LOOK_EVERY", 5)
    seen = []
    options = restoring(
        steps=40,
        batch=4,
        weights={**RESTORE_WEIGHTS, "charbonnier": 0.0, "psnr": 0.1, "frequency": 1.0, "perceptual": 0.1},
        backbone_weights=vgg,
        fit=FitOptions(steps=40, device="cpu", learning_rate=3e-3),
    )
    result = train_restorer(options, lambda progress: seen.append(progress.losses))
    for name in ("psnr", "frequency", "perceptual"):
        assert np.mean([look[name] for look in seen[-2:]]) < np.mean([look[name] for look in seen[:2]]), name
    recipe = checkpoint.load(result.checkpoint).recipe
    assert recipe["losses"] == {"charbonnier": 0.0, "psnr": 0.1, "frequency": 1.0, "perceptual": 0.1}
    assert recipe["backbone"] == "VGG16 (Caffe), relu1_2 to relu4_3"


def test_the_temporal_term_is_small_for_what_changes_nothing_and_reaches_all_weights(vgg):
    task = stylizer(vgg, temporal=1.0)
    batch = task.batch(3)
    terms = task(*batch)
    terms["temporal"].backward()
    assert all(float(p.grad.abs().sum()) > 0 for name, p in task.network.named_parameters() if name == "stem.weight")
    task.network.forward = lambda image, context: image  # draws nothing
    unchanged = float(task(*batch)["temporal"])
    assert unchanged < 1.2 * (MOVED_NOISE / 255) ** 2, "the noise alone is left"
    task.network.forward = lambda image, context: image + 0.2 * (torch.arange(image.shape[-1]) % 2)
    assert float(task(*batch)["temporal"]) > 20 * unchanged, "a pattern that stands still while the photo moves"


def test_next_frames_depend_on_seed_and_step_and_are_shared_by_processes(vgg):
    task = stylizer(vgg, temporal=1.0)
    motion, noise = task.batch(3)[-2:]
    assert all(torch.equal(a, b) for a, b in zip(task.batch(3)[-2:], (motion, noise), strict=True))
    assert not torch.equal(task.batch(4)[-2], motion)
    assert float(noise.std()) < MOVED_NOISE / 255
    parts = [stylizer(vgg, temporal=1.0, batch=1, processes=Processes(rank, 2)).batch(3) for rank in range(2)]
    whole = task.batch(3)
    assert torch.equal(parts[0][1], whole[1]), "the shift is common to all"
    for number in (0, 2, 3, 4, 5):  # crops, colours, thumbnails, motion, noise
        assert torch.equal(torch.cat([part[number] for part in parts]), whole[number])


def test_crops_too_small_for_a_network_that_knows_edges_are_refused(vgg):
    with pytest.raises(OptionError, match="larger"):
        stylizer(vgg, "classic-stylizer", crop=56, temporal=1.0)
    task = stylizer(vgg, "classic-stylizer", crop=64, temporal=1.0)
    assert np.isfinite(float(task(*task.batch(0))["temporal"].detach()))
