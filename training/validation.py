"""Quality, measured on whole pictures as the runtime draws them, in 8 bits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from impasto import images
from impasto.metrics import bounded_psnr, noisy, psnr

from . import degrade, losses
from .inference import draw
from .networks import Network

if TYPE_CHECKING:
    from impasto.training.data.photos import Photos

    from .backbones import Backbone

SIGMAS = (15, 25, 50)
"""Noise strengths that denoisers are compared at, in levels of 255."""

JUDGED_SIDE = 1024
"""Pixels of a clean picture's side that restorers are judged on, at most: the middle of it. A whole picture of a camera takes
gigabytes to draw at once."""


def denoise_psnr(network: Network, pictures: Sequence[np.ndarray]) -> dict[str, float]:
    """Mean PSNR in dB at each of SIGMAS, on `judged` parts; picture number i gets the noise of seed i."""
    if not pictures:
        return {}
    pictures = [judged(picture, 1) for picture in pictures]
    return {
        f"psnr_sigma_{sigma}": float(
            np.mean([psnr(draw(network, noisy(clean, sigma, seed)), clean) for seed, clean in enumerate(pictures)])
        )
        for sigma in SIGMAS
    }


def restore_psnr(
    network: Network, pictures: Sequence[np.ndarray], degradation: degrade.Degradation
) -> dict[str, float]:
    """Mean PSNR in dB at the weakest, middle and strongest damage, on `judged` parts; picture number i is damaged by seed i.

    Of a mixture, at the middle strength of each of its kinds.
    """
    if not pictures:
        return {}
    pictures = [judged(picture, degradation.scale) for picture in pictures]
    if isinstance(degradation, degrade.Mixture):
        wanted = [kind.at(0.5) for kind in degradation.parts]
    else:
        wanted = [degradation.at(share) for share in (0, 0.5, 1)]
    fixed = {str(damage): damage for damage in wanted}
    return {
        f"psnr_{name}": float(
            np.mean([bounded_psnr(draw(network, degrade.damaged(p, damage, i)), p) for i, p in enumerate(pictures)])
        )
        for name, damage in fixed.items()
    }


def pair_psnr(network: Network, photos: Photos) -> dict[str, float]:
    """Mean PSNR in dB of the drawn pictures against their targets, and without the network where both have one size; of pairs
    whose target is larger than JUDGED_SIDE, their middles."""
    if not photos.pictures:
        return {}
    pairs = [middle_of_pair(*pair) for pair in zip(photos.pictures, photos.targets, strict=True)]
    found = {"psnr": float(np.mean([bounded_psnr(draw(network, source), target) for source, target in pairs]))}
    if photos.scale == 1:
        found["psnr_before"] = float(np.mean([bounded_psnr(source, target) for source, target in pairs]))
    return found


def judged(picture: np.ndarray, scale: int) -> np.ndarray:
    """The picture's middle, of at most JUDGED_SIDE, with its sides cut to multiples of 8 · scale, as published figures cut them."""
    cell = 8 * scale
    picture = images.middle(picture, JUDGED_SIDE)
    return picture[: picture.shape[0] // cell * cell, : picture.shape[1] // cell * cell]


def middle_of_pair(source: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """One place of both, in the middle, where the target has sides of at most JUDGED_SIDE. target: a whole multiple of the
    source's size."""
    scale = target.shape[0] // source.shape[0]
    side = JUDGED_SIDE // scale
    top, left = (max(0, length - side) // 2 for length in source.shape[:2])
    part = source[top : top + side, left : left + side]
    return part, target[scale * top :, scale * left :][: scale * part.shape[0], : scale * part.shape[1]]


@torch.no_grad()
def style_objective(
    network: Network,
    pictures: Sequence[np.ndarray],
    backbone: Backbone,
    target: losses.StyleTarget,
    shares: np.ndarray | None = None,
) -> dict[str, float]:
    """Means over pictures of content distance, style distance, and content + 10 · style. shares: as `draw` takes them."""
    if not pictures:
        return {}
    contents, styles, grids = [], [], []
    for picture in pictures:
        photo = np.ascontiguousarray(picture[: picture.shape[0] // 16 * 16, : picture.shape[1] // 16 * 16])
        drawing = draw(network, photo, shares)
        of_photo, of_drawing = (features(backbone, image) for image in (photo, drawing))
        contents.append(float(losses.content(of_drawing[backbone.content_layer], of_photo[backbone.content_layer])))
        styles.append(float(target.distance(of_drawing)))
        grids.append(grid_levels(drawing, network.multiple))
    content, style = float(np.mean(contents)), float(np.mean(styles))
    return {
        "content": content,
        "style": style,
        "objective": content + 10 * style,
        "grid_levels": float(np.mean(grids)),
    }


def grid_levels(picture: np.ndarray, cell: int) -> float:
    """Strength of the pattern that a uint8 picture repeats in every cell x cell square, in levels of 255 (root mean square).

    The mean of its fine detail (picture minus 3 x 3 blur) at each place of the square; a photo's own is about 0.1.
    """
    values = torch.from_numpy(picture[: picture.shape[0] // cell * cell, : picture.shape[1] // cell * cell].copy())
    places = losses.by_place(values.permute(2, 0, 1)[None].float(), cell)
    return float(places.mean((0, 3, 4)).std(1, unbiased=False).square().mean().sqrt())


@torch.no_grad()
def features(backbone: Backbone, image: np.ndarray) -> dict[str, Tensor]:
    """A uint8 (H, W, 3) picture's feature maps by layer, (1, C, H', W') each, on the backbone's device."""
    device = next(backbone.parameters()).device
    return backbone(torch.from_numpy(np.array(image)).to(device).permute(2, 0, 1)[None].float() / 255)
