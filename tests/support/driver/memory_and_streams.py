"""Run over the stand-in driver: kernels/cuda_driver.py's memory, streams and contexts, as the driver's C interface takes them."""

from __future__ import annotations

import numpy as np
from stand_in import StandIn

from impasto.errors import KernelError
from impasto.kernels import cuda_driver


class Writer:
    """Work on a stream that fills device memory."""

    def __init__(self, driver: StandIn, pointer: int) -> None:
        self._driver, self._pointer = driver, pointer

    def write(self) -> None:
        self._driver.memory(self._pointer, 1000)[:] = 7


driver = StandIn()
for device in (1, 0):
    with cuda_driver.primary_context(device):
        pointer = cuda_driver.allocate(1000)
        assert (cuda_driver.device_of(pointer), driver.depth()) == (device, 1)
        first, second = cuda_driver.new_stream(), cuda_driver.new_stream()
        writer = Writer(driver, pointer)
        driver.begin(first, writer.write)
        cuda_driver.wait_for(first, second)
        host = np.zeros(1000, np.uint8)
        cuda_driver.copy_to_host(host.ctypes.data, pointer, 1000, second)
        assert (host == 7).all(), "the second stream waits for the first"
        with cuda_driver.primary_context(1 - device):
            assert driver.depth() == 2
        cuda_driver.free(pointer)
        for stream in (first, second):
            cuda_driver.destroy_stream(stream)
        try:
            cuda_driver.device_of(4096)
        except KernelError as error:
            assert "cuPointerGetAttribute failed with error 1" in str(error)
        else:
            raise AssertionError("no address of the driver's")
    assert driver.depth() == 0
print("report:", driver.report())
