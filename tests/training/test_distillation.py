"""A student draws what its teacher draws."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from support.small_training import SMALL, photo, shaken
from torch.testing import assert_close

from impasto.errors import OptionError
from impasto.styles import PHOTO, mixture
from impasto.training import checkpoint, losses
from impasto.training.data.photos import Photos
from impasto.training.degrade import parse
from impasto.training.distillation import DISTILL_WEIGHTS, DistillOptions, DistillTask, _context, distill
from impasto.training.loop.options import FitOptions
from impasto.training.loop.task import TaskOptions

pytest_plugins = ("support.training_fixtures",)
PHOTOS = Photos((photo(72, 104, 0), photo(80, 96, 1)), ("0", "1"), ())
NONE = Photos((), (), ())


@pytest.fixture
def distilling(photos, tmp_path):
    """A function that saves a teacher and gives the options of a tiny student's training."""

    def options(teacher, task, **changes):
        checkpoint.save_checkpoint(tmp_path / "teacher.safetensors", teacher, name="t", task=task, recipe={"seed": 7})
        small = SMALL["thumbnail-stylizer" if task == "stylize" else "unet-restorer"]
        base = DistillOptions(
            name="student",
            photos=photos,
            output=tmp_path / "run",
            fit=FitOptions(steps=3, device="cpu"),
            batch=2,
            crop=32,
            held_out=0.2,
            config=small,
            teacher=tmp_path / "teacher.safetensors",
        )
        return replace(base, **changes)

    return options


def task(network, teacher, degradation=None, shares=None, **weights):
    return DistillTask(
        network,
        teacher,
        PHOTOS,
        NONE,
        TaskOptions(crop=32, batch=2, seed=0, device=torch.device("cpu"), weights={**DISTILL_WEIGHTS, **weights}),
        degradation=degradation,
        shares=shares,
    )


@pytest.mark.parametrize("architecture", ["thumbnail-stylizer", "classic-stylizer"])
def test_a_stylizer_that_is_its_teacher_has_nothing_to_learn(architecture):
    network = shaken(architecture)
    same, other = task(network, network), task(shaken(architecture, blocks=2), network)
    given, _, small, _ = same.batch(0)
    with torch.no_grad():
        drawn = network(given, *_context(network, [small]))
        inside = slice(same._around, drawn.shape[-1] - same._around)
        # What a file cannot hold is clipped in the teacher's drawing alone.
        judged = drawn[..., inside, inside]
        clipped = losses.charbonnier(judged, judged.clamp(0, 1))
        assert_close(same(*same.batch(0))["teacher"], clipped)
        assert float(other(*other.batch(0))["teacher"]) > float(clipped) + 0.01


def test_a_restorer_sees_the_damage_and_may_see_the_truth():
    network = shaken("unet-restorer")
    made = task(network, network, parse("noise:50"), truth=1.0)
    given, clean = made.batch(0)
    assert given.shape == clean.shape == (2, 3, 32, 32)
    assert float((given - clean).abs().mean()) > 0.02
    with torch.no_grad():
        terms = made(given, clean)
    assert set(terms) == {"teacher", "truth"}
    assert all(torch.equal(a, b) for a, b in zip(made.batch(0), (given, clean), strict=True))


def test_an_upscaler_teaches_an_upscaler(distilling):
    result = distill(distilling(shaken("unet-restorer", scale=2), "upscale", degradation=parse("down:2")))
    made = checkpoint.load(result.checkpoint)
    assert (made.task, made.network.scale) == ("upscale", 2)
    assert made.recipe["teacher"]["recipe"] == {"seed": 7}
    assert set(result.quality) == {"psnr_to_teacher", "psnr_down:2"}
    assert (result.checkpoint.parent / "preview.png").exists()


def test_a_student_comes_closer_to_a_teacher_of_several_styles(distilling):
    teacher = shaken("thumbnail-stylizer", styles=[PHOTO, "wave"])
    far = distill(distilling(teacher, "stylize", fit=FitOptions(steps=1, device="cpu")))
    near = distill(distilling(teacher, "stylize", fit=FitOptions(steps=60, device="cpu", averaging=0.9)))
    assert checkpoint.load(near.checkpoint).network.styles == ()
    assert near.quality["psnr_to_teacher"] > far.quality["psnr_to_teacher"] + 1


def test_a_student_learns_one_style_and_which_is_said(distilling, tmp_path):
    several = shaken("thumbnail-stylizer", styles=[PHOTO, "wave", "night"])
    with pytest.raises(OptionError, match="draws wave, night, and a student learns one style; name it with --style"):
        distill(distilling(several, "stylize"))
    with pytest.raises(OptionError, match="unknown style 'day'"):
        distill(distilling(several, "stylize", style="day"))
    made = distill(distilling(several, "stylize", style="night", fit=FitOptions(steps=1, device="cpu")))
    assert checkpoint.load(made.checkpoint).recipe["teacher"]["style"] == "night"
    shown = [
        task(shaken("thumbnail-stylizer"), several, shares=mixture(several.styles, style))
        for style in ("wave", "night")
    ]
    with torch.no_grad():
        wave, night = (float(each(*each.batch(0))["teacher"]) for each in shown)
    assert wave != night
    start = tmp_path / "several.safetensors"
    checkpoint.save_checkpoint(start, several, name="s", task="stylize", recipe={})
    with pytest.raises(OptionError, match="this network draws photo, wave, night"):
        distill(distilling(shaken("thumbnail-stylizer"), "stylize", start=start, config={}))


def test_what_does_not_fit_the_teacher_is_refused(distilling):
    stylizer, upscaler = shaken("thumbnail-stylizer"), shaken("unet-restorer", scale=2)
    for teacher, kind, changes in (
        (stylizer, "stylize", {"degradation": parse("noise:25")}),
        (upscaler, "upscale", {}),
        (upscaler, "upscale", {"degradation": parse("noise:25")}),
        (shaken("unet-restorer"), "denoise", {"degradation": parse("down:2")}),
    ):
        with pytest.raises(OptionError, match="name with --degrade what it undoes"):
            distill(distilling(teacher, kind, **changes))
    with pytest.raises(OptionError, match="truth is known where photos are damaged"):
        distilling(stylizer, "stylize", weights={"teacher": 1.0, "truth": 1.0})


def test_the_same_step_has_the_same_batch():
    one = task(shaken("thumbnail-stylizer"), shaken("classic-stylizer"))
    assert all(torch.equal(a, b) for a, b in zip(one.batch(4), one.batch(4), strict=True))
    given, clean, small, none = one.batch(4)
    assert given.shape[-1] > 32  # surroundings come with it
    assert small.shape == (2, 3, 32, 32)
    assert none.shape == (2, 0)
    assert torch.equal(given, clean)
    assert not np.array_equal(given, one.batch(5)[0])


@pytest.mark.parametrize("architecture", ["thumbnail-stylizer", "classic-stylizer"])
def test_a_student_may_learn_from_whole_photos(distilling, architecture):
    result = distill(distilling(shaken(architecture), "stylize", whole=(128, 128)))
    assert checkpoint.load(result.checkpoint).recipe["whole"] == [128, 128]


def test_whole_photos_are_for_stylizers(distilling):
    with pytest.raises(OptionError, match="are for stylizers"):
        distilling(shaken("unet-restorer"), "denoise", whole=(128, 128), degradation=parse("noise:0-55"))
