"""A model that answers HTTP requests, on Ray Serve."""

from .server import Limits, serving

__all__ = ["Limits", "serving"]
