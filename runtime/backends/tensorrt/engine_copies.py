"""Engines for execution contexts to be made of: one, or where contexts may not share an optimization profile, as many as it takes."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .api import TensorRT


@dataclass(frozen=True)
class Seat:
    """An engine's optimization profile that one execution context may use."""

    engine: Any
    profile: int
    leave: Callable[[], None]
    """Called once, when that context is gone."""


class EngineCopies:
    """The engine of one plan, deserialized again where every copy's profile is in use: so does trtexec for its --streams.

    A copy costs what the plan is large, a few MB. Threads may share it.
    """

    def __init__(self, api: TensorRT, runtime: Any, plan: bytes) -> None:
        """runtime: of `api`. The device is active, here and in `seat`. Raises BackendError."""
        self._api = api
        self._runtime = runtime
        self._plan = plan if not api.shares_profiles else b""
        self._copies = [api.deserialize(self._runtime, plan)]
        self._taken: set[tuple[int, int]] = set()
        self._lock = threading.Lock()
        self.seated = 0
        """Contexts that are there."""

    @property
    def first(self) -> Any:
        """The engine to ask for names, types and sizes."""
        return self._copies[0]

    def seat(self, profile: int) -> Seat:
        """A place for one more context with this profile. Raises BackendError."""
        with self._lock:
            copy = 0 if self._api.shares_profiles else self._free_copy(profile)
            self._taken.add((copy, profile))
            self.seated += 1
            return Seat(self._copies[copy], profile, lambda: self._leave(copy, profile))

    def close(self) -> None:
        """Let go of the engines. Contexts that are still there keep theirs alive."""
        self._copies.clear()
        self._runtime = None

    def _free_copy(self, profile: int) -> int:
        for copy in range(len(self._copies)):
            if (copy, profile) not in self._taken:
                return copy
        self._copies.append(self._api.deserialize(self._runtime, self._plan))
        return len(self._copies) - 1

    def _leave(self, copy: int, profile: int) -> None:
        with self._lock:
            self._taken.discard((copy, profile))
            self.seated -= 1
