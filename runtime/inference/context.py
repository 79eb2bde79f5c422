"""What a network takes beside the picture: what a thumbnail says of the whole of it, or the strength that was asked for."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from impasto.errors import BackendError
from impasto.images import thumbnail
from impasto.runtime.backends.base import Backend

SCENE_CUT = 27.0
"""Mean change of a 96 x 96 thumbnail, in levels of 255, above which two frames are different scenes. Half way between
21, the most seen within a scene of a moving camera, and 34, the least seen between two of 111 unrelated photos."""

SMOOTHING = 0.15
"""Share of a new frame's context in the running mean of its scene."""


class Scene:
    """What one video remembers from frame to frame."""

    thumbnail: np.ndarray | None = None
    """The last frame's; None before the first."""
    context: np.ndarray
    """The running mean."""


class Context(Protocol):
    """Gives a graph's second input."""

    def of_picture(self, image: np.ndarray) -> np.ndarray:
        """For one picture, float32 (1, K); valid until the next call. image: uint8 (H, W, 3)."""

    def of_frame(self, image: np.ndarray, scene: Scene) -> np.ndarray:
        """For the next frame of a video, likewise. scene: the video's own."""

    def repeat(self) -> None:
        """Do the last picture's work once more. For benchmarks."""

    def close(self) -> None:
        """Free what it holds."""


class AskedStrength:
    """The context of a restorer whose strength can be chosen: the strength, the same for every picture until it is changed."""

    def __init__(self) -> None:
        self.value = 1.0

    def of_picture(self, image: np.ndarray) -> np.ndarray:
        """float32 (1, 1)."""
        return np.full((1, 1), self.value, np.float32)

    def of_frame(self, image: np.ndarray, scene: Scene) -> np.ndarray:
        """float32 (1, 1)."""
        return self.of_picture(image)

    def repeat(self) -> None:
        """There is none."""

    def close(self) -> None:
        """It holds nothing."""


class PictureContext:
    """Runs the context graph: once per picture, or once per frame with smoothing inside each scene of a video."""

    def __init__(self, backend: Backend, side: int, mixture: np.ndarray) -> None:
        """backend: the context graph, uint8 (1, side, side, 3) -> float32 (1, K), or (1, styles, K) for several styles.

        side: the thumbnail's. mixture: each style's share, float32 (styles,); empty for one style alone.
        """
        if len(backend.output.shape) != (3 if len(mixture) else 2):
            raise BackendError(
                f"the context graph gives {backend.output} for {len(mixture) or 'no named'} styles; export the model again"
            )
        self._backend = backend
        self._side = side
        self.mixture = mixture
        self._fresh = np.empty((1, *(length or 0 for length in backend.output.shape[1:])), np.float32)
        self._last_thumbnail = np.zeros((1, side, side, 3), np.uint8)

    def of_picture(self, image: np.ndarray) -> np.ndarray:
        """The context of one picture, float32 (1, K); valid until the next call. image: uint8 (H, W, 3)."""
        return self._mixed(self._compute(thumbnail(image, self._side)))

    def of_frame(self, image: np.ndarray, scene: Scene) -> np.ndarray:
        """The smoothed context of the next frame of a video, float32 (1, K); a scene cut starts afresh. scene: the video's own."""
        small = thumbnail(image, self._side)
        fresh = self._compute(small)
        if scene.thumbnail is None or _change(small, scene.thumbnail) > SCENE_CUT:
            scene.context = fresh.copy()
        else:
            scene.context += SMOOTHING * (fresh - scene.context)
        scene.thumbnail = small
        return self._mixed(scene.context)

    def repeat(self) -> None:
        """Run once more on the last thumbnail. For benchmarks."""
        self._backend.run((self._last_thumbnail,), self._fresh)

    def close(self) -> None:
        """Free the context graph."""
        self._backend.close()

    def _compute(self, small: np.ndarray) -> np.ndarray:
        self._last_thumbnail[0] = small
        self.repeat()
        return self._fresh

    def _mixed(self, context: np.ndarray) -> np.ndarray:
        """(1, styles, K) to the mixture's (1, K): Dumoulin et al. 2017 mix styles so."""
        return np.einsum("s,nsk->nk", self.mixture, context) if len(self.mixture) else context


def _change(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.abs(one.astype(np.int16) - other).mean())
