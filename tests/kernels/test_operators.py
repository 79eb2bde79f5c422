"""The torch operators' contracts, on the CPU, where they compute the kernel's own formulas in plain torch."""

from __future__ import annotations

import json

import pytest

torch = pytest.importorskip("torch")
from support.small_models import REPOSITORY  # noqa: E402
from torch.utils.checkpoint import checkpoint  # noqa: E402

from impasto.benchmarks.gram import VGG16  # noqa: E402
from impasto.kernels import gram, module, operators, reference, style_loss  # noqa: E402


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


# ---- where cuBLAS is faster ----

HOPPER = (9, 0)


def test_cublas_is_chosen_where_the_recorded_figures_say_so(monkeypatch):
    """Layer by layer, as an H100 was measured."""
    monkeypatch.delenv(module.CHOICE, raising=False)
    recorded = json.loads((REPOSITORY / "benchmarks/results/h100/gram.json").read_text())["timings"]
    times = {}
    for timing in recorded:
        times.setdefault((timing["problem"], timing["method"]), timing["microseconds"])
    seen = set()
    for name, (C, _) in VGG16.items():
        for N in (1, 4):
            ours, cublas = (times[f"{name} x{N}", method] for method in ("impasto gram", "torch.bmm (cuBLAS)"))
            assert operators.product_is_faster(N, C, HOPPER) == (cublas < ours), (name, N)
            seen.add(cublas < ours)
    assert seen == {True, False}


def test_where_nothing_was_measured_and_where_a_kernel_is_named_the_kernel_runs(monkeypatch):
    monkeypatch.delenv(module.CHOICE, raising=False)
    assert operators.product_is_faster(1, 512, HOPPER)
    for N, C, capability in ((1, 512, (8, 7)), (1, 512, (12, 0)), (8, 512, HOPPER), (1, 32, HOPPER)):
        assert not operators.product_is_faster(N, C, capability)
    for kernel in ("mma", "wgmma"):
        monkeypatch.setenv(module.CHOICE, kernel)
        assert not operators.product_is_faster(1, 512, HOPPER)


def test_the_product_is_the_gram_matrix(monkeypatch):
    """cuBLAS's float32 result of halves is stood in for: torch has it on CUDA alone."""
    asked = []

    def product(left, right, *, out_dtype):
        asked.append(out_dtype)
        return left.to(out_dtype) @ right.to(out_dtype)

    monkeypatch.setattr(torch, "bmm", product)
    features = torch.full((2, 3, 8, 16), 200, dtype=torch.float16)
    features[:, 1] = -3
    torch.testing.assert_close(operators._product(features), reference.gram(features, None))
    assert asked == [torch.float32]
    assert features.flatten(2).square().sum() == torch.inf, "in float16 they overflow"


def test_only_features_that_torch_multiplies_as_they_lie_take_the_product(monkeypatch):
    class OnCuda:
        """As much of a CUDA tensor as is asked for."""

        is_cuda, device, shape = True, "cuda:0", (1, 64, 8, 8)

        def __init__(self, dtype=torch.float16, contiguous=True):
            self.dtype, self.is_contiguous = dtype, lambda: contiguous

    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: HOPPER)
    monkeypatch.delenv(module.CHOICE, raising=False)
    assert operators._takes_product(OnCuda(), None)
    assert operators._takes_product(OnCuda(torch.bfloat16), None)
    assert not operators._takes_product(OnCuda(), "a mask")
    assert not operators._takes_product(OnCuda(torch.float32), None)
    assert not operators._takes_product(OnCuda(contiguous=False), None)
    assert not operators._takes_product(torch.zeros(1, 64, 8, 8, dtype=torch.float16), None)
