"""Where engines and compiled kernels of this user are kept."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from impasto.errors import OptionError, OutputError

CACHE_VARIABLE = "IMPASTO_CACHE"


def cache_folder() -> Path:
    """$IMPASTO_CACHE, or `impasto/engines` in the user's cache folder. It may not exist yet.

    Raises OutputError if the user has no home folder, and OptionError if the variable names something that is not a folder.
    """
    given = os.environ.get(CACHE_VARIABLE)
    if given:
        return _usable(Path(given))
    folder = os.environ.get("LOCALAPPDATA" if sys.platform == "win32" else "XDG_CACHE_HOME")
    try:
        parent = Path(folder) if folder else Path.home() / ("" if sys.platform == "win32" else ".cache")
    except RuntimeError:  # neither $HOME nor an entry in passwd: containers that run as any user
        raise OutputError(
            f"this user has no home folder to keep engines in; name a folder with ${CACHE_VARIABLE}"
        ) from None
    return parent / "impasto" / "engines"


def _usable(folder: Path) -> Path:
    try:
        why = "is a file" if folder.is_file() else None
    except OSError as error:
        why = f"cannot be looked into ({error.strerror})"
    if why:
        raise OptionError(
            f"${CACHE_VARIABLE} names {str(folder)!r:.200}, which {why}; name a folder to keep engines in"
        )
    return folder
