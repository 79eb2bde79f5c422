"""Copies of whole frames on the host, in threads: an engine takes half a millisecond, and so does one thread for a frame in and out."""

from __future__ import annotations

import functools
import itertools
import os
from concurrent.futures import Future, ThreadPoolExecutor, wait

import numpy as np

LEAST_BYTES = 1 << 20
"""Smaller copies are done before a thread has woken."""
_MOST_THREADS = 4
"""Beyond that, memory and not the CPU is what limits a copy."""


def copy_into(target: np.ndarray, source: np.ndarray) -> None:
    """`target[...] = source` for arrays of one shape and type, in up to four threads where they are large.

    Returns when all of it is copied, also where Ctrl-C comes in between: the caller may free either afterwards.
    """
    threads = _threads()
    if threads < 2 or source.nbytes < LEAST_BYTES or source.shape != target.shape:
        target[...] = source
        return
    axis = max(range(source.ndim), key=lambda each: each < 2 and source.shape[each])  # the rows, behind a batch of one
    places = [source.shape[axis] * part // threads for part in range(threads + 1)]
    parts = [(slice(None),) * axis + (slice(*ends),) for ends in itertools.pairwise(places)]
    _together([(target[part], source[part]) for part in parts])


def copied(source: np.ndarray) -> np.ndarray:
    """`source.copy()`, C-contiguous, in threads where it is large."""
    target = np.empty(source.shape, source.dtype)
    copy_into(target, source)
    return target


def _together(parts: list[tuple[np.ndarray, np.ndarray]]) -> None:
    """Copy each part, the first in this thread."""
    begun: list[Future[None]] = []
    try:
        for target, source in parts[1:]:
            try:
                begun.append(_pool().submit(np.copyto, target, source))
            except RuntimeError:  # Python is ending, and begins no work in threads any more
                np.copyto(target, source)
        np.copyto(*parts[0])
    finally:
        _wait_for(begun)


def _wait_for(begun: list[Future[None]]) -> None:
    try:
        wait(begun)
    except BaseException:
        wait(begun)  # Ctrl-C once more: a copy takes less than a millisecond, and nobody may free what it writes
        raise


def _threads() -> int:
    """Half of the CPU's cores: the others feed the GPU, and hyper-threads copy no faster."""
    return min(_MOST_THREADS, _cores() // 2)


@functools.cache
def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@functools.cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(_MOST_THREADS - 1, thread_name_prefix="impasto-copy")


if hasattr(os, "register_at_fork"):  # threads do not come along into a forked process
    os.register_at_fork(after_in_child=_pool.cache_clear)
