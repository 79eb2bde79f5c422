"""What lies in a training's output folder, and what that says of the run. Costs no torch."""

from __future__ import annotations

from pathlib import Path

STATE, CHECKPOINT, LOG, PREVIEW = "state.pt", "checkpoint.safetensors", "log.jsonl", "preview.png"
BOARD = "tensorboard"


def is_unfinished(folder: Path) -> bool:
    """Whether there is a run to go on with."""
    return (folder / STATE).exists()


def is_finished(folder: Path) -> bool:
    """Whether there is a checkpoint, and nothing left to do."""
    return (folder / CHECKPOINT).exists() and not is_unfinished(folder)
