"""Fine-tuning: what is frozen stays to the bit, and rates fall with the distance from the head."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from support.small_training import shaken

from impasto.errors import OptionError, TrainingError
from impasto.training import checkpoint
from impasto.training.loop import stages
from impasto.training.loop import trainer as fit
from impasto.training.loop.options import FitOptions
from impasto.training.loop.run_folder import CHECKPOINT
from impasto.training.networks import ARCHITECTURES
from impasto.training.restoration import train_restorer

pytest_plugins = ("support.training_fixtures",)


@pytest.fixture(autouse=True)
def _look_often(monkeypatch):
    monkeypatch.setattr(fit, "LOOK_EVERY", 2)


@pytest.fixture
def start(tmp_path):
    path = tmp_path / "start.safetensors"
    checkpoint.save_checkpoint(path, shaken("unet-restorer"), name="start", task="denoise", recipe={})
    return path


def weights(path):
    return checkpoint.load(path).network.state_dict()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_parameter_has_one_stage_and_the_head_comes_last(architecture):
    network = shaken(architecture)
    for name, _ in network.named_parameters():
        assert sum(name.startswith(stage + ".") for stage in network.stages()) == 1, name
    assert network.stages()[-1] == "head"


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_rates_fall_by_stages(architecture):
    network = shaken(architecture)
    groups = stages.groups(network, 0.5)
    assert [group.share for group in groups] == [0.5**i for i in range(len(network.stages()))]
    grouped = [id(parameter) for group in groups for parameter in group.parameters]
    assert sorted(grouped) == sorted(id(parameter) for parameter in network.parameters())
    heads = {id(parameter) for parameter in network.get_submodule("head").parameters()}
    assert {id(parameter) for parameter in groups[0].parameters} == heads


def test_frozen_stages_stay_to_the_bit_and_the_others_learn(restoring, start):
    options = FitOptions(steps=3, device="cpu", freeze=("stem", "encoder", "up.0"), depth_decay=0.7)
    made = weights(train_restorer(restoring(start=start, config={}, fit=options)).checkpoint)
    for name, value in weights(start).items():
        frozen = name.startswith(("stem.", "encoder.", "up.0."))
        assert torch.equal(made[name], value) == frozen, name


def test_the_first_step_of_adam_is_as_long_as_the_rate(restoring, start, monkeypatch):
    """Adam's first step is the rate itself for every weight with a gradient: so rates can be read off the weights."""
    monkeypatch.setattr(FitOptions, "averaging_at", lambda *_: 0.0)
    monkeypatch.setattr(fit, "round_to_half", lambda network: None)
    options = FitOptions(steps=1, learning_rate=0.5, device="cpu", precision="fp32", depth_decay=0.5)
    made = weights(train_restorer(restoring(start=start, config={}, fit=options)).checkpoint)
    before = weights(start)
    order = checkpoint.load(start).network.stages()
    for distance, stage in enumerate(reversed(order)):
        moved = [(made[k] - v).abs().median() for k, v in before.items() if k.startswith(stage + ".") and v.ndim == 4]
        assert float(torch.stack(moved).max()) == pytest.approx(0.5 * 0.5**distance, rel=0.02), stage


def test_stopped_and_resumed_keeps_what_is_frozen(restoring, start):
    chosen = FitOptions(steps=4, device="cpu", freeze=("stem",), depth_decay=0.7, save_seconds=0)
    whole = restoring("whole", start=start, config={}, fit=chosen)
    train_restorer(whole)

    def cut(progress):
        if progress.step == 4:
            raise KeyboardInterrupt

    stopped = replace(whole, output=whole.output.parent / "stopped")
    with pytest.raises(KeyboardInterrupt):
        train_restorer(stopped, cut)
    with pytest.raises(TrainingError, match="other options"):
        train_restorer(replace(stopped, resume=True, fit=replace(chosen, freeze=())))
    train_restorer(replace(stopped, resume=True))
    one, other = (weights(run.output / CHECKPOINT) for run in (whole, stopped))
    assert all(torch.equal(one[key], other[key]) for key in one)


def test_what_cannot_be_frozen_is_told(restoring, start):
    def train(**chosen):
        return train_restorer(restoring(start=start, config={}, fit=FitOptions(steps=1, device="cpu", **chosen)))

    with pytest.raises(OptionError, match=r"no stage 'trunk' to freeze; choose of stem, encoder\.0"):
        train(freeze=("trunk",))
    with pytest.raises(OptionError, match="nothing is left"):
        train(freeze=("stem", "encoder", "down", "middle", "up", "decoder", "head"))
    with pytest.raises(OptionError, match="above 0, at most 1"):
        train(depth_decay=0)
    with pytest.raises(OptionError, match="--start"):
        restoring(fit=FitOptions(steps=1, freeze=("stem",)))
