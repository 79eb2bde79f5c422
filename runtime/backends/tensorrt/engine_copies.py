"""The engine of one plan, deserialized as often as its execution contexts need.

Up to TensorRT 8.5 an optimization profile of an engine serves one execution context only. A second context then needs a second
copy of the engine. trtexec does the same for its option --streams.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .api import TensorRT


@dataclass(frozen=True)
class ProfileLease:
    """The right of one execution context to use an optimization profile of an engine."""

    engine: Any
    profile: int
    release: Callable[[], None]
    """Ends the lease. Call it once, after the execution context is freed."""


class EngineCopies:
    """The copies of one plan's engine. A copy costs about the plan's size in memory, a few MB. Threads may share this object."""

    def __init__(self, api: TensorRT, runtime: Any, plan: bytes) -> None:
        """runtime: made by `api`. The device must be active, here and in `lease`. Raises BackendError."""
        self._api = api
        self._runtime = runtime
        self._plan = plan if not api.shares_profiles else b""
        self._copies = [api.deserialize(self._runtime, plan)]
        self._taken: set[tuple[int, int]] = set()
        self._lock = threading.Lock()
        self.leases = 0
        """Leases that have not been released."""

    @property
    def first(self) -> Any:
        """The engine to read names, types and sizes from."""
        return self._copies[0]

    def lease(self, profile: int) -> ProfileLease:
        """A lease of this profile for one more execution context. Raises BackendError if a new copy cannot be made."""
        with self._lock:
            copy = 0 if self._api.shares_profiles else self._free_copy(profile)
            self._taken.add((copy, profile))
            self.leases += 1
            return ProfileLease(self._copies[copy], profile, lambda: self._release(copy, profile))

    def close(self) -> None:
        """Drop the engines. An execution context that still exists keeps its engine alive."""
        self._copies.clear()
        self._runtime = None

    def _free_copy(self, profile: int) -> int:
        """The index of a copy whose profile is free; a new copy if there is none."""
        for copy in range(len(self._copies)):
            if (copy, profile) not in self._taken:
                return copy
        self._copies.append(self._api.deserialize(self._runtime, self._plan))
        return len(self._copies) - 1

    def _release(self, copy: int, profile: int) -> None:
        with self._lock:
            self._taken.discard((copy, profile))
            self.leases -= 1
