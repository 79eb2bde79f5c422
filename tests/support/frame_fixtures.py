"""frames.cu on the emulated GPU."""

from __future__ import annotations

import ctypes
from pathlib import Path

import pytest

from impasto.kernels import build, frames
from support import emulated_gpu


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
