"""A stylizer for engines: local convolutions at 1/4 and 1/8, whole-picture knowledge through a thumbnail."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from impasto.styles import painted

from .base import Film, Network, ResidualBlock, modulated, repeat_over_cells


@dataclass(frozen=True)
class ThumbnailStylizerOptions:
    """The size of a ThumbnailStylizer and what it has. The fields are the keys of its config. Raises ValueError."""

    fine: int = 64
    """Channels at 1/4 of the picture's side."""
    coarse: int = 96
    """Channels at 1/8."""
    before: int = 1
    """Residual blocks at 1/4 before those at 1/8."""
    blocks: int = 4
    """Residual blocks at 1/8."""
    after: int = 2
    """Residual blocks at 1/4 after those at 1/8."""
    code: int = 48
    """Length of the thumbnail's summary."""
    thumbnail: int = 96
    """Side of the thumbnail in pixels, a multiple of 16."""
    styles: tuple[str, ...] = ()
    """Names, for a network of several styles, which differ in nothing but scales and shifts."""
    finish: bool = False
    """One more convolution, at full resolution. Every pixel shares it, so that it can take away what differs by the place in a cell."""
    norm: bool = False
    """Instance norm at 1/8 (Ulyanov et al. 2016). It sees the whole picture, which then cannot be cut into tiles."""

    def __post_init__(self) -> None:
        if self.thumbnail < 16 or self.thumbnail % 16:
            raise ValueError(f"a thumbnail's side is a multiple of 16; got {self.thumbnail}")
        object.__setattr__(self, "styles", tuple(self.styles))  # JSON gives a list

    def to_json(self) -> dict[str, Any]:
        """The config that `from_config` reads. What is rarely used appears only where it is."""
        return {
            "fine": self.fine,
            "coarse": self.coarse,
            "before": self.before,
            "blocks": self.blocks,
            "after": self.after,
            "code": self.code,
            "thumbnail": self.thumbnail,
            **({"styles": list(self.styles)} if self.styles else {}),
            **({"finish": True} if self.finish else {}),
            **({"norm": True} if self.norm else {}),
        }


class ThumbnailStylizer(Network):
    """Space-to-depth ×4, residual blocks at 1/4 and 1/8 with a skip, depth-to-space ×4; zero padding, no norm.

    A small network reads a thumbnail of the whole picture and gives a scale and a shift for each channel of most
    convolutions (FiLM: Perez et al. 2018). It stands in for instance norm: the main path stays local, so that tiles join
    exactly, nothing waits for whole-image statistics, and INT8 has fixed ranges.
    """

    architecture = "thumbnail-stylizer"
    multiple = 8
    border = 32

    def __init__(self, options: ThumbnailStylizerOptions = ThumbnailStylizerOptions()) -> None:
        super().__init__()
        self.config = options.to_json()
        self.styles = options.styles
        self.thumbnail = options.thumbnail
        self._add_picture_layers(options)
        # Channels that take a scale and a shift, in the order in which forward asks for them.
        fine, coarse = options.fine, options.coarse
        self._widths = [fine, *[fine] * options.before, coarse, *[coarse] * options.blocks, *[fine] * options.after]
        self.reader = ThumbnailReader(options.code, 2 * sum(self._widths) * max(1, len(self.styles)))
        # Radius: stem and head 3 x 3 on cells of 4; each block two 3 x 3 convolutions on cells of 4 or 8; down 3 x 3, stride 2.
        reach = 4 * (2 + 2 * (options.before + options.after)) + 8 * (1 + 2 * options.blocks) + 8 + options.finish
        self.receptive_field = None if options.norm else reach

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> ThumbnailStylizer:
        return cls(ThumbnailStylizerOptions(**config))

    def _add_picture_layers(self, options: ThumbnailStylizerOptions) -> None:
        """The layers that a picture goes through, in the order in which a seed has always filled them."""
        fine, coarse = options.fine, options.coarse
        self.stem = nn.Conv2d(48, fine, 3, padding=1)
        self.before = nn.ModuleList(ResidualBlock(fine) for _ in range(options.before))
        self.down = nn.Conv2d(fine, coarse, 3, stride=2, padding=1)
        self.body = nn.ModuleList(ResidualBlock(coarse) for _ in range(options.blocks))
        self.up = nn.Conv2d(coarse, 4 * fine, 1)
        self.after = nn.ModuleList(ResidualBlock(fine) for _ in range(options.after))
        self.head = nn.Conv2d(fine, 96 if options.finish else 48, 3, padding=1)
        self.norms = nn.ModuleList(
            nn.InstanceNorm2d(coarse, affine=True) for _ in range(options.blocks if options.norm else 0)
        )
        repeat_over_cells(self.up, 2)
        repeat_over_cells(self.head, 4)
        self.finish = None
        if options.finish:
            self.finish = nn.Conv2d(6, 3, 3, padding=1)
            with torch.no_grad():  # begin as relu(x) − relu(−x), which is x
                self.head.weight[48:] = -self.head.weight[:48]
                self.head.bias[48:] = -self.head.bias[:48]  # type: ignore[index]
                self.finish.weight.zero_()
                self.finish.bias.zero_()  # type: ignore[union-attr]
                for colour in range(3):
                    self.finish.weight[colour, colour, 1, 1] = 1
                    self.finish.weight[colour, 3 + colour, 1, 1] = -1

    def context(self, thumbnail: Tensor) -> Tensor:
        films: Tensor = self.reader(thumbnail)
        return films.unflatten(1, (len(self.styles), -1)) if self.styles else films

    def stages(self) -> tuple[str, ...]:
        # The reader's scales and shifts are what a style is made of: beside the head.
        norms, finish = ("norms",) if len(self.norms) else (), ("finish",) if self.finish else ()
        return ("stem", "before", "down", "body", *norms, "up", "after", "reader", "head", *finish)

    def adopt(self, other: Network, name: str = "") -> None:
        super().adopt(other)
        if isinstance(other, ThumbnailStylizer) and self.finish and not other.finish:
            self._adopt_head(other.head)
        if not isinstance(other, ThumbnailStylizer) or (self.styles, other.styles) == ((), ()):
            return
        own, lent = self.reader.films, other.reader.films
        if own.in_features == lent.in_features and self._widths == other._widths:
            with torch.no_grad():
                names = self.styles or (name,)
                own.weight.copy_(torch.cat([_lent_by(other, lent.weight, style) for style in names]))
                own.bias.copy_(torch.cat([_lent_by(other, lent.bias, style) for style in names]))

    @torch.no_grad()
    def _adopt_head(self, head: nn.Conv2d) -> None:
        """Take over a head that has no last convolution behind it: what is drawn stays."""
        if head.in_channels == self.head.in_channels:
            self.head.weight.copy_(torch.cat([head.weight, -head.weight]))
            assert self.head.bias is not None
            assert head.bias is not None
            self.head.bias.copy_(torch.cat([head.bias, -head.bias]))

    def forward(self, image: Tensor, context: Tensor | None = None) -> Tensor:
        assert context is not None
        films = iter(_split(context, self._widths))
        fine = F.relu(modulated(self.stem(F.pixel_unshuffle(image - 0.5, 4)), next(films)))
        for block in self.before:
            fine = block(fine, next(films))
        coarse = F.relu(modulated(self.down(fine), next(films)))
        for number, block in enumerate(self.body):
            coarse = block(coarse, next(films))
            if len(self.norms):
                coarse = self.norms[number](coarse)
        fine = fine + F.pixel_shuffle(self.up(coarse), 2)
        for block in self.after:
            fine = block(fine, next(films))
        drawn = F.pixel_shuffle(self.head(fine), 4)
        return (drawn if self.finish is None else self.finish(F.relu(drawn))) + 0.5


class ThumbnailReader(nn.Module):
    """Thumbnail (N, 3, T, T) in 0..1 to (N, outputs): strided convolutions, mean over places, two linear layers.

    Begins by giving 1 for every scale and 0 for every shift.
    """

    def __init__(self, code: int, outputs: int) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 16, 3, 2, 1), nn.ReLU(),
            nn.Conv2d(16, 32, 3, 2, 1), nn.ReLU(),
            nn.Conv2d(32, 64, 3, 2, 1), nn.ReLU(),
            nn.Conv2d(64, 64, 3, 2, 1), nn.ReLU(),
        )  # fmt: skip
        self.summary = nn.Linear(64, code)
        self.films = nn.Linear(code, outputs)
        nn.init.zeros_(self.films.weight)
        nn.init.zeros_(self.films.bias)

    def forward(self, thumbnail: Tensor) -> Tensor:
        places = self.features(thumbnail - 0.5)
        return self.films(F.relu(self.summary(places.mean((2, 3)))))


def _lent_by(other: ThumbnailStylizer, rows: Tensor, style: str) -> Tensor:
    """The rows of a film's weight or bias that a style begins with: those of the same name, else the mean of the paintings'.

    Rows of equal shapes that stand at another place are another style's.
    """
    by_style = rows.unflatten(0, (max(1, len(other.styles)), -1))
    if style in other.styles:
        return by_style[other.styles.index(style)]
    places = [other.styles.index(name) for name in painted(other.styles)] or [0]
    return by_style[places].mean(0)


def _split(context: Tensor, widths: list[int]) -> list[Film]:
    """(N, 2 x sum(widths)) to one (scale, shift) per layer, each (N, C, 1, 1)."""
    parts = context[:, :, None, None].split([width for width in widths for _ in range(2)], dim=1)
    return [(1 + scale, shift) for scale, shift in zip(parts[::2], parts[1::2], strict=True)]
