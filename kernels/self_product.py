"""F Fᵀ with a gradient of its own.

torch.compile needs the class at the top of a module, and this module may import torch there.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class SelfProduct(torch.autograd.Function):
    """F Fᵀ of (N, C, P). The gradient (Ġ + Ġᵀ) F is one product, in F's own memory layout.

    Autograd does not know that both operands are the same tensor. It computes two products, one of them transposed, and adds them,
    which is half the time of a style loss on a CPU. Differentiable twice, because `backward` consists of differentiable operations.
    """

    @staticmethod
    def forward(pixels: Tensor) -> Tensor:
        return pixels @ pixels.mT

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (pixels,) = ctx.saved_tensors
        both = gradient + gradient.mT
        return (pixels.mT @ both).mT if pixels.stride(1) == 1 else both @ pixels
