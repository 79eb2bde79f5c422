"""Files that appear whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import os
import platform
import re
import secrets
import signal
import stat
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path

from impasto.errors import ImpastoWarning, OptionError, OutputError, PackageError

_LONGEST_NAME = 255
"""Bytes of a file's name on Linux's, Apple's and Windows' usual file systems."""
_LONGEST_SUFFIX = 16
_TEMPORARY = re.compile(
    r"\..*-(?P<place>[0-9a-f]{8})-(?P<process>\d+)-(?P<start>\d+)-[0-9a-f]{16}(?:\.[^.]*)?", re.DOTALL
)
"""What `_temporary_name` gives."""
STOPPING = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
"""The signals by which a user or a system asks a program to end. Not every system has all."""


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
    place = _followed(target)
    _sweep_once(place.parent)
    # The name is known before there is a file: Ctrl-C inside `tempfile.mkstemp` would leave one that nobody knows.
    temporary = place.parent / _temporary_name(place.stem, target.suffix, longest_name(place.parent))
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


def _temporary_name(stem: str, suffix: str, longest: int) -> str:
    """A hidden name that nobody has, no longer than the file system allows, which counts bytes. It says whose it is."""
    suffix = suffix if len(os.fsencode(suffix)) <= _LONGEST_SUFFIX else ""
    end = f"-{_this_place()}-{os.getpid()}-{_started(os.getpid()) or 0}-{secrets.token_hex(8)}{suffix}"
    return f".{os.fsdecode(os.fsencode(stem)[: max(0, longest - 1 - len(os.fsencode(end)))])}{end}"


@functools.cache
def _this_place() -> str:
    """8 hexadecimal digits of this machine since it was started, and of the space in which its process numbers count."""
    parts = [platform.node()]
    for told in ("/proc/sys/kernel/random/boot_id", "/proc/self/ns/pid"):
        with contextlib.suppress(OSError):
            parts.append(str(Path(told).readlink()) if told.endswith("pid") else Path(told).read_text())
    return hashlib.sha256(" ".join(parts).encode(errors="replace")).hexdigest()[:8]


def _started(process: int) -> int | None:
    """When a process was started, in ticks since the machine was; None where there is none, or no system that tells."""
    try:
        status = Path(f"/proc/{process}/stat").read_bytes()
        return int(status.rpartition(b")")[2].split()[19])  # the program's name before may hold anything
    except (OSError, ValueError, IndexError):
        return None


_swept: set[str] = set()


def _sweep_once(folder: Path) -> None:
    """Remove temporary files in a folder whose processes are gone, which were killed. Once for each folder: others' may be large."""
    key = location(folder)
    if key in _swept or _started(os.getpid()) is None:
        return
    _swept.add(key)
    with contextlib.suppress(OSError):  # what cannot be read or removed stays, and does no harm
        for entry in os.scandir(folder):
            match = _TEMPORARY.fullmatch(entry.name) if entry.name.startswith(".") else None
            ours = (
                match
                and match["place"] == _this_place()
                and int(match["start"])
                and entry.is_file(follow_symlinks=False)
            )
            if match and ours and _started(int(match["process"])) != int(match["start"]):
                with contextlib.suppress(OSError):
                    Path(entry.path).unlink()


def longest_name(folder: str | os.PathLike[str]) -> int:
    """The bytes that a file's name may have in a folder."""
    try:
        return os.pathconf(folder, "PC_NAME_MAX")
    except (OSError, ValueError, AttributeError):  # there is no such folder, or no such question on this system
        return _LONGEST_NAME


def check_name(target: str | os.PathLike[str]) -> None:
    """Raises OptionError where a file's name is longer than its folder allows."""
    target = Path(target)
    length, longest = len(os.fsencode(target.name)), longest_name(target.parent)
    if length > longest:
        raise OptionError(
            f"the name of {target} has {length} bytes, and file names there have at most {longest}; name the result with -o"
        )


def location(path: str | os.PathLike[str]) -> str:
    """One text for a file, however its path is written: absolute and without links where that can be found out."""
    try:
        return os.path.realpath(path)
    except OSError:  # the working folder is gone
        return os.path.normpath(path)


def why_unreadable(path: str | os.PathLike[str]) -> str:
    """Half a sentence about a file that could not be read."""
    try:
        Path(path).stat()
    except FileNotFoundError:
        return "does not exist; check the path"
    except PermissionError:
        return "may not be looked at; change the permissions of its folder"
    except (OSError, ValueError) as error:
        return f"cannot be found: {getattr(error, 'strerror', None) or error}"
    return "is a folder" if is_folder(path) else "is not a file that can be read"


# Those of Path raise where nobody may look, and for names that are none, before Python 3.12.


def exists(path: str | os.PathLike[str]) -> bool:
    """Whether there is something at the path, as far as that can be seen; links are followed."""
    return os.path.exists(path)  # noqa: PTH110


def is_folder(path: str | os.PathLike[str]) -> bool:
    """Whether it is a folder, likewise."""
    return os.path.isdir(path)  # noqa: PTH112


def is_file(path: str | os.PathLike[str]) -> bool:
    """Whether it is a file, likewise."""
    return os.path.isfile(path)  # noqa: PTH113


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
    place = _followed(target)
    try:
        place.parent.stat()
    except OSError as error:
        raise OutputError(f"cannot write {target}: {_reason(error, target)}") from None
    if not os.access(place.parent, os.W_OK | os.X_OK):
        raise OutputError(f"cannot write {target}: {_reason(PermissionError(), target)}")
    if is_folder(place):
        raise OutputError(f"cannot write {target}: it is a folder; name a file in it")


def write_bytes(target: str | os.PathLike[str], content: bytes) -> None:
    """Write a whole file atomically. Raises OutputError."""
    with atomic_path(target) as temporary:
        temporary.write_bytes(content)


def write_text(target: str | os.PathLike[str], content: str) -> None:
    """Write a whole UTF-8 file atomically. Raises OutputError."""
    write_bytes(target, content.encode())


def _followed(path: Path) -> Path:
    """What a link leads to; another path as it is, since the whole path of a working folder may be longer than systems take."""
    return Path(os.path.realpath(path)) if os.path.islink(path) else path  # noqa: PTH114 (which raises as `exists` does)


def working_folder_is_gone() -> bool:
    """Whether relative paths lead nowhere, since somebody has deleted the folder that they begin in."""
    try:
        return not Path.cwd().stat().st_nlink
    except FileNotFoundError:
        return True
    except OSError:  # its path is longer than what the system takes
        return False


def make_folder(folder: str | os.PathLike[str]) -> Path:
    """The folder, made with its parents where missing. Raises OutputError."""
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot make the folder {folder}: {_reason(error, folder)}") from error
    return folder


def list_files(
    folder: str | os.PathLike[str],
    *,
    recursive: bool = False,
    leaving_out: str | os.PathLike[str] | None = None,
    everything: bool = False,
) -> list[Path]:
    """The files in a folder, sorted by path; hidden ones are none.

    recursive: also those in the folders below, hidden ones and links to folders aside; one that may not be read is told in a warning.
    leaving_out: a folder that is not looked into. everything: also links that lead nowhere and, unless recursive, folders.
    """
    left_out = None if leaving_out is None else location(leaving_out)
    files: list[Path] = []
    for place, below, names in os.walk(folder, onerror=_tell_unread):
        if everything and not recursive:
            names += below
        below[:] = [name for name in below if not name.startswith(".")] if recursive else []
        if place != os.fspath(folder) and location(place) == left_out:
            below.clear()
            continue
        # macOS puts a ._photo.jpg of its own beside each photo.jpg on a foreign disk.
        files += [Path(place, name) for name in names if not name.startswith(".")]
    return sorted(file for file in files if (not is_special(file) if everything else is_file(file)))


def _tell_unread(error: OSError) -> None:
    why = "no permission to read it" if isinstance(error, PermissionError) else error.strerror
    warnings.warn(f"the folder {error.filename} was passed over: {why}", ImpastoWarning, stacklevel=4)


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Ctrl-C, and what ends like it, waits until the block has ended. Other threads never get one."""
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGINT) is None:
        yield
        return
    came: list[int] = []
    before = {
        number: signal.signal(number, lambda number, _: came.append(number))
        for number in STOPPING
        if number == signal.SIGINT or callable(signal.getsignal(number))
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if came:
        signal.raise_signal(came[0])


def sha256(path: str | os.PathLike[str]) -> str:
    """The SHA-256 of a model's file as 64 hexadecimal digits. Raises PackageError where the file cannot be read."""
    digest = hashlib.sha256()
    try:
        with Path(path).open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    except OSError as error:
        raise PackageError(f"cannot read {path}: {error.strerror or error}; check the file and its folder") from None
    return digest.hexdigest()


def _to_disk(path: Path, access: int) -> None:
    """Wait until what was written to a file or folder is on the disk. access: for `os.open`."""
    descriptor = os.open(path, access)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _reason(error: OSError, target: Path) -> str:
    if working_folder_is_gone():
        return "the folder in which this runs has been deleted; go to another one"
    if error.errno == errno.ENAMETOOLONG:
        return "its name or path is too long for this system; choose another"
    if isinstance(error, PermissionError):
        return "no permission; choose another place, or change the folder's permissions"
    if not is_folder(target.parent):
        return f"the folder {target.parent} does not exist; make it first, or choose another place"
    if error.errno == errno.ENOSPC:
        return "no space left on the disk; free some, or choose another place"
    return f"{error.strerror or error}; choose another place"
