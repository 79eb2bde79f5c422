"""An upscaler for engines: a plain stack of convolutions at the small picture's resolution."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .base import Network, repeat_over_cells


class PlainUpscaler(Network):
    """3 x 3 convolutions of one width, a skip around all of them, depth-to-space, and the picture itself added at the end.

    Everything is computed at the small picture's resolution: Shi et al. 2016, "Real-time single image and video super-resolution
    using an efficient sub-pixel convolutional neural network". Each pixel of the picture is repeated and added, so that the network
    learns what is missing: Du et al. 2021, "Anchor-based plain net for mobile image super-resolution".
    """

    architecture = "plain-upscaler"
    border = 8

    def __init__(self, width: int = 32, layers: int = 5, cell: int = 1, gates: bool = False, scale: int = 2) -> None:
        """width: channels. layers: convolutions between stem and head. cell: side of the squares of pixels that become channels at the
        entrance, 1 or 2. gates: each layer adds f(x) · sigmoid(f(x)) to what it gets, instead of relu(f(x)) in its place. Gates are
        nearly linear at first, so the network learns slowly; earlier models have them.
        """
        super().__init__()
        if scale < 2 or cell not in (1, 2) or width < 1 or layers < 1:
            raise ValueError(
                f"an upscaler enlarges at least ×2, by cells of 1 or 2, with at least one channel and layer; got scale {scale}, cell "
                f"{cell}, width {width}, layers {layers}"
            )
        self.config = {"width": width, "layers": layers, "cell": cell, "gates": gates, "scale": scale}
        self.scale, self.multiple, self.minimum, self._cell, self._gates = scale, cell, cell, cell, gates
        inputs = 3 * cell * cell
        self.stem = nn.Conv2d(inputs, width, 3, padding=1)
        self.body = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in range(layers))
        self.head = nn.Conv2d(width, inputs * scale * scale, 3, padding=1)
        with torch.no_grad():  # begin as the repeated pixels, nearly
            self.head.weight.mul_(0.1)
            self.head.bias.zero_()  # type: ignore[union-attr]
        repeat_over_cells(self.head, cell * scale)
        self.receptive_field = cell * (layers + 2) + cell - 1

    def forward(self, image: Tensor, context: Tensor | None = None) -> Tensor:
        cells = image - 0.5 if self._cell == 1 else F.pixel_unshuffle(image - 0.5, self._cell)
        first = inner = self.stem(cells)
        for layer in self.body:
            change = layer(inner)
            inner = inner + F.silu(change) if self._gates else F.relu(change)
        detail = F.pixel_shuffle(self.head(inner + first), self._cell * self.scale)
        return F.interpolate(image, scale_factor=self.scale, mode="nearest") + detail
