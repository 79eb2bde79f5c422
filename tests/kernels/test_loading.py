"""Which binary a driver is given, and what is said where it takes none: on a driver that is a stand-in."""

from __future__ import annotations

import ctypes
import re
from pathlib import Path

import pytest

from impasto.errors import KernelError
from impasto.kernels import fat_binary, launch

SINCE_CUDA_11_4 = {
    *("cuGetErrorString", "cuDriverGetVersion", "cuDeviceGet", "cuDeviceGetAttribute", "cuDevicePrimaryCtxRetain"),
    *("cuCtxGetCurrent", "cuCtxSetCurrent", "cuCtxGetDevice", "cuModuleLoadData", "cuModuleGetFunction"),
    *("cuFuncSetAttribute", "cuOccupancyMaxActiveBlocksPerMultiprocessor", "cuLaunchKernel"),
}
"""None is younger than CUDA 9.0: cudaTypedefs.h of CUDA 11.8 has a version in each one's name."""


class Driver:
    """A driver that knows CUDA `version` and loads with `result`."""

    def __init__(self, version: int, capability: tuple[int, int], result: int = 0) -> None:
        self.version, self.capability, self.result = version, capability, result
        self.images: list[bytes] = []

    def cuDriverGetVersion(self, version) -> int:  # noqa: N802 - the driver's names
        version._obj.value = self.version
        return 0

    def cuGetErrorString(self, error: int, words) -> int:  # noqa: N802
        words._obj.value = {2: b"out of memory", 200: b"device kernel image is invalid"}.get(error, b"words")
        return 0

    def cuCtxGetDevice(self, device) -> int:  # noqa: N802
        device._obj.value = 0
        return 0

    def cuDeviceGetAttribute(self, value, attribute: int, device) -> int:  # noqa: N802
        value._obj.value = {16: 14, 75: self.capability[0], 76: self.capability[1]}[attribute]
        return 0

    def cuModuleLoadData(self, handle, image: bytes) -> int:  # noqa: N802
        self.images.append(image)
        handle._obj.value = 1
        return self.result


@pytest.fixture
def load(monkeypatch):
    def load(*arguments, data=None) -> tuple[launch.Module, Driver]:
        driver = Driver(*arguments)
        monkeypatch.setattr(launch, "driver", lambda: driver)
        return launch._load(launch.fatbin() if data is None else data), driver

    return load


def test_nothing_on_the_way_is_younger_than_cuda_11_4():
    calls = set(re.findall(r"\bcu[A-Z]\w+", Path(launch.__file__).read_text(encoding="utf-8")))
    assert calls - SINCE_CUDA_11_4 == {"cuTensorMapEncodeTiled"}, "which only Hopper's own kernel needs"


@pytest.mark.parametrize("capability", [(7, 5), (8, 7), (9, 0), (12, 1)])
def test_a_driver_is_given_its_gpus_binary_alone(load, capability):
    module, driver = load(12060, capability)
    (entry,) = fat_binary.entries(driver.images[0])
    assert entry == fat_binary.chosen(fat_binary.entries(launch.fatbin()), capability)
    assert (module.handle.value, module.processors) == (1, 14)


def test_a_cubin_in_the_fatbins_place_goes_through_as_it_is(load):
    assert load(12060, (8, 7), data=b"\x7fELF...")[1].images == [b"\x7fELF..."]


def test_a_gpu_without_a_binary(load):
    with pytest.raises(KernelError, match=r"of compute capability 7\.2: it is compiled for sm_75, .* sm_120 and what"):
        load(11040, (7, 2))


@pytest.mark.parametrize("result", [200, 209, 222])
def test_a_driver_that_is_too_old_for_its_gpus_binary(load, result):
    with pytest.raises(KernelError) as error:
        load(11040, (9, 0), result)
    said = str(error.value)
    assert said.startswith(f"cuModuleLoadData failed with error {result}: ")
    assert (
        "binary for sm_90a, for this GPU of compute capability 9.0, wants a driver that knows CUDA 12 or later" in said
    )
    assert "it knows CUDA 11.4. Update NVIDIA's driver" in said


def test_ptx_wants_a_newer_driver(load):
    with pytest.raises(KernelError, match=r"PTX for sm_120, .* CUDA 13 or later; it knows CUDA 12\.8\. Update"):
        load(12080, (13, 0), 222)


def test_a_driver_that_is_new_enough_and_refuses(load):
    with pytest.raises(
        KernelError, match=r"image is invalid\. The .* sm_87, .* CUDA 11 or later; it knows CUDA 11\.4\. So it"
    ):
        load(11040, (8, 7), 200)


def test_other_errors_are_not_blamed_on_the_driver(load):
    with pytest.raises(KernelError, match=r"^cuModuleLoadData failed with error 2: out of memory\.$"):
        load(11040, (8, 7), 2)


def test_a_broken_file(load):
    with pytest.raises(KernelError, match=r"gram\.fatbin cannot be read: .*\. Reinstall Impasto\."):
        load(12060, (8, 7), data=launch.fatbin()[:-8])
    entry = fat_binary.chosen(fat_binary.entries(launch.fatbin()), (8, 7))
    garbled = entry.alone()[:120] + bytes(200) + entry.alone()[320:]
    with pytest.raises(KernelError, match=r"image is invalid\. gram\.fatbin is damaged: .*\. Reinstall Impasto\."):
        load(12060, (8, 7), 200, data=garbled)


def test_a_call_that_the_driver_does_not_have(load):
    load(11040, (8, 7))
    with pytest.raises(
        KernelError, match=r"has no cuTensorMapEncodeTiled: it knows CUDA 11\.4, .* Update NVIDIA's driver"
    ):
        launch.call("cuTensorMapEncodeTiled", ctypes.c_void_p())


def test_hoppers_own_kernel_wants_large_parameters(load, monkeypatch):
    monkeypatch.setenv(launch.CHOICE, "wgmma")
    assert load(12010, (9, 0))[0].by_warpgroups
    with pytest.raises(
        KernelError, match=r"IMPASTO_GRAM=wgmma needs a driver that knows CUDA 12\.1.* CUDA 12\.0\. Update"
    ):
        load(12000, (9, 0))
