"""The one writer of model packages: a change is made as a whole, or not at all.

Whoever changes a package holds its lock. All temporary files are complete before the first one is renamed, and the manifest is
renamed last: a failure leaves the old package, and a crash between two renames leaves one whose hashes say so.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from impasto.errors import OptionError, OutputError, PackageError
from impasto.files import atomic_path, exists, make_folder, sha256, uninterrupted

from .file_lock import locked
from .manifest import CHECKPOINT, CONTEXT, FLOAT, LOCK, MANIFEST, MODEL, Manifest, PackageFile, read_manifest


@dataclass(frozen=True)
class NewFile:
    """A file to put into a package."""

    name: str
    """Path inside the package, with forward slashes."""
    role: str
    """One of the roles of `PackageFile`."""
    content: bytes | Path
    """What it holds, or the file to copy."""
    precision: str = "fp32"
    target_backend: str | None = None


@dataclass
class PackageChange:
    """A change of a package that is under way; see `change_package`."""

    folder: Path
    renames: ExitStack
    manifest: Manifest | None = None
    """What the package is to say afterwards. Must be set before the block ends."""
    removed: list[str] = field(default_factory=list)
    """Names of files to remove once the new manifest is in place."""

    def add(self, file: NewFile) -> PackageFile:
        """Write a file under a temporary name. Returns its entry for the manifest. Raises OutputError."""
        target = self.folder / file.name
        if isinstance(file.content, Path) and same_file(file.content, target):
            return PackageFile(file.name, file.role, sha256(target), file.precision, file.target_backend)
        if target.parent != self.folder:
            make_folder(target.parent)
        path = self.renames.enter_context(atomic_path(target))
        if isinstance(file.content, Path):
            shutil.copyfile(file.content, path)
        else:
            path.write_bytes(file.content)
        return PackageFile(file.name, file.role, sha256(path), file.precision, file.target_backend)


@contextmanager
def change_package(folder: Path) -> Iterator[PackageChange]:
    """Hold a package and change it when the block ends well: its files first, then the manifest, then what is removed.

    folder: made where it is missing. Raises OutputError, and ValueError for a number in the manifest that JSON has not, such as NaN.
    """
    with (
        _made(folder),
        locked(folder / LOCK),
        ExitStack() as renames,
    ):  # unwinds in reverse: what enters first is renamed last
        manifest_path = renames.enter_context(atomic_path(folder / MANIFEST))
        change = PackageChange(folder, renames)
        yield change
        if change.manifest is None:
            raise ValueError("the block ended without saying what the package holds now")
        text = json.dumps(change.manifest.to_json(), indent=1, allow_nan=False)
        manifest_path.write_text(text + "\n", encoding="utf-8")
        with uninterrupted():
            renames.close()
        for name in change.removed:
            (folder / name).unlink(missing_ok=True)


@contextmanager
def _made(folder: Path) -> Iterator[None]:
    """The folder for the block. One that was missing is removed where the block fails, unless others have written into it."""
    is_new = not exists(folder)
    make_folder(folder)
    try:
        yield
    except BaseException:
        with suppress(OSError):
            if is_new and [path.name for path in folder.iterdir()] == [LOCK]:
                (folder / LOCK).unlink()
                folder.rmdir()
        raise


def write_package(folder: Path, manifest: Manifest, files: Sequence[NewFile]) -> Path:
    """Write a package of these files, in place of whatever package lies in the folder. Returns the folder.

    manifest: all but the list of files. Graphs of an older model, of other precisions or its context, are removed.
    Raises OutputError.
    """
    with change_package(folder) as change:
        change.removed = _stale(folder, {file.name for file in files})
        change.manifest = replace(manifest, files=tuple(change.add(file) for file in files))
    return folder


def check_target(folder: Path, name: str | None, sources: Collection[Path] = ()) -> None:
    """Look, before any work is done, whether a package may be written into `folder`.

    name: the model's; None where whatever package lies there may be replaced. sources: the files that it is made of.
    Raises OptionError where it would take the place of a source or of another model's package, OutputError where the folder cannot
    be made or written.
    """
    check_folder(folder)
    there = _present(folder)
    listed = {file.name for file in there.files} if there else set()
    for file in sorted({MANIFEST, MODEL, CONTEXT, CHECKPOINT} | listed):
        if any(same_file(source, folder / file) for source in sources):
            raise OptionError(
                f"the package would replace {folder / file}, which it is to be made of; choose another folder with -o"
            )
    if there and name not in (None, there.spec.name):
        raise OptionError(
            f"{folder} holds the package {there.spec.name}, and this one is called {name}; choose another folder with -o, or replace "
            f"it: --name {there.spec.name}"
        )


def check_folder(folder: Path) -> None:
    """Raises OutputError where a folder can neither be written nor made, as far as that is seen beforehand."""
    place = folder
    while not place.exists() and place != place.parent:
        place = place.parent
    if not place.is_dir():
        raise OutputError(f"cannot make the folder {folder}: {place} is a file; choose another place")
    if not os.access(place, os.W_OK | os.X_OK):
        raise OutputError(f"{place} cannot be written to; choose another folder with -o, or change its permissions")


def check_name(name: str) -> str:
    """The name, if it can be a folder's everywhere. Raises OptionError."""
    if not re.fullmatch(r"[a-z0-9][a-z0-9._-]{0,63}", name):
        raise OptionError(
            f"{name!r} cannot be a model's name; use up to 64 lower-case letters, digits, '.', '_' and '-', "
            "beginning with a letter or digit"
        )
    return name


def _present(folder: Path) -> Manifest | None:
    """The manifest of the package that lies in `folder` already; None where none can be read."""
    try:
        return read_manifest(folder)
    except PackageError:
        return None


def _stale(folder: Path, names: Collection[str]) -> list[str]:
    """The graphs of the package that lies in `folder` already, but for those that are replaced."""
    there = _present(folder)
    if there is None:
        return []
    return [file.name for file in there.files if file.role in ("model", "context", FLOAT) and file.name not in names]


def same_file(one: Path, other: Path) -> bool:
    """Whether both paths lead to one file, or one folder, that exists."""
    return one.exists() and other.exists() and one.samefile(other)
