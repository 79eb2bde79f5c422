"""Objects that call themselves arrays of a GPU, and are none that can be read."""

from __future__ import annotations

import pytest

from impasto.errors import ShapeError
from impasto.runtime.gpu.protocols import is_gpu_array

WHOLE = {"shape": (8, 8, 3), "typestr": "|u1", "data": (4096, False), "version": 3}


class Odd:
    def __init__(self, interface: object) -> None:
        self._interface = interface

    @property
    def __cuda_array_interface__(self) -> object:
        if isinstance(self._interface, Exception):
            raise self._interface
        return self._interface


@pytest.mark.parametrize(
    "interface",
    [RuntimeError("Can't get it on a Variable that requires grad"), "no dictionary"],
    ids=["raises, as PyTorch's does", "text"],
)
def test_an_interface_that_cannot_be_read_is_a_line(interface):
    with pytest.raises(ShapeError, match=r"the Odd has a CUDA Array Interface that cannot be read .*; pass a"):
        is_gpu_array(Odd(interface))
    assert is_gpu_array(Odd(WHOLE))
