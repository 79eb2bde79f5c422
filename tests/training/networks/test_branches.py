"""Branches: they change how a network learns and not what it is."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from support.small_training import SMALL, photo, shaken
from torch import nn
from torch.testing import assert_close

from impasto.errors import OptionError, TrainingError
from impasto.export.from_checkpoint import export_checkpoint
from impasto.training import checkpoint
from impasto.training.inference import draw
from impasto.training.loop import trainer as fit
from impasto.training.loop.trainer import FitOptions
from impasto.training.networks import ARCHITECTURES, branches, build
from impasto.training.recipes import fit_restore, fit_style

BRANCHES = ("point", "row", "column", "widen", "narrow")

pytest_plugins = ("support.training_fixtures",)


@pytest.fixture(autouse=True)
def _look_often(monkeypatch):
    monkeypatch.setattr(fit, "LOOK_EVERY", 2)


def grown(architecture):
    """A network whose branches count, as after training."""
    network = shaken(architecture)
    branches.branch_out(network, 0)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, branches.BranchedConv2d):
                for name in BRANCHES:
                    parameter = getattr(module, name)
                    parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    return network


def test_they_are_what_they_say():
    """Against each branch as convolutions of its own, in float64."""
    torch.manual_seed(0)
    convolution = nn.Conv2d(6, 6, 3, padding=1).double()
    x = torch.randn(2, 6, 9, 11, dtype=torch.float64)
    alone = convolution(x)
    branch = branches.BranchedConv2d(convolution, torch.Generator().manual_seed(0))
    assert torch.equal(branch(x), alone)
    with torch.no_grad():
        for name in BRANCHES:
            getattr(branch, name).normal_()
    wanted = (
        alone
        + F.conv2d(x, branch.point)
        + F.conv2d(x, branch.row, padding=(0, 1))
        + F.conv2d(x, branch.column, padding=(1, 0))
        + F.conv2d(F.conv2d(x, branch.widen[:, :, None, None]), branch.narrow, padding=1)
    )
    assert_close(branch(x), wanted, atol=1e-10, rtol=0)
    assert_close(branch.plain()(x), wanted, atol=1e-10, rtol=0)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_network_goes_on_from_where_it_was(architecture):
    network = shaken(architecture)
    before = draw(network, photo(40, 48))
    branches.branch_out(network, 0)
    assert (draw(network, photo(40, 48)) == before).all()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_folded_is_unfolded_of_plain_convolutions(architecture):
    network = grown(architecture)
    plain = network.folded()
    assert list(plain.state_dict()) == list(build(architecture, SMALL[architecture]).state_dict())
    assert not any(isinstance(module, branches.BranchedConv2d) for module in plain.modules())
    image = torch.rand(1, 3, 48, 64)
    given = (image,)
    if network.thumbnail:
        small = torch.rand(1, 3, network.thumbnail, network.thumbnail)
        given = (image, network.context(small).detach())
    with torch.no_grad():
        assert_close(plain(*given), network(*given), atol=1e-4, rtol=0)
        bare = shaken(architecture)
        assert float((plain(*given) - bare(*given)).abs().max()) > 1e-3, "the branches count, or nothing was tested"
    assert any(isinstance(module, branches.BranchedConv2d) for module in network.modules()), (
        "the network itself keeps them"
    )


@pytest.mark.parametrize("architecture", [name for name in ARCHITECTURES if name != "plain-upscaler"])
def test_they_grow_where_a_block_keeps_its_channels(architecture):
    network = shaken(architecture)
    blocks = {name for name, module in network.named_modules() if type(module).__name__ in ("ResidualBlock", "_Block")}
    branches.branch_out(network, 0)
    at = {name for name, module in network.named_modules() if isinstance(module, branches.BranchedConv2d)}
    assert len(at) == 2 * len(blocks)
    assert all(any(name.startswith(f"{block}.") for block in blocks) for name in at)


def test_they_grow_in_every_layer_of_a_plain_stack():
    network = shaken("plain-upscaler")
    assert branches.branch_out(network, 0) == len(network.body)


def test_every_branch_learns(restoring, monkeypatch):
    before, after = [], []

    def watched(network, seed):
        count = branches.branch_out(network, seed)
        before.append(copy.deepcopy(network.state_dict()))
        after.append(network.state_dict())
        return count

    monkeypatch.setattr(fit, "branch_out", watched)
    fit_restore(restoring(fit=FitOptions(steps=3, device="cpu", branches=True)))
    names = [name for name in before[0] if name.endswith(BRANCHES)]
    assert len(names) == 5 * 2 * 5  # of five blocks
    assert not [name for name in before[0] if torch.equal(before[0][name], after[0][name])]


def test_a_seed_settles_them():
    one, same, other = (shaken("unet-restorer") for _ in range(3))
    for network, seed in ((one, 3), (same, 3), (other, 4)):
        torch.rand(seed)  # whatever was drawn before
        branches.branch_out(network, seed)
    widen = [name for name in one.state_dict() if name.endswith(".widen")]
    assert all(torch.equal(one.state_dict()[name], same.state_dict()[name]) for name in widen)
    assert not any(torch.equal(one.state_dict()[name], other.state_dict()[name]) for name in widen)


@pytest.mark.parametrize("kind", ["restore", "style"])
def test_what_ships_is_an_ordinary_checkpoint(kind, restoring, stylizing, tmp_path):
    options, train = (restoring, fit_restore) if kind == "restore" else (stylizing, fit_style)
    result = train(options(fit=FitOptions(steps=3, device="cpu", branches=True)))
    made = checkpoint.load(result.checkpoint)
    assert made.recipe["optimizer"]["adam, one-cycle"]["branches"] is True
    assert list(made.network.state_dict()) == list(build(made.network.architecture, made.network.config).state_dict())
    export_checkpoint(result.checkpoint, tmp_path / "package")
    train(options("again", config={}, start=result.checkpoint, fit=FitOptions(steps=1, device="cpu", branches=True)))


@pytest.mark.parametrize("patience", [0, 9])
def test_killed_and_resumed_is_uninterrupted(restoring, patience):
    chosen = FitOptions(steps=6, device="cpu", branches=True, save_seconds=0, patience=patience, validate_every=2)
    whole = restoring("whole", fit=chosen)
    fit_restore(whole)

    def cut(progress):
        if progress.step == 4:
            raise RuntimeError("killed")

    killed = replace(whole, output=whole.output.parent / "killed")
    with pytest.raises(RuntimeError, match="killed"):
        fit_restore(killed, cut)
    with pytest.raises(TrainingError, match="other options"):
        fit_restore(replace(killed, resume=True, fit=replace(chosen, branches=False)))
    resumed = fit_restore(replace(killed, resume=True))
    one, other = (
        checkpoint.load(run).network.state_dict() for run in (whole.output / fit.CHECKPOINT, resumed.checkpoint)
    )
    assert all(torch.equal(one[key], other[key]) for key in one)


def test_frozen_stages_stay_to_the_bit(restoring, tmp_path):
    start = tmp_path / "start.safetensors"
    checkpoint.save_checkpoint(start, shaken("unet-restorer"), name="start", task="denoise", recipe={})
    options = FitOptions(steps=2, device="cpu", branches=True, freeze=("encoder",), depth_decay=0.8)
    made = checkpoint.load(fit_restore(restoring(start=start, config={}, fit=options)).checkpoint).network.state_dict()
    for name, value in checkpoint.load(start).network.state_dict().items():
        assert torch.equal(made[name], value) == name.startswith("encoder."), name


def test_where_they_cannot_grow_they_are_refused(restoring):
    with pytest.raises(OptionError, match="leave one of the two away"):
        FitOptions(steps=1, branches=True, qat=True)
    without_blocks = {"widths": [16, 16, 16], "encoder": [0, 0], "middle": 0, "decoder": [0, 0]}
    with pytest.raises(OptionError, match="leave --branches away"):
        fit_restore(restoring(config=without_blocks, fit=FitOptions(steps=1, device="cpu", branches=True)))
