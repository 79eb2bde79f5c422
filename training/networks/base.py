"""What every network promises to training, export and the runtime."""

from __future__ import annotations

import copy
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from impasto.errors import ShapeError

Film = tuple[Tensor, Tensor]
"""A scale and a shift, each (N, C, 1, 1)."""


class Network(nn.Module):
    """A feed-forward network over pictures: (N, 3, H, W) float RGB in 0..1 to the same, times `scale`, not clipped."""

    architecture: ClassVar[str]
    """The name under which `build` knows the class."""

    config: dict[str, Any]
    """What `from_config` builds the network from again, as JSON can hold it."""

    scale: int = 1
    """Output side / input side."""
    multiple: int
    """Height and width must be multiples of this."""
    minimum: int = 1
    """Smallest height and width."""
    receptive_field: int | None
    """Radius in input pixels: no output pixel depends on an input further away. None: whole-image statistics."""
    border: int = 0
    """Pixels reflected around a picture before running and cropped afterwards, to hide the zero padding."""
    thumbnail: int | None = None
    """Side of the square thumbnail of the whole picture that `context` takes; None without a context."""

    styles: tuple[str, ...] = ()
    """What `context` gives scales and shifts for; empty: one style, without a name."""
    strength: float = 0.0
    """The largest strength that can be asked of it: `forward` then takes one for each picture, float32 (N, 1), in place of a
    context; None is 1. 0: it takes none."""
    stage_above_1: str = ""
    """The stage that strengths above 1 alone use; empty without one."""

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Network:
        """A network with fresh weights. config: arguments of the constructor by name, unless a subclass has another way."""
        return cls(**config)

    def context(self, thumbnail: Tensor) -> Tensor:
        """(N, 3, T, T) in 0..1, T = self.thumbnail, to scales and shifts; computed once per picture.

        (N, K), or (N, styles, K) where there are several: `mixed` makes (N, K) of them, which `forward` takes.
        """
        raise ShapeError(f"a {self.architecture} has no context")

    def stages(self) -> tuple[str, ...]:
        """What a picture goes through, from the first layers to the head: beginnings of the parameters' names, of which each
        parameter has one."""
        return tuple(name for name, child in self.named_children() if any(True for _ in child.parameters()))

    def adopt(self, other: Network, name: str = "") -> None:
        """Take over what fits of another network's weights: those of the same name and shape, and each style what that of its
        name has learnt. name: that of the one style, where this network has no names for several.
        """
        own = self.state_dict()
        lent = other.state_dict()
        self.load_state_dict({key: lent[key] if _alike(key, own, lent) else value for key, value in own.items()})

    def folded(self) -> Network:
        """A copy for inference that draws the same: evaluation mode, no gradients, constants computed once."""
        network = copy.deepcopy(self).eval()
        network.requires_grad_(False)
        return network


def mixed(context: Tensor, shares: Tensor) -> Tensor:
    """(N, styles, K) and a share for each style, (styles,), to (N, K): Dumoulin et al. 2017, "A learned representation
    for artistic style", whose mixtures of instance norm's parameters are these."""
    return torch.einsum("s,nsk->nk", shares, context)


def _alike(key: str, own: dict[str, Tensor], lent: dict[str, Tensor]) -> bool:
    return key in lent and lent[key].shape == own[key].shape


class ResidualBlock(nn.Module):
    """x + conv(relu(scale · conv(x) + shift)), 3 x 3 convolutions, zero padding; without a film, scale 1 and shift 0.

    The second convolution begins small, so that depth does no harm.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        with torch.no_grad():
            self.second.weight.mul_(0.1)

    def forward(self, x: Tensor, film: Film | None = None) -> Tensor:
        inner = self.first(x)
        return x + self.second(F.relu(inner if film is None else modulated(inner, film)))


def modulated(x: Tensor, film: Film) -> Tensor:
    """scale · x + shift for each channel (FiLM: Perez et al. 2018)."""
    scale, shift = film
    return x * scale + shift


def repeat_over_cells(convolution: nn.Conv2d, factor: int) -> None:
    """Let all pixels of a depth-to-space cell begin with the same weights, so that no grid is there to unlearn.

    Aitken et al. 2017, "Checkerboard artifact free sub-pixel convolution", with nearest-neighbour resizing.
    """
    cell = factor * factor
    with torch.no_grad():
        for parameter in (convolution.weight, convolution.bias):
            if parameter is not None:
                parameter.copy_(parameter[::cell].repeat_interleave(cell, dim=0))


@torch.no_grad()
def kmac_per_pixel(network: Network) -> float:
    """Thousands of multiply-accumulates per input pixel, of the picture path alone; convolutions only.

    Counted on a picture of about 128 pixels a side, whose size divides out.
    """
    counted = 0

    def count(module: nn.Module, _: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal counted
        if isinstance(module, nn.Conv2d):
            per_output = module.weight[0].numel()
            counted += output.numel() * per_output
        elif isinstance(module, nn.ConvTranspose2d):
            counted += output.numel() * module.weight[:, 0].numel() // (module.stride[0] * module.stride[1])

    side = max(network.minimum, network.multiple * max(1, 128 // network.multiple))
    parameter = next(network.parameters())
    picture = torch.zeros(1, 3, side, side, device=parameter.device)
    extra: tuple[Tensor, ...] = ()
    if network.thumbnail:
        context = network.context(torch.zeros(1, 3, network.thumbnail, network.thumbnail, device=parameter.device))
        extra = (context[:, 0] if network.styles else context,)
    hooks = [module.register_forward_hook(count) for module in network.modules()]
    try:
        network(picture, *extra)
    finally:
        for hook in hooks:
            hook.remove()
    return counted / (side * side) / 1000
