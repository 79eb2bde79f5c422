"""Training curves in the recipe: few points, of the log's own values, from the run to the package."""

from __future__ import annotations

import json

from impasto.export import export_checkpoint
from impasto.package.manifest import read_manifest
from impasto.training import train_restorer
from impasto.training.loop.run_folder import CURVE_POINTS, LOG, curves

pytest_plugins = ("support.training_fixtures",)


def test_a_long_log_becomes_few_points_that_keep_its_means(tmp_path):
    lines = [{"step": 25 * n, "seconds": float(n), "content": float(n)} for n in range(1, 1001)]
    (tmp_path / LOG).write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = curves(tmp_path)["losses"]
    assert list(found) == ["steps", "content"] and len(found["steps"]) == len(found["content"]) == CURVE_POINTS
    assert found["steps"][-1] == 25_000 and found["steps"] == sorted(found["steps"])
    assert abs(sum(found["content"]) / CURVE_POINTS - 500.5) < 5
    assert len(json.dumps(found)) < 3000


def test_validations_are_a_curve_of_their_own_and_broken_lines_are_passed_over(tmp_path):
    lines = [
        '{"step": 25, "seconds": 1, "charbonnier": 0.25}',
        "cut off {",
        '{"step": 25, "validation": {"psnr": 30.1234567}}',
    ]
    (tmp_path / LOG).write_text("\n".join(lines))
    assert curves(tmp_path) == {
        "losses": {"steps": [25], "charbonnier": [0.25]},
        "validation": {"steps": [25], "psnr": [30.12]},
    }
    assert curves(tmp_path / "nothing") == {}


def test_a_package_holds_the_curves_of_its_training(restoring):
    result = train_restorer(restoring(steps=4))
    recipe = read_manifest(export_checkpoint(result.checkpoint)).recipe
    assert recipe["curves"]["losses"]["steps"] == [4]
    assert recipe["curves"]["losses"]["charbonnier"][0] > 0
