"""Small photos and networks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from impasto.training.loop.options import FitOptions
from impasto.training.networks import Network, build
from impasto.training.style import StyleOptions

SMALL = {
    "thumbnail-stylizer": {"fine": 16, "coarse": 32, "blocks": 1, "after": 1, "code": 8, "thumbnail": 32},
    "unet-restorer": {"widths": [16, 32, 32], "encoder": [1, 1], "middle": 1, "decoder": [1, 1]},
    "classic-stylizer": {"width": 8, "blocks": 1},
    "plain-upscaler": {"width": 8, "layers": 2},
}
"""A small configuration of each architecture."""


def shaken(architecture: str, **config: object) -> Network:
    """A small network in evaluation mode whose every path counts: fresh ones begin with zeros and equal cells."""
    torch.manual_seed(1)
    network = build(architecture, {**SMALL[architecture], **config}).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return network


def photo(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Smooth shapes and a little grain: uint8 (height, width, 3)."""
    generator = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width] / 16
    phases = generator.uniform(0, 6, 6)
    waves = [np.sin(x * (0.3 + 0.2 * c) + phases[c]) * np.cos(y * (0.5 - 0.1 * c) + phases[3 + c]) for c in range(3)]
    return np.clip(128 + 90 * np.stack(waves, -1) + generator.normal(0, 4, (height, width, 3)), 0, 255).astype(np.uint8)


def style_options(photos: Path, vgg: Path, output: Path, /, steps: int = 2, **changes: object) -> StyleOptions:
    """The options of a tiny stylizer's training, for fixtures that live longer than one test."""
    base = StyleOptions(
        name="tiny",
        photos=photos,
        output=output,
        fit=FitOptions(steps=steps, device="cpu"),
        batch=1,
        crop=32,
        held_out=0.2,
        config=SMALL["thumbnail-stylizer"],
        paintings=(photos / "0.png",),
        backbone_weights=vgg,
    )
    return replace(base, **changes)  # type: ignore[arg-type]
