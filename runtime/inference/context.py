"""The context: a graph's second input, computed from a thumbnail of the whole picture, or a chosen strength."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from impasto.errors import BackendError
from impasto.images import thumbnail
from impasto.runtime.backends.base import Backend

SCENE_CUT = 27.0
"""Mean change of a 96 x 96 thumbnail between two frames, in levels of 255, above which they are different scenes.

It lies half way between 21, the largest change seen within a scene of a moving camera, and 34, the smallest change seen between
two of 111 unrelated photos.
"""

SMOOTHING = 0.15
"""Weight of a new frame's context in the running mean of its scene."""


class Scene:
    """What one video keeps from frame to frame."""

    thumbnail: np.ndarray | None = None
    """The last frame's thumbnail, uint8 (side, side, 3); None before the first frame."""
    context: np.ndarray
    """The running mean of the scene's contexts, float32."""


class ContextSource(Protocol):
    """Gives the context of a picture or of a video's frame."""

    def of_picture(self, image: np.ndarray) -> np.ndarray:
        """The context of one picture, float32 (1, K), valid until the next call. image: (H, W, 3), uint8, or float32 from 0 to 1."""

    def of_frame(self, image: np.ndarray, scene: Scene) -> np.ndarray:
        """The context of a video's next frame, float32 (1, K), valid until the next call. scene: belongs to the video."""

    def repeat(self) -> None:
        """Repeat the work of the last picture. For benchmarks."""

    def close(self) -> None:
        """Free all memory."""


class ChosenStrength:
    """A restorer's strength as its context: the same value for every picture until it is changed."""

    def __init__(self) -> None:
        self.value = 1.0

    def of_picture(self, image: np.ndarray) -> np.ndarray:
        """The strength, float32 (1, 1)."""
        return np.full((1, 1), self.value, np.float32)

    def of_frame(self, image: np.ndarray, scene: Scene) -> np.ndarray:
        """The strength, float32 (1, 1)."""
        return self.of_picture(image)

    def repeat(self) -> None:
        """Do nothing: a strength takes no work."""

    def close(self) -> None:
        """Do nothing: a strength holds no memory."""


class ContextGraph:
    """Runs the context graph on thumbnails. In a video, contexts are smoothed within each scene."""

    def __init__(self, backend: Backend, side: int, mixture: np.ndarray) -> None:
        """backend: the context graph, uint8 (1, side, side, 3) -> float32 (1, K), or (1, styles, K) for several styles.

        side: the thumbnail's, in pixels. mixture: each style's share, float32 (styles,); empty for a network of one style.
        Raises BackendError if the graph's output does not fit the mixture.
        """
        if len(backend.output.shape) != (3 if len(mixture) else 2):
            raise BackendError(
                f"the context graph gives {backend.output} for {len(mixture) or 'no named'} styles; export the model again"
            )
        self._backend = backend
        self.side = side
        """Side of the thumbnail in pixels."""
        self.mixture = mixture
        self._fresh = np.empty((1, *(length or 0 for length in backend.output.shape[1:])), np.float32)
        self._last_thumbnail = np.zeros((1, side, side, 3), np.uint8)

    def of_picture(self, image: np.ndarray) -> np.ndarray:
        """The context of one picture, float32 (1, K), valid until the next call. image: (H, W, 3), uint8, or float32 from 0 to 1."""
        return self._mixed(self._compute(thumbnail(image, self.side)))

    def of_frame(self, image: np.ndarray, scene: Scene) -> np.ndarray:
        """The smoothed context of a video's next frame, float32 (1, K). After a scene cut the mean begins again."""
        small = thumbnail(image, self.side)
        fresh = self._compute(small)
        if scene.thumbnail is None or _change(small, scene.thumbnail) > SCENE_CUT:
            scene.context = fresh.copy()
        else:
            scene.context += SMOOTHING * (fresh - scene.context)
        scene.thumbnail = small
        return self._mixed(scene.context)

    def repeat(self) -> None:
        """Run the graph on the last thumbnail once more. For benchmarks."""
        self._backend.run((self._last_thumbnail,), self._fresh)

    def close(self) -> None:
        """Free the context graph."""
        self._backend.close()

    def _compute(self, small: np.ndarray) -> np.ndarray:
        self._last_thumbnail[0] = small
        self.repeat()
        return self._fresh

    def _mixed(self, context: np.ndarray) -> np.ndarray:
        """The weighted sum of the styles' contexts (Dumoulin et al. 2017): (1, styles, K) to (1, K)."""
        return np.einsum("s,nsk->nk", self.mixture, context) if len(self.mixture) else context


def _change(one: np.ndarray, other: np.ndarray) -> float:
    """Mean absolute difference of two thumbnails, in levels of 255."""
    return float(np.abs(one.astype(np.int16) - other).mean())
