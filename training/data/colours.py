"""Colours of batches: changes at random, and gray."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def random_colours(count: int, generator: np.random.Generator) -> np.ndarray:
    """Random contrast, saturation and brightness: float32 (count, 3, 4), a matrix and an offset on RGB in 0..1.

    A hundred photos show few kinds of light; a network that saw no others left bright, busy pictures unpainted.
    """
    contrast = np.exp(generator.uniform(-0.35, 0.35, (count, 1, 1)))
    saturation = np.exp(generator.uniform(-0.7, 0.4, (count, 1, 1)))
    brightness = generator.uniform(-0.1, 0.1, (count, 1, 1))
    grey = np.full((3, 3), 1 / 3)
    matrix = contrast * (grey + saturation * (np.eye(3) - grey))
    offset = 0.5 * (1 - contrast) + brightness
    return np.concatenate([matrix, np.repeat(offset, 3, axis=1)], axis=2).astype(np.float32)


def recoloured(levels: Tensor, colours: Tensor) -> Tensor:
    """uint8 (N, 3, H, W) to float in 0..1, each picture with its own matrix and offset."""
    values = torch.einsum("nij,njhw->nihw", colours[:, :, :3], levels.float() / 255)
    return (values + colours[:, :, 3, None, None]).clamp(0, 1)


def luminance(picture: Tensor) -> Tensor:
    """BT.601 luma of RGB pictures in any range: (N, 3, H, W) to (N, 1, H, W)."""
    weights = picture.new_tensor((0.299, 0.587, 0.114)).view(1, 3, 1, 1)
    return (picture * weights).sum(1, keepdim=True)
