"""The kernels as torch operators, `torch.ops.impasto.*`. They have gradients and fake tensors, so torch.compile keeps them.

On CUDA the operators launch gram.cu on torch's current stream. On other devices they compute the same formulas in plain torch.
That is how gradients and shapes are tested without a GPU; `impasto.kernels.style_loss` calls kernels/reference.py there.

The forward pass keeps a *difference* of each layer for the backward pass: the symmetric half of G - A as N·C·C float32, followed by
its largest absolute value for each image.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from . import cuda_driver, launch, module, reference
from .feature_map import FeatureMap

_DTYPES = {torch.float16: "f16", torch.bfloat16: "bf16", torch.float32: "f32"}


def gram(features: Tensor, mask: Tensor | None, tf32: bool = False) -> Tensor:
    """`impasto.kernels.gram`, unchecked."""
    return gram_forward(features, mask, tf32)


def style_loss(
    features: list[Tensor], targets: list[Tensor], weights: list[float], masks: list[Tensor | None], tf32: bool = False
) -> Tensor:
    """`impasto.kernels.style_loss`, unchecked."""
    needs_gradient = torch.is_grad_enabled() and any(feature.requires_grad for feature in features)
    return style_forward(features, targets, weights, masks, tf32, needs_gradient)[0]


# ---- style loss ----


@torch.library.custom_op("impasto::style_forward", mutates_args=())
def style_forward(
    features: list[Tensor],
    targets: list[Tensor],
    weights: list[float],
    masks: list[Tensor | None],
    tf32: bool,
    differences: bool,
) -> list[Tensor]:
    """The loss, followed by each layer's difference if `differences`."""
    grams = [reference.gram(feature, mask) for feature, mask in zip(features, masks, strict=True)]
    loss = reference.style_loss(features, targets, weights, masks).to(grams[0].dtype)
    if not differences:
        return [loss]
    return [loss, *(_difference(G - A) for G, A in zip(grams, targets, strict=True))]


@style_forward.register_kernel("cuda")
def _style_forward_cuda(
    features: list[Tensor],
    targets: list[Tensor],
    weights: list[float],
    masks: list[Tensor | None],
    tf32: bool,
    differences: bool,
) -> list[Tensor]:
    left = [_empty_difference(feature) for feature in features] if differences else []
    targets = [target.float().contiguous() for target in targets]
    regions = [_region(mask) for mask in masks]
    losses = []
    for dtype, indices in _launches(features, tf32):
        layers = [
            launch.Layer(
                _feature_map(features[i]),
                **_mask_pointers(regions[i]),
                target=targets[i].data_ptr(),
                target_per_image=targets[i].dim() == 3,
                weight=weights[i],
                **(_difference_pointers(left[i], features[i]) if left else {}),
            )
            for i in indices
        ]
        losses.append(_forward(layers, dtype, features[0].device, with_loss=True))
    return [losses[0] if len(losses) == 1 else torch.stack(losses).sum(), *left]


@style_forward.register_fake
def _(
    features: list[Tensor],
    targets: list[Tensor],
    weights: list[float],
    masks: list[Tensor | None],
    tf32: bool,
    differences: bool,
) -> list[Tensor]:
    left = [_empty_difference(feature) for feature in features] if differences else []
    return [features[0].new_empty((), dtype=_result_dtype(features[0])), *left]


@torch.library.custom_op("impasto::style_backward", mutates_args=())
def style_backward(
    upstream: Tensor,
    features: list[Tensor],
    differences: list[Tensor],
    weights: list[float],
    masks: list[Tensor | None],
    tf32: bool,
) -> list[Tensor]:
    """Each layer's gradient: upstream · 4 w / (N C³ Σm) · (G - A) F diag(m)."""
    return [
        _gradient(feature, difference, mask, upstream * 4 * weight / (feature.shape[0] * feature.shape[1] ** 3))
        for feature, difference, weight, mask in zip(features, differences, weights, masks, strict=True)
    ]


@style_backward.register_kernel("cuda")
def _style_backward_cuda(
    upstream: Tensor,
    features: list[Tensor],
    differences: list[Tensor],
    weights: list[float],
    masks: list[Tensor | None],
    tf32: bool,
) -> list[Tensor]:
    gradients = [torch.empty_like(feature) for feature in features]
    _write_style_gradients(gradients, upstream, features, differences, weights, masks, tf32, accumulate=False)
    return gradients


@style_backward.register_fake
def _(
    upstream: Tensor,
    features: list[Tensor],
    differences: list[Tensor],
    weights: list[float],
    masks: list[Tensor | None],
    tf32: bool,
) -> list[Tensor]:
    return [torch.empty_like(feature) for feature in features]


@torch.library.custom_op("impasto::add_style_gradients", mutates_args=("gradients",))
def add_style_gradients(
    gradients: list[Tensor],
    upstream: Tensor,
    features: list[Tensor],
    differences: list[Tensor],
    weights: list[float],
    masks: list[Tensor | None],
    tf32: bool,
) -> None:
    """Adds what `style_backward` returns to buffers of the features' shapes and dtypes, in place."""
    for buffer, gradient in zip(
        gradients, style_backward(upstream, features, differences, weights, masks, tf32), strict=True
    ):
        buffer += gradient


@add_style_gradients.register_kernel("cuda")
def _add_style_gradients_cuda(
    gradients: list[Tensor],
    upstream: Tensor,
    features: list[Tensor],
    differences: list[Tensor],
    weights: list[float],
    masks: list[Tensor | None],
    tf32: bool,
) -> None:
    _write_style_gradients(gradients, upstream, features, differences, weights, masks, tf32, accumulate=True)


def _write_style_gradients(
    gradients: list[Tensor],
    upstream: Tensor,
    features: list[Tensor],
    differences: list[Tensor],
    weights: list[float],
    masks: list[Tensor | None],
    tf32: bool,
    *,
    accumulate: bool,
) -> None:
    regions = [_region(mask) for mask in masks]
    upstream = upstream.float()
    for dtype, indices in _launches(features, tf32):
        layers = [
            launch.Layer(
                _feature_map(features[i]),
                **_mask_pointers(regions[i]),
                **_difference_pointers(differences[i], features[i]),
                weight=weights[i],
                gradient=_feature_map(gradients[i]),
                accumulate=accumulate,
            )
            for i in indices
        ]
        _backward(layers, dtype, features[0].device, upstream)


def _keep_for_style(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
    ctx.set_materialize_grads(False)  # the differences have no gradients, and zeros for them would cost memory
    features, _, weights, masks, tf32, _ = inputs
    ctx.save_for_backward(*features, *output[1:], *(mask for mask in masks if mask is not None))
    ctx.weights, ctx.tf32, ctx.has_mask = weights, tf32, [mask is not None for mask in masks]


def _style_gradients(ctx, gradients):  # type: ignore[no-untyped-def]
    layers = len(ctx.weights)
    none = [None] * layers
    # torch needs a list of gradients for a list of tensors. It treats a list with a None in it as no tensors.
    none_for_masks = none if all(ctx.has_mask) else None
    if gradients[0] is None:
        return none, none, None, none_for_masks, None, None
    saved = list(ctx.saved_tensors)  # read once: each access unpacks all, and checkpoint() allows that only once
    features, differences = saved[:layers], saved[layers : 2 * layers]
    region = iter(saved[2 * layers :])
    masks = [next(region) if has_mask else None for has_mask in ctx.has_mask]
    result = style_backward(gradients[0], features, differences, ctx.weights, masks, ctx.tf32)
    return result, none, None, none_for_masks, None, None


style_forward.register_autograd(_style_gradients, setup_context=_keep_for_style)


# ---- one Gram matrix ----


@torch.library.custom_op("impasto::gram_forward", mutates_args=())
def gram_forward(features: Tensor, mask: Tensor | None, tf32: bool) -> Tensor:
    """(N, C, C), float32, or float64 for float64."""
    return reference.gram(features, mask)


_MEASURED_CAPABILITY, _MEASURED_IMAGES, _MEASURED_CHANNELS = (9, 0), 4, 64
"""Where cuBLAS was measured beside the kernel: on an H100, up to four images, from 64 channels on."""


def product_is_faster(N: int, C: int, capability: tuple[int, int]) -> bool:
    """Whether cuBLAS makes one layer's Gram matrix faster than the kernel, by benchmarks/results/h100/gram.json.

    It does for a single image, and from 256 channels on: partial tiles outweigh the features there. Where nothing was measured, and
    where $IMPASTO_GRAM names a kernel, the kernel runs.
    """
    measured = capability == _MEASURED_CAPABILITY and N <= _MEASURED_IMAGES and C >= _MEASURED_CHANNELS
    return measured and (N == 1 or C >= 256) and not os.environ.get(module.CHOICE)


def _takes_product(features: Tensor, mask: Tensor | None) -> bool:
    """Whether torch can multiply these features as they lie, into float32, and is faster."""
    if mask is not None or not features.is_cuda or features.dtype not in (torch.float16, torch.bfloat16):
        return False
    if not features.is_contiguous() or not hasattr(
        torch.ops.aten.bmm, "dtype"
    ):  # torch 2.7 has no float32 results of halves
        return False
    N, C = features.shape[:2]
    return product_is_faster(N, C, torch.cuda.get_device_capability(features.device))


def _product(features: Tensor) -> Tensor:
    """F Fᵀ / (C H W) by cuBLAS. Sums are float32: in float16, VGG16's relu1_2 overflows."""
    pixels = features.flatten(2)
    return torch.bmm(pixels, pixels.mT, out_dtype=torch.float32).mul_(1 / (pixels.shape[1] * pixels.shape[2]))


@gram_forward.register_kernel("cuda")
def _gram_forward_cuda(features: Tensor, mask: Tensor | None, tf32: bool) -> Tensor:
    if _takes_product(features, mask):
        return _product(features)
    N, C = features.shape[:2]
    result = features.new_empty((N, C, C), dtype=torch.float32)
    region = _region(mask)
    ((dtype, _),) = _launches([features], tf32)
    layer = launch.Layer(_feature_map(features), **_mask_pointers(region), gram=result.data_ptr())
    _forward([layer], dtype, features.device, with_loss=False)
    return result


@gram_forward.register_fake
def _(features: Tensor, mask: Tensor | None, tf32: bool) -> Tensor:
    N, C = features.shape[:2]
    return features.new_empty((N, C, C), dtype=_result_dtype(features))


@torch.library.custom_op("impasto::gram_backward", mutates_args=())
def gram_backward(upstream: Tensor, features: Tensor, mask: Tensor | None, tf32: bool) -> Tensor:
    """2 / (C Σm) · (the symmetric half of upstream) F diag(m)."""
    return _gradient(features, _difference(upstream), mask, upstream.new_tensor(2 / features.shape[1]))


@gram_backward.register_kernel("cuda")
def _gram_backward_cuda(upstream: Tensor, features: Tensor, mask: Tensor | None, tf32: bool) -> Tensor:
    gradient, difference, region = torch.empty_like(features), _difference(upstream.float()), _region(mask)
    ((dtype, _),) = _launches([features], tf32)
    layer = launch.Layer(
        _feature_map(features),
        **_mask_pointers(region),
        **_difference_pointers(difference, features),
        gradient=_feature_map(gradient),
        gradient_scale=2 / features.shape[1],
    )
    _backward([layer], dtype, features.device, None)
    return gradient


@gram_backward.register_fake
def _(upstream: Tensor, features: Tensor, mask: Tensor | None, tf32: bool) -> Tensor:
    return torch.empty_like(features)


def _keep_for_gram(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
    features, mask, ctx.tf32 = inputs
    ctx.save_for_backward(features, mask)


def _gram_gradients(ctx, upstream):  # type: ignore[no-untyped-def]
    return gram_backward(upstream, *ctx.saved_tensors, ctx.tf32), None, None


gram_forward.register_autograd(_gram_gradients, setup_context=_keep_for_gram)


# ---- the formulas in plain torch ----


def _result_dtype(features: Tensor) -> torch.dtype:
    return torch.float64 if features.dtype == torch.float64 else torch.float32


def _difference(matrix: Tensor) -> Tensor:
    """The symmetric half of (N, C, C), followed by the largest absolute value for each image."""
    half = 0.5 * (matrix + matrix.mT)
    return torch.cat([half.flatten(), half.abs().amax((1, 2))])


def _empty_difference(features: Tensor) -> Tensor:
    N, C = features.shape[:2]
    return features.new_empty(N * C * C + N, dtype=_result_dtype(features))


def _gradient(features: Tensor, difference: Tensor, mask: Tensor | None, scale: Tensor) -> Tensor:
    N, C, H, W = features.shape
    half = difference[: N * C * C].view(N, C, C)
    pixels = features.flatten(2).to(half.dtype)
    region = torch.ones_like(pixels[:, 0]) if mask is None else mask.flatten(1).to(half.dtype)
    area = region.sum(1, keepdim=True)
    region = torch.where(area > 0, region / area, torch.zeros_like(region))
    result = torch.empty_like(features)  # the fake tensor has these strides
    return result.copy_((scale * half @ pixels * region[:, None]).view(N, C, H, W))


# ---- pointers and launches ----


def _launches(features: Sequence[Tensor], tf32: bool) -> list[tuple[str, list[int]]]:
    """The launches: (the kernel's dtype, indices of its layers). Layers of one launch share dtype and layout; MAX_LAYERS at most."""
    alike = defaultdict(list)
    for index, feature in enumerate(features):
        dtype = "tf32" if tf32 and feature.dtype == torch.float32 else _DTYPES[feature.dtype]
        alike[dtype, _feature_map(feature).layout].append(index)
    return [
        (dtype, indices[start : start + launch.MAX_LAYERS])
        for (dtype, _), indices in alike.items()
        for start in range(0, len(indices), launch.MAX_LAYERS)
    ]


def _feature_map(features: Tensor) -> FeatureMap:
    return FeatureMap(features.data_ptr(), tuple(features.shape), features.stride())  # type: ignore[arg-type]


def _region(mask: Tensor | None) -> tuple[Tensor, Tensor] | None:
    """A mask and its area for each image, float32 and contiguous, as the kernel reads them."""
    if mask is None:
        return None
    mask = mask.float().contiguous()
    return mask, mask.flatten(1).sum(1)


def _mask_pointers(region: tuple[Tensor, Tensor] | None) -> dict[str, Any]:
    return {} if region is None else {"mask": region[0].data_ptr(), "area": region[1].data_ptr()}


def _difference_pointers(difference: Tensor, features: Tensor) -> dict[str, Any]:
    N, C = features.shape[:2]
    return {"difference": difference.data_ptr(), "peak": difference.data_ptr() + 4 * N * C * C}


def _forward(layers: list[launch.Layer], dtype: str, device: torch.device, *, with_loss: bool) -> Tensor:
    """Launch, and return the loss on the device. Its value is undefined unless `with_loss`."""
    with torch.cuda.device(device):
        cuda_driver.make_context_current(device.index)
        size = launch.workspace_bytes(layers, dtype)
        workspace = torch.empty(size, dtype=torch.uint8, device=device)
        loss = torch.empty((), dtype=torch.float32, device=device)
        stream = torch.cuda.current_stream(device).cuda_stream
        launch.forward(layers, dtype, workspace.data_ptr(), loss.data_ptr() if with_loss else 0, stream)
    return loss


def _backward(layers: list[launch.Layer], dtype: str, device: torch.device, upstream: Tensor | None) -> None:
    with torch.cuda.device(device):
        cuda_driver.make_context_current(device.index)
        packed = [
            torch.empty(launch.packed_bytes(layer.features.shape, dtype), dtype=torch.uint8, device=device)
            for layer in layers
        ]
        layers = [replace(layer, packed=buffer.data_ptr()) for layer, buffer in zip(layers, packed, strict=True)]
        stream = torch.cuda.current_stream(device).cuda_stream
        launch.backward(layers, dtype, upstream.data_ptr() if upstream is not None else 0, stream)
