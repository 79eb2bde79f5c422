"""Impasto: image stylizers and restorers on edge devices.

    import impasto
    model = impasto.load("great-wave")
    picture = model(image)              # uint8 H x W x 3 RGB in, the same out, any size

Importing this module costs numpy and nothing else; everything heavier is imported by the call that needs it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import errors
from ._version import __version__
from .errors import ImpastoError
from .public_names import late_imports

if TYPE_CHECKING:
    from .runtime import Model, ModelInfo, load

__all__ = ["ImpastoError", "Model", "ModelInfo", "__version__", "errors", "load"]


__getattr__, __dir__ = late_imports(__name__, {"load": "runtime", "Model": "runtime", "ModelInfo": "runtime"})
