"""Runs several frames at once: while the GPU computes one, the next is copied to it and the one before is copied back."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress

import numpy as np

from impasto.locks import may_wait, never_wait
from impasto.runtime.backends.base import Slot
from impasto.runtime.runner import GRACE_S, abandon_runs

Fill = Callable[[Slot, np.ndarray], None]
"""Writes a frame into a slot's `images`."""
Crop = Callable[[Slot, np.ndarray], np.ndarray]
"""Copies a frame's result from a slot's `result` into a new array."""
Open = Callable[[np.ndarray], "Slot | None"]
"""Opens a slot for frames of this frame's size; None if such a frame does not fit into a slot."""

Kind = tuple[tuple[int, ...], np.dtype]
"""A frame's shape and dtype."""


class SlotPool:
    """Idle slots. One thread takes slots, another thread may give them back, and any thread may close the pool at any time."""

    def __init__(self, open_slot: Open) -> None:
        self._open_slot = open_slot
        self._idle: deque[tuple[Kind, Slot]] = deque()

    def take(self, frame: np.ndarray) -> Slot | None:
        """An idle slot for this frame, or a new one; None if the frame fits into no slot. Idle slots for other frames are freed."""
        for kind, slot in self._taken():
            if kind == (frame.shape, frame.dtype):
                return slot
            slot.close()
        return self._open_slot(frame)

    def give_back(self, slot: Slot, frame: np.ndarray) -> None:
        """Make the slot idle. frame: the one that it was used for."""
        self._idle.append(((frame.shape, frame.dtype), slot))

    def close(self) -> None:
        """Free the idle slots."""
        for _, slot in self._taken():
            slot.close()

    def _taken(self) -> Iterator[tuple[Kind, Slot]]:
        # A deque gives each slot to one thread only. A lock could deadlock: the garbage collector may close the pool in the thread
        # that holds it.
        with suppress(IndexError):
            while True:
                yield self._idle.popleft()


def overlapped(
    frames: Iterator[np.ndarray],
    depth: int,
    pool: SlotPool,
    fill: Fill,
    crop: Crop,
    alone: Callable[[np.ndarray], np.ndarray],
) -> Iterator[np.ndarray]:
    """The results in order, each a new array, with up to `depth` frames in work.

    A worker thread fills slots and starts them. The caller's thread waits for them and copies the results. alone: draws a frame that
    fits into no slot. An exception of `frames` is raised after the results of the frames before it.
    """
    pending: deque[tuple[np.ndarray, Future[Slot | np.ndarray]]] = deque()
    worker = ThreadPoolExecutor(1, thread_name_prefix="impasto-stream", initializer=never_wait)
    failures: list[Exception] = []

    def finish() -> np.ndarray:
        frame, begun = pending[0]
        slot = begun.result()
        pending.popleft()  # only now: Ctrl-C during `begun.result()` would lose the slot
        if isinstance(slot, np.ndarray):
            return slot
        try:
            slot.wait()
            drawn = crop(slot, frame)
        except BaseException:
            slot.close()
            raise
        pool.give_back(slot, frame)
        return drawn

    try:
        for frame in _until_failure(frames, failures):
            pending.append((frame, worker.submit(_begin, frame, pool, fill, alone)))
            if len(pending) >= depth:
                yield finish()
        while pending:
            yield finish()
    except KeyboardInterrupt:
        if wait([future for _, future in pending], GRACE_S).not_done:  # a graph that may never end
            abandon_runs()
        raise
    finally:  # also if the caller stops early: no work may continue after the stream is closed
        worker.shutdown(wait=False, cancel_futures=True)
        begun = [future for _, future in pending if not future.cancelled()]
        # The garbage collector may close this stream in a thread that the worker may be waiting for. That thread may not wait.
        if may_wait():
            wait(begun)
        for future in begun:
            future.add_done_callback(_discard)  # runs at once if the future is done
        pool.close()
    if failures:
        raise failures.pop()


def _until_failure(frames: Iterator[np.ndarray], failures: list[Exception]) -> Iterator[np.ndarray]:
    """The frames before the first exception, which is appended to `failures`."""
    try:
        for frame in frames:  # noqa: UP028 (`yield from` would close `frames` with this generator)
            yield frame
    except Exception as error:
        failures.append(error)


def _discard(begun: Future[Slot | np.ndarray]) -> None:
    """Free the slot of a frame whose result is no longer wanted."""
    if not begun.exception() and isinstance(slot := begun.result(), Slot):
        slot.close()


def _begin(
    frame: np.ndarray, pool: SlotPool, fill: Fill, alone: Callable[[np.ndarray], np.ndarray]
) -> Slot | np.ndarray:
    """The slot in which the frame is running, or the frame's result if no slot takes it."""
    slot = pool.take(frame)
    if slot is None:
        return alone(frame)
    try:
        fill(slot, frame)
        slot.start()
    except BaseException:
        slot.close()
        raise
    return slot
