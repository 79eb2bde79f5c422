"""The one place that imports Pillow, on first use."""

from __future__ import annotations

from typing import Any

from impasto.errors import MissingDependency, install


def pillow() -> Any:
    """Pillow's modules. Raises MissingDependency."""
    try:
        import PIL
        from PIL import Image, ImageCms  # noqa: F401 (modules of their own, which PIL has once they are imported)
    except ImportError:
        raise MissingDependency(f"reading and writing pictures needs Pillow: {install('cli')}") from None
    return PIL
