"""Reentrant locks that record, for each thread, whether the thread holds one.

The garbage collector runs in any thread. Code that it calls may not wait for another thread if its own thread holds a lock
that the other thread needs.
"""

from __future__ import annotations

import threading

_thread = threading.local()


class ReentrantLock:
    """A lock for a `with` block. The thread that holds it may enter again."""

    def __init__(self) -> None:
        self._lock = threading.RLock()

    def __enter__(self) -> None:
        never_wait()  # before the lock is held: the garbage collector may run between any two steps
        try:
            self._lock.acquire()
        except BaseException:  # Ctrl-C
            _thread.held -= 1
            raise

    def __exit__(self, *_: object) -> None:
        self._lock.release()
        _thread.held -= 1


def never_wait() -> None:
    """Mark this thread for good: other threads wait for it, so it may not wait for them."""
    _thread.held = getattr(_thread, "held", 0) + 1


def may_wait() -> bool:
    """Whether this thread may wait for a thread that takes a `ReentrantLock`: it holds none itself and is not marked."""
    return not getattr(_thread, "held", 0)
