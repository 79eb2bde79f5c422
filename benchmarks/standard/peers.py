"""Published restorers' figures on the standard pictures, in `results/peers.json`, to show beside ours."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

FILE = Path(__file__).parents[1] / "results" / "peers.json"


@dataclass(frozen=True)
class Figures:
    """A peer's means of PSNR for one kind of damage."""

    psnr_db: Mapping[str, float]
    """By row, as `impasto.benchmarks.standard` names them."""
    limit: int | None
    """The pictures of each set that they are of; None for all."""


@dataclass(frozen=True)
class Peer:
    """One published network or classical method."""

    name: str
    weights: str
    """Which, and of which repository."""
    told: str
    """What it knows of the damage besides the picture."""
    cost: str | None
    """Such as "213 kMAC a pixel"; None for what is no network."""
    figures: Mapping[str, Figures]
    """The published rows by kind of damage."""

    def __str__(self) -> str:
        return f"{self.name}: {self.weights}; told {self.told}" + (f"; {self.cost}" if self.cost else "")


def read_peers(path: Path = FILE) -> tuple[Peer, ...]:
    """All peers of a file."""
    return tuple(
        Peer(
            entry["name"],
            entry["weights"],
            entry["told"],
            entry["cost"],
            {kind: Figures(found["psnr_db"], found.get("limit")) for kind, found in entry["figures"].items()},
        )
        for entry in json.loads(path.read_text(encoding="utf-8"))["peers"]
    )
