"""How far a drawing is from its painting, as training measures it. Needs torch, imported late."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from impasto.errors import MissingDependency, OptionError, install
from impasto.styles import painted

Distance = Callable[[np.ndarray, str | None], float]
"""The distance of a uint8 (H, W, 3) drawing from the painting of the style that it is drawn in."""


def paintings_of(styles: Sequence[str], files: Sequence[Path]) -> dict[str | None, Path]:
    """The painting of each of a network's styles, which are called like the files; a single style may be called otherwise.

    Raises OptionError for a painting too few or too many.
    """
    wanted = painted(styles)
    if len(wanted) < 2:
        if len(files) > 1:
            raise OptionError(
                f"this network has one style, and {len(files)} paintings are named; name the one it learnt"
            )
        return {wanted[0] if wanted else None: files[0]}
    found: dict[str | None, Path] = {file.stem: file for file in files}
    if len(found) != len(files) or found.keys() != set(wanted):
        raise OptionError(
            f"this network paints like {', '.join(wanted)}; name one --painting for each, a file that is called so. Given: "
            + ", ".join(file.name for file in files)
        )
    return found


def style_distance(paintings: Mapping[str | None, Path], vgg: Path | None) -> Distance:
    """The distance that training measures, `training.losses.StyleTarget`.

    paintings: of `paintings_of`. vgg: VGG16's weights; by default those in the cache.
    Raises MissingDependency, PictureError, TrainingError, CheckpointError.
    """
    try:
        from impasto.images import read_painting
        from impasto.training.backbones import load_vgg16
        from impasto.training.losses import StyleTarget
        from impasto.training.validation import features
    except ImportError as error:
        raise MissingDependency(
            f"measuring style needs torch ({error}): {install('train')}, or leave style out of the budget"
        ) from None
    backbone = load_vgg16(vgg)
    targets = {style: StyleTarget(features(backbone, read_painting(file))) for style, file in paintings.items()}

    def distance(drawing: np.ndarray, style: str | None) -> float:
        return float(targets[style].distance(features(backbone, np.ascontiguousarray(drawing))))

    return distance
