"""Frames in flight: while the GPU computes one, the next is padded and copied there and the one before is copied back."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress

import numpy as np

from impasto.locks import may_wait, never_wait
from impasto.runtime.backends.base import Lane
from impasto.runtime.stoppable import GRACE_S, leave_running

Fill = Callable[[Lane, np.ndarray], None]
"""Puts a frame into a lane's `images`."""
Crop = Callable[[Lane, np.ndarray], np.ndarray]
"""Takes a frame's result out of a lane's `result`, into an array of the caller's own."""
Open = Callable[[np.ndarray], "Lane | None"]
"""A new lane for pictures of this frame's size, or None where such a frame does not fit into one."""


class LanePool:
    """Idle lanes. One thread takes them, another may give back, and any may close, also in the midst of the others' steps."""

    def __init__(self, open_lane: Open) -> None:
        self._open_lane = open_lane
        self._idle: deque[tuple[tuple[int, ...], Lane]] = deque()

    def take(self, frame: np.ndarray) -> Lane | None:
        """An idle lane for this frame, or a new one; None where the frame does not fit into one. Those of other sizes are freed."""
        for shape, lane in self._taken():
            if shape == frame.shape:
                return lane
            lane.close()
        return self._open_lane(frame)

    def give_back(self, lane: Lane, frame: np.ndarray) -> None:
        """The lane is idle again; it served this frame."""
        self._idle.append((frame.shape, lane))

    def close(self) -> None:
        """Free the idle lanes."""
        for _, lane in self._taken():
            lane.close()

    def _taken(self) -> Iterator[tuple[tuple[int, ...], Lane]]:
        # No lock, which the garbage collector may find held by its own thread: a deque gives each lane once, whoever asks.
        with suppress(IndexError):
            while True:
                yield self._idle.popleft()


def overlapped(
    frames: Iterator[np.ndarray],
    depth: int,
    pool: LanePool,
    fill: Fill,
    crop: Crop,
    alone: Callable[[np.ndarray], np.ndarray],
) -> Iterator[np.ndarray]:
    """The results in order, with up to `depth` frames in flight. `alone` draws a frame that fits into no lane.

    One thread fills lanes and starts them, the caller's own waits for them and takes the results out. What `frames` raises comes
    after the results of the frames before it.
    """
    pending: deque[tuple[np.ndarray, Future[Lane | np.ndarray]]] = deque()
    worker = ThreadPoolExecutor(1, thread_name_prefix="impasto-stream", initializer=never_wait)
    failures: list[Exception] = []

    def finish() -> np.ndarray:
        frame, begun = pending[0]
        lane = begun.result()
        pending.popleft()  # not before: Ctrl-C while it waits would lose the lane
        if isinstance(lane, np.ndarray):
            return lane
        try:
            lane.wait()
            drawn = crop(lane, frame)
        except BaseException:
            lane.close()
            raise
        pool.give_back(lane, frame)
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
            leave_running()
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


def _discard(begun: Future[Lane | np.ndarray]) -> None:
    """Free the lane of a frame that nobody takes."""
    if not begun.exception() and isinstance(lane := begun.result(), Lane):
        lane.close()


def _begin(
    frame: np.ndarray, pool: LanePool, fill: Fill, alone: Callable[[np.ndarray], np.ndarray]
) -> Lane | np.ndarray:
    lane = pool.take(frame)
    if lane is None:
        return alone(frame)
    try:
        fill(lane, frame)
        lane.start()
    except BaseException:
        lane.close()
        raise
    return lane
