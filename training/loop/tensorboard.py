"""Curves and pictures for TensorBoard, where it is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from impasto.errors import MissingDependency


class Board:
    """An event file in `folder`: scalars by step, and pictures. A resumed run adds to it, from the step it goes on from."""

    def __init__(self, folder: Path, step: int) -> None:
        """step: what an earlier, killed run wrote of later steps is hidden. Raises MissingDependency."""
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise MissingDependency(f"--tensorboard needs TensorBoard ({error}): pip install tensorboard") from None
        self._writer = SummaryWriter(str(folder), purge_step=step + 1)

    def scalars(self, group: str, values: Mapping[str, float], step: int) -> None:
        """One point on the curve group/name for each value."""
        for name, value in values.items():
            self._writer.add_scalar(f"{group}/{name}", value, step)

    def picture(self, name: str, rgb: np.ndarray, step: int) -> None:
        """rgb: uint8 (H, W, 3)."""
        self._writer.add_image(name, rgb, step, dataformats="HWC")

    def close(self) -> None:
        """Write what is still in memory."""
        self._writer.close()
