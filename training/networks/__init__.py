"""The networks by name."""

from __future__ import annotations

from typing import Any

from impasto.errors import OptionError, first_line

from .base import Network, kmac_per_pixel, mixed
from .classic import ClassicStylizer
from .plain_upscaler import PlainUpscaler
from .thumbnail_stylizer import ThumbnailStylizer
from .unet_restorer import UnetRestorer

ARCHITECTURES: dict[str, type[Network]] = {
    network.architecture: network for network in (ClassicStylizer, PlainUpscaler, ThumbnailStylizer, UnetRestorer)
}

__all__ = ["ARCHITECTURES", "Network", "UnetRestorer", "build", "kmac_per_pixel", "mixed"]


def build(architecture: str, config: dict[str, Any]) -> Network:
    """A network with fresh weights. Raises OptionError for an unknown architecture or a config that does not fit it."""
    if architecture not in ARCHITECTURES:
        raise OptionError(f"unknown architecture {architecture!r}; choose one of {', '.join(ARCHITECTURES)}")
    try:
        return ARCHITECTURES[architecture].from_config(config)
    except (TypeError, ValueError, IndexError, RuntimeError) as error:
        # Torch raises RuntimeError for sizes that cannot be.
        raise OptionError(f"{architecture} cannot be built from {config}: {first_line(error)}") from None
