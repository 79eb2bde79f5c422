"""Checkpoints: what goes in comes out in FP16, and what does not fit is refused in one sentence."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from support.small_training import SMALL, photo, shaken

from impasto.errors import CheckpointError, OutputError
from impasto.training import checkpoint
from impasto.training.checkpoint import KEY, load, round_to_half, save_checkpoint
from impasto.training.inference import draw


@pytest.fixture
def saved(tmp_path):
    network = shaken("unet-restorer")
    path = tmp_path / "tiny.safetensors"
    save_checkpoint(path, network, name="tiny", task="denoise", recipe={"seed": 1}, quality={"psnr": 30.0})
    return path, network


def test_what_goes_in_comes_out_rounded(saved):
    path, network = saved
    loaded = load(path)
    assert (loaded.name, loaded.task, loaded.recipe, loaded.quality) == ("tiny", "denoise", {"seed": 1}, {"psnr": 30.0})
    assert loaded.network.config == network.config
    round_to_half(network)
    assert all(torch.equal(value, network.state_dict()[key]) for key, value in loaded.network.state_dict().items())
    assert np.array_equal(draw(loaded.network, photo(40, 40)), draw(network, photo(40, 40)))


def test_weights_take_two_bytes(saved):
    path, network = saved
    parameters = sum(parameter.numel() for parameter in network.parameters())
    assert 2 * parameters < path.stat().st_size < 2 * parameters + 10_000


def test_saving_loaded_weights_again_gives_the_same_bytes(saved, tmp_path):
    path, _ = saved
    loaded = load(path)
    again = tmp_path / "again.safetensors"
    save_checkpoint(again, loaded.network, name="tiny", task="denoise", recipe=loaded.recipe, quality=loaded.quality)
    assert again.read_bytes() == path.read_bytes()


def altered(path, **changes):
    from safetensors import safe_open

    with safe_open(str(path), framework="pt") as file:
        about = json.loads(file.metadata()[KEY])
    save_file(load_file(path), path, metadata={KEY: json.dumps({**about, **changes})})


def test_missing_damaged_and_foreign_files_are_refused(saved, tmp_path):
    path, _ = saved
    with pytest.raises(CheckpointError, match="does not exist"):
        load(tmp_path / "none.safetensors")
    (tmp_path / "text.safetensors").write_text("not a checkpoint at all")
    with pytest.raises(CheckpointError, match="no safetensors file"):
        load(tmp_path / "text.safetensors")
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="no safetensors file"):
        load(cut)
    save_file({"weight": torch.zeros(2)}, tmp_path / "foreign.safetensors")
    with pytest.raises(CheckpointError, match="not written by impasto"):
        load(tmp_path / "foreign.safetensors")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schema": checkpoint.SCHEMA + 1}, "Upgrade"),
        ({"schema": "new"}, "schema"),
        ({"network": {"architecture": "resnet", "config": {}}}, "does not fit"),
        ({"network": {"architecture": "unet-restorer", "config": {}}}, "does not fit"),
        ({"network": {"architecture": "unet-restorer"}}, "does not fit"),
        ({"network": "unet"}, "does not fit"),
        ({"network": {"architecture": "thumbnail-stylizer", "config": SMALL["thumbnail-stylizer"]}}, "does not fit"),
    ],
)
def test_descriptions_that_do_not_fit_are_refused(saved, changes, message):
    path, _ = saved
    altered(path, **changes)
    with pytest.raises(CheckpointError, match=message):
        load(path)


def test_nowhere_to_write(saved, tmp_path):
    with pytest.raises(OutputError):
        save_checkpoint(tmp_path / "no" / "x.safetensors", saved[1], name="x", task="denoise", recipe={})
