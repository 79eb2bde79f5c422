"""Files that appear whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import secrets
import signal
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

from .errors import OutputError

_LONGEST_NAME = 255
"""Bytes of a file's name on Linux's, Apple's and Windows' usual file systems."""


@contextlib.contextmanager
def atomic_path(target: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary path beside `target`, renamed to it when the block ends well and removed when it does not.

    The temporary name ends in the target's own suffix, since writers choose the format by it. A link stays one, and what it
    leads to is replaced, but for its permissions. A device or a pipe is nothing to replace: it is written into itself.
    Raises OutputError where the folder is missing or not writable, or the disk is full.
    """
    target = Path(target)
    if is_special(target):
        try:
            yield target
        except OSError as error:
            raise OutputError(f"cannot write into {target}: {error.strerror or error}") from error
        return
    place = Path(os.path.realpath(target))
    # The name is known before there is a file: Ctrl-C inside `tempfile.mkstemp` would leave one that nobody knows.
    temporary = place.parent / _temporary_name(place.stem, target.suffix)
    try:
        temporary.touch(exist_ok=False)
        with contextlib.suppress(OSError):  # there is none to replace, or the file system knows no permissions
            temporary.chmod(stat.S_IMODE(place.stat().st_mode) | stat.S_IWUSR)
        yield temporary
        # Else a power cut may leave the new name on a file whose content never came to the disk.
        _to_disk(temporary, os.O_WRONLY)
        temporary.replace(place)
        with contextlib.suppress(OSError):  # not every system can for a folder
            _to_disk(place.parent, os.O_RDONLY)
    except OSError as error:
        raise OutputError(f"cannot write {target}: {_reason(error, target)}") from error
    finally:
        with contextlib.suppress(OSError):  # there is none, or no such folder
            temporary.unlink()


def _temporary_name(stem: str, suffix: str) -> str:
    """A hidden name that nobody has, no longer than file systems allow, which count bytes."""
    end = f"-{secrets.token_hex(8)}{suffix}"
    return f".{os.fsencode(stem)[: _LONGEST_NAME - 1 - len(os.fsencode(end))].decode(errors='ignore')}{end}"


def is_special(path: str | os.PathLike[str]) -> bool:
    """Whether there is something that is neither a file nor a folder, such as a device or a pipe; links are followed."""
    try:
        mode = Path(path).stat().st_mode
    except OSError:
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def check_writable(target: str | os.PathLike[str]) -> None:
    """Raises OutputError where a file cannot be written, as far as that is seen beforehand: for the start of long work."""
    target = Path(target)
    if is_special(target):
        return
    place = Path(os.path.realpath(target))
    if not os.access(place.parent, os.W_OK | os.X_OK):
        raise OutputError(f"cannot write {target}: {_reason(PermissionError(), target)}")
    if place.is_dir():
        raise OutputError(f"cannot write {target}: it is a folder; name a file in it")


def write_bytes(target: str | os.PathLike[str], content: bytes) -> None:
    """Write a whole file atomically. Raises OutputError."""
    with atomic_path(target) as temporary:
        temporary.write_bytes(content)


def write_text(target: str | os.PathLike[str], content: str) -> None:
    """Write a whole UTF-8 file atomically. Raises OutputError."""
    write_bytes(target, content.encode())


def make_folder(folder: str | os.PathLike[str]) -> Path:
    """The folder, made with its parents where missing. Raises OutputError."""
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot make the folder {folder}: {_reason(error, folder)}") from error
    return folder


def list_files(
    folder: str | os.PathLike[str], *, recursive: bool = False, leaving_out: str | os.PathLike[str] | None = None
) -> list[Path]:
    """The files in a folder, sorted by path; hidden ones are none.

    recursive: also those in the folders below, hidden ones and links to folders aside. leaving_out: a folder that is not looked into.
    """
    left_out = None if leaving_out is None else Path(os.path.realpath(leaving_out))
    files: list[Path] = []
    for place, below, names in os.walk(folder):
        below[:] = [name for name in below if not name.startswith(".")] if recursive else []
        if place != os.fspath(folder) and Path(os.path.realpath(place)) == left_out:
            below.clear()
            continue
        # macOS puts a ._photo.jpg of its own beside each photo.jpg on a foreign disk.
        files += [Path(place, name) for name in names if not name.startswith(".")]
    return sorted(file for file in files if file.is_file())


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Ctrl-C waits until the block has ended. Other threads never get one."""
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGINT) is None:
        yield
        return
    came = []
    before = signal.signal(signal.SIGINT, lambda *_: came.append(True))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if came:
        signal.raise_signal(signal.SIGINT)


def sha256(path: str | os.PathLike[str]) -> str:
    """The file's SHA-256 as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _to_disk(path: Path, access: int) -> None:
    """Wait until what was written to a file or folder is on the disk. access: for `os.open`."""
    descriptor = os.open(path, access)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _reason(error: OSError, target: Path) -> str:
    if not target.parent.is_dir():
        return f"the folder {target.parent} does not exist; make it first, or choose another place"
    if isinstance(error, PermissionError):
        return "no permission; choose another place, or change the folder's permissions"
    if error.errno == errno.ENOSPC:
        return "no space left on the disk; free some, or choose another place"
    return f"{error.strerror or error}; choose another place"
