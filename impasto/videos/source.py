"""A video that is read: its frames in order, and what a copy of it has to know."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np

from . import colours

if TYPE_CHECKING:
    from av import AudioStream, Packet


class Source(AbstractContextManager["Source"], ABC):
    """Whatever holds the video is opened when this is made."""

    name: str
    """What messages call it."""
    rate: Fraction
    """Frames a second, on average."""
    time_base: Fraction
    """The unit of times, in seconds."""
    count: int | None = None
    """Frames, where it says so."""
    pixel_aspect = Fraction(1)
    """Width of a pixel of an upright frame over its height. Known with the first frame."""
    told_matrix = primaries = transfer = colours.UNSPECIFIED
    """AVCOL_SPC_*, AVCOL_PRI_* and AVCOL_TRC_*."""
    sounds: tuple[AudioStream, ...] = ()
    left_out: tuple[str, ...] = ()
    """What else it holds, that no copy gets, in words."""
    lost_s: tuple[float, ...] = ()
    """When frames were to be shown, in seconds, that it has or announces and that could not be read. Known with the last frame."""
    hidden = 0
    """Frames that it has and that its edit list cuts off. Known with the last frame."""
    restarts_s: tuple[float, ...] = ()
    """Where its clock ran back, in seconds; what follows was moved behind what was before. Known with the last frame."""
    transparent = False
    """Whether a frame until now was transparent in parts."""
    damaged = 0
    """Frames until now of which the decoder had to fill in a part."""
    interlaced = False
    """Whether a frame until now holds two moments, in every other line."""

    def __init__(self) -> None:
        self.waiting: deque[int] = deque()
        """The times of the frames that were given and not yet drawn, in units of `time_base`."""

    @abstractmethod
    def frames(self, carry: Callable[[Packet], None]) -> Iterator[np.ndarray]:
        """Upright frames, uint8 (H, W, 3) RGB. carry: gets the packets of sound as they come. Raises PictureError."""

    def matrix(self, height: int) -> int:
        """The colour matrix of frames of this height, as AVCOL_SPC_*."""
        return colours.matrix(self.told_matrix, height)
