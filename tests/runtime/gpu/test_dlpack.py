"""DLPack capsules: ours read by NumPy and torch, theirs read by us. The CPU's have the same form as a GPU's."""

from __future__ import annotations

import ctypes
import gc
import sys
import weakref

import numpy as np
import pytest

from impasto.runtime.gpu import dlpack

ON_CPU = (1, 0)


class Owner:
    """Gives its memory as `GpuArray` does, on the CPU, where NumPy reads it."""

    def __init__(self, values: np.ndarray) -> None:
        self.values = values

    def __dlpack_device__(self) -> tuple[int, int]:
        return ON_CPU

    def __dlpack__(self, **_: object) -> object:
        return dlpack.capsule(self, self.values.ctypes.data, self.values.shape, self.values.dtype.name, ON_CPU)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("shape", [(2, 5, 3), (6, 4), (7,), (1, 1, 3)])
def test_numpy_reads_what_we_give(shape, dtype):
    owner = Owner(np.random.default_rng(0).integers(0, 256, shape).astype(dtype))
    read = np.from_dlpack(owner)
    np.testing.assert_array_equal(read, owner.values)
    assert read.ctypes.data == owner.values.ctypes.data


def test_torch_reads_what_we_give():
    torch = pytest.importorskip("torch")
    owner = Owner(np.arange(30, dtype=np.uint8).reshape(2, 5, 3))
    read = torch.from_dlpack(owner)
    owner.values[1, 2, 0] = 200
    assert read.tolist() == owner.values.tolist()


def test_memory_lives_as_long_as_its_reader():
    owner = Owner(np.arange(6, dtype=np.uint8))
    alive = weakref.ref(owner)
    read = np.from_dlpack(owner)
    del owner
    gc.collect()
    assert alive() is not None
    del read
    gc.collect()
    assert alive() is None
    assert not dlpack._given


def test_a_capsule_that_nobody_reads_keeps_nothing():
    owner = Owner(np.arange(6, dtype=np.uint8))
    alive, capsule = weakref.ref(owner), owner.__dlpack__()
    del owner, capsule
    gc.collect()
    assert alive() is None


@pytest.mark.parametrize("view", [np.s_[:], np.s_[:, 1:3], np.s_[::2, ::-1]], ids=str)
def test_we_read_what_numpy_gives(view):
    values = np.arange(60, dtype=np.uint8).reshape(4, 5, 3)[view]
    borrowed = dlpack.read(values.__dlpack__())
    assert (borrowed.shape, borrowed.strides, borrowed.dtype) == (values.shape, values.strides, "uint8")
    assert ctypes.c_uint8.from_address(borrowed.pointer).value == values.flat[0]
    borrowed.release()


def test_a_reader_gives_memory_back_once():
    values = np.arange(60, dtype=np.uint8)
    before = sys.getrefcount(values)
    borrowed = dlpack.read(values.__dlpack__())
    assert sys.getrefcount(values) == before + 1
    borrowed.release()
    assert sys.getrefcount(values) == before


@pytest.mark.parametrize(("dtype", "name"), [(np.float32, "float32"), (np.uint16, "uint16"), (np.int8, "int8")])
def test_a_dtype_has_the_name_that_numpy_gives_it(dtype, name):
    borrowed = dlpack.read(np.zeros(3, dtype).__dlpack__())
    assert borrowed.dtype == name
    borrowed.release()


def test_what_is_no_capsule_is_refused():
    capsule = np.zeros(3).__dlpack__()
    dlpack.read(capsule).release()
    with pytest.raises(ValueError, match="incorrect name"):
        dlpack.read(capsule)
