"""Laws of noise that is not white, of mixtures, and of JPEG twice."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image
from support.small_training import photo
from torch.testing import assert_close

from impasto.errors import OptionError
from impasto.training.degrade import Mixture, Shake, damaged, parse, to_linear
from impasto.training.degrade.noise import demosaicked

NOISES = ("gray-noise:0-55", "grain:0-40", "bayer:30-2000", "noise:0-60/2", "bayer:30-400/2")
OTHERS = ("motion:1-15", "gaussian:0-2", "jpeg444:10-40", "jpeg-twice:10-40")
MIXED = "3*noise:20-55|gray-noise:20-40|bayer:30-200+jpeg:60-90"


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def gray(level: float = 0.5, count: int = 8, side: int = 64) -> torch.Tensor:
    return torch.full((count, 3, side, side), level)


def batch(count: int = 6) -> torch.Tensor:
    pictures = np.stack([photo(48, 64, seed) for seed in range(count)])
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 255


@pytest.mark.parametrize("text", [*NOISES, *OTHERS, MIXED, "none"])
def test_damage_is_seeded_and_reads_as_it_is_written(text):
    damage, clean = parse(text), batch()
    assert parse(str(damage)) == damage
    result = damage(clean, seeded())
    assert result.shape == clean.shape
    assert torch.equal(damage(clean, seeded()), result)
    assert torch.equal(damage(clean, seeded(1)), result) == (text == "none")


@pytest.mark.parametrize("text", [*NOISES, *OTHERS])
def test_stronger_is_worse(text):
    weak, strong = (float((parse(text).at(share)(batch(), seeded()) - batch()).square().mean()) for share in (0.0, 1.0))
    assert weak < strong


@pytest.mark.parametrize("text", ["noise:25-25", "gray-noise:25-25", "grain:25-25"])
def test_noise_has_the_standard_deviation_that_it_says(text):
    noise = parse(text).damage(gray(), seeded()) - gray()
    assert float(noise.square().mean().sqrt() * 255) == pytest.approx(25, rel=0.05)


def test_gray_noise_is_the_same_in_all_colours():
    noise = parse("gray-noise:30-30").damage(gray(), seeded()) - gray()
    assert_close(noise[:, 0], noise[:, 1])
    assert_close(noise[:, 0], noise[:, 2])


def test_neighbours_are_alike_in_grain_and_not_in_white_noise():
    def alike(text: str) -> float:
        noise = parse(text).damage(gray(count=32), seeded()) - gray(count=32)
        return float((noise[..., 1:] * noise[..., :-1]).mean() / noise.square().mean())

    assert alike("noise:25-25") == pytest.approx(0, abs=0.01)
    assert alike("grain:25-25") > 0.3
    assert alike("bayer:200-200") > 0.1
    assert alike("noise:25-25/2") < alike("grain:25-25")


def test_bayer_noise_is_noise_alone():
    # Many photons: no noise is left, and no blur of the demosaicking either.
    clean = batch()
    quiet = parse("bayer:20000-20000").damage(clean, seeded())
    assert float((quiet - clean).abs().mean()) < 0.02
    mean = torch.stack([parse("bayer:400-400").damage(clean, seeded(seed)) for seed in range(64)]).mean(0)
    assert float((mean - clean).abs().mean()) < 0.02


def test_bayer_noise_keeps_odd_sides():
    clean = torch.rand(2, 3, 33, 47)
    assert parse("bayer:100-100")(clean, seeded()).shape == clean.shape


def test_demosaicking_keeps_flat_colour_and_interpolates_between_equal_neighbours():
    colour = torch.tensor([0.2, 0.5, 0.7]).view(1, 3, 1, 1).expand(1, 3, 8, 8)
    assert_close(demosaicked(colour.contiguous()), colour)
    ramp = torch.arange(16.0).view(1, 1, 1, 16).expand(1, 3, 16, 16) / 16
    assert_close(demosaicked(ramp)[..., 2:-2], ramp[..., 2:-2])


def test_a_mixture_gives_each_picture_one_of_its_kinds():
    clean = gray(count=400, side=8)
    result = parse("3*noise:0-0|gray-noise:50-50").damage(clean, seeded())
    touched = (result != clean).flatten(1).any(1)
    assert float(touched.float().mean()) == pytest.approx(0.25, abs=0.07)
    noise = (result - clean)[touched]
    assert_close(noise[:, 0], noise[:, 1])


def test_a_mixture_is_for_what_most_of_its_pictures_ask():
    assert parse("noise:0-55|noise:0-55+jpeg:40|none").task == "denoise"
    assert parse("noise:0-5|5*jpeg:10-40|none").task == "dejpeg"
    assert parse("none").task == "denoise"
    assert parse("down:2|down:2+jpeg:60").scale == 2
    assert isinstance(parse(MIXED).at(0.5), Mixture)


@pytest.mark.parametrize(
    ("text", "says"),
    [("noise:5|down:2", "one scale"), ("0*noise:5|jpeg:40", "above 0"), ("-1*noise:5|jpeg:40", "above 0"),
     ("x*noise:5|jpeg:40", "weight"), ("3*noise:5", "nothing to weigh"), ("noise:5|", "cannot read"), ("down:2/2", "changes the size"),
     ("inf*noise:5|jpeg:40", "above 0")],
)  # fmt: skip
def test_mixtures_that_make_no_sense_are_refused(text, says):
    with pytest.raises(OptionError, match=says):
        parse(text)


def test_a_shake_moves_nothing_on_average():
    # Undone, the picture lies where it lay: the mean of each path is at the pixel itself.
    point = torch.zeros(64, 3, 61, 61)
    point[..., 30, 30] = 1
    light = to_linear(Shake(21, 21).damage(point, seeded()))[:, 0]
    places = torch.arange(61.0)
    for axis in (1, 2):
        mean = (light.sum(3 - axis) * places).sum(1) / light.sum((1, 2))
        assert_close(mean, torch.full((64,), 30.0), atol=0.1, rtol=0)


def test_a_motion_is_a_straight_line():
    point = torch.zeros(32, 3, 41, 41)
    point[..., 20, 20] = 1
    light = to_linear(parse("motion:15-15").damage(point, seeded()))[:, 0]
    places = torch.arange(41.0) - 20
    down, across = places.view(1, -1, 1), places.view(1, 1, -1)
    moments = [
        (light * product).sum((1, 2)) / light.sum((1, 2)) for product in (down * down, across * across, down * across)
    ]
    spread = torch.stack([moments[0], moments[2], moments[2], moments[1]], 1).view(-1, 2, 2)
    narrow, wide = torch.linalg.eigvalsh(spread).T
    assert float((narrow / wide).max()) < 0.05


@pytest.mark.parametrize("quality", [10, 40])
def test_jpeg_at_full_colour_loses_what_pillows_does(quality):
    picture = photo(88, 120, 3)
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=quality, subsampling="4:4:4")
    theirs = np.asarray(Image.open(file)).astype(float)
    ours = damaged(picture, parse(f"jpeg444:{quality}-{quality}"), 0).astype(float)
    loss = np.abs(theirs - picture).mean()
    assert np.abs(ours - theirs).mean() < 0.15 * loss + 0.5


def test_jpeg_twice_loses_more_than_once():
    clean = batch()
    once, twice = (parse(f"{kind}:30-30")(clean, seeded()) for kind in ("jpeg", "jpeg-twice"))
    assert float((twice - clean).square().mean()) > float((once - clean).square().mean())
