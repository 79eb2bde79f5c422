"""VGG16 and VGG19: Simonyan and Zisserman 2015."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from .base import Backbone


class Vgg(Backbone):
    """3 x 3 convolutions with ReLU, in blocks with maximum pooling between them.

    Knows two conventions by the names of the weights: conv1_1.weight … is the original Caffe release (BGR, 0..255, minus
    ImageNet's mean), features.0.weight … is torchvision's.
    """

    blocks: ClassVar[tuple[int, ...]]
    """Convolutions in each block, up to the last one that `layers` needs."""

    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        super().__init__()
        inputs = 3
        for block, index in self._places():
            outputs = min(512, 32 << block)
            self.add_module(f"conv{block}_{index}", nn.Conv2d(inputs, outputs, 3, padding=1))
            inputs = outputs
        if "features.0.weight" in weights:
            self._normalize_as_torchvision()
            weights = {ours: weights[theirs] for ours, theirs in self._torchvision_names().items() if theirs in weights}
        else:
            self.convention = "Caffe"
            self._normalize((255.0,) * 3, (-103.939, -116.779, -123.68))
        self._adopt(weights)

    def forward(self, image: Tensor, last: str | None = None) -> dict[str, Tensor]:
        """Feature maps after each ReLU of `layers`; those of block n are at 1 / 2^(n - 1)."""
        x = self._normalized(image.flip(1) if self.convention == "Caffe" else image)
        features: dict[str, Tensor] = {}
        for block, index in self._places():
            if block > 1 and index == 1:
                x = F.max_pool2d(x, 2)
            x = F.relu(self.get_submodule(f"conv{block}_{index}")(x))
            layer = f"relu{block}_{index}"
            if layer in self.layers:
                features[layer] = x
            if layer == last:
                break
        return features

    def _places(self) -> Iterator[tuple[int, int]]:
        """(block, convolution), both from 1."""
        for block, count in enumerate(self.blocks, 1):
            for index in range(1, count + 1):
                yield block, index

    def _torchvision_names(self) -> dict[str, str]:
        """Our names to torchvision's, which count convolutions, ReLUs and poolings alike."""
        names = {}
        for number, (block, index) in enumerate(self._places()):
            place = 2 * number + block - 1
            for kind in ("weight", "bias"):
                names[f"conv{block}_{index}.{kind}"] = f"features.{place}.{kind}"
        return names


class Vgg16(Vgg):
    """Up to relu4_3, with the layers of Johnson et al. 2016."""

    name, title = "vgg16", "VGG16"
    blocks = (2, 2, 3, 3)
    layers: ClassVar[dict[str, int]] = {"relu1_2": 64, "relu2_2": 128, "relu3_3": 256, "relu4_3": 512}
    content_layer = "relu3_3"
    style_layers = tuple(layers)
    files = ("vgg16_caffe_relu4_3.safetensors", "vgg16-397923af.pth")
    official = "vgg16-397923af.pth"


class Vgg19(Vgg):
    """Up to relu5_1, with the layers of Gatys et al. 2016."""

    name, title = "vgg19", "VGG19"
    blocks = (2, 2, 4, 4, 1)
    layers: ClassVar[dict[str, int]] = {
        "relu1_1": 64, "relu2_1": 128, "relu3_1": 256, "relu4_1": 512, "relu4_2": 512, "relu5_1": 512,
    }  # fmt: skip
    content_layer = "relu4_2"
    style_layers = ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1")
    files = ("vgg19-dcbb9e9d.pth",)
    official = "vgg19-dcbb9e9d.pth"
