"""Pictures in, pictures out: NumPy and one backend, which is imported when a model is loaded."""

from .model import Model, ModelInfo, load

__all__ = ["Model", "ModelInfo", "load"]
