"""The measuring of engines, on the GPU made of NumPy: that every figure is taken, not what it says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from fake_engines import picture, write_plan
from fake_gpu import FakeTensorRT

from impasto.benchmarks import engine as benchmark
from impasto.runtime.tensorrt_api import TensorRT

pytest_plugins = ("engine_fixtures",)


def test_every_figure_of_an_engine_is_taken(
    vendor: FakeTensorRT, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vendor.IProfiler = object
    api = TensorRT(vendor, "tensorrt")
    monkeypatch.setattr(benchmark, "tensorrt", lambda: api)
    monkeypatch.setattr(benchmark, "_FRAMES", 5)
    write_plan(tmp_path, profiles=({"image": ((1, 16, 16, 3), (1, 32, 48, 3), (1, 64, 64, 3))},))
    np.save(tmp_path / "picture-32x48.npy", picture(32, 48))
    np.save(tmp_path / "expected-tiny-32x48.npy", 255 - picture(32, 48))
    measured = benchmark.measure_folder(tmp_path)
    (entry,) = measured["engines"]
    assert "error" not in entry
    assert (entry["psnr_db"], entry["largest_difference"]) == (None, 0)
    assert {"engine_eager_ms", "upload_ms", "download_ms", "frame_eager_ms", "run_into_ms", "stream_ms"} <= set(entry)
    assert measured["memory_after_50_loads"]["lost"] == 0
