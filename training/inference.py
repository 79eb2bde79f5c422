"""What a network draws, in torch, on the runtime's terms: reflected border, whole-picture thumbnail, 8 bits in and out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from impasto import images
from impasto.styles import mixture

from .networks import Network, mixed


@torch.no_grad()
def draw(network: Network, image: np.ndarray, shares: np.ndarray | None = None, *, strength: float = 1.0) -> np.ndarray:
    """image: uint8 (H, W, 3) of any size. Returns uint8 (H x scale, W x scale, 3). Runs where the network is, in FP32.

    shares: of the network's styles, float32 (styles,); by default those of its first painting. strength: of a restorer that has one.
    """
    device = next(network.parameters()).device
    height, width = image.shape[:2]
    border, scale = network.border, network.scale
    below, right = (missing(side + 2 * border, network) for side in (height, width))
    padded = np.pad(image, ((border, border + below), (border, border + right), (0, 0)), mode="reflect")
    extra: tuple[Tensor, ...] = ()
    if network.thumbnail:
        extra = (context_of(network, to_float(images.thumbnail(image, network.thumbnail), device), shares),)
    elif network.strength:
        extra = (torch.full((1, 1), strength, device=device),)
    drawn = network(to_float(padded, device), *extra)[0]
    levels = (drawn * 255).round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0).cpu().numpy()
    inside = slice(border * scale, (border + height) * scale), slice(border * scale, (border + width) * scale)
    return np.ascontiguousarray(levels[inside])


def context_of(network: Network, thumbnail: Tensor, shares: np.ndarray | None = None) -> Tensor:
    """What the network's picture path takes beside the picture. thumbnail: (1, 3, T, T) in 0..1. shares: as for `draw`."""
    context = network.context(thumbnail)
    if network.styles:
        shares = mixture(network.styles) if shares is None else shares
        context = mixed(context, torch.from_numpy(shares).to(thumbnail.device))
    return context


def missing(side: int, network: Network) -> int:
    """Pixels between a side and the next that the network accepts."""
    return max(0, network.minimum - side) + -max(network.minimum, side) % network.multiple


def to_float(image: np.ndarray, device: torch.device) -> Tensor:
    """A picture, uint8 (H, W, 3), as (1, 3, H, W) in 0..1."""
    # A decoded picture may be read-only. torch warns of such memory, so it is copied.
    writable = np.require(image, requirements=("C", "W"))
    return torch.from_numpy(writable).to(device).permute(2, 0, 1)[None].float() * (1 / 255)


def side_by_side(pairs: Sequence[tuple[np.ndarray, ...]]) -> np.ndarray | None:
    """Each tuple of pictures in a row of its own, on white where one is narrower."""
    rows = [np.concatenate(pair, axis=1) for pair in pairs]
    if not rows:
        return None
    width = max(row.shape[1] for row in rows)
    return np.concatenate(
        [np.pad(row, ((0, 0), (0, width - row.shape[1]), (0, 0)), constant_values=255) for row in rows]
    )
