"""Which parts of a photo steer a place of the drawing: the gradient of that place with respect to the photo's pixels."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from impasto import images

from .checkpoint import load_network
from .inference import context_of, missing, to_float
from .networks import Network

_CPU = torch.device("cpu")
PATCH = 8
"""Side of a place, in pixels of the drawing: one pixel alone would show its place in the network's strides."""


@dataclass(frozen=True)
class InputGradient:
    """How much each pixel of the photo moves one place of the drawing."""

    row: int
    column: int
    """The middle of the place, in pixels of the photo."""
    local: np.ndarray
    """float32 (H, W): the absolute gradient that does not go through the thumbnail, summed over colours."""
    thumbnail: np.ndarray
    """The gradient that goes through the thumbnail, spread over the photo's pixels that each of its pixels shows; 0 without one.

    Both together sum to 1.
    """

    @property
    def influence(self) -> np.ndarray:
        """All of it, float32 (H, W)."""
        return self.local + self.thumbnail

    @property
    def through_thumbnail(self) -> float:
        """The share that goes through the thumbnail of the whole photo."""
        return float(self.thumbnail.sum(dtype=np.float64))

    def radius_of(self, share: float) -> int:
        """How far from the place, along either axis, this share of `local` lies."""
        rows, columns = (
            np.abs(np.arange(side) - at) for side, at in zip(self.local.shape, (self.row, self.column), strict=True)
        )
        distance = np.maximum(rows[:, None], columns[None])
        within = np.cumsum(np.bincount(distance.ravel(), self.local.ravel()))
        return int(np.searchsorted(within, share * within[-1]))


def input_gradients(package: Path, image: np.ndarray, places: list[tuple[int, int]]) -> list[InputGradient]:
    """Input gradients of a model package or a checkpoint, one for each place (row, column) of the photo.

    image: uint8 (H, W, 3). Runs on the CPU, in float32. Raises CheckpointError where the package does not hold its network.
    """
    network = load_network(package).folded()
    return [_at(network, image, *place) for place in places]


def _at(network: Network, image: np.ndarray, row: int, column: int) -> InputGradient:
    photo = to_float(image, _CPU).requires_grad_()
    extra, thumbnail = _extra(network, image)
    drawn = network(_reflected(photo, network), *extra)
    scale, border = network.scale, network.border
    top, left = ((at + border) * scale - PATCH // 2 for at in (row, column))
    rows, columns = (slice(max(at, 0), max(at, 0) + PATCH) for at in (top, left))
    drawn[..., rows, columns].sum().backward()
    assert photo.grad is not None
    local = photo.grad.abs().sum(1)[0].double()
    spread = torch.zeros_like(local)
    if thumbnail is not None and thumbnail.grad is not None:
        cells = thumbnail.grad.abs().sum(1, keepdim=True).double()
        spread = torch.nn.functional.interpolate(cells, local.shape, mode="nearest")[0, 0]
        spread *= cells.sum() / spread.sum().clamp_min(1e-300)
    whole = (local.sum() + spread.sum()).clamp_min(1e-300)
    return InputGradient(row, column, *((part / whole).float().numpy() for part in (local, spread)))


def _extra(network: Network, image: np.ndarray) -> tuple[tuple[Tensor, ...], Tensor | None]:
    """What the network takes beside the photo, and the thumbnail that it came from."""
    if network.strength:
        return (torch.ones(1, 1),), None
    if not network.thumbnail:
        return (), None
    thumbnail = to_float(images.thumbnail(image, network.thumbnail), _CPU).requires_grad_()
    return (context_of(network, thumbnail),), thumbnail


def _reflected(photo: Tensor, network: Network) -> Tensor:
    """The photo as the runtime pads it, so that gradients find their way back to its own pixels."""
    places = []
    for side in photo.shape[-2:]:
        after = network.border + missing(side + 2 * network.border, network)
        places.append(torch.from_numpy(np.pad(np.arange(side), (network.border, after), mode="reflect")))
    return photo[..., places[0], :][..., places[1]]
