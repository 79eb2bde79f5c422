"""Work inside a vendor's library that Ctrl-C or a time limit leaves behind: Python can stop no thread that is in there.

A graph may loop for ever. The work is done by a thread of its own, so that whoever waits for it hears signals, and can go.
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
"""Seconds that work gets to end by itself after Ctrl-C: what ends leaves everything in order."""
_STEP_S = 0.5
"""Windows hears Ctrl-C between two waits, and not within one."""

Result = TypeVar("Result")

_thread = threading.local()
_limit: ContextVar[float | None] = ContextVar("limit", default=None)
_idle: deque[_Worker] = deque()
_running: set[_Task] = set()
_left: list[_Task] = []


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Let no single run of a graph within take longer: it raises TookTooLong."""
    before = _limit.set(seconds)
    try:
        yield
    finally:
        _limit.reset(before)


def leave_running() -> None:
    """Let everybody who waits for a run, in any thread, go at once: they get a BackendError."""
    for task in list(_running):
        task.leave()


def goes_on() -> bool:
    """Whether work that was left still goes on. A process must then be ended by `os._exit`, or it waits for that."""
    return any(not task.done.is_set() for task in _left)


class Runner:
    """Does one graph's work, one piece at a time."""

    def __init__(self, stop: Callable[[], None]) -> None:
        """stop: asks the vendor's library to end the work that is left, where it knows how."""
        self._stop = stop
        self._last: _Task | None = None

    def __call__(self, work: Callable[[], Result]) -> Result:
        """What `work` returns or raises.

        Raises TookTooLong beyond `time_limit`, BackendError where earlier work was left and goes on.
        """
        if getattr(_thread, "is_worker", False):
            return work()  # of a graph within another, which is left with that
        if self._last and not self._last.done.is_set():
            raise BackendError("a run of this model was stopped and still goes on; load the model again")
        task = _Task(work)
        self._last = task
        seconds = _limit.get()
        worker = _worker()
        _running.add(task)
        worker.tasks.put(task)
        try:
            in_time = _wait(task.settled, seconds)
        except BaseException:  # Ctrl-C
            if not _wait(task.settled, GRACE_S):
                self._leave(task)
            raise
        finally:
            _running.discard(task)
        if not in_time or not task.done.is_set():
            self._leave(task)
            if in_time:
                raise BackendError("the run was stopped")
            raise TookTooLong(f"the graph gave no picture within {seconds:g} s; it may never end")
        self._last = None
        _idle.append(worker)
        if task.error:
            raise task.error
        return cast("Result", task.result)

    def _leave(self, task: _Task) -> None:
        _left.append(task)
        self._stop()


class _Task:
    def __init__(self, work: Callable[[], Any]) -> None:
        self._work: Callable[[], Any] | None = work
        self.done = threading.Event()
        self.settled = threading.Event()
        """Done, or left."""
        self.result: Any = None
        self.error: BaseException | None = None

    def execute(self) -> None:
        assert self._work is not None
        try:
            self.result = self._work()
        except BaseException as error:
            self.error = error
        self._work = None  # and with it the arrays
        self.done.set()
        self.settled.set()

    def leave(self) -> None:
        self.settled.set()


class _Worker:
    """A thread that never keeps a process from ending."""

    def __init__(self) -> None:
        self.tasks: SimpleQueue[_Task] = SimpleQueue()
        threading.Thread(target=self._work, name="impasto-run", daemon=True).start()

    def _work(self) -> None:
        never_wait()
        _thread.is_worker = True
        while True:
            self.tasks.get().execute()


def _worker() -> _Worker:
    """An idle one, or a new one."""
    try:
        return _idle.pop()
    except IndexError:
        return _Worker()


def _wait(event: threading.Event, seconds: float | None) -> bool:
    """Whether it came in time; None waits for ever."""
    while seconds is None or seconds > _STEP_S:
        if event.wait(_STEP_S):
            return True
        seconds = None if seconds is None else seconds - _STEP_S
    return event.wait(seconds)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_idle.clear)  # a fork takes no threads along
