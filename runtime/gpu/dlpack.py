"""DLPack's capsules, read and made: how array libraries hand one another memory (dmlc/dlpack, include/dlpack/dlpack.h).

Capsules are unversioned ("dltensor"), which every library reads and, unless asked for another, gives.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any

_NAME, _USED_NAME = b"dltensor", b"used_dltensor"
_KINDS = {"uint8": (1, 8), "uint16": (1, 16), "float32": (2, 32)}
"""kDLUInt or kDLFloat, and bits, of the dtypes that models give."""
_Deleter = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


class _Tensor(ctypes.Structure):
    """DLTensor."""

    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    )


class _Managed(ctypes.Structure):
    """DLManagedTensor."""

    _fields_ = (("tensor", _Tensor), ("context", ctypes.c_void_p), ("deleter", _Deleter))


_python = ctypes.pythonapi
_new = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)(
    ("PyCapsule_New", _python)
)
_pointer = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(("PyCapsule_GetPointer", _python))
_rename = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.py_object, ctypes.c_char_p)(("PyCapsule_SetName", _python))
# A destructor is given an object that no reference holds any more: for ctypes it is an address.
_is_named = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p)(("PyCapsule_IsValid", _python))
_dying_pointer = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_char_p)(("PyCapsule_GetPointer", _python))


@dataclass(frozen=True)
class Borrowed:
    """Another library's memory. It stays valid until `release`."""

    pointer: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    """In elements."""
    dtype: str
    """The dtype in NumPy's notation, such as "uint8"."""
    managed: int
    """Address of the DLManagedTensor."""

    def release(self) -> None:
        """Tell the other library that its memory is no longer used. Call it once."""
        deleter = _Managed.from_address(self.managed).deleter
        if deleter:
            deleter(self.managed)


def read(capsule: Any) -> Borrowed:
    """What a capsule of `__dlpack__` holds. The capsule may not be read again. Raises ValueError for another object."""
    address = _pointer(capsule, _NAME)
    _rename(capsule, _USED_NAME)
    tensor = _Managed.from_address(address).tensor
    shape = tuple(tensor.shape[axis] for axis in range(tensor.ndim))
    told = tensor.strides
    strides = tuple(told[axis] for axis in range(tensor.ndim)) if told else contiguous_strides(shape)
    kind = {0: "int", 1: "uint", 2: "float", 4: "bfloat", 6: "bool"}.get(tensor.code, f"type {tensor.code} of ")
    dtype = f"{kind}{tensor.bits}" + (f" x {tensor.lanes}" if tensor.lanes != 1 else "")
    return Borrowed((tensor.data or 0) + tensor.byte_offset, shape, strides, dtype, address)


_given: dict[int, tuple[Any, ...]] = {}
"""What other libraries hold: by the DLManagedTensor's address, what must live as long."""


def capsule(owner: Any, pointer: int, shape: tuple[int, ...], dtype: str, device: tuple[int, int]) -> Any:
    """A capsule of C-contiguous memory.

    owner: is kept until the reader gives the memory back. dtype: uint8, uint16 or float32. device: type and number.
    """
    sizes, strides = ((ctypes.c_int64 * len(shape))(*values) for values in (shape, contiguous_strides(shape)))
    managed = _Managed()
    managed.tensor = _Tensor(pointer, *device, len(shape), *_KINDS[dtype], 1, sizes, strides, 0)
    managed.deleter = _DELETER
    address = ctypes.addressof(managed)
    _given[address] = (owner, managed, sizes, strides)
    return _new(address, _NAME, ctypes.cast(_DESTRUCTOR, ctypes.c_void_p))


def _forget(address: int) -> None:
    _given.pop(address, None)


def _forget_unread(dying: int) -> None:
    """The destructor of a capsule. One that was read has another name; its reader calls the deleter."""
    if _is_named(dying, _NAME):
        _given.pop(_dying_pointer(dying, _NAME), None)


_DELETER, _DESTRUCTOR = _Deleter(_forget), _Deleter(_forget_unread)  # kept: C code holds their addresses


def contiguous_strides(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Strides of a C-contiguous array, in elements."""
    strides = [1]
    for size in shape[:0:-1]:
        strides.append(strides[-1] * size)
    return tuple(strides[::-1])[-len(shape) :] if shape else ()
