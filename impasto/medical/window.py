"""Which values of a scan are black and white."""

from __future__ import annotations

import math
from dataclasses import dataclass

from impasto.errors import OptionError


@dataclass(frozen=True)
class Window:
    """What range of a scan's values is drawn: all that it holds, what its file says, or a named one."""

    center: float | None = None
    width: float | None = None
    """In the scan's units, such as Hounsfield's; None for both other ways. More than 0."""
    of_file: bool = False
    """Whether the file's own window is applied."""

    @classmethod
    def parse(cls, text: str) -> Window:
        """Read "full", "file", or "CENTER,WIDTH" such as "40,400". Raises OptionError."""
        word = text.strip().lower()
        if word in ("full", "file"):
            return cls(of_file=word == "file")
        try:
            center, width = (float(part) for part in word.split(","))
        except ValueError:
            raise _wrong(text) from None
        if not (math.isfinite(center) and math.isfinite(width) and center - width / 2 < center + width / 2):
            raise _wrong(text)  # among them a width that vanishes beside the center
        return cls(center, width)

    @property
    def keeps_all(self) -> bool:
        """Whether every value of the scan is within it."""
        return self.center is None and not self.of_file


def _wrong(text: str) -> OptionError:
    return OptionError(
        f"cannot read the window {text!r}; write full (all values that the scan holds), file (the window that its file says), or "
        "CENTER,WIDTH in the scan's units, such as 40,400"
    )
