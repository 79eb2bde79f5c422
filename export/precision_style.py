"""How far a drawing is from a painting, as training measures it. Needs torch, imported late."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from impasto.errors import MissingDependency


def style_distance(painting: Path, vgg: Path | None) -> Callable[[np.ndarray], float]:
    """A function from a uint8 (H, W, 3) drawing to its style distance, `training.losses.StyleTarget`.

    vgg: VGG16's weights; by default those in the cache. Raises MissingDependency, PictureError, TrainingError, CheckpointError.
    """
    try:
        from impasto.training.backbones import load_vgg16
        from impasto.training.losses import StyleTarget
        from impasto.training.metrics import features
        from impasto.training.recipes import read_painting
    except ImportError as error:
        raise MissingDependency(
            f"measuring style needs torch ({error}): pip install 'impasto[train]', or leave style out of the budget"
        ) from None
    backbone = load_vgg16(vgg)
    target = StyleTarget(features(backbone, read_painting(painting)))

    def distance(drawing: np.ndarray) -> float:
        return float(target.distance(features(backbone, np.ascontiguousarray(drawing))))

    return distance
