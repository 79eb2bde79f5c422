"""Recipes are published with the models, so that no path of one machine alone stands in them."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest

from impasto.datasets import public_path
from impasto.training import checkpoint, train_restorer
from impasto.training.loop.options import FitOptions
from impasto.training.loop.state import differences, fingerprint
from impasto.training.networks import build
from impasto.training.recipe import public_command, public_recipe

pytest_plugins = ("support.training_fixtures",)


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """$IMPASTO_DATA, beside the working folder."""
    folder = tmp_path / "private" / "data"
    monkeypatch.setenv("IMPASTO_DATA", str(folder))
    here = tmp_path / "work"
    here.mkdir()
    monkeypatch.chdir(here)
    return folder


def test_a_path_says_what_it_is_and_not_where_it_lies(data: Path) -> None:
    assert public_path(data / "photos" / "train") == "$IMPASTO_DATA/photos/train"
    assert public_path(data) == "$IMPASTO_DATA"
    assert public_path("../private/data/styles/wave.jpg") == "$IMPASTO_DATA/styles/wave.jpg"
    assert public_path(Path.cwd() / "runs" / "one") == "runs/one"
    assert public_path("/home/me/my photos/") == "my photos"
    assert public_path("../elsewhere/photos") == "photos"
    for given in ("photos", "runs/one/checkpoint.safetensors", "great-wave", "noise:0-55", "2*bayer:20-2000/2|none"):
        assert public_path(given) == given, "what is relative is as it was given"


def test_without_the_variable_the_last_name_is_left(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("IMPASTO_DATA")
    assert public_path(data / "photos") == "photos"


def test_a_command_can_be_run_again_where_the_variable_is_set(data: Path) -> None:
    given = [
        "impasto", "train", "restore", "clean", "--photos", str(data / "my photos"), f"--start={data / 'a.safetensors'}",
        "--degrade", "10*noise:0-55|2*bayer:20-2000/2", "-o", "/mnt/big disk/run", "--config", "blocks=5",
    ]  # fmt: skip
    said = public_command(shlex.join(given))
    assert said == (
        "impasto train restore clean --photos $IMPASTO_DATA'/my photos' --start=$IMPASTO_DATA/a.safetensors "
        "--degrade '10*noise:0-55|2*bayer:20-2000/2' -o run --config blocks=5"
    )
    assert public_command(said) == said
    assert public_command("impasto train style 'open /home/me/photos") == "impasto train style 'open photos"


def test_every_part_of_a_recipe_is_covered(data: Path) -> None:
    made = public_recipe(
        {
            "steps": 5,
            "data": {
                "folder": [str(data / "photos"), "/home/me/photos"],
                "skipped": [
                    f"{data}/photos/broken.jpg is no picture",
                    "cannot read '/home/me/photos/b.png': too small",
                ],
            },
            "start": {"file": "/home/me/runs/a.safetensors", "recipe": {"command": "impasto --photos /home/me/photos"}},
        }
    )
    assert made == {
        "steps": 5,
        "data": {
            "folder": ["$IMPASTO_DATA/photos", "photos"],
            "skipped": ["$IMPASTO_DATA/photos/broken.jpg is no picture", "cannot read 'b.png': too small"],
        },
        "start": {"file": "a.safetensors", "recipe": {"command": "impasto --photos photos"}},
    }
    assert public_recipe(made) == made


def test_a_training_records_no_absolute_path(restoring, photos, others, monkeypatch) -> None:
    monkeypatch.setenv("IMPASTO_DATA", str(photos.parent))
    options = restoring(validation=others, steps=2, command=f"impasto train restore tiny --photos {photos}")
    recipe = checkpoint.load(train_restorer(options).checkpoint).recipe
    text = json.dumps(recipe)
    assert str(photos.parent) not in text
    assert recipe["data"]["folder"] == f"$IMPASTO_DATA/{photos.name}"
    assert recipe["command"] == f"impasto train restore tiny --photos $IMPASTO_DATA/{photos.name}"
    assert any(photos.name in line for line in recipe["data"]["skipped"])


def test_a_run_that_recorded_absolute_paths_can_be_resumed(data: Path) -> None:
    network = build("unet-restorer", {"widths": [16, 32, 32], "encoder": [1, 1], "middle": 1, "decoder": [1, 1]})

    def made(folder: str) -> str:
        return fingerprint({"data": {"folder": folder}}, FitOptions(steps=1), network)

    assert differences(made(str(data / "photos")), made("$IMPASTO_DATA/photos")) == []
    assert differences(made(str(data / "others")), made("$IMPASTO_DATA/photos")) != []
