"""What the kernel must do, wherever it runs: on a GPU or on the emulated one. Against float64, with inputs of every layout."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from impasto.kernels import reference


@dataclass(frozen=True)
class Kernel:
    """A way to run it."""

    gram: Callable[[Tensor, Tensor | None, bool], Tensor]
    """Features, a mask or none, and whether to multiply in TF32."""
    loss: Callable[..., tuple[Tensor, list[Tensor]]]
    """Features, targets, weights, masks, TF32, upstream: the loss, and the gradients of upstream times it."""


TOLERANCE = {"f16": 1e-3, "bf16": 1e-2, "f32": 1e-5, "tf32": 1e-3}
DTYPE = {"f16": torch.float16, "bf16": torch.bfloat16, "f32": torch.float32, "tf32": torch.float32}


def as_is(x):
    return x.contiguous()


def channels_last(x):
    return x.contiguous(memory_format=torch.channels_last)


def every_second_column(x):
    return x.repeat_interleave(2, 3)[..., ::2]


def a_view_into_something_larger(x):
    N, C, H, W = x.shape
    room = torch.full((N, C + 1, H + 2, W + 3), float("nan"), dtype=x.dtype, device=x.device)
    room[:, 1:, 1 : H + 1, 2 : W + 2] = x
    return room[:, 1:, 1 : H + 1, 2 : W + 2]


def unaligned(x):
    room = torch.empty(x.numel() + 1, dtype=x.dtype, device=x.device)[1:].view(x.shape)
    return room.copy_(x)


def channels_last_in_something_larger(x):
    N, C, H, W = x.shape
    room = torch.full((N, H, W, C + 8), float("nan"), dtype=x.dtype, device=x.device)
    room[..., :C] = x.permute(0, 2, 3, 1)
    return room[..., :C].permute(0, 3, 1, 2)


def turned(x):
    return x.mT.contiguous().mT


LAYOUTS = [
    as_is,
    channels_last,
    every_second_column,
    a_view_into_something_larger,
    unaligned,
    channels_last_in_something_larger,
    turned,
]


def drawn(shape, dtype, layout=as_is, device="cpu"):
    """Like features after a ReLU and a norm: not centred, channels of different strength."""
    strength = torch.rand(1, shape[1], 1, 1, device=device) * 2
    return layout((torch.randn(shape, device=device).add(0.3).relu() * strength).to(DTYPE[dtype]))


def error(result, expected):
    """‖result - expected‖ / ‖expected‖; NaN passes nothing."""
    distance = torch.linalg.vector_norm(result.double() - expected.double())
    return float(distance / torch.linalg.vector_norm(expected.double()).clamp_min(1e-300))


def visible_weight(shape):
    """A layer's weight that brings its gradient near 1, into float16's range, as a loss scaler does in training."""
    N, C, H, W = shape
    return float(N * C * C * H * W)


def check_gram(kernel: Kernel, features, dtype, mask=None):
    result = kernel.gram(features, mask, dtype == "tf32")
    expected = reference.gram(features.double(), mask)
    assert error(result, expected) <= TOLERANCE[dtype]
    assert torch.equal(result, result.mT)


def check_loss(kernel: Kernel, features, dtype, masks=None, targets=None):
    masks = masks or [None] * len(features)
    weights = [visible_weight(feature.shape) for feature in features]
    if targets is None:
        targets = [torch.rand(f.shape[1], f.shape[1], device=f.device) / f.shape[1] for f in features]
    loss, gradients = kernel.loss(features, targets, weights, masks, dtype == "tf32", 3.0)
    exact = [feature.detach().double().requires_grad_() for feature in features]
    expected = reference.style_loss(exact, [target.double() for target in targets], weights, masks)
    assert error(loss, expected.detach()) <= 3 * TOLERANCE[dtype]
    for gradient, right in zip(gradients, torch.autograd.grad(expected * 3, exact), strict=True):
        assert error(gradient, right) <= 3 * TOLERANCE[dtype]
