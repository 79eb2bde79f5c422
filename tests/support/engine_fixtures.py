"""A GPU and a TensorRT made of NumPy in place of the real ones."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path

import pytest

from impasto.export.tensorrt.cache import EngineCache
from impasto.kernels import cuda_driver
from impasto.runtime import cuda
from impasto.runtime.backends.tensorrt import api as tensorrt_api
from support.fake_engines import write_plan
from support.fake_gpu import FakeDriver, FakeTensorRT


@pytest.fixture
def quick_collections() -> Iterator[None]:
    """Garbage collections look only at objects that the test itself makes.

    The benchmark collects after each of 50 loads. In a process that ran a thousand tests before, one collection takes a second.
    """
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[FakeDriver]:
    fake = FakeDriver(integrated=getattr(request, "param", False))
    monkeypatch.setattr(cuda, "_devices", {})
    monkeypatch.setattr(cuda, "driver", lambda: fake)
    monkeypatch.setattr(cuda_driver, "has_graphs", lambda: False)
    yield fake
    assert not fake.stack, "a context was left active"


@pytest.fixture
def vendor(driver: FakeDriver, monkeypatch: pytest.MonkeyPatch) -> FakeTensorRT:
    fake = FakeTensorRT(driver)
    api = tensorrt_api.TensorRT(fake, "tensorrt")
    for module in ("backends.tensorrt.engine", "backends.tensorrt.compatibility"):
        monkeypatch.setattr(f"impasto.runtime.{module}.tensorrt", lambda product: api)
    return fake


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    return write_plan(tmp_path)


@pytest.fixture
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> EngineCache:
    """The user's cache, empty."""
    monkeypatch.setenv("IMPASTO_CACHE", str(tmp_path / "cache"))
    return EngineCache()
