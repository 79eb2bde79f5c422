"""How to tell an array of a GPU. Every picture is asked, so this module imports nothing that pictures on the CPU do without."""

from __future__ import annotations

from typing import Any

from impasto.errors import ShapeError, first_line

CUDA, CUDA_MANAGED = 2, 13
"""kDLCUDA and kDLCUDAManaged: DLPack's device types whose memory a CUDA GPU reads (dmlc/dlpack, include/dlpack/dlpack.h)."""


def is_gpu_array(value: Any) -> bool:
    """Whether a value is an array of a CUDA device. NumPy arrays and other libraries' arrays on the CPU are not.

    Raises ShapeError for one that does not say where it is.
    """
    if cuda_interface(value) is not None:
        return True
    return hasattr(value, "__dlpack_device__") and _device_type(value) in (CUDA, CUDA_MANAGED)


def cuda_interface(value: Any) -> dict[str, Any] | None:
    """The value's CUDA Array Interface; None without one. Raises ShapeError where it cannot be had, as of PyTorch's tensors with a
    gradient."""
    try:
        interface: dict[str, Any] | None = getattr(value, "__cuda_array_interface__", None)
        if interface is not None:
            interface.get("version")
    except Exception as error:  # what other libraries raise has no common base
        raise ShapeError(
            f"the {type(value).__name__} has a CUDA Array Interface that cannot be read ({type(error).__name__}: {first_line(error)}); "
            "pass a contiguous array without a gradient"
        ) from None
    return interface


def _device_type(value: Any) -> int:
    try:
        return int(value.__dlpack_device__()[0])
    except (BufferError, NotImplementedError, RuntimeError, TypeError, ValueError):  # a library that cannot say
        return 0
