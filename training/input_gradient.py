"""Which parts of a photo steer a place of the drawing: the gradient of that place with respect to the photo's pixels."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from impasto import images
from impasto.styles import mixture

from .checkpoint import load_network
from .networks import Network, mixed

PATCH = 8
"""Side of a place, in pixels of the drawing: one pixel alone would show its place in the network's strides."""


@dataclass(frozen=True)
class InputGradient:
    """How much each pixel of the photo moves one place of the drawing."""

    row: int
    column: int
    """The middle of the place, in pixels of the photo."""
    influence: np.ndarray
    """float32 (H, W): the absolute gradient, summed over colours; sums to 1. That of the thumbnail is spread over what it shows."""
    through_thumbnail: float
    """The share that goes through the thumbnail of the whole photo; 0 for a network without one."""

    def radius_of(self, share: float) -> int:
        """How far from the place, along either axis, one must go to find this share of what does not go through the thumbnail."""
        rows, columns = (
            np.abs(np.arange(side) - at) for side, at in zip(self.influence.shape, (self.row, self.column), strict=True)
        )
        distance = np.maximum(rows[:, None], columns[None])
        local = np.bincount(distance.ravel(), self._local().ravel())
        return int(np.searchsorted(np.cumsum(local), share * local.sum()))

    def _local(self) -> np.ndarray:
        # What the thumbnail adds is the same within each of its cells, far away too.
        return (
            np.clip(self.influence - np.median(self.influence), 0, None) if self.through_thumbnail else self.influence
        )


def input_gradients(package: Path, image: np.ndarray, places: list[tuple[int, int]]) -> list[InputGradient]:
    """Of a model package or a checkpoint, at each place (row, column) of the photo.

    image: uint8 (H, W, 3). Runs on the CPU, in float32. Raises CheckpointError where the package does not hold its network.
    """
    network = load_network(package).folded()
    return [_at(network, image, *place) for place in places]


def _at(network: Network, image: np.ndarray, row: int, column: int) -> InputGradient:
    photo = _to_float(image).requires_grad_()
    extra, thumbnail = _extra(network, image)
    drawn = network(_reflected(photo, network), *extra)
    scale, border = network.scale, network.border
    top, left = ((at + border) * scale - PATCH // 2 for at in (row, column))
    rows, columns = (slice(max(at, 0), max(at, 0) + PATCH) for at in (top, left))
    drawn[..., rows, columns].sum().backward()
    assert photo.grad is not None
    influence = photo.grad.abs().sum(1)[0]
    local = float(influence.sum())
    whole = 0.0
    if thumbnail is not None and thumbnail.grad is not None:
        cells = thumbnail.grad.abs().sum(1, keepdim=True)
        whole = float(cells.sum())
        spread = torch.nn.functional.interpolate(cells, influence.shape[-2:], mode="nearest")[0, 0]
        influence = influence + spread * (whole / max(float(spread.sum()), 1e-30))
    total = max(local + whole, 1e-30)
    return InputGradient(row, column, (influence / total).numpy(), whole / total)


def _extra(network: Network, image: np.ndarray) -> tuple[tuple[Tensor, ...], Tensor | None]:
    """What the network takes beside the photo, and the thumbnail that it came from."""
    if network.strength:
        return (torch.ones(1, 1),), None
    if not network.thumbnail:
        return (), None
    thumbnail = _to_float(images.thumbnail(image, network.thumbnail)).requires_grad_()
    context = network.context(thumbnail)
    if network.styles:
        context = mixed(context, torch.from_numpy(mixture(network.styles)))
    return (context,), thumbnail


def _reflected(photo: Tensor, network: Network) -> Tensor:
    """The photo as the runtime pads it, so that gradients find their way back to its own pixels."""
    places = []
    for side in photo.shape[-2:]:
        least = side + 2 * network.border
        whole = max(least, network.minimum)
        whole += -whole % network.multiple
        places.append(
            torch.from_numpy(np.pad(np.arange(side), (network.border, whole - side - network.border), mode="reflect"))
        )
    return photo[..., places[0], :][..., places[1]]


def _to_float(image: np.ndarray) -> Tensor:
    return torch.from_numpy(image.copy()).permute(2, 0, 1)[None].float() / 255  # pictures may be read-only
