"""The one place that imports imagecodecs and tifffile, on first use. Pillow cuts RGB of 16 bits to 8."""

from __future__ import annotations

from typing import Any

from impasto.errors import MissingDependency, install


def imagecodecs() -> Any:
    """The codecs of PNG, and the colour management of 16 bits and float32. Raises MissingDependency."""
    try:
        import imagecodecs
    except ImportError:
        raise _missing("imagecodecs") from None
    return imagecodecs


def tifffile() -> Any:
    """The reader and writer of TIFF. Raises MissingDependency."""
    imagecodecs()  # which tifffile needs for compressed files
    try:
        import tifffile
    except ImportError:
        raise _missing("tifffile") from None
    return tifffile


def _missing(library: str) -> MissingDependency:
    return MissingDependency(f"picture files of 16 bits a channel need {library}: {install('deep')}")
