"""The device that a training runs on: which one, what it computes in, and how a CPU's memory is handed out."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Mapping
from typing import Any

import torch

from impasto.errors import OptionError

from .processes import launched

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


def pick_device(name: str) -> torch.device:
    """ "auto", "cpu" or "cuda" as a device, of several GPUs this process's own. Raises OptionError where it is not there."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name not in ("cpu", "cuda"):
        raise OptionError(f"unknown device {name!r}; choose auto, cpu or cuda")
    if name == "cuda" and not torch.cuda.is_available():
        raise OptionError("no CUDA device can be used by this torch; choose --device cpu, or see impasto doctor")
    processes = launched()
    if name == "cpu" or processes.count == 1:
        return torch.device(name)
    if processes.local_count > torch.cuda.device_count():
        raise OptionError(
            f"{processes.local_count} processes were started on this machine, which has {torch.cuda.device_count()} GPUs; choose a "
            "smaller --nproc-per-node, or --device cpu"
        )
    return torch.device(name, processes.local_rank)


def fast_precision(device: torch.device) -> str:
    """ "bf16" where the device multiplies matrices of it faster than of FP32 (GPUs, x86-64 with AMX or AVX-512 BF16), else "fp32"."""
    if device.type == "cuda":
        return "bf16"
    # Without such instructions, CPUs emulate BF16. Older releases of torch cannot tell, and train in FP32.
    capabilities: Mapping[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return "bf16" if capabilities.get("amx_bf16") or capabilities.get("avx512_bf16") else "fp32"
