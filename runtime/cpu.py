"""What this process may use of the CPU."""

from __future__ import annotations

import os


def usable_cores() -> int:
    """The number of cores on which this process may run, >= 1: a container or `taskset` may leave fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
