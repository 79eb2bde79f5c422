"""The torch operators' contracts, on the CPU, where they compute the kernel's own formulas in plain torch."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
from torch.utils.checkpoint import checkpoint  # noqa: E402

from impasto.kernels import gram, operators, style_loss  # noqa: E402


@pytest.fixture
def layers():
    generator = torch.Generator().manual_seed(5)
    features = [torch.randn(2, C, 3, 4, dtype=torch.float64, generator=generator).requires_grad_() for C in (2, 3)]
    targets = [torch.randn(2, 2, dtype=torch.float64), torch.randn(2, 3, 3, dtype=torch.float64)]
    return features, targets, [0.5, 2.0], [None, torch.rand(2, 3, 4, dtype=torch.float64)]


def test_the_operators_keep_torchs_contracts(layers):
    features, targets, weights, masks = layers
    torch.library.opcheck(operators.style_forward, (features, targets, weights, masks, False, True))
    torch.library.opcheck(operators.gram_forward, (features[1], masks[1], False))
    torch.library.opcheck(operators.gram_forward, (features[0], None, False))


def test_the_operators_equal_the_reference(layers):
    features, targets, weights, masks = layers
    torch.testing.assert_close(
        operators.style_loss(features, targets, weights, masks), style_loss(features, targets, weights, masks=masks)
    )
    torch.testing.assert_close(operators.gram(features[1], masks[1]), gram(features[1], masks[1]))


def test_the_gradient_formulas_pass_gradcheck(layers):
    features, targets, weights, masks = layers
    assert torch.autograd.gradcheck(lambda *f: operators.style_loss(list(f), targets, weights, masks), features)
    assert torch.autograd.gradcheck(lambda f: operators.gram(f, masks[1]), (features[1],))


def test_gradients_of_a_loss_that_is_scaled_later(layers):
    features, targets, weights, masks = layers
    (3 * operators.style_loss(features, targets, weights, masks)).backward()
    expected = torch.autograd.grad(3 * style_loss(features, targets, weights, masks=masks), features)
    torch.testing.assert_close([feature.grad for feature in features], list(expected))


def test_gradients_add_up_in_place(layers):
    features, targets, weights, masks = layers
    differences = operators.style_forward(features, targets, weights, masks, False, True)[1:]
    upstream = torch.tensor(2.0, dtype=torch.float64)
    arguments = (upstream, features, differences, weights, masks, False)
    buffers = [torch.ones_like(feature) for feature in features]
    with torch.no_grad():
        operators.add_style_gradients(buffers, *arguments)
        for buffer, gradient in zip(buffers, operators.style_backward(*arguments), strict=True):
            torch.testing.assert_close(buffer, gradient + 1)


def test_no_difference_is_kept_where_no_gradient_is_wanted(layers):
    features, targets, weights, masks = layers
    with torch.no_grad():
        assert not operators.style_loss(features, targets, weights, masks).requires_grad


def test_fake_tensors_know_shapes_and_strides():
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        features = torch.empty(2, 8, 5, 6, dtype=torch.float16).contiguous(memory_format=torch.channels_last)
        assert operators.gram(features, None).shape == (2, 8, 8)
        assert operators.gram(features, None).dtype == torch.float32
        assert operators.style_loss([features], [torch.empty(8, 8)], [1.0], [None]).shape == ()


def test_a_loss_may_be_computed_again_in_the_backward_pass():
    """checkpoint() lets each saved tensor be asked for once."""
    features, target = torch.randn(2, 5, 4, 6, requires_grad=True), torch.randn(5, 5)

    def loss(values):
        return operators.style_loss([values * 2], [target], [1.0], [None])

    (wanted,) = torch.autograd.grad(loss(features), features)
    (found,) = torch.autograd.grad(checkpoint(loss, features, use_reentrant=False), features)
    assert torch.equal(found, wanted)
