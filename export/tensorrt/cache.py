"""Engines on disk: named by a hash of everything that reached the builder, written whole, built once, evicted by age of use.

An entry is `<key>.plan` with `<key>.json`, its record and the plan's SHA-256, and the `.kernels` that TensorRT-RTX compiled for it,
a file for each kind of GPU.
A reader trusts the hash in the record as far as it trusts the folder: whoever can write there can replace both. Whoever builds or
copies an entry holds `<key>.lock`, and what is held is not evicted. Lock files stay: another process may be about to lock them.
Timing caches lie beside the entries and go with `clean --all` only. Nothing else in the folder is ours, and nothing else is touched.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from impasto.errors import OptionError, OutputError, PackageError
from impasto.files import atomic_path, make_folder, sha256, write_text
from impasto.package.engine_record import EngineRecord
from impasto.package.file_lock import locked, locked_if_free
from impasto.runtime.cache_folder import CACHE_VARIABLE, cache_folder
from impasto.runtime.loading.stored_engines import read_stored

from .options import parse_bytes

SCHEMA = 2
"""Part of every key: raise it when the same inputs begin to give another engine."""

LIMIT_VARIABLE = "IMPASTO_CACHE_BYTES"
DEFAULT_LIMIT = 4 << 30

_ADVICE = f"choose another cache with ${CACHE_VARIABLE}"
_ENTRY = re.compile(r"[0-9a-f]{32}(\.json|\.plan|-[0-9a-f]{8}\.kernels)")
_TIMING = re.compile(r"tensorrt-[\w.-]+-driver\w+\.timing")
_UNFINISHED = re.compile(r"\.(.+?)(?:-[0-9a-f]{8}-\d+-\d+)?-[0-9a-f]{16}(\.\w+)")
"""What `atomic_path` calls a file before it is complete: name and suffix."""
_ABANDONED_S = 3600.0
"""Nobody writes one file for so long: older unfinished ones are of processes that were killed."""


def engine_key(parts: dict[str, Any]) -> str:
    """32 hexadecimal digits that differ wherever any of `parts` (plain JSON values) does."""
    text = json.dumps({"schema": SCHEMA, **parts}, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def cache_limit() -> int:
    """$IMPASTO_CACHE_BYTES, such as 4GiB, or 4 GiB where it is unset or empty. Raises OptionError."""
    text = os.environ.get(LIMIT_VARIABLE, "").strip()
    try:
        return parse_bytes(text) if text else DEFAULT_LIMIT
    except OptionError as error:
        raise OptionError(f"${LIMIT_VARIABLE}: {error}") from None


@dataclass(frozen=True)
class CacheEntry:
    """One engine of the cache, as it was when it was read."""

    record: EngineRecord
    plan: Path
    sha256: str
    used: float
    """Time of last use, in seconds since 1970."""
    nbytes: int
    """Size of the plan."""


@dataclass(frozen=True)
class _Evictable:
    """What goes together: a plan, its record and its kernels, or what is left of them."""

    key: str
    paths: tuple[Path, ...]
    nbytes: int
    used: float


class EngineCache:
    """A folder of engines that holds at most `limit` bytes, and what is being built or copied."""

    def __init__(self, folder: Path | None = None, limit: int | None = None) -> None:
        """folder, limit: `cache_folder` and `cache_limit` by default."""
        self.folder = folder or cache_folder()
        self.limit = cache_limit() if limit is None else limit

    def find(self, key: str) -> CacheEntry | None:
        """The entry, now the one used last, or None. A damaged entry counts as none and is removed."""
        entry = _read(self.folder / f"{key}.plan")
        if entry is None:
            return None
        try:
            intact = sha256(entry.plan) == entry.sha256
        except PackageError:  # evicted just now
            return None
        with contextlib.suppress(OSError):  # a cache that may only be read still serves
            if intact:
                os.utime(entry.plan)
            else:
                entry.plan.with_suffix(".json").unlink()
                entry.plan.unlink()
        return entry if intact else None

    def put(self, record: EngineRecord, plan: bytes) -> CacheEntry:
        """Write an engine whose key is held, and evict what was used longest ago while there is too much. Raises OutputError."""
        make_folder(self.folder)
        path = self.folder / f"{record.key}.plan"
        with atomic_path(path) as temporary:
            temporary.write_bytes(plan)
        entry = CacheEntry(record, path, hashlib.sha256(plan).hexdigest(), time.time(), len(plan))
        _write_record(entry)
        with contextlib.suppress(OutputError):  # it is for `clean` to say what cannot be removed
            self._evict(self.limit)
        return entry

    def described(self, entry: CacheEntry, spec: dict[str, Any]) -> CacheEntry:
        """The entry with this spec, which may have been corrected since it was built, in its record. Raises OutputError."""
        if entry.record.spec == spec:
            return entry
        entry = replace(entry, record=replace(entry.record, spec=spec))
        _write_record(entry)
        return entry

    def discard(self, key: str) -> None:
        """Remove an entry, its record first. Raises OutputError."""
        with self.locked(key):
            _remove(self.folder / f"{key}{suffix}" for suffix in (".json", ".plan"))

    def entries(self) -> list[CacheEntry]:
        """Every readable entry, the one used last first."""
        found = (_read(path) for path in self._files(_ENTRY) if path.suffix == ".plan")
        return sorted((entry for entry in found if entry), key=lambda entry: -entry.used)

    def clean(self, everything: bool = False) -> int:
        """Remove entries beyond the limit, or all that nobody holds and the timing caches. Returns the bytes freed.

        Raises OutputError for what cannot be removed.
        """
        if not self.folder.is_dir():
            return 0
        freed = self._evict(0 if everything else self.limit)
        return freed + (_remove(self._files(_TIMING)) if everything else 0)

    def locked(self, key: str, waiting: Callable[[], None] | None = None) -> contextlib.AbstractContextManager[None]:
        """Hold the key: a second process that wants the same engine waits here and then finds it built. Raises OutputError."""
        make_folder(self.folder)
        return locked(self._lock(key), waiting, _ADVICE)

    def timing_path(self, name: str) -> Path:
        """Where the builder's measurements of this GPU and version lie."""
        safe = "".join(letter if letter.isalnum() or letter in ".-" else "-" for letter in name)
        return self.folder / f"{safe}.timing"

    def _lock(self, key: str) -> Path:
        return self.folder / f"{key}.lock"

    def _files(self, pattern: re.Pattern[str]) -> list[Path]:
        return sorted(path for path in self.folder.glob("*") if pattern.fullmatch(path.name) and path.is_file())

    def _evict(self, limit: int) -> int:
        """Remove what was used longest ago until at most `limit` bytes are left besides what is held. Returns the bytes freed."""
        with locked(self.folder / "eviction.lock", advice=_ADVICE):  # two at once would each make room for both
            freed = _remove(self._abandoned())
            found = sorted(self._evictable(), key=lambda each: each.used)
            total = sum(each.nbytes for each in found)
            for each in found:
                if total <= limit:
                    break
                with locked_if_free(self._lock(each.key)) as free:
                    if free:
                        total -= each.nbytes
                        freed += _remove(each.paths)
            return freed

    def _evictable(self) -> list[_Evictable]:
        """All that counts, by file name alone: a record that cannot be read, or lies, changes nothing but whose kernels are whose."""
        groups: dict[str, list[Path]] = {}
        files = self._files(_ENTRY)
        plans = (_read(path) for path in files if path.suffix == ".plan")
        owners = {entry.sha256[:32]: entry.plan.stem for entry in plans if entry}  # as KernelCache names its file
        for path in files:  # the record first: what begins to go is no engine any more
            name = path.stem[:32]
            key = owners.get(name, name) if path.suffix == ".kernels" else name
            groups.setdefault(key, []).append(path)
        found = []
        for key, paths in groups.items():
            states = [state for path in paths if (state := _state(path))]
            used = max((state.st_mtime for state in states), default=0.0)
            found.append(_Evictable(key, tuple(paths), sum(state.st_size for state in states), used))
        return found

    def _abandoned(self) -> list[Path]:
        """Old files that a killed process left unfinished."""
        found = []
        for path in self._files(_UNFINISHED):
            match, state = _UNFINISHED.fullmatch(path.name), _state(path)
            name = match[1] + match[2] if match else ""
            ours = _ENTRY.fullmatch(name) or _TIMING.fullmatch(name)
            if ours and state and time.time() - state.st_mtime > _ABANDONED_S:
                found.append(path)
        return found


def _read(plan: Path) -> CacheEntry | None:
    """What lies at this path, or None where another process removed it, or the record is none."""
    try:
        stored, state = read_stored(plan), plan.stat()
    except (OSError, PackageError):
        return None
    return CacheEntry(stored.record, plan, stored.sha256, state.st_mtime, state.st_size)


def _write_record(entry: CacheEntry) -> None:
    text = json.dumps({"sha256": entry.sha256, "record": entry.record.to_json()}, indent=1) + "\n"
    write_text(entry.plan.with_suffix(".json"), text)


def _state(path: Path) -> os.stat_result | None:
    """None where another process removed it."""
    try:
        return path.stat()
    except FileNotFoundError:
        return None


def _remove(paths: Iterable[Path]) -> int:
    """Remove these files, in this order. Returns the bytes freed. Raises OutputError."""
    freed = 0
    for path in paths:
        state = _state(path)
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise OutputError(
                f"cannot remove {path}: {error.strerror}; change its folder's permissions, or remove it yourself"
            ) from None
        freed += state.st_size if state else 0
    return freed
