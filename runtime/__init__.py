"""Loads models and runs them on pictures. It needs NumPy and one backend, which is imported when a model is loaded."""

from .model import Model, ModelInfo, load
from .style_meter import StyleDistance, StyleMeter

__all__ = ["Model", "ModelInfo", "StyleDistance", "StyleMeter", "load"]
