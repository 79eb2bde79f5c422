"""Frames in flight: while the GPU computes one, the next is padded and copied there and the one before is copied back."""

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
"""Puts a frame into a slot's `images`."""
Crop = Callable[[Slot, np.ndarray], np.ndarray]
"""Takes a frame's result out of a slot's `result`, into an array of the caller's own."""
Open = Callable[[np.ndarray], "Slot | None"]
"""A new slot for pictures of this frame's size, or None where such a frame does not fit into one."""


class SlotPool:
    """Idle slots. One thread takes them, another may give back, and any may close, also in the midst of the others' steps."""

    def __init__(self, open_slot: Open) -> None:
        self._open_slot = open_slot
        self._idle: deque[tuple[tuple[int, ...], Slot]] = deque()

    def take(self, frame: np.ndarray) -> Slot | None:
        """An idle slot for this frame, or a new one; None where the frame does not fit into one. Those of other sizes are freed."""
        for shape, slot in self._taken():
            if shape == frame.shape:
                return slot
            slot.close()
        return self._open_slot(frame)

    def give_back(self, slot: Slot, frame: np.ndarray) -> None:
        """The slot is idle again; it served this frame."""
        self._idle.append((frame.shape, slot))

    def close(self) -> None:
        """Free the idle slots."""
        for _, slot in self._taken():
            slot.close()

    def _taken(self) -> Iterator[tuple[tuple[int, ...], Slot]]:
        # No lock, which the garbage collector may find held by its own thread: a deque gives each slot once, whoever asks.
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
    """The results in order, with up to `depth` frames in flight. `alone` draws a frame that fits into no slot.

    One thread fills slots and starts them, the caller's own waits for them and takes the results out. What `frames` raises comes
    after the results of the frames before it.
    """
    pending: deque[tuple[np.ndarray, Future[Slot | np.ndarray]]] = deque()
    worker = ThreadPoolExecutor(1, thread_name_prefix="impasto-stream", initializer=never_wait)
    failures: list[Exception] = []

    def finish() -> np.ndarray:
        frame, begun = pending[0]
        slot = begun.result()
        pending.popleft()  # not before: Ctrl-C while it waits would lose the slot
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
        if wait([future for _, future in pending], GRACE_S).not_done:  # a graph may never end
            abandon_runs()
        raise
    finally:  # also when the caller stops early: nothing may go on behind its back
        worker.shutdown(wait=False, cancel_futures=True)
        begun = [future for _, future in pending if not future.cancelled()]
        if may_wait():  # else the garbage collector found this stream in a thread that the worker may be waiting for
            wait(begun)
        for future in begun:
            future.add_done_callback(_discard)  # called at once where it is done
        pool.close()
    if failures:
        raise failures.pop()


def _until_failure(frames: Iterator[np.ndarray], failures: list[Exception]) -> Iterator[np.ndarray]:
    """The frames before the first failure, which is put into the list."""
    try:
        for frame in frames:  # noqa: UP028 (`yield from` would also close them with this)
            yield frame
    except Exception as error:
        failures.append(error)


def _discard(begun: Future[Slot | np.ndarray]) -> None:
    """Free the slot of a frame that nobody takes."""
    if not begun.exception() and isinstance(slot := begun.result(), Slot):
        slot.close()


def _begin(
    frame: np.ndarray, pool: SlotPool, fill: Fill, alone: Callable[[np.ndarray], np.ndarray]
) -> Slot | np.ndarray:
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
