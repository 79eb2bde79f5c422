"""A GPU and a TensorRT made of NumPy in place of the real ones, and engines for them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from fake_gpu import FakeDriver, FakeTensorRT

from impasto.files import sha256
from impasto.runtime import cuda, tensorrt_api
from impasto.runtime.engine_record import EngineRecord
from impasto.runtime.spec import ModelSpec


def record(**changed: object) -> EngineRecord:
    profile = {"image": ((1, 16, 16, 3), (1, 16, 16, 3), (1, 64, 64, 3))}
    values = {
        "key": "k",
        "flavour": "tensorrt",
        "version": "8.5.3.1",
        "precision": "fp16",
        "compute_capabilities": ("8.7",),
        "gpu": "Fake GPU",
        "source_sha256": "0" * 64,
        "profiles": (profile,),
        "spec": ModelSpec("tiny").to_json(),
    }
    return EngineRecord(**(values | changed))  # type: ignore[arg-type]


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[FakeDriver]:
    fake = FakeDriver(integrated=getattr(request, "param", False))
    cuda.device.cache_clear()
    monkeypatch.setattr(cuda, "driver", lambda: fake)
    monkeypatch.setattr(cuda, "graph_driver", lambda: None)
    yield fake
    cuda.device.cache_clear()
    assert not fake.stack, "a context was left active"


@pytest.fixture
def vendor(driver: FakeDriver, monkeypatch: pytest.MonkeyPatch) -> FakeTensorRT:
    fake = FakeTensorRT(driver)
    api = tensorrt_api.TensorRT(fake, "tensorrt")
    for module in ("backends.tensorrt", "engines"):
        monkeypatch.setattr(f"impasto.runtime.{module}.tensorrt", lambda flavour: api)
    return fake


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    return write_plan(tmp_path)


def write_plan(folder: Path, content: bytes = b"plan", **changed: object) -> Path:
    path = folder / "tiny.plan"
    path.write_bytes(content)
    path.with_suffix(".json").write_text(json.dumps({"sha256": sha256(path), "record": record(**changed).to_json()}))
    return path


def picture(height: int = 20, width: int = 30, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
