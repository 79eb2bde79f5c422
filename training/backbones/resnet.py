"""ResNet50: He et al. 2016."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from .base import Backbone

_BLOCKS = {"layer1": (64, 3), "layer2": (128, 4), "layer3": (256, 6), "layer4": (512, 3)}
"""Channels inside the blocks of each layer, and their number."""


class ResNet50(Backbone):
    """Up to layer3, names and strides as in torchvision's weights: a block's stride is in its 3 x 3 convolution."""

    name, title = "resnet50", "ResNet50"
    layers: ClassVar[dict[str, int]] = {"relu1": 64, "layer1": 256, "layer2": 512, "layer3": 1024}
    content_layer = "layer2"
    style_layers = tuple(layers)
    files = ("resnet50-0676ba61.pth", "resnet50-11ad3fa6.pth")
    official = "resnet50-0676ba61.pth"

    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        inputs = 64
        for name, (width, count) in _BLOCKS.items():
            if name in self.layers:
                stride = 1 if name == "layer1" else 2
                first = _Bottleneck(inputs, width, stride)
                inputs = 4 * width
                self.add_module(name, nn.Sequential(first, *(_Bottleneck(inputs, width) for _ in range(count - 1))))
        self._normalize_as_torchvision()
        self._adopt(weights)

    def forward(self, image: Tensor, last: str | None = None) -> dict[str, Tensor]:
        """relu1 is at 1/2, layer1 at 1/4, layer2 at 1/8, layer3 at 1/16."""
        x = F.relu(self.bn1(self.conv1(self._normalized(image))))
        features = {"relu1": x}
        x = F.max_pool2d(x, 3, stride=2, padding=1)
        for name in self.layers:
            if name != "relu1":
                x = self.get_submodule(name)(x)
                features[name] = x
            if name == last:
                break
        return features


class _Bottleneck(nn.Module):
    """relu(shortcut + 1 x 1, 3 x 3, 1 x 1 convolutions), each with batch norm; the outputs are 4 x width."""

    def __init__(self, inputs: int, width: int, stride: int = 1) -> None:
        super().__init__()
        outputs = 4 * width
        self.conv1 = nn.Conv2d(inputs, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.downsample: nn.Module = nn.Identity()
        if stride > 1 or inputs != outputs:
            self.downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        inner = F.relu(self.bn1(self.conv1(x)))
        inner = F.relu(self.bn2(self.conv2(inner)))
        return F.relu(self.downsample(x) + self.bn3(self.conv3(inner)))
