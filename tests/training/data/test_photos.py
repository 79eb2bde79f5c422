"""Photos, crops and damage: what is drawn from them depends on the seed and the step alone."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from support.small_training import photo

from impasto import images
from impasto.errors import PictureError, TrainingError
from impasto.training import degrade
from impasto.training.data import photos as data
from impasto.training.data.crops import CropSampler, thumbnails
from impasto.training.data.photos import Photos, read_photos

pytest_plugins = ("support.training_fixtures",)
CPU = torch.device("cpu")


def some(*sizes):
    pictures = tuple(photo(*size, seed) for seed, size in enumerate(sizes))
    return Photos(pictures, tuple(f"{i}.png" for i in range(len(sizes))), ())


def test_broken_and_small_files_are_skipped_and_named(photos):
    read = read_photos(photos, smallest=32)
    assert len(read.pictures) == len(read.names) == 6
    assert len(read.skipped) == 2
    assert any("damaged.jpg" in line for line in read.skipped)
    assert any("tiny.png is 12 x 90" in line for line in read.skipped)


def test_large_photos_are_scaled_down_but_never_below_what_crops_need(tmp_path):
    images.write(tmp_path / "a.png", photo(100, 300))
    assert read_photos(tmp_path, smallest=32, longest=150).pictures[0].shape == (50, 150, 3)
    assert read_photos(tmp_path, smallest=80, longest=150).pictures[0].shape == (80, 240, 3)
    assert read_photos(tmp_path, smallest=32, longest=600).pictures[0].shape == (100, 300, 3)


def test_small_photos_are_enlarged_where_asked(tmp_path):
    images.write(tmp_path / "a.png", photo(50, 90))
    assert read_photos(tmp_path, smallest=40, longest=600, enlarged_to=80).pictures[0].shape == (80, 144, 3)
    assert read_photos(tmp_path, smallest=40, longest=90, enlarged_to=50).pictures[0].shape == (50, 90, 3)
    with pytest.raises(TrainingError, match="50 x 90"):
        read_photos(tmp_path, smallest=60, enlarged_to=80)


def test_a_photo_smaller_than_a_crop_is_filled_up_with_its_reflection():
    photos = some((24, 40))
    batch = CropSampler(photos, 32, 8, CPU, seed=0).batch(0)
    padded = torch.from_numpy(np.pad(photos.pictures[0], ((0, 8), (0, 0), (0, 0)), mode="reflect")).permute(2, 0, 1)
    windows = padded.unfold(2, 32, 1).permute(2, 0, 1, 3)
    for crop, mirrored in zip(batch.crops, batch.mirrored, strict=True):
        straight = crop.flip(2) if mirrored else crop
        assert bool((windows == straight).flatten(1).all(1).any())


def test_folders_without_use_are_refused(tmp_path, photos):
    with pytest.raises(PictureError, match="no picture files"):
        read_photos(tmp_path, smallest=32)
    with pytest.raises(TrainingError, match="none of the 8 pictures"):
        read_photos(photos, smallest=500)


def test_more_photos_than_memory_are_refused(photos, monkeypatch):
    monkeypatch.setattr(data, "MEMORY", 50_000)
    with pytest.raises(TrainingError, match="use fewer"):
        read_photos(photos, smallest=32)


def test_the_split_is_a_partition_by_name():
    photos = some(*[(40, 40)] * 20)
    train, validation = photos.split(0.1)
    assert sorted(train.names + validation.names) == sorted(photos.names)
    assert len(validation.names) == 2
    assert photos.split(0)[1].names == ()


@pytest.mark.parametrize("share", [0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 1 / 3, 0.4, 0.45, 0.5, 0.9])
def test_the_split_has_the_share_that_is_asked_for(share):
    photos = some(*[(1, 1)] * 60)
    train, validation = photos.split(share)
    assert len(train.names) + len(validation.names) == 60
    assert len(validation.names) == pytest.approx(60 * share, abs=1e-6)
    if (1 / share).is_integer():
        assert validation.names == photos.names[:: int(1 / share)], "as in recipes that were published"


def test_something_is_left_to_train_on():
    assert [len(part.names) for part in some((1, 1), (1, 1)).split(0.9)] == [1, 1]


def test_crops_depend_on_seed_and_step_alone():
    photos = some((64, 80), (50, 90))
    sampler, again = (CropSampler(photos, 32, 4, CPU, seed=5, turns=True) for _ in range(2))
    later = sampler.batch(7)
    sampler.batch(1)
    assert torch.equal(again.batch(7).crops, later.crops)
    assert not torch.equal(sampler.batch(8).crops, later.crops)
    assert not torch.equal(CropSampler(photos, 32, 4, CPU, seed=6, turns=True).batch(7).crops, later.crops)


@pytest.mark.parametrize("turns", [False, True])
def test_every_crop_is_a_part_of_its_photo(turns):
    photos = some((40, 44), (48, 40))
    sampler = CropSampler(photos, 32, 8, CPU, seed=0, turns=turns)
    seen = set()
    for step in range(4):
        batch = sampler.batch(step)
        for crop, index, mirrored in zip(batch.crops, batch.photo, batch.mirrored, strict=True):
            picture = torch.from_numpy(photos.pictures[index]).permute(2, 0, 1)
            windows = picture.unfold(1, 32, 1).unfold(2, 32, 1).permute(1, 2, 0, 3, 4)
            straight = crop.flip(2) if mirrored else crop
            turned = crop.transpose(1, 2)
            straight_turned = turned.flip(2) if mirrored else turned
            found = [bool((windows == c).flatten(2).all(2).any()) for c in (straight, straight_turned)]
            assert any(found)
            seen.add((bool(mirrored), found[0]))
    assert len(seen) == (4 if turns else 2), "all kinds of crops come up"


def test_a_photo_of_the_crops_size_is_enough():
    crops = CropSampler(some((32, 32)), 32, 2, CPU, seed=0, around=40).batch(0).crops
    assert crops.shape == (2, 3, 112, 112)


@pytest.mark.parametrize("turns", [False, True])
def test_surroundings_are_the_photo_and_its_reflection(turns):
    photos = some((40, 44), (48, 40))
    narrow, wide = (CropSampler(photos, 32, 8, CPU, seed=0, turns=turns, around=around) for around in (0, 24))
    for step in range(3):
        crops, surrounded = narrow.batch(step).crops, wide.batch(step).crops
        assert torch.equal(surrounded[..., 24:-24, 24:-24], crops)
    # A photo of the crop's own size leaves nothing but reflection.
    square = some((32, 32))
    crop = CropSampler(square, 32, 1, CPU, seed=0, around=24).batch(0).crops[0].permute(1, 2, 0).numpy()
    assert np.array_equal(crop, np.pad(crop[24:-24, 24:-24], ((24, 24), (24, 24), (0, 0)), mode="reflect"))


def test_thumbnails_are_those_of_the_runtime_and_mirrored_with_the_photo():
    photos = some((64, 80), (50, 90))
    small = thumbnails(photos, 32, CPU)
    assert small.shape == (2, 2, 3, 32, 32)
    for index, picture in enumerate(photos.pictures):
        expected = torch.from_numpy(images.thumbnail(picture, 32)).permute(2, 0, 1)
        assert torch.equal(small[0, index], expected)
        assert torch.equal(small[1, index], expected.flip(2))


@pytest.mark.parametrize("sigma", [5, 25])
def test_noise_has_the_asked_strength_and_no_colour_or_place(sigma):
    clean = torch.full((8, 3, 64, 64), 0.5)
    noise = degrade.GaussianNoise(sigma, sigma)(clean, torch.Generator().manual_seed(0)) - clean
    assert float(noise.std()) * 255 == pytest.approx(math.sqrt(sigma**2 + 1 / 12), rel=0.02)
    assert abs(float(noise.mean())) * 255 < 5 * sigma / math.sqrt(noise.numel()) + 0.5
    neighbours = (noise[..., 1:] * noise[..., :-1]).mean() / noise.square().mean()
    assert abs(float(neighbours)) < 0.02


def test_noise_strengths_fill_their_range_and_results_fit_eight_bits():
    clean = torch.full((256, 3, 32, 32), 0.5)
    damaged = degrade.GaussianNoise(0, 55)(clean, torch.Generator().manual_seed(0))
    strengths = (damaged - clean).std((1, 2, 3)).numpy() * 255
    assert strengths.min() < 2
    assert 49 < strengths.max() < 56
    assert 24 < strengths.mean() < 31
    levels = damaged * 255
    assert float((levels - levels.round()).abs().max()) < 1e-3
    white = degrade.GaussianNoise(50, 50)(torch.ones(1, 3, 32, 32), torch.Generator().manual_seed(0))
    assert float(white.max()) <= 1


def test_crops_are_fair():
    """All places of a photo come up equally often."""
    ramp = np.broadcast_to(np.arange(64, dtype=np.uint8)[None, :, None], (40, 64, 3)).copy()
    sampler = CropSampler(Photos((ramp,), ("ramp",), ()), 32, 64, CPU, seed=0, turns=False)
    lefts = torch.cat([sampler.batch(step).crops[:, 0, 0].amin(1) for step in range(20)]).numpy()
    counts = np.bincount(lefts, minlength=33)
    assert counts.min() > 0
    assert counts.max() < 3 * counts.mean()
