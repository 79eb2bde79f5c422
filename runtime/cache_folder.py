"""The folder of the user's engines and compiled kernels."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from impasto.errors import OptionError, OutputError

CACHE_VARIABLE = "IMPASTO_CACHE"
"""Environment variable that names the folder."""


def cache_folder() -> Path:
    """$IMPASTO_CACHE if it is set, otherwise `impasto/engines` in the user's cache folder. The folder may not exist yet.

    Raises OutputError if the user has no home folder, and OptionError if the variable names something other than a folder.
    """
    given = os.environ.get(CACHE_VARIABLE)
    if given:
        return _usable(Path(given))
    folder = os.environ.get("LOCALAPPDATA" if sys.platform == "win32" else "XDG_CACHE_HOME")
    try:
        parent = Path(folder) if folder else Path.home() / ("" if sys.platform == "win32" else ".cache")
    except RuntimeError:  # neither $HOME nor an entry in passwd, as in containers that run as an arbitrary user
        raise OutputError(
            f"this user has no home folder to keep engines in; set ${CACHE_VARIABLE} to a folder"
        ) from None
    return parent / "impasto" / "engines"


def _usable(folder: Path) -> Path:
    try:
        why = "is a file" if folder.is_file() else None
    except OSError as error:
        why = f"cannot be read ({error.strerror})"
    if why:
        raise OptionError(
            f"${CACHE_VARIABLE} is {str(folder)!r:.200}, which {why}; set it to a folder to keep engines in"
        )
    return folder
