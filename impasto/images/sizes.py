"""Picture sizes as people write them."""

from __future__ import annotations

import re

from impasto.errors import OptionError

NAMED_SIZES = {
    "480p": (480, 854),
    "720p": (720, 1280),
    "1080p": (1080, 1920),
    "1440p": (1440, 2560),
    "2160p": (2160, 3840),
    "4k": (2160, 3840),
}
"""Height and width by their usual names."""

LEAST_WORKING_SIZE = 32
"""Pixels of the longest side at which a picture can still be told."""


def parse_size(text: str) -> tuple[int, int]:
    """Read "1080p", or "HEIGHTxWIDTH", as (height, width). Raises OptionError."""
    written = text.strip().lower()
    if written in NAMED_SIZES:
        return NAMED_SIZES[written]
    match = re.fullmatch(r"(\d{1,5})x(\d{1,5})", written)
    if not match or int(match[1]) == 0 or int(match[2]) == 0:
        raise OptionError(
            f"cannot read the size {text!r}; write HEIGHTxWIDTH, such as 512x512, or {', '.join(NAMED_SIZES)}"
        )
    return int(match[1]), int(match[2])
