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
    holes", section 3.3, judge such composites too. With a strength s, what is added is multiplied by min(s, 1), so that
    0 gives the picture itself; above 1, features that enter a level are shifted by s - 1 times what each channel has learnt for it.
    """

    architecture = "unet-restorer"
    multiple = 8
    border = 8
    stage_above_1 = "more"

    def __init__(
        self,
        widths: Sequence[int] = (32, 64, 96),
        encoder: Sequence[int] = (4, 1),
        middle: int = 2,
        decoder: Sequence[int] = (4, 2),
        scale: int = 1,
        marker: Sequence[float] | None = None,
        strength: float = 0.0,
    ) -> None:
        """widths: channels at 1/2, 1/4, 1/8. encoder, decoder: residual blocks at 1/2 and 1/4. middle: those at 1/8.

        marker: what missing pixels are painted with, RGB in 0..1, of whole levels of 255; None where every pixel is to be drawn.
        strength: the largest that can be asked for, 1 or 2; 0 for a network that takes none.
        """
        super().__init__()
        if marker is not None and (len(marker) != 3 or scale != 1):
            raise ValueError(f"a marker is one colour, and for scale 1; got {marker} and scale {scale}")
        if strength not in (0, 1, 2):
            raise ValueError(f"the largest strength is {strength!r}; wanted 1 or 2, or 0 for none")
        if strength and scale != 1:
            raise ValueError(
                "a network that enlarges has no strength: no picture of its size is there to be given back"
            )
        self.config = {
            "widths": list(widths),
            "encoder": list(encoder),
            "middle": middle,
            "decoder": list(decoder),
            "scale": scale,
            "marker": None if marker is None else [float(value) for value in marker],
            **({"strength": float(strength)} if strength else {}),
        }
        self.scale, self.strength = scale, float(strength)
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
        # What strengths above 1 add to the channels that enter each level; nothing at first. Shaped as it is added, so that the
        # graph holds it as it is.
        self.more = nn.ParameterList(torch.zeros(width, 1, 1) for width in widths if strength > 1)
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
        return (*into, "up.0", "decoder.0", "up.1", "decoder.1", *(["more"] if self.more else []), "head")

    def forward(self, image: Tensor, context: Tensor | None = None) -> Tensor:
        # Made only where it is used: what a graph without it holds stays the same, names and all.
        strength = image.new_ones(len(image), 1) if self.strength and context is None else context
        half = self.encoder[0](self._entering(0, self.stem(F.pixel_unshuffle(image - 0.5, 2)), strength))
        quarter = self.encoder[1](F.relu(self._entering(1, self.down[0](half), strength)))
        eighth = self.middle(F.relu(self._entering(2, self.down[1](quarter), strength)))
        quarter = self.decoder[0](quarter + F.pixel_shuffle(self.up[0](eighth), 2))
        half = self.decoder[1](half + F.pixel_shuffle(self.up[1](quarter), 2))
        base = image if self.scale == 1 else F.interpolate(image, scale_factor=self.scale, mode="nearest")
        change = F.pixel_shuffle(self.head(half), 2 * self.scale)
        if strength is not None:
            change = change * _of_each(strength.clamp(max=1))
        return base + (change if self.config["marker"] is None else change * self._missing(image))

    def _entering(self, level: int, features: Tensor, strength: Tensor | None) -> Tensor:
        """What enters a level, (N, C, H, W), told how much above 1 the strength is, (N, 1)."""
        if strength is None or not self.more:
            return features
        return features + (_of_each(F.relu(strength - 1)) * self.more[level]).to(features.dtype)

    def _missing(self, image: Tensor) -> Tensor:
        """1 where the picture has the marker's colour, 0 elsewhere: (N, 1, H, W). One level of 255 beside it is elsewhere."""
        marker = image.new_tensor(self.config["marker"]).view(1, 3, 1, 1)
        return F.relu(1 - 2 * 255 * (image - marker).abs().amax(1, keepdim=True))


def _of_each(values: Tensor) -> Tensor:
    """A number for each picture, (N, 1), to (N, 1, 1, 1)."""
    return values[:, :, None, None]


def _blocks(channels: int, count: int) -> nn.Sequential:
    return nn.Sequential(*(ResidualBlock(channels) for _ in range(count)))
