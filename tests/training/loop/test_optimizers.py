"""Muon orthogonalizes kernels, treats vectors as Adam does, and resumes to the bit."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from impasto.errors import OptionError, TrainingError
from impasto.training import checkpoint
from impasto.training.loop.optimizers import Muon, new_optimizer, orthogonalized
from impasto.training.loop.options import FitOptions
from impasto.training.loop.run_folder import CHECKPOINT
from impasto.training.restoration import train_restorer

pytest_plugins = ("support.training_fixtures",)


@pytest.mark.parametrize("shape", [(32, 288), (288, 32), (64, 64), (1, 27)])
def test_orthogonalized_keeps_directions_and_evens_out_their_lengths(shape):
    # Singular values from 1 to 1/10: all come out within (0.6, 1.3), along the same directions.
    left, right = (torch.linalg.qr(torch.randn(side, min(shape)))[0] for side in shape)
    matrix = left @ torch.diag(torch.logspace(0, -1, min(shape))) @ right.T
    inner = left.T @ orthogonalized(matrix) @ right
    assert inner.diagonal().min() > 0.6 and inner.diagonal().max() < 1.3
    assert (inner - torch.diag(inner.diagonal())).abs().max() < 1e-3


def test_orthogonalized_does_not_depend_on_scale_and_keeps_zero():
    matrix = torch.randn(16, 40)
    torch.testing.assert_close(orthogonalized(1000 * matrix), orthogonalized(matrix), rtol=1e-3, atol=1e-4)
    assert torch.equal(orthogonalized(torch.zeros(4, 9)), torch.zeros(4, 9))


def test_orthogonalized_is_pytorchs_newton_schulz():
    muon = pytest.importorskip("torch.optim._muon", reason="PyTorch before 2.9")
    matrix = torch.randn(24, 60)
    theirs = muon._zeropower_via_newtonschulz(matrix, (3.4445, -4.7750, 2.0315), 5, 1e-7).float()
    assert (orthogonalized(matrix) - theirs).norm() < 0.03 * theirs.norm()  # theirs is computed in BF16


def test_a_step_of_a_kernel_has_a_fifth_of_the_learning_rate_as_its_root_mean_square():
    kernel = nn.Parameter(torch.randn(32, 16, 3, 3).to(memory_format=torch.channels_last))
    before = kernel.detach().clone()
    kernel.grad = torch.randn_like(kernel)
    new_optimizer("muon", [{"params": [kernel]}], 0.01, fused=False).step()
    change = (kernel.detach() - before).square().mean().sqrt()
    assert 0.7 < change / (0.2 * 0.01) < 1.3


def test_vectors_are_treated_as_adam_does():
    mine, theirs = (nn.Parameter(torch.arange(5.0)) for _ in range(2))
    muon, adam = Muon([{"params": [mine]}], lr=0.1), torch.optim.Adam([theirs], lr=0.1)
    for step in range(4):
        for parameter, optimizer in ((mine, muon), (theirs, adam)):
            parameter.grad = (parameter.detach() - step).sin()
            optimizer.step()
    torch.testing.assert_close(mine, theirs)


def test_a_run_with_muon_learns_and_resumes_to_the_bit(restoring):
    def run(folder, **changes):
        options = restoring(folder)
        fit = replace(options.fit, optimizer="muon", **changes)
        train_restorer(replace(options, fit=fit))
        return checkpoint.load(options.output / CHECKPOINT).network.state_dict()

    whole = run("whole")
    options = restoring("cut")
    fit = replace(options.fit, optimizer="muon")
    train_restorer(replace(options, fit=replace(fit, minutes=1e-6)))
    train_restorer(replace(options, fit=fit, resume=True))
    resumed = checkpoint.load(options.output / CHECKPOINT).network.state_dict()
    assert all(torch.equal(whole[key], resumed[key]) for key in whole)


def test_a_run_goes_on_with_its_own_optimizer_alone(restoring):
    options = restoring("cut")
    train_restorer(replace(options, fit=replace(options.fit, minutes=1e-6)))
    other = replace(options, fit=replace(options.fit, optimizer="muon"), resume=True)
    with pytest.raises(TrainingError, match="optimizer was adam and is muon"):
        train_restorer(other)


def test_unknown_optimizers_are_refused():
    with pytest.raises(OptionError, match="choose adam or muon"):
        FitOptions(steps=1, optimizer="sgd")
