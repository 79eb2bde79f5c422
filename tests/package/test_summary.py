"""What is said of a package in a line, whatever its manifest holds."""

from __future__ import annotations

from typing import Any

import pytest

from impasto.package.manifest import Manifest
from impasto.package.spec import ModelSpec
from impasto.package.summary import UNSTATED, summary_of


def manifest(task: str = "denoise", recipe: Any = None, quality: Any = None, **spec: Any) -> Manifest:
    return Manifest(ModelSpec("name", task=task, **spec), (), recipe or {}, quality or {})


def test_a_restorer_is_judged_in_the_middle_of_its_first_damage():
    scores = {
        "psnr_noise:5-5": 40.0,
        "psnr_noise:25-25": 31.26,
        "psnr_noise:50-50": 27.0,
        "psnr_jpeg:10-10": 20.0,
        "psnr_noise:30-30/2": 35.0,
    }
    assert summary_of(manifest(quality={"validation": scores})).quality == "31.3 dB noise:25"


def test_a_stylizer_is_judged_by_its_objective():
    scores = {"objective wave": 2.0, "objective night": 3.0, "content wave": 9.0}
    found = summary_of(manifest("stylize", {"paintings": ["wave.jpg", "night.png"]}, {"validation": scores}))
    assert (found.quality, found.style) == ("objective 2.50", "wave, night")


@pytest.mark.parametrize("wrong", [None, [], "text", {"psnr_x": "text"}, {"psnr_x": None}, {}])
def test_what_has_another_form_is_passed_over(wrong):
    found = summary_of(
        manifest("stylize", {"kmac_per_pixel": wrong, "paintings": wrong, "terms": 3}, {"validation": wrong})
    )
    assert (found.kmac_per_pixel, found.quality, found.licence) == (None, "", UNSTATED)
