"""How much sooner: read off two runs' logs."""

from __future__ import annotations

import json

import pytest

from impasto.benchmarks.transfer import Curve, compare, read_curve
from impasto.errors import OptionError


def test_how_much_sooner_is_read_between_validations():
    scratch = Curve((100, 200, 300, 400), (20.0, 22.0, 24.0, 25.0))
    tuned = Curve((100, 200, 300, 400), (24.0, 26.0, 27.0, 27.5))
    assert compare(scratch, tuned, lower=False) == {"goal": 25.0, "fine_tuned_step": 150.0, "times_sooner": 400 / 150}
    assert compare(tuned, scratch, lower=False)["times_sooner"] is None


def test_lower_may_be_better():
    scratch, tuned = Curve((10, 20, 30), (5.0, 4.0, 3.0)), Curve((10, 20, 30), (3.0, 2.5, 2.0))
    assert compare(scratch, tuned, lower=True)["fine_tuned_step"] == 10
    assert compare(tuned, scratch, lower=True)["fine_tuned_step"] is None


def test_a_log_is_read_and_a_wrong_one_refused(tmp_path):
    lines = [
        {"step": 25, "loss": 1.0},
        {"step": 50, "validation": {"psnr": 30.0}},
        {"step": 100, "validation": {"psnr": 31.0}},
    ]
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert read_curve(tmp_path, "psnr") == Curve((50, 100), (30.0, 31.0))
    with pytest.raises(OptionError, match="no measure 'ssim'; it has psnr"):
        read_curve(tmp_path, "ssim")
    (tmp_path / "log.jsonl").write_text(json.dumps(lines[0]) + "\n")
    with pytest.raises(OptionError, match="holds no validations"):
        read_curve(tmp_path, "psnr")
    with pytest.raises(OptionError, match="cannot read"):
        read_curve(tmp_path / "missing", "psnr")
