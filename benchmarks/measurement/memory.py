"""The largest memory that this process has held."""

from __future__ import annotations

import re
from pathlib import Path


class PeakMemory:
    """The most memory that some work takes, by Linux' own count: resident pages (libraries, weights, buffers), without a GPU's.

    https://man7.org/linux/man-pages/man5/proc.5.html: 5 written to clear_refs sets the peak to what is resident now.
    """

    def __init__(self, process: Path = Path("/proc/self")) -> None:
        self._process = process
        try:
            (process / "clear_refs").write_text("5")
            self._known = True
        except OSError:  # another system, or a container that may not
            self._known = False

    def bytes(self) -> int | None:
        """Since this was made; None where the system does not say."""
        if not self._known:
            return None
        try:
            status = (self._process / "status").read_text(encoding="utf-8")
        except OSError:
            return None
        found = re.search(r"^VmHWM:\s*(\d+) kB$", status, re.MULTILINE)
        return 1024 * int(found[1]) if found else None
