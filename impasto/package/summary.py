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
        _number(cost),
        _quality(manifest.quality.get("validation")),
        terms if isinstance(terms, str) else UNSTATED,
    )


def int8_offer(manifest: Manifest, target_backend: str) -> str | None:
    """What the package's INT8 graph for a target backend would bring, in one line; None where the package holds none.

    The figures are the manifest's own: what the graph loses against FP32, and how much faster it was on the processor that the
    manifest names (`python -m impasto.benchmarks.precision --record`). A figure that the manifest lacks, or has in another form, is
    left out.
    """
    if manifest.find("model", "int8", target_backend) is None:
        return None
    quality = manifest.quality.get("precision")
    measured = quality.get(f"int8-{target_backend}") if isinstance(quality, dict) else None
    lost = _lost(measured.get("against FP32")) if isinstance(measured, dict) else None
    parts = [part for part in (lost, _speed(manifest.quality.get("speed"), target_backend)) if part]
    return f"INT8 is here: {', '.join(parts) or 'not measured'}; choose it with --precision int8"


def _lost(quality: Any) -> str | None:
    """What an INT8 drawing loses at most: a restorer against the truth, a stylizer of its style, or else its likeness to FP32."""
    if not isinstance(quality, dict):
        return None
    truth, style, likeness = (_number(quality.get(key)) for key in ("truth", "style", "psnr"))
    if truth is not None:
        return f"at most {max(truth, 0):.2f} dB less"
    if style is not None:
        return f"style distance {100 * style:+.1f} %"
    return None if likeness is None else f"at least {likeness:.0f} dB from FP32's picture"


def _speed(speeds: Any, target_backend: str) -> str | None:
    """How many times as fast as FP32 it was, and where."""
    for each in speeds if isinstance(speeds, list) else []:
        if isinstance(each, dict) and (each.get("precision"), each.get("backend")) == ("int8", target_backend):
            times, processor, network = _number(each.get("times_fp32")), each.get("processor"), each.get("network")
            if times is not None and isinstance(processor, str):
                same = f" ({network}, of the same layers)" if isinstance(network, str) else ""
                return f"{times:.1f} times as fast on {processor}{same}"
    return None


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def read_card(folder: Path) -> str:
    """The Markdown of a package's card. Raises PackageError where there is none."""
    try:
        return (folder / CARD).read_text(encoding="utf-8")
    except (OSError, ValueError):
        raise PackageError(
            f"{folder} has no card ({CARD}); impasto inspect {folder.name} shows what its manifest says"
        ) from None


def lead(folder: Path) -> str:
    """What a package's card says first, without Markdown's marks; empty where there is no card."""
    try:
        card = read_card(folder)
    except PackageError:
        return ""
    paragraphs = (part.strip() for part in re.split(r"\n\s*\n|^#.*\n", card, flags=re.MULTILINE))
    first = next((part for part in paragraphs if part and part[0] not in "#!|`<"), "")
    return " ".join(re.sub(r"[*`]|\[([^]]*)\]\([^)]*\)", r"\1", first).split())


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
