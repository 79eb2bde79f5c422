"""RGB pictures from a video's frames and back, by the colour matrix and range that are meant. PyAV is imported on first use."""

from __future__ import annotations

from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np

from impasto.errors import MissingDependency, install

if TYPE_CHECKING:
    from av import VideoFrame

LIMITED, FULL = 1, 2
"""Colour ranges, as FFmpeg numbers them (AVCOL_RANGE_*)."""
UNSPECIFIED = 2
"""FFmpeg's number for colours of which a file says nothing, in matrices, primaries and transfer functions alike."""

_BT709, _BT601 = 1, 5
_MATRICES = {1: 1, 4: 4, 5: 5, 6: 5, 7: 7, 9: 9}
"""Colour matrices: FFmpeg's number for a frame's (AVCOL_SPC_*) -> swscale's (SWS_CS_*)."""
_LAST_SD_HEIGHT = 576
# swscale's bits for exact rounding and for colours interpolated in full. Without them frames that only become RGB and YCbCr 4:2:0
# again are off by 2 levels of 255 on average, with them by 0.4.
_ACCURATE = 0x40000 | 0x2000 | 4


def matrix(told: int, height: int) -> int:
    """The colour matrix as AVCOL_SPC_*: what the video says, otherwise what players take for frames of that height."""
    return told if told in _MATRICES else _BT709 if height > _LAST_SD_HEIGHT else _BT601


def to_rgb(frame: VideoFrame, matrix: int) -> np.ndarray:
    """uint8 (H, W, 3), rounded where the frame has more bits. matrix: as AVCOL_SPC_*."""
    full = frame.color_range == FULL or frame.format.name.startswith(("yuvj", "rgb", "bgr", "gbr", "gray"))
    converted = frame.reformat(
        format="rgb24",
        src_colorspace=_MATRICES[matrix],
        src_color_range=FULL if full else LIMITED,
        interpolation=_ACCURATE,
    )
    return np.asarray(converted.to_ndarray())


def is_transparent(frame: VideoFrame) -> bool:
    """Whether any pixel is not opaque."""
    if not any(component.is_alpha for component in frame.format.components):
        return False
    return bool(np.asarray(frame.reformat(format="rgba").to_ndarray())[..., 3].min() < 255)


def from_rgb(picture: np.ndarray, matrix: int) -> VideoFrame:
    """A frame in limited range, in `chroma_format`. picture: uint8 (H, W, 3). matrix: as AVCOL_SPC_*."""
    frame: VideoFrame = pyav().VideoFrame.from_ndarray(picture, format="rgb24")
    return frame.reformat(
        format=chroma_format(*picture.shape[:2]),
        dst_colorspace=_MATRICES[matrix],
        dst_color_range=LIMITED,
        interpolation=_ACCURATE,
    )


def chroma_format(height: int, width: int) -> str:
    """FFmpeg's name of the format that frames of this size are written in: 4:2:0 needs even sides."""
    return "yuv444p" if width % 2 or height % 2 else "yuv420p"


def pyav() -> ModuleType:
    """PyAV. Raises MissingDependency."""
    try:
        import av
    except ImportError:
        raise MissingDependency(f"reading and writing videos needs PyAV: {install('video')}") from None
    return av
