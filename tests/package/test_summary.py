"""What is said of a package in a line, whatever its manifest holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from impasto.package.manifest import Manifest, PackageFile
from impasto.package.spec import ModelSpec
from impasto.package.summary import UNSTATED, int8_offer, lead, summary_of


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


INT8 = PackageFile("model.int8-openvino.onnx", "model", "0" * 64, "int8", "openvino")
SPEED = {"precision": "int8", "backend": "openvino", "times_fp32": 4.81, "processor": "an Intel Xeon with AMX"}


def offered(lost: Any, speeds: Any) -> str | None:
    quality = {"precision": {"int8-openvino": {"against FP32": lost}}, "speed": speeds}
    return int8_offer(Manifest(ModelSpec("name", task="denoise"), (INT8,), {}, quality), "openvino")


def test_int8_is_offered_in_the_manifests_figures():
    assert offered({"psnr": 47.8, "truth": 0.07}, [SPEED]) == (
        "INT8 is here: at most 0.07 dB less, 4.8 times as fast on an Intel Xeon with AMX; choose it with --precision int8"
    )
    assert offered({"psnr": 30.9, "style": -0.0125}, [{**SPEED, "network": "wave"}]) == (
        "INT8 is here: style distance -1.2 %, 4.8 times as fast on an Intel Xeon with AMX (wave, of the same layers); choose it with "
        "--precision int8"
    )
    assert (
        offered({"psnr": 47.8}, [])
        == "INT8 is here: at least 48 dB from FP32's picture; choose it with --precision int8"
    )


def test_no_int8_is_offered_where_the_package_holds_none_for_the_backend():
    assert int8_offer(manifest(), "openvino") is None
    assert int8_offer(Manifest(ModelSpec("name", task="denoise"), (INT8,)), "tensorrt") is None


@pytest.mark.parametrize(
    "wrong", [None, [], "text", 3, [3], [{"precision": "int8", "backend": "openvino"}], {"psnr": "x"}]
)
def test_an_offer_leaves_out_figures_of_another_form(wrong):
    assert offered(wrong, wrong) == "INT8 is here: not measured; choose it with --precision int8"


@pytest.mark.parametrize(
    ("card", "wanted"),
    [
        (
            "# wave\nPaints like the *Great Wave*,\nby [Hokusai](wave.md).\n\n![two photos](picture.jpg)\n",
            "Paints like the Great Wave, by Hokusai.",
        ),
        ("# wave\n\n![two photos](picture.jpg)\n\n| a | b |\n\nIt paints.\n", "It paints."),
        ("# wave\n", ""),
        (None, ""),
    ],
)
def test_a_cards_first_words(card: str | None, wanted: str, tmp_path: Path):
    if card is not None:
        (tmp_path / "README.md").write_text(card)
    assert lead(tmp_path) == wanted
