"""Locks of which a thread knows whether it holds one: the garbage collector runs in any thread, and may not wait there for another."""

from __future__ import annotations

import threading

_thread = threading.local()


class Turn:
    """A lock for a `with` block, which its thread may enter again."""

    def __init__(self) -> None:
        self._lock = threading.RLock()

    def __enter__(self) -> None:
        never_wait()  # before the lock is held: the garbage collector may run between any two steps
        try:
            self._lock.acquire()
        except BaseException:  # Ctrl-C
            _thread.turns -= 1
            raise

    def __exit__(self, *_: object) -> None:
        self._lock.release()
        _thread.turns -= 1


def never_wait() -> None:
    """Mark this thread for good as one that others wait for."""
    _thread.turns = getattr(_thread, "turns", 0) + 1


def may_wait() -> bool:
    """Whether this thread holds no turn and is not marked: only then may it wait for a thread that takes turns itself."""
    return not getattr(_thread, "turns", 0)
