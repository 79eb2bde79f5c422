"""The measuring of engines, on the GPU made of NumPy: that every figure is taken, not what it says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import fake_gpu
from support.fake_engines import picture, write_plan
from support.fake_gpu import FakeTensorRT

from impasto.benchmarks import engine as benchmark
from impasto.runtime.backends.tensorrt.api import TensorRT

pytest_plugins = ("support.engine_fixtures",)

PROFILES = ({"image": ((1, 16, 16, 3), (1, 32, 48, 3), (1, 64, 64, 3))},)
FIGURES = {"engine_eager_ms", "upload_ms", "download_ms", "frame_eager_ms"}


@pytest.fixture
def folder(vendor: FakeTensorRT, quick_collections: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An engine with its pictures."""
    vendor.IProfiler = object
    api = TensorRT(vendor, "tensorrt")
    monkeypatch.setattr(benchmark, "tensorrt", lambda: api)
    monkeypatch.setattr(benchmark, "_FRAMES", 5)
    write_plan(tmp_path, profiles=PROFILES)
    np.save(tmp_path / "picture-32x48.npy", picture(32, 48))
    np.save(tmp_path / "expected-tiny-32x48.npy", 255 - picture(32, 48))
    return tmp_path


def measured(folder: Path) -> dict[str, Any]:
    found = benchmark.measure_folder(folder, folder / "out.json")
    assert json.loads((folder / "out.json").read_text()) == json.loads(json.dumps(found))
    return found


def test_every_figure_of_an_engine_is_taken(folder: Path) -> None:
    found = measured(folder)
    (entry,) = found["engines"]
    assert "error" not in entry
    assert (entry["psnr_db"], entry["largest_difference"]) == (None, 0)
    assert FIGURES | {"run_into_ms", "stream_ms"} <= set(entry)
    assert found["memory_after_50_loads"]["lost"] == 0


def test_an_engine_of_float_pixels_is_measured_without_a_model(
    folder: Path, vendor: FakeTensorRT, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = type(vendor.Runtime(None).deserialize_cuda_engine(b"plan"))
    monkeypatch.setattr(engine, "get_tensor_dtype", lambda self, name: fake_gpu._Type.FLOAT)

    def compute(self: Any) -> None:
        nbytes = 4 * int(np.prod(self._shape))
        self._memory("picture", nbytes).view(np.float32)[:] = 255 - self._memory("image", nbytes).view(np.float32)

    monkeypatch.setattr(vendor.context, "_compute", compute)
    found = measured(folder)
    (entry,) = found["engines"]
    assert "error" not in entry
    assert set(entry) >= FIGURES and "run_into_ms" not in entry
    assert "memory_after_50_loads" not in found


@pytest.mark.parametrize("missing", ["picture-32x48.npy", "expected-tiny-32x48.npy"])
def test_one_engine_that_fails_costs_the_others_nothing(folder: Path, missing: str) -> None:
    write_plan(folder, name="also", profiles=PROFILES)
    content = (folder / missing).read_bytes()
    (folder / missing).unlink()
    assert [missing in entry["error"] for entry in measured(folder)["engines"]] == [True, True]
    (folder / missing).write_bytes(content)
    (folder / "also.plan").write_bytes(b"altered")
    broken, good = measured(folder)["engines"]
    assert "error" in broken
    assert "error" not in good and set(good) >= FIGURES


@pytest.mark.parametrize(("files", "words"), [([], "holds no engines"), (["a.plan"], "cannot write")])
def test_what_cannot_be_measured_is_told_first(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], files: list[str], words: str
) -> None:
    for name in files:
        (tmp_path / name).touch()
    with pytest.raises(SystemExit) as ended:
        benchmark.main([str(tmp_path), str(tmp_path / ("none/out.json" if files else "out.json"))])
    assert ended.value.code == 2
    assert words in capsys.readouterr().err
