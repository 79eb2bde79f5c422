"""A package in a line: what people choose a model by."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from impasto.errors import PackageError
from impasto.styles import painted

from .manifest import Manifest

CARD = "README.md"
UNSTATED = "not stated"


@dataclass(frozen=True)
class Summary:
    """Words and figures of a manifest; empty where it does not say."""

    task: str
    """The task, with the factor of one that enlarges."""
    style: str
    """What a stylizer paints like."""
    precisions: tuple[str, ...]
    kmac_per_pixel: float | None
    """Thousands of multiplications and additions for a pixel of the picture."""
    quality: str
    """On the pictures that training kept for validation."""
    licence: str
    """What the owners of the pictures that it was trained on allow, in the recipe's words."""

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary."""
        return asdict(self)


def summary_of(manifest: Manifest) -> Summary:
    """What a manifest says in short. It may come from anywhere: what has another form than ours is passed over."""
    spec, recipe = manifest.spec, manifest.recipe
    cost = recipe.get("kmac_per_pixel")
    terms = recipe.get("terms")
    return Summary(
        spec.task + (f" ×{spec.scale}" if spec.scale > 1 else ""),
        _style(manifest),
        manifest.precisions(),
        float(cost) if isinstance(cost, int | float) and not isinstance(cost, bool) else None,
        _quality(manifest.quality.get("validation")),
        terms if isinstance(terms, str) else UNSTATED,
    )


def read_card(folder: Path) -> str:
    """The Markdown of a package's card. Raises PackageError where there is none."""
    try:
        return (folder / CARD).read_text(encoding="utf-8")
    except (OSError, ValueError):
        raise PackageError(
            f"{folder} has no card ({CARD}); impasto inspect {folder.name} shows what its manifest says"
        ) from None


def _style(manifest: Manifest) -> str:
    """The styles of a network of several; of one, its painting."""
    if manifest.spec.task != "stylize":
        return ""
    if names := painted(manifest.spec.styles):
        return ", ".join(names)
    paintings = manifest.recipe.get("paintings") or [manifest.recipe.get("painting")]
    return (
        ", ".join(Path(each).stem for each in paintings if isinstance(each, str)) if isinstance(paintings, list) else ""
    )


def _quality(validation: Any) -> str:
    """The figure that sums up a model: a stylizer's objective, content + 10 · style, mean over its styles; a restorer's PSNR at the
    damage in the middle."""
    if not isinstance(validation, dict):
        return ""
    figures = {str(key): value for key, value in validation.items() if isinstance(value, int | float)}
    objectives = [value for key, value in figures.items() if key.startswith("objective")]
    if objectives:
        return f"objective {sum(objectives) / len(objectives):.2f}"
    restored = [(key.removeprefix("psnr_"), value) for key, value in figures.items() if key.startswith("psnr_")]
    if not restored:
        return ""
    # The first kind of damage, in the middle of its range.
    first = [each for each in restored if _kind(each[0]) == _kind(restored[0][0])]
    damage, value = first[len(first) // 2]
    one = re.sub(r":([^-+]+)-\1", r":\1", damage)  # noise:25-25 is noise:25
    return f"{value:.1f} dB {one}"


def _kind(damage: str) -> str:
    return re.sub(r"[\d.]+", "0", damage)
