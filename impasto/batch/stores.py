"""Folders, and object stores through pyarrow's file systems."""

from __future__ import annotations

import contextlib
import os
import re
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any

from impasto import images
from impasto.errors import ImpastoError, MissingDependency, OptionError, OutputError, PictureError, first_line, install
from impasto.files import check_writable, list_files, location, make_folder

from .jobs import pictures_in
from .pictures import Files

_WHOLE_AT_ONCE = ("s3", "gcs", "abfs")
"""File systems, by pyarrow's names, in which a file appears when its writing ends, and not at all when that is cut off."""


def arrow_files() -> Any:
    """pyarrow's module of file systems. Raises MissingDependency with the command that installs it."""
    try:
        from pyarrow import fs
    except ImportError as error:
        raise MissingDependency(f"pyarrow does not load ({first_line(error)}): {install('ray')}") from None
    return fs


@dataclass(frozen=True)
class Place:
    """A folder of this machine or of a shared disk, or a prefix in an object store."""

    path: str
    """Absolute, or as the file system writes it, such as bucket/prefix; without a slash at its end."""
    system: Any = None
    """A `pyarrow.fs.FileSystem`; None: the machine's own files."""

    @classmethod
    def of(cls, text: str | os.PathLike[str] | Place) -> Place:
        """What a path or a URI such as s3://bucket/prefix names. Raises OptionError for a URI that pyarrow does not read."""
        if isinstance(text, Place):
            return text
        written = os.fspath(text)
        if "://" not in written:
            return cls(location(written))
        fs = arrow_files()
        try:
            system, path = fs.FileSystem.from_uri(written)
        except (ValueError, OSError) as error:  # pyarrow's own errors are one of both
            raise OptionError(
                f"cannot open {without_secret(written)}: {first_line(error).replace(written, without_secret(written))}; give a folder, "
                "or a URI such as s3://bucket/prefix; a store that is not Amazon's wants $AWS_ENDPOINT_URL"
            ) from None
        if isinstance(system, fs.LocalFileSystem):
            return cls(path.rstrip("/"))
        return cls(path.rstrip("/"), _for_pictures(system) if system.type_name == "s3" else system)

    def __str__(self) -> str:
        return self.path if self.system is None else f"{self.system.type_name}://{self.path}"

    def pictures(self, *, recursive: bool, leaving_out: Place) -> list[Path]:
        """Names of the picture files in it, relative to it, sorted; hidden ones are none.

        recursive: those below, too. leaving_out: a place below it that is not looked into. Raises PictureError without any.
        """
        if self.system is None:
            found = pictures_in(
                Path(self.path),
                recursive=recursive,
                leaving_out=Path(leaving_out.path) if leaving_out.system is None else None,
            )
            return [file.relative_to(self.path) for file in found]
        inside = leaving_out.path + "/" if self.holds(leaving_out) else None
        names = [
            name
            for name in self._names(recursive)
            if name.suffix.lower() in images.SUFFIXES
            and not any(part.startswith(".") for part in name.parts)
            and not (inside and f"{self.path}/{name}".startswith(inside))
        ]
        if not names:
            self._require_bucket(PictureError)
            raise PictureError(f"no picture files in {self}; looked for {', '.join(images.SUFFIXES)}")
        return sorted(names)

    def check_writable(self, names: Iterable[Path]) -> None:
        """Make the folders for files of these names, and raise OutputError where they cannot be written, as far as that is seen
        beforehand."""
        if self.system is not None:
            self._require_bucket(OutputError)
            return
        files = [Path(self.path, name) for name in names]
        for folder in {Path(self.path), *(file.parent for file in files)}:
            make_folder(folder)
        for file in files:
            check_writable(file)

    def _require_bucket(self, error: type[ImpastoError]) -> None:
        """Raises the error where the place lies in an object store's bucket that is not there, so far as the store tells."""
        bucket = self.path.partition("/")[0]
        if self.system.type_name not in _WHOLE_AT_ONCE:
            return
        with contextlib.suppress(OSError):  # of stores that tell nothing of buckets, or not to everyone
            if self.system.get_file_info(bucket).type == arrow_files().FileType.NotFound:
                raise error(f"there is no bucket {bucket} in the store of {self}; make it first, or check the name")

    def holds(self, other: Place) -> bool:
        """Whether another place lies below this one."""
        same = (self.system is None) == (other.system is None) and (
            self.system is None or self.system.equals(other.system)
        )
        return same and other.path.startswith(self.path + "/")

    def files(self) -> set[Path]:
        """Names of all files in it and below, relative to it; none where there is no such place."""
        if self.system is None:
            found = list_files(self.path, recursive=True) if Path(self.path).is_dir() else []
            return {file.relative_to(self.path) for file in found}
        return set(self._names(recursive=True))

    def _names(self, recursive: bool) -> Iterator[Path]:
        fs = arrow_files()
        try:
            found = self.system.get_file_info(fs.FileSelector(self.path, recursive=recursive, allow_not_found=True))
        except OSError as error:
            raise PictureError(f"cannot list {self}: {first_line(error)}; check its name and your rights") from None
        for entry in found:
            if entry.type == fs.FileType.File:
                yield Path(PurePosixPath(entry.path).relative_to(self.path))


def without_secret(uri: str) -> str:
    """A URI as it may be shown: without the key and the secret that s3://KEY:SECRET@bucket/prefix holds."""
    return re.sub(r"(?<=://)[^/?#]*@", "", uri)


def _for_pictures(system: Any) -> Any:
    """An S3 file system that writes a small file by one request in place of three, and waits longer than pyarrow's 3 seconds.

    pyarrow keeps such settings out of URIs; what pickle reads of a file system has them.
    """
    make, (settings,) = system.__reduce__()
    wanted = {"allow_delayed_open": True, "connect_timeout": 10.0, "request_timeout": 60.0}
    return make({**settings, **{name: value for name, value in wanted.items() if name in settings}})


@dataclass(frozen=True)
class StoredFiles(Files):
    """Pictures from one place and to another."""

    source: Place
    target: Place

    def read(self, source: Path) -> images.Picture:
        """Raises PictureError."""
        if self.source.system is None:
            return super().read(source)
        try:
            with self.source.system.open_input_stream(source.as_posix()) as stream:
                content = stream.read(images.MAX_BYTES + 1)
        except OSError as error:
            raise PictureError(f"cannot read {source}: {first_line(error)}") from None
        if len(content) > images.MAX_BYTES:
            raise PictureError(f"{source} has more than {images.MAX_BYTES:,} bytes; scale or crop the picture first")
        return images.decode_at_own_depth(content, str(source))

    def write(self, target: Path, picture: images.Picture, quality: int) -> str | None:
        """Raises OutputError, and OptionError where the format cannot hold the picture."""
        if self.target.system is None:
            return super().write(target, picture, quality)
        content, note = encoded(target.name, picture, quality)
        try:
            _put(self.target.system, target.as_posix(), content)
        except OSError as error:
            raise OutputError(f"cannot write {target}: {first_line(error)}") from None
        return note


def encoded(name: str, picture: images.Picture, quality: int) -> tuple[bytes, str | None]:
    """The bytes that `images.write_telling` gives a file of this name, and what it returns."""
    with TemporaryDirectory(prefix="impasto-") as folder:
        file = Path(folder, name)
        note = images.write_telling(file, picture, quality=quality)
        return file.read_bytes(), note


def _put(system: Any, path: str, content: bytes) -> None:
    """Write a whole file or nothing. Raises OSError."""
    if system.type_name in _WHOLE_AT_ONCE:
        _pour(system, path, content)
        return
    folder, _, name = path.rpartition("/")
    system.create_dir(folder)
    temporary = f"{folder}/.{name}-{uuid.uuid4().hex}"
    try:
        _pour(system, temporary, content)
        system.move(temporary, path)
    except BaseException:
        if system.get_file_info(temporary).is_file:
            system.delete_file(temporary)
        raise


def _pour(system: Any, path: str, content: bytes) -> None:
    with system.open_output_stream(path) as stream:
        stream.write(content)
