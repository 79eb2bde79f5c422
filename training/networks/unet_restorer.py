"""A restorer for engines: a small residual U-Net below a space-to-depth stem."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .base import Network, ResidualBlock, repeat_over_cells


class UnetRestorer(Network):
    """Space-to-depth ×2, residual blocks at 1/2, 1/4 and 1/8 with skips, and the picture itself added at the end.

    Ronneberger et al. 2015 for the shape, Zhang et al. 2021 (DRUNet) for residual blocks without norm. With scale 2 the
    head makes twice the cells and the picture is enlarged (nearest) before it is added. With a marker only pixels of that very
    colour are drawn, and the others come back as they are, in every precision: Liu et al. 2018, "Image inpainting for irregular
    holes", section 3.3, judge such composites too.
    """

    architecture = "unet-restorer"
    multiple = 8
    border = 8

    def __init__(
        self,
        widths: Sequence[int] = (32, 64, 96),
        encoder: Sequence[int] = (4, 1),
        middle: int = 2,
        decoder: Sequence[int] = (4, 2),
        scale: int = 1,
        marker: Sequence[float] | None = None,
    ) -> None:
        """widths: channels at 1/2, 1/4, 1/8. encoder, decoder: residual blocks at 1/2 and 1/4. middle: those at 1/8.

        marker: what missing pixels are painted with, RGB in 0..1, of whole levels of 255; None where every pixel is to be drawn.
        """
        super().__init__()
        if marker is not None and (len(marker) != 3 or scale != 1):
            raise ValueError(f"a marker is one colour, and for scale 1; got {marker} and scale {scale}")
        self.config = {
            "widths": list(widths),
            "encoder": list(encoder),
            "middle": middle,
            "decoder": list(decoder),
            "scale": scale,
            "marker": None if marker is None else [float(value) for value in marker],
        }
        self.scale = scale
        half, quarter, eighth = widths
        self.stem = nn.Conv2d(12, half, 3, padding=1)
        self.encoder = nn.ModuleList([_blocks(half, encoder[0]), _blocks(quarter, encoder[1])])
        self.down = nn.ModuleList(
            [nn.Conv2d(half, quarter, 3, stride=2, padding=1), nn.Conv2d(quarter, eighth, 3, stride=2, padding=1)]
        )
        self.middle = _blocks(eighth, middle)
        self.up = nn.ModuleList([nn.Conv2d(eighth, 4 * quarter, 1), nn.Conv2d(quarter, 4 * half, 1)])
        self.decoder = nn.ModuleList([_blocks(quarter, decoder[1]), _blocks(half, decoder[0])])
        self.head = nn.Conv2d(half, 12 * scale * scale, 3, padding=1)
        with torch.no_grad():  # begin as the identity, nearly
            self.head.weight.mul_(0.1)
            self.head.bias.zero_()  # type: ignore[union-attr]
        repeat_over_cells(self.head, 2 * scale)
        for up in self.up:
            assert isinstance(up, nn.Conv2d)
            repeat_over_cells(up, 2)
        at_half = 2 + 2 * (encoder[0] + decoder[0])
        at_quarter = 1 + 2 * (encoder[1] + decoder[1])
        # Each 3 x 3 convolution reaches one cell of its level; enlarging rounds to a cell of the level below.
        self.receptive_field = 2 * (at_half + 1) + 4 * (at_quarter + 1) + 8 * (2 * middle + 1)

    def stages(self) -> tuple[str, ...]:
        into = ("stem", "encoder.0", "down.0", "encoder.1", "down.1", "middle")
        return (*into, "up.0", "decoder.0", "up.1", "decoder.1", "head")

    def forward(self, image: Tensor, context: Tensor | None = None) -> Tensor:
        half = self.encoder[0](self.stem(F.pixel_unshuffle(image - 0.5, 2)))
        quarter = self.encoder[1](F.relu(self.down[0](half)))
        eighth = self.middle(F.relu(self.down[1](quarter)))
        quarter = self.decoder[0](quarter + F.pixel_shuffle(self.up[0](eighth), 2))
        half = self.decoder[1](half + F.pixel_shuffle(self.up[1](quarter), 2))
        base = image if self.scale == 1 else F.interpolate(image, scale_factor=self.scale, mode="nearest")
        change = F.pixel_shuffle(self.head(half), 2 * self.scale)
        return base + (change if self.config["marker"] is None else change * self._missing(image))

    def _missing(self, image: Tensor) -> Tensor:
        """1 where the picture has the marker's colour, 0 elsewhere: (N, 1, H, W). One level of 255 beside it is elsewhere."""
        marker = image.new_tensor(self.config["marker"]).view(1, 3, 1, 1)
        return F.relu(1 - 2 * 255 * (image - marker).abs().amax(1, keepdim=True))


def _blocks(channels: int, count: int) -> nn.Sequential:
    return nn.Sequential(*(ResidualBlock(channels) for _ in range(count)))
