"""Pictures made by program: seeded, clean, and among the photos in the share that was asked for."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from impasto.errors import OptionError, TrainingError
from impasto.training import checkpoint
from impasto.training.data.crops import WholeSampler
from impasto.training.data.photos import Photos, read_folders
from impasto.training.data.synthetic import SIDE, synthetic_pictures
from impasto.training.degrade import parse
from impasto.training.loop.task import TaskOptions
from impasto.training.restoration import RESTORE_WEIGHTS, RestoreTask, train_restorer

from support.small_training import photo, shaken  # isort: skip

pytest_plugins = ("support.training_fixtures",)
CPU = torch.device("cpu")


def test_the_same_seed_makes_the_same_pictures():
    one, other = synthetic_pictures(8, 3), synthetic_pictures(8, 3)
    assert all(np.array_equal(a, b) for a, b in zip(one.pictures, other.pictures, strict=True))
    assert {picture.shape for picture in one.pictures} == {(SIDE, SIDE, 3)}
    assert not np.array_equal(one.pictures[0], synthetic_pictures(8, 4).pictures[0])
    assert len({picture.tobytes() for picture in one.pictures}) == 8


def test_each_kind_is_what_it_is_called():
    text, lines, shapes, gradient = synthetic_pictures(4, 0).pictures

    def paper(picture: np.ndarray) -> float:
        _, counts = np.unique(picture.reshape(-1, 3), axis=0, return_counts=True)
        return counts.max() / counts.sum()

    assert paper(text) > 0.3
    assert paper(lines) > 0.5
    assert len(np.unique(shapes.reshape(-1, 3), axis=0)) < 0.2 * SIDE * SIDE
    steps = np.abs(np.diff(gradient.astype(int), axis=1))
    assert steps.max() <= 3
    assert np.ptp(gradient) > 20


def test_a_training_has_the_share_of_them_that_was_asked_for(restoring):
    result = train_restorer(restoring(steps=1, synthetic=0.5, gray=0.25))
    recipe = checkpoint.load(result.checkpoint).recipe
    assert recipe["synthetic"] == recipe["data"]["photos"]
    assert recipe["gray"] == 0.25
    plain = train_restorer(restoring("plain", steps=1))
    assert not {"synthetic", "gray"} & checkpoint.load(plain.checkpoint).recipe.keys()


@pytest.mark.parametrize("given", [{"synthetic": 0.95}, {"synthetic": -0.1}, {"gray": 1.5}])
def test_shares_that_cannot_be_are_refused(restoring, given):
    with pytest.raises(OptionError, match="wanted shares"):
        restoring(**given)


def test_gray_crops_have_equal_colours_before_they_are_damaged():
    photos = Photos((photo(64, 64, 0), photo(64, 64, 1)), ("0", "1"), ())
    task = RestoreTask(
        shaken("unet-restorer"),
        photos,
        Photos((), (), ()),
        TaskOptions(crop=32, batch=64, seed=0, device=CPU, weights=RESTORE_WEIGHTS),
        degradation=parse("gray-noise:20-20"),
        gray=0.5,
    )
    damaged, clean = task.batch(0)
    colourless = [(c[0] == c[1]).all() and (c[1] == c[2]).all() for c in clean]
    assert 0.3 < sum(map(bool, colourless)) / 64 < 0.7
    for given, gray in zip(damaged, colourless, strict=True):
        assert bool((given[0] == given[1]).all()) == bool(gray)


def test_several_folders_are_joined_and_named(photos, others, tmp_path):
    both = read_folders([photos, others], smallest=32)
    assert len(both.pictures) == 12
    assert both.names[0] == f"{photos.name}/0.png"
    assert len(both.skipped) == 3
    with pytest.raises(TrainingError, match="one name"):
        read_folders([photos, photos], smallest=32)


def test_several_folders_train_one_network(restoring, photos, others):
    result = train_restorer(restoring(steps=1, photos=(photos, others)))
    assert len(checkpoint.load(result.checkpoint).recipe["data"]["folder"]) == 2


def test_whole_photos_have_one_size_a_step_and_are_a_function_of_it():
    photos = Photos((photo(96, 128, 0), photo(120, 90, 1)), ("0", "1"), ())
    sampler = WholeSampler(photos, (64, 128), 2, CPU, seed=0, multiple=8, around=8)
    sizes = set()
    for step in range(12):
        batch = sampler.batch(step)
        height, width = (side - 16 for side in batch.crops.shape[2:])
        sizes.add((height, width))
        assert height % 16 == width % 16 == 0
        assert 64 <= max(height, width) <= 128
        assert torch.equal(sampler.batch(step).crops, batch.crops)
    assert len(sizes) > 2


def test_a_whole_photo_is_the_photo_scaled_with_its_reflection_around():
    picture = photo(96, 128, 0)
    sampler = WholeSampler(Photos((picture,), ("0",), ()), (128, 128), 1, CPU, seed=0, multiple=8, around=8)
    batch = next(b for b in map(sampler.batch, range(20)) if not b.mirrored[0])
    padded = np.pad(picture, ((8, 8), (8, 8), (0, 0)), mode="reflect")
    assert np.abs(batch.crops[0].permute(1, 2, 0).numpy().astype(int) - padded).max() <= 1
