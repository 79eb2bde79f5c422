"""The two public functions. They check their arguments, and choose between the kernel and plain torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from impasto.errors import MissingDependency, OptionError, ShapeError

if TYPE_CHECKING:
    from torch import Tensor

MOST_PIXELS = 2**31 - 256
"""Most pixels of one image: the kernel counts them in 32 bits, up to a little beyond the last one."""


def gram(features: Tensor, mask: Tensor | None = None, *, tf32: bool = False) -> Tensor:
    """Channel correlations of feature maps: G = F Fᵀ / (C H W), Gatys et al. 2016, equation 3.

    features: (N, C, H, W), float16, bfloat16, float32 or float64 (no CUDA kernel for float64), any strides.
    mask: (N, H, W) or (N, 1, H, W), weights in [0, 1] of a region of style; then G = F diag(m) Fᵀ / (C Σm), and 0 for
    an empty region. No gradient flows to it. tf32: let the CUDA kernel round float32 to 10 bits of mantissa, for speed.
    Returns (N, C, C), float32 (float64 for float64), symmetric, positive semidefinite up to rounding.
    Raises ShapeError for shapes and dtypes that do not fit.
    """
    _torch()
    _check_features("features", features)
    region = _checked_mask("mask", mask, features)
    if _has_kernel(features):
        from . import operators

        return operators.gram(features, region, tf32)
    from . import reference

    return reference.gram(features, region)


def style_loss(
    features: Sequence[Tensor],
    targets: Sequence[Tensor],
    weights: Sequence[float] | None = None,
    *,
    masks: Sequence[Tensor | None] | None = None,
    tf32: bool = False,
) -> Tensor:
    """The style loss of some layers, Σ wₗ · mean((Gₗ − Aₗ)²), the mean taken over batch and both channel axes.

    features: one (N, C, H, W) per layer, as for `gram`, all on one device; N may differ between layers.
    targets: one Gram matrix per layer, (C, C) for the whole batch or (N, C, C), on the same device. No gradient flows
    to them. weights: one float per layer, 1 each unless given. masks: one region or None per layer; tf32: as for `gram`.
    Returns a scalar, float32 (float64 where a layer is float64), differentiable by `features`.
    Raises ShapeError for shapes, dtypes and devices that do not fit, OptionError for lists of different lengths.
    """
    _torch()
    features, targets = list(features), list(targets)
    weights = [1.0] * len(features) if weights is None else [float(weight) for weight in weights]
    masks = [None] * len(features) if masks is None else list(masks)
    _check_lengths(len(features), targets=len(targets), weights=len(weights), masks=len(masks))
    for layer, (feature, target) in enumerate(zip(features, targets, strict=True)):
        _check_features(f"features[{layer}]", feature)
        _check_target(layer, target, feature)
        if feature.device != features[0].device:
            raise ShapeError(
                f"features[{layer}] is on {feature.device} and features[0] on {features[0].device}: "
                "move all layers of one loss to one device"
            )
    regions = [
        _checked_mask(f"masks[{layer}]", mask, feature)
        for layer, (mask, feature) in enumerate(zip(masks, features, strict=True))
    ]
    targets = [target.detach() for target in targets]
    if all(_has_kernel(feature) for feature in features):
        from . import operators

        return operators.style_loss(features, targets, weights, regions, tf32)
    from . import reference

    return reference.style_loss(features, targets, weights, regions)


def _has_kernel(features: Tensor) -> bool:
    """Whether the CUDA kernel computes these features. It has no float64 variant; plain torch computes float64."""
    import torch

    return features.is_cuda and features.dtype != torch.float64


def _torch() -> Any:
    try:
        import torch
    except ModuleNotFoundError as error:
        raise MissingDependency(
            'Gram matrices of tensors need torch, which is not installed: pip install "impasto[train]"'
        ) from error
    return torch


def _check_lengths(layers: int, **lists: int) -> None:
    if layers == 0:
        raise OptionError("A style loss needs at least one layer; features is empty.")
    for name, length in lists.items():
        if length != layers:
            raise OptionError(f"{layers} features, but {length} {name}: give one per layer.")


def _check_features(name: str, features: Tensor) -> None:
    import torch

    _check_tensor(name, features, "(N, C, H, W)")
    if features.dim() != 4 or 0 in features.shape:
        raise ShapeError(f"{name} has the shape {tuple(features.shape)}; a non-empty (N, C, H, W) is needed.")
    if features.dtype not in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        raise ShapeError(f"{name} is {features.dtype}; float16, bfloat16, float32 or float64 is needed.")
    if _has_kernel(features) and features.shape[2] * features.shape[3] > MOST_PIXELS:
        raise ShapeError(
            f"{name} has {features.shape[2]} x {features.shape[3]} pixels, and the kernel counts up to {MOST_PIXELS:,} an image; "
            "cut it into parts"
        )


def _check_tensor(name: str, value: object, shape: str) -> None:
    import torch

    if not isinstance(value, torch.Tensor):
        raise ShapeError(f"{name} is a {type(value).__name__}; a torch.Tensor {shape} is needed.")


def _check_target(layer: int, target: Tensor, features: Tensor) -> None:
    N, C = features.shape[:2]
    _check_tensor(f"targets[{layer}]", target, "(C, C) or (N, C, C)")
    if tuple(target.shape) not in ((C, C), (N, C, C)) or not target.is_floating_point():
        raise ShapeError(
            f"targets[{layer}] is {target.dtype} of the shape {tuple(target.shape)}; features[{layer}] "
            f"{tuple(features.shape)} needs a floating-point Gram matrix ({C}, {C}) or ({N}, {C}, {C})."
        )
    if target.device != features.device:
        raise ShapeError(f"targets[{layer}] is on {target.device}, features[{layer}] on {features.device}: move one.")


def _checked_mask(name: str, mask: Tensor | None, features: Tensor) -> Tensor | None:
    """The mask as (N, H, W), or None."""
    if mask is None:
        return None
    N, _, H, W = features.shape
    _check_tensor(name, mask, "(N, H, W)")
    if tuple(mask.shape) not in ((N, H, W), (N, 1, H, W)):
        raise ShapeError(
            f"{name} has the shape {tuple(mask.shape)}; features {tuple(features.shape)} needs ({N}, {H}, {W}) "
            f"or ({N}, 1, {H}, {W})."
        )
    if mask.device != features.device:
        raise ShapeError(f"{name} is on {mask.device}, its features on {features.device}: move one.")
    return mask.detach().reshape(N, H, W)
