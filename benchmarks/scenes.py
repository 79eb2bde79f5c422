"""How much thumbnails change within a scene and between scenes: what `runtime.context.SCENE_CUT` rests on.

usage: python -m impasto.benchmarks.scenes CLIP PHOTOS     (a clip whose cuts are known to be its largest changes)
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np

from impasto import images
from impasto.errors import ImpastoError, PictureError
from impasto.runtime.inference.context import SCENE_CUT

from .baselines import opencv

SIDE = 96
"""The thumbnail's side, as the shipped stylizer has it."""


def clip_changes(clip: Path) -> np.ndarray:
    """Mean absolute change of the thumbnail from each frame of a clip to the next, in levels of 255; sorted."""
    small = [images.thumbnail(frame, SIDE).astype(np.int16) for frame in _frames(clip)]
    return np.sort([np.abs(one - other).mean() for one, other in pairwise(small)])


def photo_changes(folder: Path) -> np.ndarray:
    """Mean absolute change of the thumbnail from each photo of a folder to the next by name, in levels of 255; sorted."""
    small = [images.thumbnail(images.read(path).rgb, SIDE).astype(np.int16) for path in images.list_folder(folder)]
    return np.sort([np.abs(one - other).mean() for one, other in pairwise(small)])


def _frames(clip: Path) -> Iterator[np.ndarray]:
    capture = opencv().VideoCapture(str(clip))
    if not capture.isOpened():
        raise PictureError(f"{clip} is no clip that OpenCV can read")
    while True:
        more, frame = capture.read()
        if not more:
            return
        yield np.ascontiguousarray(frame[..., ::-1])


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clip", type=Path)
    parser.add_argument("photos", type=Path)
    arguments = parser.parse_args()
    try:
        within, between = clip_changes(arguments.clip), photo_changes(arguments.photos)
    except ImpastoError as error:
        sys.exit(f"error: {error}")
    scene = within[within < SCENE_CUT]
    print(
        f"{arguments.clip.name}: {len(within) - len(scene)} cuts; largest change below the threshold {scene.max():.1f}"
    )
    print(f"{arguments.photos}: smallest change between two of {len(between) + 1} photos {between.min():.1f}")
    print(f"threshold {SCENE_CUT}")


if __name__ == "__main__":
    main()
