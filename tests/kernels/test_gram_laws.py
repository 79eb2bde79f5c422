"""What every Gram matrix and style loss obeys, then comparison with float64 NumPy. Runs on the CPU."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from impasto.errors import OptionError, ShapeError  # noqa: E402
from impasto.kernels import gram, style, style_loss  # noqa: E402


@pytest.fixture
def features():
    return torch.randn(2, 5, 6, 7, generator=torch.Generator().manual_seed(3))


def test_importing_the_room_costs_nothing():
    code = "import sys, impasto.kernels; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_gram_is_symmetric_and_positive_semidefinite(features):
    matrix = gram(features.double())
    torch.testing.assert_close(matrix, matrix.mT)
    assert torch.linalg.eigvalsh(matrix).min() > -1e-12


def test_gram_of_ones_is_one_over_the_channels():
    torch.testing.assert_close(gram(torch.ones(1, 4, 5, 6)), torch.full((1, 4, 4), 0.25))


def test_gram_does_not_depend_on_where_pixels_are(features):
    shuffled = features.flatten(2)[..., torch.randperm(42)].view_as(features)
    torch.testing.assert_close(gram(features), gram(shuffled))


def test_gram_does_not_depend_on_size(features):
    torch.testing.assert_close(gram(features), gram(features.repeat(1, 1, 3, 2)))


def test_gram_does_not_depend_on_layout(features):
    torch.testing.assert_close(gram(features), gram(features.contiguous(memory_format=torch.channels_last)))


def test_a_full_mask_changes_nothing_and_an_empty_one_leaves_nothing(features):
    full = torch.ones(2, 6, 7)
    torch.testing.assert_close(gram(features, full), gram(features))
    torch.testing.assert_close(gram(features, full[:, None]), gram(features))
    assert gram(features, full * 0).abs().max() == 0


def test_a_masked_gram_is_the_gram_of_the_region(features):
    mask = torch.zeros(2, 6, 7)
    mask[:, 1:4, 2:6] = 1
    torch.testing.assert_close(gram(features, mask), gram(features[:, :, 1:4, 2:6]))


def test_regions_add_up_to_the_whole_by_their_areas(features):
    left = torch.zeros(2, 6, 7)
    left[:, :, :3] = 1
    parts = gram(features, left) * 18 / 42 + gram(features, 1 - left) * 24 / 42
    torch.testing.assert_close(parts, gram(features))


def test_the_loss_of_a_picture_against_itself_is_zero(features):
    assert style_loss([features], [gram(features)], [1.0]) == 0


def test_the_loss_is_linear_in_the_weights(features):
    target = torch.zeros(5, 5)
    one = style_loss([features], [target], [1.0])
    torch.testing.assert_close(style_loss([features, features], [target, target], [2.0, 3.0]), 5 * one)
    torch.testing.assert_close(style_loss([features], [target]), one)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_gram_and_loss_equal_float64_numpy(features, dtype):
    features = features.to(dtype)
    F = features.double().numpy().reshape(2, 5, 42)
    expected = np.einsum("ncp,ndp->ncd", F, F) / (5 * 42)
    result = gram(features)
    assert result.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    np.testing.assert_allclose(result.double().numpy(), expected, rtol=1e-5, atol=1e-7)
    target = torch.rand(5, 5)
    loss = style_loss([features], [target], [0.5])
    assert float(loss) == pytest.approx(0.5 * np.mean((expected - target.numpy()) ** 2), rel=1e-5)


def test_the_gradient_is_the_formula_of_the_documentation(features):
    """dF = 4 w / (N C² C H W) · (G − A) F, which the kernel computes, against autograd."""
    features = features.double().requires_grad_()
    target = torch.rand(2, 5, 5, dtype=torch.float64)
    target = target + target.mT
    style_loss([features], [target], [0.3]).backward()
    F = features.detach().flatten(2)
    expected = 4 * 0.3 / (2 * 5**2 * 5 * 42) * (gram(features.detach()) - target) @ F
    torch.testing.assert_close(features.grad.flatten(2), expected)


def test_gradcheck_with_masks_and_a_target_that_is_not_symmetric():
    features = torch.randn(2, 3, 2, 3, dtype=torch.float64, requires_grad=True)
    mask = torch.rand(2, 2, 3, dtype=torch.float64)
    target = torch.randn(3, 3, dtype=torch.float64)
    assert torch.autograd.gradcheck(
        lambda f: style_loss([f, f], [target, target], [1.0, 2.0], masks=[None, mask]), features
    )
    assert torch.autograd.gradcheck(lambda f: gram(f, mask), features)


def test_autocast_does_not_lower_the_precision(features):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(gram(features), gram(features).float())
        inside = style_loss([features], [torch.zeros(5, 5)], [1.0])
    torch.testing.assert_close(inside, style_loss([features], [torch.zeros(5, 5)], [1.0]))
    assert inside.dtype == torch.float32


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (torch.ones(3, 4, 5), "(3, 4, 5)"),
        (torch.ones(1, 3, 0, 5), "non-empty"),
        (torch.ones(1, 3, 4, 5, dtype=torch.int32), "int32"),
        ("a picture", "str"),
    ],
)
def test_wrong_features_are_named(wrong, words):
    with pytest.raises(ShapeError, match="features") as error:
        gram(wrong)
    assert words in str(error.value)


def test_wrong_targets_masks_and_lists_are_named(features):
    with pytest.raises(ShapeError, match=r"targets\[0\].*\(5, 5\)"):
        style_loss([features], [torch.zeros(4, 4)], [1.0])
    with pytest.raises(ShapeError, match=r"mask.*\(2, 6, 7\)"):
        gram(features, torch.ones(6, 7))
    with pytest.raises(OptionError, match="1 features, but 2 weights"):
        style_loss([features], [torch.zeros(5, 5)], [1.0, 2.0])
    with pytest.raises(OptionError, match="at least one"):
        style_loss([], [], [])


@pytest.mark.parametrize("dynamic", [None, True])
def test_torch_compile_takes_the_loss_whole(dynamic):
    features, target = torch.randn(2, 5, 4, 6, requires_grad=True), torch.randn(5, 5)
    torch._dynamo.reset()
    compiled = torch.compile(
        lambda values: style_loss([values], [target]), fullgraph=True, backend="aot_eager", dynamic=dynamic
    )
    (found,) = torch.autograd.grad(compiled(features), features)
    (wanted,) = torch.autograd.grad(style_loss([features], [target]), features)
    torch.testing.assert_close(found, wanted)


def test_torch_func_differentiates_it():
    features, target = torch.randn(2, 5, 4, 6, requires_grad=True), torch.randn(5, 5)
    (wanted,) = torch.autograd.grad(style_loss([features], [target]), features)
    torch.testing.assert_close(torch.func.grad(lambda x: style_loss([x], [target]))(features.detach()), wanted)


def test_what_is_no_tensor_is_named():
    features, other = torch.ones(2, 4, 5, 6), np.ones((4, 4))
    with pytest.raises(ShapeError, match=r"targets\[0\] is a ndarray; a torch.Tensor \(C, C\)"):
        style_loss([features], [other])
    with pytest.raises(ShapeError, match=r"mask is a ndarray; a torch.Tensor \(N, H, W\)"):
        gram(features, other)


def test_more_pixels_than_the_kernel_counts_are_refused(monkeypatch):
    monkeypatch.setattr(style, "_has_kernel", lambda features: True)
    huge = torch.zeros(1, 1, 1, 1).expand(1, 2, 46341, 46341)
    with pytest.raises(ShapeError, match="counts up to 2,147,483,392 an image"):
        gram(huge)
