"""Options that all trainings share."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import torch

from impasto.errors import OptionError

from .backbones import BACKBONES
from .loop.options import FitOptions
from .loop.processes import launched
from .loop.task import TaskOptions


@dataclass(frozen=True)
class TrainingOptions:
    """Options that all trainings share."""

    name: str
    """The model's name."""
    photos: Path | Sequence[Path] | None
    """Folder of photos, or several; None for a restorer that learns from pairs."""
    output: Path
    """Folder for the checkpoint, the log and the state."""
    fit: FitOptions = FitOptions(steps=16_000)  # noqa: RUF009 (frozen)
    batch: int = 4
    """Crops in a step; under torchrun, of each process."""
    crop: int = 384
    """Side of the square crops in pixels, a multiple of 8."""
    held_out: float = 0.05
    """Share of the photos that is kept for validation, if `validation` names no folder."""
    validation: Path | None = None
    """Folder of photos for validation; none of `photos` is held out then."""
    test_share: float = 0.0
    """Share of the photos that is kept for a test set, which is judged once, at the end."""
    test: Path | None = None
    """Folder of photos for the test set, instead of `test_share`."""
    config: Mapping[str, Any] = field(default_factory=dict)
    """The network's own arguments, where they differ from its defaults."""
    start: Path | None = None
    """A checkpoint or package of the same architecture to begin with. From one for another scale, all but the head is taken."""
    resume: bool = False
    """Whether to continue the unfinished run in `output`."""
    terms: str = ""
    """What the owners of the pictures allow, for the recipe: `impasto models` shows it."""
    command: str = ""
    """The command line, for the recipe."""
    architecture: str = ""
    """The network's name in `training.networks`."""
    backbone: str = "vgg16"
    """The classifier in `training.backbones` whose features measure content and style. Restorers need it only for the
    perceptual term."""
    weights: Mapping[str, float] = field(default_factory=dict)
    """The weights of the loss terms."""
    backbone_weights: Path | None = None
    """File of the backbone's weights; by default from the cache, an installed package, or the official server."""

    accepts_foreign: ClassVar[bool] = False
    """Whether `start` may be another project's network."""

    @property
    def photo_folders(self) -> tuple[Path, ...]:
        """The folders of photos; empty for a restorer that learns from pairs."""
        if self.photos is None:
            return ()
        return (Path(self.photos),) if isinstance(self.photos, (str, os.PathLike)) else tuple(map(Path, self.photos))

    @property
    def data_folders(self) -> tuple[tuple[Path, ...], Path | None]:
        """The folders of pictures, and the folder of their targets; None without targets."""
        return self.photo_folders, None

    def __post_init__(self) -> None:
        if self.batch < 1 or self.crop < 32 or self.crop % 8 or not 0 <= self.held_out <= 0.5:
            raise OptionError(
                f"batch {self.batch}, crop {self.crop}, held out {self.held_out}: wanted at least 1, a multiple of 8 of at least "
                "32, and 0 to 0.5"
            )
        if not 0 <= self.test_share <= 0.5 or (self.test_share and self.test):
            raise OptionError(f"test share {self.test_share}: wanted 0 to 0.5, and none beside a folder of test photos")
        if self.held_out + self.test_share > 0.9:
            raise OptionError(
                f"held out {self.held_out} and test share {self.test_share}: too little is left to train on; hold less out"
            )
        if self.backbone not in BACKBONES:
            raise OptionError(f"unknown backbone {self.backbone!r}; choose one of {', '.join(BACKBONES)}")
        unfit = {name: value for name, value in self.weights.items() if not (math.isfinite(value) and value >= 0)}
        if unfit:
            raise OptionError(f"weights of loss terms are numbers from 0 on; got {unfit}")
        if self.start is None and (self.fit.freeze or self.fit.depth_decay != 1):
            raise OptionError(
                "frozen stages and lower rates by depth spare what was learnt before; name it with --start"
            )
        if self.start is None and self.fit.qat:
            raise OptionError(
                "weights get used to INT8 at the end of a training; name a trained checkpoint with --start"
            )

    def task_options(self, device: torch.device) -> TaskOptions:
        """The options that the task needs, in this process."""
        return TaskOptions(self.crop, self.batch, self.fit.seed, device, self.weights, launched())


def check_whole(sides: tuple[int, int]) -> None:
    """Raises OptionError for longer sides of whole photos, in pixels, that are too small to learn from."""
    if not 128 <= sides[0] <= sides[1]:
        raise OptionError(f"whole photos of {sides[0]} to {sides[1]} pixels: wanted 128 or more, smaller first")
