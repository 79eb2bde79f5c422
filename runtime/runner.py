"""Runs graphs in worker threads, so that Ctrl-C and time limits can abandon a run that does not end.

Python cannot stop a thread inside a vendor's library, and a graph may loop for ever. Each run therefore gets a thread of its own.
The caller waits for that thread, hears signals meanwhile, and can go on without it.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from queue import SimpleQueue
from typing import Any, TypeVar, cast

from impasto.errors import BackendError, TookTooLong
from impasto.locks import never_wait

GRACE_S = 2.0
"""Seconds between Ctrl-C and abandoning a run. A run that ends within them leaves everything in order."""
_STEP_S = 0.5
"""Seconds of one wait. Windows delivers Ctrl-C between two waits, and not during one."""

Result = TypeVar("Result")

_thread = threading.local()
_limit: ContextVar[float | None] = ContextVar("limit", default=None)
_idle: deque[_Worker] = deque()
_running: set[_Task] = set()
_abandoned: list[_Task] = []


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Limit each run of a graph within the block to this many seconds. A longer run raises TookTooLong."""
    before = _limit.set(seconds)
    try:
        yield
    finally:
        _limit.reset(before)


def abandon_runs() -> None:
    """Abandon all runs of this process. Every thread that waits for one gets a BackendError at once."""
    for task in list(_running):
        task.release()


def has_abandoned_runs() -> bool:
    """Whether an abandoned run is still computing. End the process by `os._exit` then: Python's own exit would wait for the run."""
    return any(not task.done.is_set() for task in _abandoned)


class Runner:
    """Runs the work of one graph, one piece at a time."""

    def __init__(self, stop: Callable[[], None]) -> None:
        """stop: asks the vendor's library to end an abandoned run, as far as the library can."""
        self._stop = stop
        self._last: _Task | None = None

    def __call__(self, work: Callable[[], Result]) -> Result:
        """Run `work` in a worker thread. Returns what it returns, raises what it raises.

        Raises TookTooLong after `time_limit`, and BackendError if an earlier run was abandoned and is still computing.
        """
        if getattr(_thread, "is_worker", False):
            return work()  # a graph inside another graph's run: both are abandoned together
        if self._last and not self._last.done.is_set():
            raise BackendError("an earlier run of this model was stopped and is still computing; load the model again")
        task = _Task(work)
        self._last = task
        seconds = _limit.get()
        worker = _worker()
        _running.add(task)
        worker.tasks.put(task)
        try:
            in_time = _wait(task.released, seconds)
        except BaseException:  # Ctrl-C
            if not _wait(task.released, GRACE_S):
                self._abandon(task)
            raise
        finally:
            _running.discard(task)
        if not in_time or not task.done.is_set():
            self._abandon(task)
            if in_time:
                raise BackendError("the run was stopped")
            raise TookTooLong(f"the graph gave no picture within {seconds:g} s; it may never end")
        self._last = None
        _idle.append(worker)
        if task.error:
            raise task.error
        return cast("Result", task.result)

    def _abandon(self, task: _Task) -> None:
        _abandoned.append(task)
        self._stop()


class _Task:
    """One piece of work, and its result or error."""

    def __init__(self, work: Callable[[], Any]) -> None:
        self._work: Callable[[], Any] | None = work
        self.done = threading.Event()
        """Set when the work has ended."""
        self.released = threading.Event()
        """Set when nobody needs to wait any more: the work has ended, or is abandoned."""
        self.result: Any = None
        self.error: BaseException | None = None

    def execute(self) -> None:
        assert self._work is not None
        try:
            self.result = self._work()
        except BaseException as error:
            self.error = error
        self._work = None  # it holds the caller's arrays
        self.done.set()
        self.released.set()

    def release(self) -> None:
        self.released.set()


class _Worker:
    """A daemon thread, which never keeps a process from ending."""

    def __init__(self) -> None:
        self.tasks: SimpleQueue[_Task] = SimpleQueue()
        threading.Thread(target=self._work, name="impasto-run", daemon=True).start()

    def _work(self) -> None:
        never_wait()
        _thread.is_worker = True
        while True:
            self.tasks.get().execute()


def _worker() -> _Worker:
    """An idle worker, or a new one."""
    try:
        return _idle.pop()
    except IndexError:
        return _Worker()


def _wait(event: threading.Event, seconds: float | None) -> bool:
    """Whether the event was set in time. seconds: None waits without a limit."""
    while seconds is None or seconds > _STEP_S:
        if event.wait(_STEP_S):
            return True
        seconds = None if seconds is None else seconds - _STEP_S
    return event.wait(seconds)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_idle.clear)  # a forked process has none of its parent's threads
