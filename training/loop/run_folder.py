"""What lies in a training's output folder, and what that says of the run. Costs no torch."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from impasto.files import write_text

STATE, CHECKPOINT, LOG, PREVIEW = "state.pt", "checkpoint.safetensors", "log.jsonl", "preview.png"
BOARD = "tensorboard"


def is_unfinished(folder: Path) -> bool:
    """Whether there is a run that can be resumed."""
    return (folder / STATE).exists()


def is_finished(folder: Path) -> bool:
    """Whether there is a checkpoint, and nothing left to do."""
    return (folder / CHECKPOINT).exists() and not is_unfinished(folder)


def log(folder: Path, line: dict[str, Any]) -> None:
    """Append a line of JSON to the log. line: has a "step"."""
    with (folder / LOG).open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def cut_log(folder: Path, step: int) -> None:
    """Drop the log's lines of later steps, which a killed run took after it was last saved, and lines that a power cut left
    unreadable."""
    path = folder / LOG
    if path.exists():
        lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
        write_text(path, "".join(f"{line}\n" for line in lines if _step_of(line) <= step))


def _step_of(line: str) -> float:
    """The step that a line of the log is of; infinity for a line that cannot be read."""
    try:
        return float(json.loads(line)["step"])
    except (ValueError, TypeError, KeyError):
        return math.inf
