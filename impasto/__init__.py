"""Impasto: image stylizers and restorers on edge devices.

    import impasto
    model = impasto.load("great-wave")
    picture = model(image)              # uint8 H x W x 3 RGB in, the same out, any size

Importing this module costs numpy and nothing else; everything heavier is imported by the call that needs it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import errors
from ._version import __version__
from .errors import ImpastoError

if TYPE_CHECKING:
    from .runtime import Model, ModelInfo, load

__all__ = ["ImpastoError", "Model", "ModelInfo", "__version__", "errors", "load"]


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})  # what `__getattr__` brings is there too


def __getattr__(name: str) -> Any:
    if name in ("load", "Model", "ModelInfo"):
        from . import runtime

        return getattr(runtime, name)
    raise AttributeError(f"module 'impasto' has no attribute {name!r}")
