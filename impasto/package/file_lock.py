"""Locks that processes hold on a file: of a package that is being changed, or an engine that is being built."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from impasto.errors import OutputError


@contextlib.contextmanager
def locked(
    path: Path,
    waiting: Callable[[], None] | None = None,
    advice: str = "choose another folder, or change its permissions",
) -> Iterator[None]:
    """Hold an exclusive lock on a file, which the system drops when the process ends, however it ends.

    waiting: called once where another process holds it. advice: what the error says to do. The file stays: removing it would let
    two processes in. Raises OutputError where the file cannot be opened.
    """
    with _opened(path, advice) as file:
        if not _try_lock(file.fileno(), block=False):
            if waiting:
                waiting()
            _try_lock(file.fileno(), block=True)
        yield


@contextlib.contextmanager
def locked_if_free(path: Path) -> Iterator[bool]:
    """Whether nobody holds this lock; if so, it is held in the block. Raises OutputError."""
    if not path.is_file():
        yield True
        return
    with _opened(path, "change its permissions") as file:
        yield _try_lock(file.fileno(), block=False)


def _opened(path: Path, advice: str) -> BinaryIO:
    try:
        return path.open("a+b")
    except OSError as error:
        raise OutputError(f"cannot lock {path}: {error.strerror}; {advice}") from None


if sys.platform == "win32":
    import msvcrt

    def _try_lock(handle: int, *, block: bool) -> bool:
        while True:
            try:
                msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
            except OSError:
                if not block:
                    return False
                time.sleep(0.2)
            else:
                return True

else:
    import fcntl

    def _try_lock(handle: int, *, block: bool) -> bool:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if block else fcntl.LOCK_NB))
        except BlockingIOError:
            return False
        return True
