"""Which binary a driver is given, and what is said where it takes none: on a driver that is a stand-in."""

from __future__ import annotations

import ast
import ctypes
import re
from pathlib import Path

import pytest
from support.small_models import REPOSITORY

from impasto.errors import KernelError
from impasto.kernels import binaries, cuda_driver, module

ROOMS = ("impasto", "training", "export", "runtime", "kernels", "benchmarks")
SINCE_CUDA_11_4 = {
    *(
        "cuStreamBeginCapture_v2",
        "cuStreamEndCapture",
        "cuGraphInstantiateWithFlags",
        "cuGraphLaunch",
        "cuGraphDestroy",
    ),
    "cuGraphExecDestroy",
    *("cuGetErrorString", "cuDriverGetVersion", "cuDeviceGet", "cuDeviceGetAttribute", "cuDevicePrimaryCtxRetain"),
    *("cuCtxGetCurrent", "cuCtxSetCurrent", "cuCtxGetDevice", "cuModuleLoadData", "cuModuleGetFunction"),
    *("cuInit", "cuCtxPushCurrent_v2", "cuCtxPopCurrent_v2", "cuMemAlloc_v2", "cuMemFree_v2", "cuPointerGetAttribute"),
    *("cuMemcpyDtoH_v2", "cuMemcpyHtoDAsync_v2"),
    *("cuStreamCreate", "cuStreamDestroy_v2", "cuStreamSynchronize", "cuStreamWaitEvent"),
    *("cuEventCreate", "cuEventRecord", "cuEventDestroy_v2"),
    *("cuFuncSetAttribute", "cuOccupancyMaxActiveBlocksPerMultiprocessor", "cuLaunchKernel"),
}
"""Without graphs, none is younger than CUDA 9.0: cudaTypedefs.h of CUDA 11.8 has a version in each one's name."""


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
    def load(*arguments) -> tuple[module.Module, Driver]:
        driver = Driver(*arguments)
        monkeypatch.setattr(cuda_driver, "library", lambda: driver)
        return module.load(), driver

    return load


CALLS = set(re.findall(r"\bcu[A-Z]\w+", Path(cuda_driver.__file__).read_text(encoding="utf-8")))


def test_nothing_on_the_way_is_younger_than_cuda_11_4():
    assert {"cuTensorMapEncodeTiled"} == CALLS - SINCE_CUDA_11_4, "which only Hopper's own kernel needs"


def test_one_module_calls_the_driver():
    """No other module of the product names a call of the driver in code, or loads the library."""
    for path in (path for room in ROOMS for path in (REPOSITORY / room).rglob("*.py")):
        if path != REPOSITORY / "kernels/cuda_driver.py":
            named = {name for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) for name in mentioned(node)}
            assert not named & {*CALLS, "libcuda.so.1", "nvcuda.dll"}, path


def mentioned(node: ast.AST) -> list[str]:
    """Names and texts that this node holds, but no docstrings' sentences."""
    if isinstance(node, ast.Attribute):
        return [node.attr]
    return [node.value] if isinstance(node, ast.Constant) and isinstance(node.value, str) else []


@pytest.mark.parametrize("capability", [(7, 5), (8, 7), (9, 0), (12, 1)])
def test_a_driver_is_given_its_gpus_binary_alone(load, capability):
    loaded, driver = load(12060, capability)
    assert driver.images == [binaries.for_gpu(capability)[1]]
    assert driver.images[0].startswith(b"\x7fELF")
    assert (loaded.handle.value, loaded.multiprocessors) == (1, 14)


def test_ptx_is_given_as_text_that_ends_with_a_nul(load):
    image = load(13000, (13, 0))[1].images[0]
    assert image.lstrip().startswith(b".version") and b"\0" not in image
    assert ctypes.string_at(image, len(image) + 1)[-1] == 0, "as cuModuleLoadData needs it"


def test_a_gpu_without_a_binary(load):
    with pytest.raises(KernelError, match=r"of compute capability 7\.2: it is compiled for sm_75, .* sm_120 and newer"):
        load(11040, (7, 2))


@pytest.mark.parametrize("result", [200, 209, 222])
def test_a_driver_that_is_too_old_for_its_gpus_binary(load, result):
    with pytest.raises(KernelError) as error:
        load(11040, (9, 0), result)
    said = str(error.value)
    assert said.startswith(f"cuModuleLoadData failed with error {result}: ")
    assert (
        "cubin for sm_90a, for this GPU of compute capability 9.0, needs a driver that supports CUDA 12 or later"
        in said
    )
    assert "it supports CUDA 11.4. Update NVIDIA's driver" in said


def test_ptx_wants_a_newer_driver(load):
    with pytest.raises(KernelError, match=r"PTX for sm_120, .* CUDA 13 or later; it supports CUDA 12\.8\. Update"):
        load(12080, (13, 0), 222)


def test_a_driver_that_is_new_enough_and_refuses(load):
    with pytest.raises(
        KernelError, match=r"image is invalid\. The .* sm_87, .* CUDA 11 or later; it supports CUDA 11\.4\. So it"
    ):
        load(11040, (8, 7), 200)


def test_other_errors_are_not_blamed_on_the_driver(load):
    with pytest.raises(KernelError, match=r"^cuModuleLoadData failed with error 2: out of memory\.$"):
        load(11040, (8, 7), 2)


def test_a_call_that_the_driver_does_not_have(load):
    load(11040, (8, 7))
    with pytest.raises(
        KernelError, match=r"has no cuTensorMapEncodeTiled: it supports CUDA 11\.4, .* Update NVIDIA's driver"
    ):
        cuda_driver.call("cuTensorMapEncodeTiled", ctypes.c_void_p())


def test_hoppers_own_kernel_wants_large_parameters(load, monkeypatch):
    monkeypatch.setenv(module.CHOICE, "wgmma")
    assert load(12010, (9, 0))[0].use_wgmma
    with pytest.raises(
        KernelError, match=r"IMPASTO_GRAM=wgmma needs a driver that supports CUDA 12\.1.* CUDA 12\.0\. Update"
    ):
        load(12000, (9, 0))
