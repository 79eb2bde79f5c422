"""Engines on disk with their records, and the choice of one that fits this machine."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass, replace
from pathlib import Path

from impasto.errors import OutputError, PackageError
from impasto.files import sha256
from impasto.package import schema
from impasto.package.engine_record import EngineRecord, Range
from impasto.package.manifest import Manifest
from impasto.runtime.backends.tensorrt.compatibility import why_not_here
from impasto.runtime.cache_folder import cache_folder

ENGINES = "engines"
"""The folder of a package that holds its engines."""

_PREFERRED = ("fp16", "fp32", "int8")
"""Order for precision "auto". FP16 is fast and draws what FP32 draws. INT8 comes last, because it changes pictures."""


@dataclass(frozen=True)
class StoredEngine:
    """A plan file with its record."""

    plan: Path
    sha256: str
    """The plan's hash in the record or manifest. It is compared when the engine is loaded."""
    record: EngineRecord

    def verified(self) -> Path:
        """The plan's path. Raises PackageError if its hash is another: a plan is executable code."""
        if not self.plan.is_file() or sha256(self.plan) != self.sha256:
            raise PackageError(
                f"{self.plan} is not the engine that {self.plan.stem}.json describes. An engine is executable code, so it "
                "is not loaded; build it again, or load it in a program with trust=True if you know where it comes from"
            )
        return self.plan


def read_stored(plan: Path) -> StoredEngine:
    """The engine at this path with its record. Raises PackageError if the record is missing or malformed."""
    beside = plan.with_suffix(".json")
    try:
        data = schema.mapping(schema.read_json(beside), "the record")
        digest = schema.digest(data.get("sha256"), "the engine")
        stored = StoredEngine(plan, digest, EngineRecord.from_json(data.get("record"), str(beside)))
    except (OSError, schema.Malformed) as error:
        raise PackageError(
            f"{plan} has no readable record {beside.name} ({error}), so its origin is unknown; build it again: impasto build"
        ) from None
    if stored.record.key != plan.stem:
        raise PackageError(
            f"{beside} is the record of another engine, {stored.record.key!r}; give engine and record the names that impasto "
            "build gave them"
        )
    return stored


def stored_in(folder: Path) -> list[StoredEngine]:
    """Every engine of a folder that has a readable record."""
    found = []
    for plan in sorted(folder.glob("*.plan")):
        try:
            found.append(read_stored(plan))
        except PackageError:
            continue
    return found


def stored_in_package(folder: Path, manifest: Manifest) -> list[StoredEngine]:
    """The engines that a manifest lists, with the manifest's hashes. An engine whose record has another hash is left out."""
    listed = {file.name: file.sha256 for file in manifest.files}
    found = []
    for stored in stored_in(folder / ENGINES):
        name = f"{ENGINES}/{stored.plan.stem}"
        record = folder / f"{name}.json"
        if f"{name}.plan" in listed and listed.get(f"{name}.json") == sha256(record):
            found.append(replace(stored, sha256=listed[f"{name}.plan"]))
    return found


def context_engine(stored: StoredEngine, among: list[StoredEngine]) -> StoredEngine | None:
    """The engine of the context graph that belongs to a model's engine; None if there is none in `among`.

    It is built from the same package, by the same TensorRT, for the same kind of GPU.
    """
    mine = stored.record
    for other in among:
        its = other.record
        if (its.role, its.source_sha256) == ("context", mine.context_sha256) and (
            (its.product, its.version, its.compute_capabilities, its.gpu)
            == (mine.product, mine.version, mine.compute_capabilities, mine.gpu)
        ):
            return other
    return None


def best_fitting(
    candidates: list[StoredEngine], among: list[StoredEngine], device: int
) -> tuple[StoredEngine, StoredEngine | None] | str | None:
    """The best engine that runs on this machine, with the engine of its context graph, if it has one.

    Returns a str if no candidate runs: why the best one does not. Returns None if there are no candidates.
    among: all known engines, including those of context graphs. device: the CUDA device's number.
    """
    reasons = []
    for stored in sorted(candidates, key=_rank):
        for_context = context_engine(stored, among) if stored.record.context_sha256 else None
        reason = why_not_here(stored.record, device)
        if reason is None and not _takes_one_picture(stored.record):
            reason = "it takes several pictures at once and never a single one"
        if reason is None and stored.record.context_sha256 and for_context is None:
            reason = "the engine of its context graph is missing"
        if reason is None:
            return stored, for_context
        reasons.append(reason)
    return reasons[0] if reasons else None


def plan_to_load(stored: StoredEngine, trust: bool) -> Path:
    """The plan's path, verified unless `trust`. A plan in the user's cache becomes the one used last, and is evicted last."""
    plan = stored.plan if trust else stored.verified()
    with contextlib.suppress(OSError, OutputError):  # a read-only cache can still be used
        if plan.resolve().parent == cache_folder().resolve():
            os.utime(plan)
    return plan


def _pictures(record: EngineRecord) -> list[Range]:
    """The (min, opt, max) shapes of the picture, (N, H, W, 3), in each optimization profile."""
    return [shapes for ranges in record.profiles for shapes in ranges.values() if len(shapes[0]) == 4]


def _takes_one_picture(record: EngineRecord) -> bool:
    """Whether an optimization profile takes one picture at a time. The runtime gives one at a time."""
    return any(low[0] <= 1 for low, _, _ in _pictures(record))


def _rank(stored: StoredEngine) -> tuple[int, int, int]:
    """Sort key: the preferred precision first, then the widest range of picture sizes."""
    shapes = _pictures(stored.record)
    largest = max((high[1] * high[2] for _, _, high in shapes), default=0)
    smallest = min((low[1] * low[2] for low, _, _ in shapes), default=0)
    return _PREFERRED.index(stored.record.precision), -largest, smallest
