"""Copies whole frames on the host, in several threads.

One thread takes about half a millisecond to copy a frame in and out, which is as long as an engine computes.
"""

from __future__ import annotations

import functools
import itertools
import os
from concurrent.futures import Future, ThreadPoolExecutor, wait

import numpy as np

from impasto.runtime.cpu import usable_cores

LEAST_BYTES = 1 << 20
"""Smaller copies are done in one thread: they are finished before another thread has woken."""
_MOST_THREADS = 4
"""More threads copy no faster: memory is the limit then, and not the CPU."""


def copy_into(target: np.ndarray, source: np.ndarray) -> None:
    """`target[...] = source` for arrays of the same shape and dtype; large arrays are copied in up to four threads.

    It returns when everything is copied, also after Ctrl-C. The caller may free both arrays then.
    """
    threads = _threads()
    if threads < 2 or source.nbytes < LEAST_BYTES or source.shape != target.shape:
        target[...] = source
        return
    axis = max(
        range(source.ndim), key=lambda each: each < 2 and source.shape[each]
    )  # the rows; the first axis may be a batch of one
    places = [source.shape[axis] * part // threads for part in range(threads + 1)]
    parts = [(slice(None),) * axis + (slice(*ends),) for ends in itertools.pairwise(places)]
    _copy_pairs([(target[part], source[part]) for part in parts])


def copied(source: np.ndarray) -> np.ndarray:
    """A C-contiguous copy; a large array is copied in several threads."""
    target = np.empty(source.shape, source.dtype)
    copy_into(target, source)
    return target


def _copy_pairs(parts: list[tuple[np.ndarray, np.ndarray]]) -> None:
    """Copy each (target, source) pair, the first one in this thread."""
    begun: list[Future[None]] = []
    try:
        for target, source in parts[1:]:
            try:
                begun.append(_pool().submit(np.copyto, target, source))
            except RuntimeError:  # Python is shutting down and starts no more threads
                np.copyto(target, source)
        np.copyto(*parts[0])
    finally:
        _wait_for(begun)


def _wait_for(begun: list[Future[None]]) -> None:
    try:
        wait(begun)
    except BaseException:
        wait(
            begun
        )  # a second Ctrl-C: a copy takes less than a millisecond, and its arrays may not be freed before it ends
        raise


def _threads() -> int:
    """Half of the CPU's cores: the others feed the GPU, and hyper-threads add no speed to a copy."""
    return min(_MOST_THREADS, _cores() // 2)


@functools.cache
def _cores() -> int:
    return usable_cores()


@functools.cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(_MOST_THREADS - 1, thread_name_prefix="impasto-copy")


if hasattr(os, "register_at_fork"):  # a forked process has none of its parent's threads
    os.register_at_fork(after_in_child=_pool.cache_clear)
