"""The one place that imports imagecodecs and tifffile, on first use. Pillow cuts RGB of 16 bits to 8."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
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


@contextmanager
def complaints() -> Iterator[list[str]]:
    """What tifffile and imagecodecs log within the block, which is then not printed: of damage beside the pixels."""
    told: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: told.append(record.getMessage())  # type: ignore[method-assign]
    loggers = [logging.getLogger(name) for name in ("tifffile", "imagecodecs")]
    propagated = [logger.propagate for logger in loggers]
    for logger in loggers:
        logger.propagate = False
        logger.addHandler(handler)
    try:
        yield told
    finally:
        for logger, before in zip(loggers, propagated, strict=True):
            logger.removeHandler(handler)
            logger.propagate = before


def _missing(library: str) -> MissingDependency:
    return MissingDependency(f"picture files of 16 bits a channel need {library}: {install('deep')}")
