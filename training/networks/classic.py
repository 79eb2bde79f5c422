"""The classic stylizer, as a baseline and to compare with."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from .base import Network


class ClassicStylizer(Network):
    """Fast neural style: Johnson et al. 2016, with instance norm (Ulyanov et al. 2016) and resize-convolutions.

    Full-resolution 9 x 9 convolutions, reflection padding, whole-image statistics: 154 kMAC per pixel, slow on devices.
    """

    architecture = "classic-stylizer"
    multiple = 4
    minimum = 8  # reflection by 1 at 1/4 resolution needs 2 pixels there
    receptive_field = None

    def __init__(self, width: int = 32, blocks: int = 5) -> None:
        """width: channels at full resolution; doubled at 1/2 and 1/4. blocks: residual blocks at 1/4."""
        super().__init__()
        self.config = {"width": width, "blocks": blocks}
        self.encoder = nn.Sequential(
            _Layer(3, width, 9), _Layer(width, 2 * width, 3, stride=2), _Layer(2 * width, 4 * width, 3, stride=2)
        )
        self.body = nn.Sequential(*(_Block(4 * width) for _ in range(blocks)))
        self.decoder = nn.Sequential(_Layer(4 * width, 2 * width, 3, enlarge=2), _Layer(2 * width, width, 3, enlarge=2))
        self.head = nn.Conv2d(width, 3, 9, padding=4, padding_mode="reflect")

    def forward(self, image: Tensor, context: Tensor | None = None) -> Tensor:
        return self.head(self.decoder(self.body(self.encoder(image)))) + 0.5


class _Layer(nn.Module):
    """Convolution, instance norm, ReLU; after nearest-neighbour enlarging where asked."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, stride: int = 1, enlarge: int = 1, relu: bool = True
    ) -> None:
        super().__init__()
        self.enlarge, self.relu = enlarge, relu
        self.convolution = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, padding_mode="reflect")
        self.norm = nn.InstanceNorm2d(outputs, affine=True)

    def forward(self, x: Tensor) -> Tensor:
        if self.enlarge > 1:
            x = F.interpolate(x, scale_factor=self.enlarge, mode="nearest")
        x = self.norm(self.convolution(x))
        return F.relu(x) if self.relu else x


class _Block(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(_Layer(channels, channels, 3), _Layer(channels, channels, 3, relu=False))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)
