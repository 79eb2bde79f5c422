"""Frames in flight: while the GPU computes one, the next is padded and copied there and the one before is copied back."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from .backends.base import Lane

Fill = Callable[[Lane, np.ndarray], None]
"""Puts a frame into a lane's `images`."""
Crop = Callable[[Lane, np.ndarray], np.ndarray]
"""Takes a frame's result out of a lane's `result`, into an array of the caller's own."""
Open = Callable[[np.ndarray], "Lane | None"]
"""A new lane for pictures of this frame's size, or None where such a frame does not fit into one."""


class LanePool:
    """Idle lanes for one picture size. Threads may share it."""

    def __init__(self, open_lane: Open) -> None:
        self._open_lane = open_lane
        self._size: tuple[int, ...] = ()
        self._idle: list[Lane] = []
        self._lock = threading.Lock()

    def take(self, frame: np.ndarray) -> Lane | None:
        """An idle lane for this frame, or a new one; None where the frame does not fit into one."""
        with self._lock:
            if frame.shape != self._size:
                self._clear()
                self._size = frame.shape
            if self._idle:
                return self._idle.pop()
        return self._open_lane(frame)

    def give_back(self, lane: Lane, frame: np.ndarray) -> None:
        """The lane is idle again; it served this frame."""
        with self._lock:
            if frame.shape == self._size:
                self._idle.append(lane)
                return
        lane.close()

    def close(self) -> None:
        """Free the idle lanes."""
        with self._lock:
            self._clear()

    def _clear(self) -> None:
        for lane in self._idle:
            lane.close()
        self._idle.clear()


def overlapped(
    frames: Iterator[np.ndarray],
    depth: int,
    pool: LanePool,
    fill: Fill,
    crop: Crop,
    alone: Callable[[np.ndarray], np.ndarray],
) -> Iterator[np.ndarray]:
    """The results in order, with up to `depth` frames in flight. `alone` draws a frame that fits into no lane.

    One thread fills lanes and starts them, the caller's own waits for them and takes the results out.
    """
    pending: deque[tuple[np.ndarray, Future[Lane | np.ndarray]]] = deque()
    worker = ThreadPoolExecutor(1, thread_name_prefix="impasto-stream")

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
        for frame in frames:
            pending.append((frame, worker.submit(_begin, frame, pool, fill, alone)))
            if len(pending) >= depth:
                yield finish()
        while pending:
            yield finish()
    finally:  # also when the caller stops early: nothing may go on behind its back
        worker.shutdown(cancel_futures=True)
        for _, begun in pending:
            if not begun.cancelled() and not begun.exception() and isinstance(lane := begun.result(), Lane):
                lane.close()
        pool.close()


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
