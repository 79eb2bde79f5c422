"""What lies in a training's output folder, and what that says of the run. Costs no torch."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
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


CURVE_POINTS = 64
"""A training of any length keeps so many points of each curve: a few kilobytes of the recipe."""


def curves(folder: Path) -> dict[str, Any]:
    """The log in short, for the recipe: {"losses": {"steps": […], term: […]}, "validation": {"steps": […], figure: […]}}.

    Of more than CURVE_POINTS lines each point is the mean of neighbours. Empty without a log; lines that cannot be read are skipped.
    """
    path = folder / LOG
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []
    entries = [json.loads(line) for line in lines if math.isfinite(_step_of(line))]
    losses = [entry for entry in entries if "validation" not in entry]
    validations = [{"step": entry["step"], **entry["validation"]} for entry in entries if "validation" in entry]
    found = {"losses": _thinned(losses), "validation": _thinned(validations)}
    return {kind: curve for kind, curve in found.items() if curve}


def _thinned(entries: Sequence[Mapping[str, Any]]) -> dict[str, list[float]]:
    if not entries:
        return {}
    names = [
        name
        for name, value in entries[-1].items()
        if isinstance(value, int | float) and name not in ("step", "seconds")
    ]
    complete = [entry for entry in entries if all(isinstance(entry.get(name), int | float) for name in names)]
    count = min(CURVE_POINTS, len(complete))
    bounds = [number * len(complete) // count for number in range(count + 1)]
    parts = [complete[start:stop] for start, stop in pairwise(bounds)]
    return {
        "steps": [part[-1]["step"] for part in parts],
        **{name: [_mean(entry[name] for entry in part) for part in parts] for name in names},
    }


def _mean(values: Iterable[float]) -> float:
    """To four significant digits, which is more than a picture of it shows."""
    found = list(values)
    return float(f"{sum(found) / len(found):.4g}")


def _step_of(line: str) -> float:
    """The step that a line of the log is of; infinity for a line that cannot be read."""
    try:
        return float(json.loads(line)["step"])
    except (ValueError, TypeError, KeyError):
        return math.inf
