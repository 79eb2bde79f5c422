"""Weights between two checkpoints."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from support.small_models import picture

from impasto import images
from impasto.errors import CheckpointError, OptionError
from impasto.training import checkpoint
from impasto.training.networks import build
from impasto.training.networks.interpolation import interpolate

SMALL = {"widths": [8, 8, 8], "encoder": [1, 1], "middle": 1, "decoder": [1, 1]}


def saved(path: Path, seed: int, **config: object) -> Path:
    torch.manual_seed(seed)
    network = build("unet-restorer", {**SMALL, **config})
    checkpoint.save_checkpoint(path, network, name="net", task="denoise", recipe={"seed": seed})
    return path


def test_each_weight_lies_between_the_two(tmp_path: Path) -> None:
    before, after = saved(tmp_path / "a.safetensors", 1), saved(tmp_path / "b.safetensors", 2)
    interpolate(before, after, 0.75, tmp_path / "c.safetensors")
    old, new, made = (checkpoint.load(path) for path in (before, after, tmp_path / "c.safetensors"))
    weights = [loaded.network.state_dict() for loaded in (old, new, made)]
    for name, value in weights[2].items():
        wanted = 0.25 * weights[0][name] + 0.75 * weights[1][name]
        torch.testing.assert_close(value, wanted, atol=1e-3, rtol=1e-3)  # stored in halves
    assert made.recipe == {"seed": 2, "interpolation": {"with": str(before), "its share": 0.25}}


def test_a_restorer_is_judged_by_its_recipes_damage(tmp_path: Path) -> None:
    paths = []
    for seed, recipe in ((1, {}), (2, {"degradation": "noise:10-20|none"})):
        network = checkpoint.load(saved(tmp_path / "a.safetensors", seed)).network
        paths.append(tmp_path / f"{seed}.safetensors")
        checkpoint.save_checkpoint(paths[-1], network, name="net", task="denoise", recipe=recipe)
    (tmp_path / "photos").mkdir()
    images.write(tmp_path / "photos" / "a.png", picture(40, 48))
    interpolate(*paths, 0.5, tmp_path / "c.safetensors", tmp_path / "photos")
    made = checkpoint.load(tmp_path / "c.safetensors")
    assert set(made.quality["validation"]) == {"psnr_noise:15-15", "psnr_none"}
    with pytest.raises(OptionError, match="names no damage; leave --validation out"):
        interpolate(*reversed(paths), 0.5, tmp_path / "d.safetensors", tmp_path / "photos")


def test_other_networks_and_shares_are_refused(tmp_path: Path) -> None:
    before, after = saved(tmp_path / "a.safetensors", 1), saved(tmp_path / "b.safetensors", 2, middle=2)
    with pytest.raises(CheckpointError, match="only weights of one network"):
        interpolate(before, after, 0.5, tmp_path / "c.safetensors")
    with pytest.raises(OptionError, match=r"the share is 1\.5; wanted 0"):
        interpolate(before, before, 1.5, tmp_path / "c.safetensors")
    assert not (tmp_path / "c.safetensors").exists()
