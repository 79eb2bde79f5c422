"""Options of the training loop, which are the same for all tasks, and its result."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from impasto.errors import OptionError

from .optimizers import OPTIMIZERS


@dataclass(frozen=True)
class FitOptions:
    """Options of the training loop, which are the same for all tasks."""

    steps: int
    """Number of training steps, >= 1."""
    learning_rate: float = 1e-3
    """The highest of a one-cycle schedule: linear warm-up over 5 % of the steps, then cosine to 1 % of it."""
    averaging: float = 0.999
    """Decay per step of the exponential moving average of the weights. The checkpoint holds this average."""
    optimizer: str = "adam"
    """"adam", or "muon": Muon for kernels of convolutions and other matrices, Adam for the rest."""
    clip: float = 1.0
    """Largest norm of a gradient."""
    seed: int = 0
    """Seed of fresh weights, crops and damage, from 0 to 2³² − 1."""
    device: str = "auto"
    """"auto", "cpu" or "cuda"."""
    precision: str = "auto"
    """Precision in which the network computes: "bf16", "fp32", or "auto", which is BF16 if the device is faster with it. Weights,
    losses and averages stay FP32."""
    save_seconds: float = 60
    """Seconds between two saved states. A killed run loses at most this time."""
    replay: bool = False
    """Record the step as a CUDA graph, for GPUs that would wait for Python. The device must be a GPU."""
    patience: int = 0
    """Stop after this many validations in a row without a better one, and keep the best weights. 0: take all steps, keep the last."""
    validate_every: int = 1000
    """Steps between two validations, which `patience` and `tensorboard` need."""
    tensorboard: bool = False
    """Also write curves and previews for TensorBoard, to a folder in the output folder."""
    freeze: tuple[str, ...] = ()
    """Stages of the network, or beginnings of its parameters' names, that stay as they are."""
    depth_decay: float = 1.0
    """Factor on the learning rate for each stage further from the head, above 0 and at most 1."""
    qat: bool = False
    """Quantization-aware training: round as INT8 will, and learn the ranges for `impasto quantize`."""
    minutes: float = 0
    """Stop after this many minutes of steps, with a checkpoint and a state to continue from. 0: take all steps. The learning rate
    follows the steps, so a continued run equals an uninterrupted one."""

    def __post_init__(self) -> None:
        if self.steps < 1 or not self.learning_rate > 0 or not 0 <= self.averaging < 1 or not self.clip > 0:
            raise OptionError(
                f"steps {self.steps}, learning rate {self.learning_rate}, averaging {self.averaging}, clip {self.clip}: wanted "
                "at least 1, above 0, 0 to 1, above 0"
            )
        if self.optimizer not in OPTIMIZERS:
            raise OptionError(f"unknown optimizer {self.optimizer!r}; choose {' or '.join(OPTIMIZERS)}")
        if not 0 <= self.seed < 1 << 32:  # generators take 64 bits, and each step has a seed of its own
            raise OptionError(f"seed {self.seed}: wanted a whole number from 0 to {(1 << 32) - 1}")
        if not 0 < self.depth_decay <= 1:
            raise OptionError(f"depth decay {self.depth_decay}: wanted above 0, at most 1")
        if not 0 <= self.minutes < math.inf:
            raise OptionError(f"minutes {self.minutes}: wanted above 0, or 0 for no limit")
        if self.precision not in ("auto", "bf16", "fp32"):
            raise OptionError(f"unknown precision {self.precision!r}; choose auto, bf16 or fp32")
        if self.patience < 0 or self.validate_every < 1:
            raise OptionError(
                f"patience {self.patience}, validation every {self.validate_every} steps: wanted at least 0, at least 1"
            )

    def averaging_at(self, step: int) -> float:
        """The moving average's decay at a step, counted from 0: shorter at first, so that it forgets the random start."""
        return min(self.averaging, (1 + step) / (10 + step))

    def rate_at(self, step: int) -> float:
        """The learning rate of a step, counted from 0: Smith and Topin 2018, with a cosine descent."""
        warm_up = max(1, self.steps // 20)
        if step < warm_up:
            return self.learning_rate * (step + 1) / warm_up
        share = (step - warm_up) / max(1, self.steps - warm_up)
        return self.learning_rate * (0.01 + 0.99 * (1 + math.cos(math.pi * share)) / 2)


@dataclass(frozen=True)
class ModelInfo:
    """What a checkpoint holds besides the weights."""

    name: str
    task: str
    """Such as "stylize" or "denoise"."""
    recipe: dict[str, Any]
    """How the model is trained, as far as that is known before the first step."""


@dataclass(frozen=True)
class StepReport:
    """The progress of a training, reported every few steps."""

    step: int
    """Number of steps that are done."""
    steps: int
    """Number of steps in all."""
    losses: Mapping[str, float]
    """The mean of each term of the loss since the last report, without its weight."""


Progress = StepReport
"""The old name of StepReport."""

Report = Callable[[StepReport], None]
"""What a training calls with each StepReport."""


def silent(report: StepReport) -> None:
    """A Report that does nothing."""


@dataclass(frozen=True)
class FitResult:
    """The result of a training."""

    checkpoint: Path
    """The checkpoint's file."""
    steps: int
    """Number of steps that were taken."""
    seconds: float
    """Time that they took."""
    losses: Mapping[str, float]
    """The last mean of each term of the loss, without its weight."""
    quality: Mapping[str, float]
    """Quality on the held-out pictures; empty without any."""
    test: Mapping[str, float] = field(default_factory=dict)
    """Quality on the test set, which was not used for any choice; empty without one."""
    int8: Mapping[str, float] = field(default_factory=dict)
    """Quality on the held-out pictures with INT8 rounding; empty except after quantization-aware training."""
    skipped: int = 0
    """Number of files that could not be used. The checkpoint's recipe names them."""
    unfinished: bool = False
    """Whether time ran out before the last step. The state to continue from lies beside the checkpoint."""

    def __str__(self) -> str:
        measured = _listed(self.quality or self.losses) + (f"; test set: {_listed(self.test)}" if self.test else "")
        measured += f"; in INT8: {_listed(self.int8)}" if self.int8 else ""
        skipped = f"; {self.skipped} broken or small files were left out" if self.skipped else ""
        return f"{self.checkpoint}: {self.steps} steps in {self.seconds:.0f} s; {measured}{skipped}"


def _listed(values: Mapping[str, float]) -> str:
    return ", ".join(f"{key} {value:.4g}" for key, value in values.items())
