"""Engines over a driver and a TensorRT made of NumPy: what is refused, what is freed, what stays usable."""

from __future__ import annotations

import re
import types
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.fake_engines import picture, write_plan
from support.fake_gpu import FakeDriver, FakeTensorRT

import impasto
from impasto.errors import BackendError, EngineMismatch, KernelError, OptionError, PackageError, ShapeError
from impasto.kernels import cuda_driver
from impasto.package.spec import ModelSpec
from impasto.runtime import cuda

pytest_plugins = ("support.engine_fixtures",)


@pytest.mark.parametrize("driver", [False, True], indirect=True, ids=["discrete", "integrated"])
def test_an_engine_draws_pictures_of_every_size_it_holds(vendor: FakeTensorRT, plan: Path) -> None:
    with impasto.load(plan) as model:
        for seed, size in enumerate([(20, 30), (16, 16), (64, 64), (20, 30)]):
            image = picture(*size, seed=seed)
            np.testing.assert_array_equal(model(image), 255 - image)
        assert (model.info.backend, model.info.precision) == ("tensorrt", "fp16")


@pytest.mark.parametrize("depth", [1, 2, 3, 7])
def test_a_stream_keeps_order_over_changing_sizes(vendor: FakeTensorRT, plan: Path, depth: int) -> None:
    frames = [picture(16 + (index // 3) % 2, 20, seed=index) for index in range(11)]
    with impasto.load(plan) as model:
        drawn = list(model.stream(frames, depth=depth))
    for frame, result in zip(frames, drawn, strict=True):
        np.testing.assert_array_equal(result, 255 - frame)


def test_loading_and_closing_50_times_frees_everything(driver: FakeDriver, vendor: FakeTensorRT, plan: Path) -> None:
    for _ in range(50):
        with impasto.load(plan) as model:
            model(picture())
            stream = model.stream([picture(seed=index) for index in range(5)])
            next(stream)
            stream.close()  # type: ignore[attr-defined]
    assert not driver.live
    assert (vendor.live_contexts, vendor.live_engines) == (0, 0)


def test_run_into_takes_no_memory_after_the_first_picture_of_a_size(
    driver: FakeDriver, vendor: FakeTensorRT, plan: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image, out = picture(), np.empty((20, 30, 3), np.uint8)
    with impasto.load(plan) as model:
        model.run_into(image, out)
        monkeypatch.setattr(driver, "mem_alloc", None)
        monkeypatch.setattr(driver, "pagelocked_empty", None)
        model.run_into(image, out)


@pytest.mark.parametrize(
    "changed",
    [
        {"version": "8.6.1"},
        {"compute_capabilities": ("8.6",)},
        {"gpu": "Orin NX"},
    ],
)
def test_an_engine_for_elsewhere_is_refused_with_the_command_to_run(
    vendor: FakeTensorRT, tmp_path: Path, changed: dict[str, object]
) -> None:
    with pytest.raises(EngineMismatch, match=r"impasto build tiny --precision fp16"):
        impasto.load(write_plan(tmp_path, **changed))


def test_bytes_that_are_no_engine_are_refused_in_the_vendors_words(vendor: FakeTensorRT, tmp_path: Path) -> None:
    with pytest.raises(EngineMismatch, match="cannot read this engine"):
        impasto.load(write_plan(tmp_path, b"garbage"))


def test_an_altered_plan_is_not_even_read(vendor: FakeTensorRT, plan: Path) -> None:
    plan.write_bytes(b"plan, altered")
    with pytest.raises(PackageError, match="executable code"):
        impasto.load(plan)


def test_a_plan_without_a_record_is_refused(vendor: FakeTensorRT, plan: Path) -> None:
    plan.with_suffix(".json").unlink()
    with pytest.raises(PackageError, match="no readable record"):
        impasto.load(plan)
    with impasto.load(plan, trust=True) as model:  # whoever says so knows what it is
        image = picture()
        np.testing.assert_array_equal(model(image), 255 - image)


def test_a_picture_outside_of_the_profiles_names_the_build(vendor: FakeTensorRT, plan: Path) -> None:
    with impasto.load(plan) as model:
        with pytest.raises(ShapeError, match=re.escape("--size 100x20")):
            model(picture(100, 20))
        model(picture())


def test_a_failed_run_leaves_the_model_usable(vendor: FakeTensorRT, plan: Path) -> None:
    image = picture()
    with impasto.load(plan) as model:
        model(image)
        vendor.fail_next_run = True
        with pytest.raises(BackendError, match="refused to run"):
            model(image)
        np.testing.assert_array_equal(model(image), 255 - image)


@pytest.mark.parametrize("operation", ["memcpy_htod_async", "synchronize", "memcpy_dtoh_async"])
def test_cuda_errors_come_as_ours_with_the_drivers_words(
    driver: FakeDriver, vendor: FakeTensorRT, plan: Path, operation: str
) -> None:
    with impasto.load(plan) as model:
        model(picture())
        driver.fail_next = operation
        with pytest.raises(BackendError, match="illegal memory access"):
            model(picture())
        model(picture())


def test_other_backends_refuse_engines_and_the_reverse(vendor: FakeTensorRT, plan: Path) -> None:
    with pytest.raises(OptionError, match="is a TensorRT engine"):
        impasto.load(plan, backend="onnxruntime-cpu")


@pytest.mark.parametrize("size", [(5, 9), (1, 1), (64, 64), (65, 64), (150, 201), (63, 300)])
def test_pictures_are_padded_up_to_the_engine_or_cut_into_its_tiles(
    vendor: FakeTensorRT, tmp_path: Path, size: tuple[int, int]
) -> None:
    spec = ModelSpec("tiny", receptive_field=7, border=2).to_json()
    with impasto.load(write_plan(tmp_path, spec=spec)) as model:
        image = picture(*size)
        np.testing.assert_array_equal(model(image), 255 - image)
        np.testing.assert_array_equal(next(iter(model.stream([image]))), 255 - image)


def test_tiles_that_are_mostly_overlap_are_refused(vendor: FakeTensorRT, tmp_path: Path) -> None:
    spec = ModelSpec("tiny", receptive_field=31).to_json()
    with impasto.load(write_plan(tmp_path, spec=spec)) as model:
        with pytest.raises(ShapeError, match=r"mostly their overlap of 31; build one .* --size 100x20"):
            model(picture(100, 20))
        model(picture(64, 20))


def test_a_profile_that_is_refused_is_an_error_in_the_vendors_words(
    vendor: FakeTensorRT, plan: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = type(vendor.Runtime(None).deserialize_cuda_engine(b"plan"))
    monkeypatch.setattr(engine, "num_optimization_profiles", 2)
    monkeypatch.setattr(vendor.context, "set_optimization_profile_async", lambda *_: False)
    with impasto.load(plan) as model, pytest.raises(BackendError, match="refused optimization profile 0"):
        model(picture())


def test_closing_a_model_stops_its_streams_and_frees_what_they_hold(
    driver: FakeDriver, vendor: FakeTensorRT, plan: Path
) -> None:
    model = impasto.load(plan)
    stream = model.stream(picture(seed=index) for index in range(20))
    next(stream)
    model.close()
    with pytest.raises(BackendError, match="is closed"):
        for _ in stream:
            pass
    assert not driver.live
    assert (vendor.live_contexts, vendor.live_engines) == (0, 0)


def test_memory_kept_is_never_more_than_was_in_use_at_once(
    driver: FakeDriver, vendor: FakeTensorRT, plan: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pictures of ever new sizes may not gather blocks of sizes that never come again."""
    monkeypatch.setattr(cuda, "_GRANULE", 64)  # so that small pictures differ
    device = cuda.device()
    with impasto.load(plan) as model:
        most = 0
        for seed in range(60):
            image = picture(*np.random.default_rng(seed).integers(16, 65, 2), seed=seed)
            list(model.stream([image] * 3, depth=2))
            model(image)
            most = max(most, device._most_bytes)
            assert sum(block.size for block in device._free) + device._used_bytes <= most


def test_an_execution_context_gets_the_memory_that_our_pool_keeps(
    driver: FakeDriver, vendor: FakeTensorRT, plan: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = type(vendor.Runtime(None).deserialize_cuda_engine(b"plan"))
    make = engine.create_execution_context
    with impasto.load(plan) as model:
        device = cuda.device()
        device.give_back(device.take(1 << 20))
        monkeypatch.setattr(engine, "create_execution_context", lambda self: None if device._free else make(self))
        np.testing.assert_array_equal(model(picture()), 255 - picture())


def test_ctrl_c_while_a_frame_is_awaited_loses_no_slot(
    driver: FakeDriver, vendor: FakeTensorRT, plan: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited = iter([KeyboardInterrupt])
    result = Future.result

    def interrupted(self: Any, timeout: float | None = None) -> Any:
        for error in waited:
            result(self, timeout)
            raise error
        return result(self, timeout)

    with impasto.load(plan) as model:
        stream = model.stream([picture()] * 4)
        monkeypatch.setattr(Future, "result", interrupted)
        with pytest.raises(KeyboardInterrupt):
            next(stream)
    assert not driver.live
    assert (vendor.live_contexts, vendor.live_engines) == (0, 0)


@pytest.mark.parametrize("missing", [None, *cuda_driver._GRAPH_CALLS])
def test_graphs_are_the_drivers_where_it_has_all_their_calls(
    monkeypatch: pytest.MonkeyPatch, missing: str | None
) -> None:
    library = types.SimpleNamespace(**{name: None for name in cuda_driver._GRAPH_CALLS if name != missing})
    monkeypatch.setattr(cuda_driver, "library", lambda: library)
    assert cuda_driver.has_graphs() is (missing is None)


def test_without_a_driver_there_are_no_graphs(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent() -> None:
        raise KernelError("The CUDA driver cannot be loaded")

    monkeypatch.setattr(cuda_driver, "library", absent)
    assert not cuda_driver.has_graphs()


@pytest.mark.parametrize("name", ["image", "picture"])
def test_memory_that_tensorrt_refuses_is_told(driver: FakeDriver, vendor: FakeTensorRT, plan: Path, name: str) -> None:
    vendor.refused_address = name
    with impasto.load(plan) as model, pytest.raises(BackendError, match=f"refused memory at 0x.* for {name}"):
        model(picture())
    assert not driver.live


@pytest.mark.parametrize("capturable", [True, False])
def test_what_tensorrt_says_cannot_be_recorded_is_not(
    vendor: FakeTensorRT, plan: Path, monkeypatch: pytest.MonkeyPatch, capturable: bool
) -> None:
    tried: list[object] = []
    monkeypatch.setattr(cuda.Stream, "capture", lambda self, work: tried.append(work))
    monkeypatch.setattr(vendor.context, "is_stream_capturable", lambda self, stream: capturable, raising=False)
    with impasto.load(plan) as model:
        for _ in range(2):
            np.testing.assert_array_equal(model(picture()), 255 - picture())
    assert len(tried) == capturable
