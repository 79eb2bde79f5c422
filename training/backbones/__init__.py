"""Perceptual backbones: frozen classifiers whose feature maps say what a picture shows and how it is painted."""

from __future__ import annotations

import os

from impasto.errors import CheckpointError, OptionError, first_line

from .base import Backbone
from .efficientnet_lite import EfficientNetLite0
from .resnet import ResNet50
from .vgg import Vgg16, Vgg19
from .weights import CACHE, find, read

BACKBONES: dict[str, type[Backbone]] = {
    backbone.name: backbone for backbone in (Vgg16, Vgg19, ResNet50, EfficientNetLite0)
}

__all__ = ["BACKBONES", "CACHE", "Backbone", "load_backbone", "load_vgg16"]


def load_backbone(name: str, path: str | os.PathLike[str] | None = None) -> Backbone:
    """A backbone of BACKBONES, frozen, in evaluation mode.

    path: its weights, .safetensors or .pth; by default those in the cache, in an installed package, or from the official place,
    checked and cached. Raises OptionError for an unknown name, TrainingError where there are no weights, CheckpointError where a
    file does not hold them.
    """
    if name not in BACKBONES:
        raise OptionError(f"unknown backbone {name!r}; choose one of {', '.join(BACKBONES)}")
    kind = BACKBONES[name]
    file = find(kind, path)
    weights = read(file, kind.title)
    try:
        return kind(weights).eval().requires_grad_(False)
    except (KeyError, RuntimeError) as error:
        reason = first_line(error)
        raise CheckpointError(f"{file} holds no {kind.title} weights: {reason}") from None


def load_vgg16(path: str | os.PathLike[str] | None = None) -> Backbone:
    """VGG16, by whose features Impasto judges stylizers."""
    return load_backbone("vgg16", path)
