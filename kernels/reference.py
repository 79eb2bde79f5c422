"""Gram matrices and style losses in plain torch. The CUDA kernel must give the same; without a GPU, this runs.

Both functions are differentiable twice, run on any device, and add up in float32, or in float64 for float64.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def gram(features: Tensor, mask: Tensor | None = None) -> Tensor:
    """G = F diag(m) Fᵀ / (C Σm): (N, C, H, W) and a mask (N, H, W) or none (m = 1) to (N, C, C). Unchecked.

    An empty region (Σm = 0) has the Gram matrix 0.
    """
    import torch

    from .self_product import SelfProduct

    # Autocast would cast the product's operands to half, and add up in another order and precision.
    with torch.autocast(features.device.type, enabled=False):
        pixels = features.flatten(2)
        pixels = pixels if pixels.dtype == torch.float64 else pixels.float()
        channels = pixels.shape[1]
        if mask is None:
            product: Tensor = SelfProduct.apply(pixels)
            return product / (channels * pixels.shape[2])
        region = mask.flatten(1).to(pixels.dtype)
        area = region.sum(1)
        area = torch.where(area > 0, area, torch.ones_like(area))[:, None, None]
        return (pixels * region[:, None]) @ pixels.mT / (channels * area)


def style_loss(
    features: Sequence[Tensor],
    targets: Sequence[Tensor],
    weights: Sequence[float],
    masks: Sequence[Tensor | None],
) -> Tensor:
    """Σ wₗ · mean((Gₗ − Aₗ)²), the mean over batch and both channel axes. A scalar. Unchecked."""
    import torch

    with torch.autocast(features[0].device.type, enabled=False):
        grams = [gram(feature, mask) for feature, mask in zip(features, masks, strict=True)]
        terms = [
            weight * (layer - target.to(layer.dtype)).square().mean()
            for layer, target, weight in zip(grams, targets, weights, strict=True)
        ]
        return torch.stack(terms).sum()
