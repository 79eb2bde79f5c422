"""frames.cu on the emulated GPU, and the calls of the driver that go with it."""

from __future__ import annotations

import ctypes
from pathlib import Path

import pytest

from impasto.kernels import build, cuda_driver, frames
from support import emulated_gpu
from support.fake_gpu import FakeDriver
from support.gpu_arrays import DriverCalls


@pytest.fixture(scope="session")
def _frames_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if emulated_gpu.missing():
        pytest.skip(str(emulated_gpu.missing()))
    return emulated_gpu.compiled(tmp_path_factory.mktemp("frames"), 800, kernels=build.FRAMES)


@pytest.fixture
def frame_kernels(_frames_library: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Launches of `kernels.frames` run here, to their end. Gives the names of what was launched."""
    machine = emulated_gpu.module(_frames_library, 800)

    def launch(name: str, frame: ctypes.Structure, threads: int, stream: int) -> None:
        machine.launch(name, -(-threads // frames._THREADS), frames._THREADS, 0, [frame], stream)

    monkeypatch.setattr(frames, "_launch", launch)
    return machine.launched


@pytest.fixture
def calls(driver: FakeDriver, monkeypatch: pytest.MonkeyPatch) -> DriverCalls:
    """The driver's library over the stand-in of `fake_gpu`."""
    made = DriverCalls(driver)
    for name in ("primary_context", "allocate", "free", "device_of", "copy_to_host", "copy_to_device"):
        monkeypatch.setattr(cuda_driver, name, getattr(made, name))
    for name in ("new_stream", "destroy_stream"):
        monkeypatch.setattr(cuda_driver, name, getattr(made, name))
    monkeypatch.setattr(cuda_driver, "synchronize", made.synchronize)
    monkeypatch.setattr(cuda_driver, "wait_for", made.wait_for)
    return made
