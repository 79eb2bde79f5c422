"""Laws of damage: seeded, in range, as strong as asked; then comparison with slower or other people's code."""

from __future__ import annotations

import io
from copy import copy

import numpy as np
import pytest
import torch
from PIL import Image
from support.small_training import photo
from torch.testing import assert_close

from impasto.errors import OptionError
from impasto.package.spec import RESTORERS
from impasto.training import degrade
from impasto.training.degrade import (
    MISSING_COLOUR,
    Compose,
    Missing,
    SensorNoise,
    Shake,
    damaged,
    from_linear,
    missing,
    parse,
    to_linear,
)

KINDS = ("noise:0-55", "sensor:50-500", "shake:15", "defocus:1-4", "missing:30", "down:2", "down:4", "jpeg:10-40")
ALL = (*KINDS, "shake:15+noise:0-5", "down:2+jpeg:30-60")


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def batch(count: int = 3, height: int = 48, width: int = 64) -> torch.Tensor:
    pictures = np.stack([photo(height, width, seed) for seed in range(count)])
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 255


@pytest.mark.parametrize("text", ALL)
def test_damage_is_seeded_in_eight_bits_and_of_the_promised_size(text):
    damage, clean = parse(text), batch()
    result = damage(clean, seeded())
    assert result.shape == (3, 3, 48 // damage.scale, 64 // damage.scale)
    assert torch.equal(damage(clean, seeded()), result)
    assert damage.scale > 1 or not torch.equal(result, clean)
    levels = result * 255
    assert float((levels - levels.round()).abs().max()) < 1e-3
    assert 0 <= float(result.min()) <= float(result.max()) <= 1


@pytest.mark.parametrize("text", [text for text in ALL if text not in ("down:2", "down:4")])
def test_another_seed_is_another_damage_and_stronger_is_worse(text):
    damage, clean = parse(text), batch()
    assert not torch.equal(damage(clean, seeded(0)), damage(clean, seeded(1)))
    if damage.scale == 1:
        weak, strong = (float((damage.at(share)(clean, seeded()) - clean).square().mean()) for share in (0, 1))
        assert weak < strong


@pytest.mark.parametrize("text", ALL)
def test_the_text_of_a_damage_reads_as_the_same_damage(text):
    assert parse(str(parse(text))) == parse(text)


@pytest.mark.parametrize(
    ("text", "task"),
    [("noise:25", "denoise"), ("sensor:100", "denoise"), ("shake:15+noise:0-5", "deblur"), ("noise:5+missing:30", "inpaint"),
     ("defocus:2+down:2+jpeg:50", "upscale"), ("jpeg:10-40", "dejpeg")],
)  # fmt: skip
def test_a_damage_names_its_task(text, task):
    assert parse(text).task == task


def test_a_damage_of_every_task_joins_others():
    noise = parse("noise:5")
    for task in RESTORERS:
        other = copy(parse("noise:9"))
        object.__setattr__(other, "task", task)
        assert Compose((other, noise)).task == task


@pytest.mark.parametrize(
    "text", ["", "fog", "noise", "noise:", "noise:a-b", "noise:1-2-3", "noise:nan", "noise:300", "noise:9-3", "down:3",
             "down:2-4", "missing:95", "shake:0-5", "jpeg:0-10", "noise:5++down:2"],
)  # fmt: skip
def test_what_is_no_damage_is_refused(text):
    with pytest.raises(OptionError):
        parse(text)


def test_one_number_ranges_from_harmless_to_that():
    assert parse("noise:25") == degrade.GaussianNoise(0, 25)
    assert parse("jpeg:40") == degrade.Jpeg(40, 100)
    assert parse("shake:15") == Shake(1, 15)


@pytest.mark.parametrize("text", ["noise:0-0", "shake:1-1", "defocus:0-0", "missing:0-0"])
def test_the_harmless_strength_changes_nothing(text):
    clean = batch()
    assert_close(parse(text)(clean, seeded()), clean, atol=1e-6, rtol=0)


def test_linear_light_and_back():
    values = torch.linspace(0, 1, 256)
    assert_close(from_linear(to_linear(values)), values, atol=1e-5, rtol=0)
    assert float(to_linear(torch.tensor(0.5))) == pytest.approx(0.21404, abs=1e-4)


def test_sensor_noise_has_the_variance_of_photons_and_amplifier():
    clean = torch.full((4, 3, 128, 128), 0.5)
    light = float(to_linear(clean[0, 0, 0, 0]))
    noisy = to_linear(SensorNoise(400, 400).damage(clean, seeded()))
    assert float(noisy.mean()) == pytest.approx(light, rel=0.01)
    assert float(noisy.var()) == pytest.approx((light * 400 + 9) / 400**2, rel=0.03)


@pytest.mark.parametrize("text", ["shake:15-15", "defocus:3-3"])
def test_blur_keeps_light_and_flat_colour_and_reaches_as_far_as_it_says(text):
    damage = parse(text)
    flat = torch.full((1, 3, 40, 40), 0.6)
    assert_close(damage.damage(flat, seeded()), flat, atol=1e-5, rtol=0)
    point = torch.zeros(64, 3, 41, 41)
    point[..., 20, 20] = 1
    light = to_linear(damage.damage(point, seeded()))
    assert_close(light.sum((2, 3)), torch.ones(64, 3), atol=1e-3, rtol=0)
    touched = (light[:, 0] > 1e-6).nonzero()
    extents = [
        max(int(np.ptp(rows)), int(np.ptp(columns))) + 1
        for rows, columns in (touched[touched[:, 0] == n][:, 1:].T.numpy() for n in range(64))
    ]
    assert set(extents) <= ({14, 15, 16, 17} if "shake" in text else {7})


def test_shakes_go_all_ways():
    point = torch.zeros(200, 3, 31, 31)
    point[..., 15, 15] = 1
    light = to_linear(Shake(15, 15).damage(point, seeded()))[:, 0]
    spread = [light.sum(axis).var(1).mean() for axis in (1, 2)]
    assert float(spread[0] / spread[1]) == pytest.approx(1, rel=0.25)


@pytest.mark.parametrize("percent", [5, 30])
def test_missing_pixels_are_as_many_as_asked_and_the_others_untouched(percent):
    clean = batch(16, 96, 96)
    result = Missing(percent, percent)(clean, seeded())
    missing = (result == result.new_tensor(MISSING_COLOUR).view(1, 3, 1, 1)).all(1)
    shares = missing.float().mean((1, 2)) * 100
    assert float(shares.max()) <= percent + 0.1
    assert float(shares.mean()) > 0.85 * percent
    kept = ~missing[:, None].expand_as(clean)
    assert torch.equal(result[kept], degrade.eight_bits(clean)[kept])


def test_each_way_of_losing_pixels_loses_them_in_all_parts_of_the_picture():
    for make in missing._FIELDS:
        field = make(200, 64, 64, seeded())
        lost = (field < field.flatten(1).quantile(0.2, dim=1).view(-1, 1, 1)).float().mean(0)
        quarters = lost.view(2, 32, 2, 32).mean((1, 3))
        assert float(quarters.min() / quarters.max()) > 0.7


@pytest.mark.parametrize("quality", [10, 25, 40, 90])
def test_jpeg_loses_what_pillows_jpeg_loses(quality):
    picture = photo(88, 120, 3)  # no multiples of 16
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=quality, subsampling="4:2:0")
    theirs = np.asarray(Image.open(file)).astype(float)
    ours = damaged(picture, parse(f"jpeg:{quality}-{quality}"), 0).astype(float)
    loss = np.abs(theirs - picture).mean()
    assert np.abs(ours - theirs).mean() < 0.15 * loss + 0.5
    assert np.abs(ours - picture).mean() == pytest.approx(loss, rel=0.1)


def test_scaling_down_is_pillows_bicubic():
    picture = photo(64, 96, 1)
    theirs = np.asarray(Image.fromarray(picture).resize((48, 32), Image.Resampling.BICUBIC)).astype(int)
    ours = damaged(picture, parse("down:2"), 0).astype(int)
    assert np.abs(ours - theirs).max() <= 2
