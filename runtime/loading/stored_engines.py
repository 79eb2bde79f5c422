"""Engines on disk, and which of them fits this machine."""

from __future__ import annotations

import contextlib
import os
import shlex
import sys
from dataclasses import dataclass, replace
from pathlib import Path

from impasto.errors import EngineMismatch, ImpastoError, OptionError, OutputError, PackageError
from impasto.files import sha256
from impasto.package import schema
from impasto.package.engine_record import AMPERE_PLUS, EngineRecord, Range
from impasto.package.manifest import Manifest
from impasto.runtime import cuda
from impasto.runtime.backends.tensorrt.api import TensorRT, tensorrt

from .source import Source, model_text, resolve

CACHE_VARIABLE = "IMPASTO_CACHE"
ENGINES = "engines"
"""The folder of a package that holds its engines."""

_PREFERRED = ("fp16", "fp32", "int8")
"""With precision "auto": the fast one that draws what FP32 draws comes first; INT8 changes pictures, so it comes last."""


@dataclass(frozen=True)
class StoredEngine:
    """A plan with the record beside it."""

    plan: Path
    sha256: str
    """What the record says of the plan; compared when the engine is loaded, not before."""
    record: EngineRecord

    def verified(self) -> Path:
        """The plan's path, after its hash has been compared. Raises PackageError: a plan is executable code."""
        if not self.plan.is_file() or sha256(self.plan) != self.sha256:
            raise PackageError(
                f"{self.plan} is not the engine that {self.plan.stem}.json describes; an engine is executable code, so it "
                "is not loaded. Build it again, or load it in a program with trust=True if you know where it comes from"
            )
        return self.plan


def cache_folder() -> Path:
    """$IMPASTO_CACHE, or `impasto/engines` in the user's cache folder.

    Raises OutputError where nobody knows that one, OptionError where the variable names what can be no folder.
    """
    given = os.environ.get(CACHE_VARIABLE)
    if given:
        return _usable(Path(given))
    folder = os.environ.get("LOCALAPPDATA" if sys.platform == "win32" else "XDG_CACHE_HOME")
    try:
        parent = Path(folder) if folder else Path.home() / ("" if sys.platform == "win32" else ".cache")
    except RuntimeError:  # neither $HOME nor an entry in passwd: containers that run as any user
        raise OutputError(
            f"this user has no home folder to keep engines in; name a folder with ${CACHE_VARIABLE}"
        ) from None
    return parent / "impasto" / "engines"


def _usable(folder: Path) -> Path:
    try:
        why = "is a file" if folder.is_file() else None
    except OSError as error:
        why = f"cannot be looked into ({error.strerror})"
    if why:
        raise OptionError(
            f"${CACHE_VARIABLE} names {str(folder)!r:.200}, which {why}; name a folder to keep engines in"
        )
    return folder


def read_stored(plan: Path) -> StoredEngine:
    """The engine at this path with its record. Raises PackageError where the record is missing or malformed."""
    beside = plan.with_suffix(".json")
    try:
        data = schema.mapping(schema.read_json(beside), "the record")
        digest = schema.digest(data.get("sha256"), "the engine")
        stored = StoredEngine(plan, digest, EngineRecord.from_json(data.get("record"), str(beside)))
    except (OSError, schema.Malformed) as error:
        raise PackageError(
            f"{plan} has no readable record {beside.name} ({error}), so nobody knows what it is; build it again: impasto build"
        ) from None
    if stored.record.key != plan.stem:
        raise PackageError(
            f"{beside} is the record of another engine, {stored.record.key!r}; an engine and its record keep the names that "
            "impasto build gave them"
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
    """The engines that a manifest lists, with the hashes that it gives; records that it does not vouch for are left out."""
    listed = {file.name: file.sha256 for file in manifest.files}
    found = []
    for stored in stored_in(folder / ENGINES):
        name = f"{ENGINES}/{stored.plan.stem}"
        record = folder / f"{name}.json"
        if f"{name}.plan" in listed and listed.get(f"{name}.json") == sha256(record):
            found.append(replace(stored, sha256=listed[f"{name}.plan"]))
    return found


def context_engine(stored: StoredEngine, among: list[StoredEngine]) -> StoredEngine | None:
    """The engine of the context graph that belongs to a model's engine: same source package, same kind of machine."""
    mine = stored.record
    for other in among:
        its = other.record
        if (its.role, its.source_sha256) == ("context", mine.context_sha256) and (
            (its.flavour, its.version, its.compute_capabilities, its.gpu)
            == (mine.flavour, mine.version, mine.compute_capabilities, mine.gpu)
        ):
            return other
    return None


def is_ampere_plus(device: cuda.Device) -> bool:
    """Whether hardware-compatible engines are made and run by this GPU.

    NVIDIA's header says "compatible with Ampere and newer GPUs", those that a version does not know yet as far as CUDA's forward
    compatibility goes, and built on such a GPU only; its guide, "not supported on NVIDIA DRIVE OS or JetPack", which is where
    GPUs are integrated.
    """
    return int(device.compute_capability.split(".")[0]) >= 8 and not device.integrated


def mismatch(record: EngineRecord, api: TensorRT, device: cuda.Device) -> str | None:
    """Why an engine cannot run on this TensorRT and GPU, as half a sentence; None where it can."""
    here = {device.compute_capability, *([AMPERE_PLUS] if is_ampere_plus(device) else [])}
    if (
        (record.flavour, record.version) == (api.flavour, api.version)
        and here.intersection(record.compute_capabilities)
        and record.gpu in (None, device.name)
    ):
        return None
    capability = " or ".join(record.compute_capabilities)
    return (
        f"this engine was built by {record.flavour} {record.version} for {record.gpu or 'compute capability ' + capability}; "
        f"this machine has {api} and {device.name} (compute capability {device.compute_capability}"
        f"{', integrated' if device.integrated else ''})"
    )


def why_not_here(record: EngineRecord, device: int) -> str | None:
    """Why an engine cannot run on this machine, vendor libraries included; None where it can."""
    try:
        return mismatch(record, tensorrt(record.flavour), cuda.device(device))
    except ImpastoError as error:
        return str(error)


def engine_source(
    path_or_name: str | os.PathLike[str], backend: str, precision: str, device: int, trust: bool
) -> Source | None:
    """What to load where TensorRT may be chosen: with the engine that fits this machine, out of the package or the user's
    cache, or as it is where backend is "auto" and none fits.

    None where that is not decided here: for another backend, or a precision other than "auto" without a fitting engine.
    Raises EngineMismatch for backend "tensorrt" with the command that builds a fitting one, and what `resolve` raises.
    """
    if backend not in ("auto", "tensorrt"):
        return None
    if Path(model_text(path_or_name)).suffix.lower() == ".plan":
        return resolve(path_or_name, precision, trust)
    source = resolve(path_or_name, "auto", trust)
    among = _all_engines(source)
    hashes = _model_hashes(source) if among else set()
    built = [e for e in among if e.record.role == "model" and e.record.source_sha256 in hashes]
    if precision != "auto":
        built = [engine for engine in built if engine.record.precision == precision]
    reasons = []
    for stored in sorted(built, key=_rank):
        reason = why_not_here(stored.record, device)
        context = context_engine(stored, among) if stored.record.context_sha256 else None
        if reason is None and not _takes_one_picture(stored.record):
            reason = "it takes several pictures at once, and never one"
        if reason is None and stored.record.context_sha256 and context is None:
            reason = "the engine of its context graph is missing"
        if reason is None:
            return with_engine(source, stored, context, trust)
        reasons.append(reason)
    if backend == "auto":
        return source if precision == "auto" else None
    wanted = "fp16" if precision == "auto" else precision
    found = (
        f"none of {len(built)} engines runs here ({reasons[0]})" if reasons else f"no {wanted} engine has been built"
    )
    raise EngineMismatch(
        f"{source.path}: {found}. Build one for this machine: "
        f"impasto build {shlex.quote(os.fspath(path_or_name))} --precision {wanted}"
    )


def with_engine(source: Source, stored: StoredEngine, context: StoredEngine | None, trust: bool) -> Source:
    """The source with its graphs replaced by these engines. Raises PackageError where a plan is not what was recorded."""
    return replace(
        source,
        graph=_taken(stored, trust),
        precision=stored.record.precision,
        engine=stored.record,
        context=None if context is None else _taken(context, trust),
        context_engine=None if context is None else context.record,
    )


def _taken(stored: StoredEngine, trust: bool) -> Path:
    """The plan's path, verified unless trusted; in the cache it is now the one used last, and so the last to be evicted."""
    plan = stored.plan if trust else stored.verified()
    with contextlib.suppress(OSError, OutputError):  # a cache that may only be read still serves
        if plan.resolve().parent == cache_folder().resolve():
            os.utime(plan)
    return plan


def _all_engines(source: Source) -> list[StoredEngine]:
    own = stored_in_package(source.path, source.manifest) if source.manifest else []
    with contextlib.suppress(OutputError):  # no cache, no engines in it
        return [*own, *stored_in(cache_folder())]
    return own


def _model_hashes(source: Source) -> set[str]:
    """Of every ONNX file that draws this model's pictures."""
    if source.manifest:
        return {file.sha256 for file in source.manifest.files if file.role == "model"}
    return {sha256(source.graph)}


def _pictures(record: EngineRecord) -> list[Range]:
    """What each profile says of the pictures, the one input of four dimensions: (N, H, W, 3)."""
    return [shapes for ranges in record.profiles for shapes in ranges.values() if len(shapes[0]) == 4]


def _takes_one_picture(record: EngineRecord) -> bool:
    """Whether some profile takes one picture at a time, which is how the runtime gives them."""
    return any(low[0] <= 1 for low, _, _ in _pictures(record))


def _rank(stored: StoredEngine) -> tuple[int, int, int]:
    """The preferred precision first, then the widest range of picture sizes."""
    shapes = _pictures(stored.record)
    largest = max((high[1] * high[2] for _, _, high in shapes), default=0)
    smallest = min((low[1] * low[2] for low, _, _ in shapes), default=0)
    return _PREFERRED.index(stored.record.precision), -largest, smallest
