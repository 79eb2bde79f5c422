"""The one place that imports pydicom, on first use, and keeps what it says to itself."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from impasto.errors import MissingDependency, install


def pydicom() -> Any:
    """The library. Raises MissingDependency."""
    try:
        import pydicom
        import pydicom.pixels
        import pydicom.uid
    except ImportError:
        raise MissingDependency(f"DICOM files need pydicom: {install('medical')}") from None
    return pydicom


@contextmanager
def in_silence() -> Iterator[None]:
    """Let pydicom neither warn nor log for a block: it would quote values of elements, and a patient's name is one of them."""
    logger = logging.getLogger("pydicom")
    disabled, logger.disabled = logger.disabled, True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.disabled = disabled
