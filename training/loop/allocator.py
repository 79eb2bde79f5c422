"""How a CPU training's memory is handed out."""

from __future__ import annotations

import ctypes
import sys

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of glibc's malloc.h."""

_MOST = (1 << 31) - 1


def keep_freed_memory() -> None:
    """Let the C library keep what is freed for the next step, instead of giving every feature map back to the system.

    Each step allocates the same maps again; new pages cost a fault for every 4 KiB, a tenth of the
    denoiser's time. Where the C library is not glibc, nothing happens.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(_TRIM_THRESHOLD, _MOST)
        mallopt(_MMAP_THRESHOLD, _MOST)
