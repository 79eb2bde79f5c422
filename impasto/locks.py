"""Reentrant locks that record, for each thread, whether the thread holds one.

The garbage collector may run in any thread, and so may the code that it calls. That code may not wait for another thread while its
own thread holds a lock that the other thread needs: both would wait for ever. `may_wait` tells.
"""

from __future__ import annotations

import threading

_thread = threading.local()


class ReentrantLock:
    """A lock for a `with` block. A thread that holds it may take it again."""

    def __init__(self) -> None:
        self._lock = threading.RLock()

    def __enter__(self) -> None:
        never_wait()  # counted before the lock is held: the garbage collector may run between the two steps
        try:
            self._lock.acquire()
        except BaseException:  # Ctrl-C
            _thread.held -= 1
            raise

    def __exit__(self, *_: object) -> None:
        self._lock.release()
        _thread.held -= 1


def never_wait() -> None:
    """From now on, `may_wait` is False in this thread. For worker threads: other threads wait for them."""
    _thread.held = getattr(_thread, "held", 0) + 1


def may_wait() -> bool:
    """Whether this thread may wait for a thread that takes a `ReentrantLock`: it holds none, and has not called `never_wait`."""
    return not getattr(_thread, "held", 0)
