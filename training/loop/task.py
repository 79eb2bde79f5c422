"""What the training loop asks of a task."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from impasto.training.networks import Network

from .processes import ALONE, Processes

if TYPE_CHECKING:
    from impasto.training.data.photos import Photos


@dataclass(frozen=True)
class TaskOptions:
    """What all tasks take: how batches are drawn, and what the terms of the loss weigh."""

    crop: int
    """Side of the square crops that the network sees, in pixels, without surroundings."""
    batch: int
    """Crops in a step, of each process."""
    seed: int
    device: torch.device
    weights: Mapping[str, float]
    processes: Processes = ALONE

    @property
    def whole_batch(self) -> int:
        """Crops in a step of all processes."""
        return self.batch * self.processes.count

    @property
    def part(self) -> slice:
        """Which crops of the whole batch are this process's."""
        return self.processes.part(self.whole_batch)


class Task(nn.Module):
    """A network, its data and its losses; calling it on a batch gives the terms of the loss."""

    network: Network
    weights: Mapping[str, float]
    _validation: Photos

    @abstractmethod
    def batch(self, step: int) -> tuple[Tensor, ...]:
        """The tensors of one step, on the training device; the same for the same seed and step."""

    @abstractmethod
    def forward(self, *batch: Tensor) -> dict[str, Tensor]:
        """The loss terms, unweighted scalars, one for each of `weights`."""

    @abstractmethod
    def judge(self, network: Network, photos: Photos) -> dict[str, float]:
        """Quality on pictures that training has not seen; empty where there are none."""

    @property
    def can_validate(self) -> bool:
        """Whether there are pictures that were held out."""
        return bool(self._validation.pictures)

    def validate(self, network: Network) -> dict[str, float]:
        """Quality on the pictures that were held out."""
        return self.judge(network, self._validation)

    @abstractmethod
    def score(self, quality: Mapping[str, float]) -> float:
        """What `validate` found as one number; higher is better."""

    @abstractmethod
    def preview(self, network: Network) -> np.ndarray | None:
        """A few of those pictures before and after, side by side, uint8 (H, W, 3); None where none were held out."""
