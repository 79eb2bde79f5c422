"""Engines on disk: named by a hash of everything that reached the builder, written whole, built once, evicted by age of use.

An entry is `<key>.plan` with `<key>.json`, its record and the plan's SHA-256. A reader trusts the hash in the record as far
as it trusts the folder: whoever can write there can replace both. Timing caches lie beside the entries and are never evicted.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from impasto.errors import OutputError, PackageError
from impasto.files import atomic_path, make_folder, sha256, write_text
from impasto.runtime.engine_record import EngineRecord
from impasto.runtime.engines import CACHE_VARIABLE, cache_folder

SCHEMA = 1
"""Part of every key: raise it when the same inputs begin to give another engine."""

LIMIT_VARIABLE = "IMPASTO_CACHE_BYTES"
DEFAULT_LIMIT = 4 << 30


def engine_key(parts: dict[str, Any]) -> str:
    """32 hexadecimal digits that differ wherever any of `parts` (plain JSON values) does."""
    text = json.dumps({"schema": SCHEMA, **parts}, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:32]


@dataclass(frozen=True)
class CacheEntry:
    """One engine of the cache."""

    record: EngineRecord
    plan: Path
    sha256: str
    used: float
    """Time of last use, in seconds since 1970."""

    @property
    def nbytes(self) -> int:
        return self.plan.stat().st_size


class EngineCache:
    """A folder of engines that holds at most `limit` bytes of plans."""

    def __init__(self, folder: Path | None = None, limit: int | None = None) -> None:
        """folder: $IMPASTO_CACHE or the user's cache folder by default. limit: $IMPASTO_CACHE_BYTES or 4 GiB by default."""
        self.folder = folder or cache_folder()
        self.limit = limit if limit is not None else int(os.environ.get(LIMIT_VARIABLE, DEFAULT_LIMIT))

    def find(self, key: str) -> CacheEntry | None:
        """The entry, now the one used last, or None. A damaged entry counts as none and is removed."""
        entry = self._read(self.folder / f"{key}.json")
        if entry is None:
            return None
        if sha256(entry.plan) != entry.sha256:
            self._remove(key)
            return None
        with contextlib.suppress(OSError):  # a cache that may only be read still serves
            os.utime(entry.plan)
        return entry

    def put(self, record: EngineRecord, plan: bytes) -> CacheEntry:
        """Write an engine, evict what was used longest ago while there is too much. Raises OutputError."""
        make_folder(self.folder)
        path = self.folder / f"{record.key}.plan"
        with atomic_path(path) as temporary:
            temporary.write_bytes(plan)
        digest = hashlib.sha256(plan).hexdigest()
        write_text(
            path.with_suffix(".json"), json.dumps({"sha256": digest, "record": record.to_json()}, indent=1) + "\n"
        )
        self._evict(keep=record.key)
        return CacheEntry(record, path, digest, path.stat().st_mtime)

    def entries(self) -> list[CacheEntry]:
        """Every readable entry, the one used last first."""
        found = (self._read(path) for path in sorted(self.folder.glob("*.json")))
        return sorted((entry for entry in found if entry), key=lambda entry: -entry.used)

    def clean(self, everything: bool = False) -> int:
        """Remove entries beyond the limit, or all of them and the timing caches. Returns the bytes freed."""
        before = self._total()
        if everything:
            for path in self.folder.glob("*"):
                if path.suffix in (".plan", ".json", ".timing", ".kernels", ".lock"):
                    path.unlink(missing_ok=True)
        else:
            self._evict(keep="")
        return before - self._total()

    def locked(self, key: str, waiting: Callable[[], None] | None = None) -> contextlib.AbstractContextManager[None]:
        """Hold the key: a second process that wants the same engine waits here and then finds it built."""
        make_folder(self.folder)
        return locked(self.folder / f"{key}.lock", waiting)

    def timing_path(self, name: str) -> Path:
        """Where the builder's measurements of this GPU and version lie."""
        safe = "".join(letter if letter.isalnum() or letter in ".-" else "-" for letter in name)
        return self.folder / f"{safe}.timing"

    def _read(self, path: Path) -> CacheEntry | None:
        plan = path.with_suffix(".plan")
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
            record = EngineRecord.from_json(data["record"], str(path))
            return CacheEntry(record, plan, str(data["sha256"]), plan.stat().st_mtime)
        except (OSError, ValueError, KeyError, TypeError, PackageError):
            return None

    def _evict(self, keep: str) -> None:
        entries = self.entries()
        total = sum(entry.nbytes for entry in entries)
        for entry in reversed(entries):
            if total <= self.limit:
                return
            if entry.record.key != keep:
                total -= entry.nbytes
                self._remove(entry.record.key)

    def _remove(self, key: str) -> None:
        # The record first: a plan without a record is nothing, a record without a plan would be an error.
        for suffix in (".json", ".plan"):
            with contextlib.suppress(OSError):
                (self.folder / f"{key}{suffix}").unlink(missing_ok=True)

    def _total(self) -> int:
        return sum(path.stat().st_size for path in self.folder.glob("*") if path.is_file())


@contextlib.contextmanager
def locked(path: Path, waiting: Callable[[], None] | None = None) -> Iterator[None]:
    """Hold an exclusive lock on a file, which the system drops when the process ends, however it ends.

    waiting: called once where another process holds it. The file stays: removing it would let two processes in.
    """
    try:
        file = path.open("a+b")
    except OSError as error:
        raise OutputError(
            f"cannot lock {path}: {error.strerror}; choose another cache with ${CACHE_VARIABLE}"
        ) from None
    with file:
        if not _try_lock(file.fileno(), block=False):
            if waiting:
                waiting()
            _try_lock(file.fileno(), block=True)
        yield


if sys.platform == "win32":
    import msvcrt
    import time

    def _try_lock(handle: int, *, block: bool) -> bool:
        while True:
            try:
                msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
            except OSError:
                if not block:
                    return False
                time.sleep(0.2)
            else:
                return True

else:
    import fcntl

    def _try_lock(handle: int, *, block: bool) -> bool:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if block else fcntl.LOCK_NB))
        except BlockingIOError:
            return False
        return True
