"""What files may say of models: one reader of JSON, and one check for each kind of value.

Manifests, sidecars, metadata, records and checkpoints come from anywhere. What they say reaches paths, terminals and allocations, so
each value has a type, a length or range, and characters that it may hold.
"""

from __future__ import annotations

import json
import os
import re
import reprlib
from collections.abc import Collection
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, NoReturn

MAX_BYTES = 1 << 26
"""Most bytes of a JSON file. The records of large engines have some megabytes."""
MAX_DEPTH = 32
"""Lists and objects in each other."""
MAX_NUMBER = 10**18
"""Whole numbers are below it, so that no arithmetic on them takes long."""

NAME_LENGTH = 200
"""Characters of a name: it becomes a part of files' names, of which file systems take 255 bytes."""
_PATH_LENGTH = 1024


class Malformed(ValueError):
    """A value is not what it has to be; the message is half a sentence that names it."""


def parse_json(text: str | bytes) -> Any:
    """JSON of bounded depth with bounded numbers. Raises Malformed."""
    if len(text) > MAX_BYTES:
        raise Malformed(f"it has {len(text):,} characters; expected at most {MAX_BYTES:,}")
    try:
        value = json.loads(text, parse_int=_parse_whole)
    except Malformed:
        raise
    except RecursionError:
        raise Malformed(_TOO_DEEP) from None
    except ValueError as error:  # no JSON, or no UTF-8
        raise Malformed(f"it is no JSON: {error}") from None
    _check_depth(value)
    return value


def read_json(path: str | os.PathLike[str]) -> Any:
    """The value that a JSON file in UTF-8 holds, checked like `parse_json`'s. Raises Malformed and OSError."""
    with Path(path).open("rb") as file:
        content = file.read(MAX_BYTES + 1)
    try:
        return parse_json(content.decode())
    except UnicodeDecodeError as error:
        raise Malformed(f"it is no text in UTF-8: {error}") from None


def text(value: Any, key: str, longest: int = NAME_LENGTH) -> str:
    """Some text of one line that a terminal shows as it is. Raises Malformed."""
    if not isinstance(value, str) or not value:
        _refuse(value, key, "some text")
    if len(value) > longest:
        _refuse(value, key, f"at most {longest} characters, not {len(value):,}")
    if not value.isprintable():
        _refuse(value, key, "text without control characters")
    return value


def name(value: Any, key: str) -> str:
    """Text that can be a part of a file's name and leads to no folder. Raises Malformed."""
    given = text(value, key)
    if "/" in given or "\\" in given or given in (".", ".."):
        _refuse(value, key, "a name without / and \\, since results are named after it")
    return given


def names(value: Any, key: str, most: int = 1000) -> tuple[str, ...]:
    """A list of different names; null is an empty one. Raises Malformed."""
    if value is None:
        return ()
    if not isinstance(value, list) or len(value) > most:
        _refuse(value, key, f"a list of at most {most} names")
    found = tuple(text(entry, key) for entry in value)
    if len(set(found)) < len(found):
        raise Malformed(f"{key!r} names one twice: {reprlib.repr(value)}")
    return found


def whole(value: Any, key: str, least: int, most: int) -> int:
    """A whole number within bounds, both allowed. Raises Malformed."""
    if type(value) is not int or value < least:
        _refuse(value, key, f"a whole number of at least {least}")
    if value > most:
        _refuse(value, key, f"at most {most}")
    return value


def one_of(value: Any, key: str, known: Collection[str]) -> str:
    """One of some words. Raises Malformed."""
    if not isinstance(value, str) or value not in known:
        _refuse(value, key, f"one of {', '.join(known)}")
    return value


def mapping(value: Any, key: str) -> dict[str, Any]:
    """An object; null is an empty one. Raises Malformed."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        _refuse(value, key, "an object")
    return value


def digest(value: Any, key: str) -> str:
    """A SHA-256 in hexadecimal digits. Raises Malformed."""
    if not isinstance(value, str) or not re.fullmatch("[0-9a-f]{64}", value):
        raise Malformed(f"{key} has no SHA-256 (got {reprlib.repr(value)})")
    return value


def inner_path(value: str) -> str:
    """A path inside of a folder, with forward slashes, that never leaves it on any system. Raises Malformed."""
    path, windows = PurePosixPath(value), PureWindowsPath(value)
    if path.is_absolute() or windows.anchor or ".." in path.parts or "\\" in value:
        raise Malformed(f"it names the file {reprlib.repr(value)}, which is outside of the package")
    if not value.isprintable() or not path.parts or len(value) > _PATH_LENGTH or max(map(len, path.parts)) > 200:
        raise Malformed(f"it names the file {reprlib.repr(value)}; expected printable names of at most 200 characters")
    return value


_TOO_DEEP = f"its lists and objects lie in each other more than {MAX_DEPTH} deep"


def _refuse(value: Any, key: str, wanted: str) -> NoReturn:
    raise Malformed(f"{key!r} is {reprlib.repr(value)}; expected {wanted}")


def _parse_whole(digits: str) -> int:
    if len(digits) > len(str(MAX_NUMBER)):  # before it is converted: Python refuses 4,300 digits, with words of its own
        raise Malformed(f"it holds a number of {len(digits):,} digits; expected less than {MAX_NUMBER:.0e}")
    return int(digits)


def _check_depth(value: Any) -> None:
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        level = [
            inner
            for outer in level
            if isinstance(outer, dict | list)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
        if not level:
            return
    raise Malformed(_TOO_DEEP)
