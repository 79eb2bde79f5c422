"""The runtime over PyCUDA and the stand-in driver. Run by runtime/tensorrt/test_driver.py, in a process of its own."""

from __future__ import annotations

import ctypes
import gc
import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stand_in import StandIn
from support.fake_engines import picture, write_plan
from support.fake_gpu import FakeTensorRT, features
from support.fake_kernel import FakeModule

import impasto
from impasto.benchmarks import engine as engine_benchmark
from impasto.errors import BackendError, ImpastoError
from impasto.kernels import cuda_driver, launch, module
from impasto.kernels.feature_map import FeatureMap
from impasto.package.spec import PERCEPTUAL, ModelSpec
from impasto.runtime import StyleMeter, cuda
from impasto.runtime.backends.tensorrt import api as tensorrt_api
from impasto.runtime.backends.tensorrt.engine import TensorRTBackend
from impasto.runtime.style_distances import gram

INTEGRATED = os.environ["STAND_IN"] == "integrated"
LAUNCH_FAILED, OUT_OF_MEMORY, ILLEGAL_ADDRESS = 719, 2, 700


@pytest.fixture(scope="session")
def stand_in() -> StandIn:
    made = StandIn()
    made.be_integrated(INTEGRATED)
    return made


@pytest.fixture(autouse=True)
def nothing_left(stand_in: StandIn, recwarn: pytest.WarningsRecorder) -> Iterator[None]:
    """After each check everything is freed, no call was against the rules, and PyCUDA has not complained."""
    yield
    stand_in.heal()
    gc.collect()
    assert stand_in.report() == []
    assert stand_in.depth() == 0
    assert not [str(warning.message) for warning in recwarn if "cleaned up" in str(warning.message)]


@pytest.fixture
def vendor(stand_in: StandIn, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeTensorRT]:
    fake = FakeTensorRT(stand_in)
    api = tensorrt_api.TensorRT(fake, "tensorrt")
    for name in ("runtime.backends.tensorrt.engine", "runtime.backends.tensorrt.compatibility", "benchmarks.engine"):
        monkeypatch.setattr(f"impasto.{name}.tensorrt", lambda *_: api)
    yield fake
    gc.collect()
    assert fake.live_contexts == 0


@pytest.fixture
def plan(vendor: FakeTensorRT, tmp_path: Path) -> Path:
    return write_plan(tmp_path)


@pytest.fixture
def network(vendor: FakeTensorRT, stand_in: StandIn, tmp_path: Path) -> Path:
    stand_in.run_kernels(FakeModule(stand_in).compute)
    return write_plan(tmp_path, b"perceptual", precision="fp32", spec=ModelSpec("small", task=PERCEPTUAL).to_json())


def in_thread(work: Callable[[], Any]) -> Any:
    """What `work` gives in a thread that is gone afterwards, or what it raises."""
    done: list[Any] = []

    def run() -> None:
        try:
            done.append(work())
        except BaseException as error:
            done.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if isinstance(done[0], BaseException):
        raise done[0]
    return done[0]


def draws(model: impasto.Model, seed: int = 0, size: tuple[int, int] = (20, 30)) -> None:
    image = picture(*size, seed=seed)
    np.testing.assert_array_equal(model(image), 255 - image)


# ---- pictures ----


def test_pictures_of_every_size(plan: Path, stand_in: StandIn) -> None:
    with impasto.load(plan) as model:
        for seed, size in enumerate([(20, 30), (20, 30), (16, 16), (64, 64), (17, 19), (33, 20), (20, 30), (20, 30)]):
            draws(model, seed, size)


def test_a_second_picture_replays_a_graph(plan: Path, stand_in: StandIn) -> None:
    with impasto.load(plan) as model:
        draws(model)
        launches, copies = stand_in.calls("cuGraphLaunch"), stand_in.calls("cuMemcpyHtoDAsync_v2")
        draws(model, 1)
        assert stand_in.calls("cuGraphLaunch") == launches + 1
        assert stand_in.calls("cuMemcpyHtoDAsync_v2") == copies


@pytest.mark.parametrize(
    "missing", ["library", "cuStreamBeginCapture_v2", "cuStreamEndCapture", "cuGraphInstantiateWithFlags"]
)
def test_without_a_graph_it_runs_eagerly(
    plan: Path, stand_in: StandIn, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    if missing == "library":
        monkeypatch.setattr(cuda_driver, "has_graphs", lambda: False)
    launches = stand_in.calls("cuGraphLaunch")
    with impasto.load(plan) as model:
        stand_in.fail(missing)
        for seed in range(3):
            draws(model, seed)
    assert stand_in.calls("cuGraphLaunch") == launches


@pytest.mark.parametrize("depth", [1, 2, 3, 7])
def test_a_stream_keeps_order_over_changing_sizes(plan: Path, depth: int) -> None:
    frames = [picture(16 + (index // 5) % 2, 20, seed=index) for index in range(23)]
    with impasto.load(plan) as model:
        for frame, result in zip(frames, model.stream(frames, depth=depth), strict=True):
            np.testing.assert_array_equal(result, 255 - frame)


def test_loading_and_closing_50_times_frees_everything(plan: Path, stand_in: StandIn) -> None:
    for index in range(50):
        with impasto.load(plan) as model:
            draws(model, index)
            stream = model.stream([picture(seed=seed) for seed in range(5)])
            next(stream)
            stream.close()  # type: ignore[attr-defined]
        assert stand_in.report() == []


# ---- threads and other people's contexts ----


def test_a_model_outlives_the_threads_that_loaded_and_ran_it(plan: Path) -> None:
    model = in_thread(lambda: impasto.load(plan))
    in_thread(lambda: draws(model))
    draws(model, 1)
    in_thread(lambda: draws(model, 2, (64, 64)))
    in_thread(model.close)


def test_threads_share_models(plan: Path) -> None:
    def work(shared: impasto.Model, first: int) -> None:
        with impasto.load(plan) as own:
            for seed in range(first, first + 5):
                draws(shared, seed, (16 + seed % 3, 20))
                draws(own, seed)
                frames = [picture(seed=seed + index) for index in range(4)]
                for frame, drawn in zip(frames, own.stream(frames), strict=True):
                    np.testing.assert_array_equal(drawn, 255 - frame)

    with impasto.load(plan) as shared:
        failed: list[BaseException] = []
        threads = [
            threading.Thread(target=lambda first=first: caught(failed, lambda: work(shared, first)))
            for first in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not failed


def caught(failed: list[BaseException], work: Callable[[], None]) -> None:
    try:
        work()
    except BaseException as error:
        failed.append(error)


@pytest.mark.parametrize("by", ["PyCUDA", "driver"])
@pytest.mark.parametrize("ordinal", [0, 1])
def test_the_context_that_was_current_stays_so(plan: Path, by: str, ordinal: int) -> None:
    def work() -> None:
        other = cuda.driver().Device(ordinal).retain_primary_context()
        if by == "PyCUDA":
            other.push()
        else:  # as the CUDA runtime does it, and torch with that
            cuda_driver.call("cuCtxSetCurrent", ctypes.c_void_p(other.handle))
        with impasto.load(plan) as model:
            for seed in range(3):
                draws(model, seed)
                now = ctypes.c_void_p()
                cuda_driver.call("cuCtxGetCurrent", ctypes.byref(now))
                assert now.value == other.handle
        if by == "PyCUDA":
            other.pop()
        other.detach()

    in_thread(work)


def test_two_devices_keep_apart(plan: Path) -> None:
    with impasto.load(plan) as first, impasto.load(plan, device=1) as second:
        for seed in range(3):
            draws(first, seed)
            in_thread(lambda seed=seed: draws(second, seed))


def test_the_first_threads_to_come_get_one_device(plan: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda, "_devices", {})
    monkeypatch.setattr(
        cuda.Device, "integrated", property(lambda _: False, lambda *_: time.sleep(0.01)), raising=False
    )
    found: list[cuda.Device] = []
    threads = [threading.Thread(target=lambda: found.append(cuda.device(0))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(map(id, found))) == 1


def test_a_stream_times_work_in_any_thread(plan: Path) -> None:
    def work() -> None:
        stream = cuda.Stream(cuda.device(0))
        assert stream.time(lambda: None) >= 0
        stream.free()

    work()
    in_thread(work)


# ---- errors ----

CALLS = {
    "cuMemAlloc_v2": OUT_OF_MEMORY,
    "cuMemHostAlloc": OUT_OF_MEMORY,
    "cuMemHostGetDevicePointer_v2": LAUNCH_FAILED,
    "cuMemcpyHtoDAsync_v2": LAUNCH_FAILED,
    "cuMemcpyDtoHAsync_v2": LAUNCH_FAILED,
    "cuStreamCreate": LAUNCH_FAILED,
    "cuEventCreate": LAUNCH_FAILED,
    "cuStreamSynchronize": LAUNCH_FAILED,
    "cuStreamBeginCapture_v2": LAUNCH_FAILED,
    "cuStreamEndCapture": LAUNCH_FAILED,
    "cuGraphInstantiateWithFlags": LAUNCH_FAILED,
    "cuGraphLaunch": LAUNCH_FAILED,
}
WORDS = r"out of memory|unspecified launch failure|launch failed|CUDA_ERROR_LAUNCH_FAILED"


def use(model: impasto.Model) -> None:
    for seed, size in enumerate([(20, 30), (20, 30), (64, 33)]):
        draws(model, seed, size)
    frames = [picture(seed=seed) for seed in range(3)]
    for frame, drawn in zip(frames, model.stream(frames), strict=True):
        np.testing.assert_array_equal(drawn, 255 - frame)


def tried(plan: Path) -> impasto.Model | None:
    """The model after a life in which one call fails, or None where it did not even load."""
    model = None
    try:
        model = impasto.load(plan)
        use(model)
    except ImpastoError as error:
        assert re.search(WORDS, str(error)), error
    return model


@pytest.mark.parametrize("call", CALLS)
def test_a_failed_call_is_told_frees_all_and_leaves_the_model_usable(plan: Path, stand_in: StandIn, call: str) -> None:
    def work() -> None:
        n, made = 0, 1
        while made > n:
            n, before = n + 1, stand_in.calls(call)
            stand_in.fail(call, n, CALLS[call])
            model = tried(plan)
            made = stand_in.calls(call) - before
            stand_in.heal()
            if model:
                use(model)
                model.close()
            model = None
            gc.collect()
            assert (stand_in.report(), stand_in.depth()) == ([], 0), f"call {n} of {made}"

    cuda.device(0)
    in_thread(work)  # not the one that made the device: PyCUDA would free what was forgotten


def test_a_context_that_cannot_become_current_is_told(plan: Path, stand_in: StandIn) -> None:
    stand_in.fail("cuCtxPushCurrent_v2")
    with pytest.raises(BackendError, match=r"making the GPU current: .*launch failure"):
        impasto.load(plan)
    with impasto.load(plan) as model:
        for n in range(1, 4):
            stand_in.fail("cuCtxPushCurrent_v2", n)
            with pytest.raises(BackendError, match=r"making the GPU current: .*launch failure"):
                use(model)
            use(model)


@pytest.mark.parametrize("call", ["cuStreamSynchronize", "cuGraphLaunch", "cuMemHostAlloc"])
def test_a_broken_gpu_is_told_at_every_call_and_closes_quietly(plan: Path, stand_in: StandIn, call: str) -> None:
    model = impasto.load(plan)
    draws(model)
    stand_in.fail(call, code=ILLEGAL_ADDRESS, lasting=True)
    size = (30, 30) if call == "cuMemHostAlloc" else (20, 30)  # a new one, or the one that has a graph
    for seed in range(3):
        with pytest.raises(BackendError, match=r"(?i)illegal"):
            draws(model, seed, size)
    with pytest.raises(BackendError, match=r"(?i)illegal"):
        impasto.load(plan)(picture())
    model.close()
    stand_in.heal()
    stand_in.report()  # nothing can be freed any more


def test_memory_that_waits_in_the_pool_is_freed_before_it_is_said_to_be_short(plan: Path, stand_in: StandIn) -> None:
    device = cuda.device(0)
    for block in [device.take(size << 20) for size in (20, 30)]:
        device.give_back(block)
    block = device.take(40 << 20)
    with pytest.raises(BackendError, match="out of memory while allocating"):
        device.take(40 << 20)
    device.give_back(block)
    device.trim()


# ---- the Gram kernel ----


def distances(image: np.ndarray, painting: np.ndarray) -> dict[str, float]:
    """Each layer's distance, on the host."""
    targets = {name: gram(values) for name, values in features(painting).items()}
    return {
        name: float(np.square(gram(values) - targets[name]).mean() / np.square(targets[name]).mean())
        for name, values in features(image).items()
    }


def test_distances_are_the_hosts_in_every_thread(network: Path) -> None:
    painting = picture(40, 33)

    def work() -> None:
        with StyleMeter(painting, network) as meter:
            for seed, size in enumerate([(20, 30), (20, 30), (20, 30), (64, 64), (17, 33), (20, 30)]):
                image = picture(*size, seed=seed)
                assert dict(meter(image).layers) == pytest.approx(distances(image, painting), rel=1e-4)

    work()
    in_thread(work)


def test_the_kernels_load_in_a_thread_that_has_used_nothing_yet() -> None:
    def work() -> int:
        cuda_driver.make_context_current(0)
        return module.loaded().resident_blocks("gram_forward_f16_nhwc")

    assert in_thread(work) == 16 * 2


@pytest.mark.parametrize(("dtype", "data_type"), [("f16", 6), ("bf16", 9)])
@pytest.mark.parametrize(
    ("strides", "layout", "extents"),
    [((4096, 64, 8, 1), "nchw", (64, 64, 2)), ((4096, 1, 512, 64), "nhwc", (64, 64, 2))],
)
def test_the_driver_is_told_what_bulk_copies_bring(
    dtype: str, data_type: int, strides: tuple[int, int, int, int], layout: str, extents: tuple[int, int, int]
) -> None:
    cuda_driver.make_context_current(0)
    tensor = FeatureMap(1 << 20, (2, 64, 8, 8), strides).bulk_tensor(layout, dtype)
    assert tensor
    words = np.frombuffer(module.loaded().tensor_map(tensor), np.uint64)
    assert words[:10].tolist() == [1 << 20, *extents, 128, 8192, 64, 64, 1, data_type]
    cuda_driver.call("cuCtxSetCurrent", None)


def test_hoppers_kernel_is_launched_where_it_is_taken(stand_in: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    launched: list[str] = []
    stand_in.run_kernels(lambda name, blocks, group: launched.append(name))

    def work() -> None:
        cuda_driver.make_context_current(0)
        monkeypatch.setattr(module.loaded(), "use_wgmma", True)
        layer = launch.Layer(FeatureMap(1 << 20, (2, 64, 8, 8), (4096, 64, 8, 1)))
        stream = cuda.Stream(cuda.device(0))
        launch.forward([layer], "f16", 1 << 21, 0, stream.handle)
        stream.wait()
        stream.free()

    in_thread(work)
    assert launched == ["gram_forward_f16_nchw_wgmma", "gram_finish"]


@pytest.mark.parametrize(
    ("call", "n"),
    [("cuLaunchKernel", 1), ("cuLaunchKernel", 2), ("cuMemcpyDtoHAsync_v2", 1), ("cuStreamSynchronize", 2)],
)
def test_a_failed_launch_is_told_and_leaves_the_meter_usable(
    network: Path, stand_in: StandIn, call: str, n: int
) -> None:
    image = picture(20, 30)
    with StyleMeter(picture(40, 33), network) as meter:
        expected = meter(image)
        stand_in.fail(call, n)
        with pytest.raises(BackendError, match=WORDS):
            meter(picture(21, 30))
        assert meter(image) == expected


def test_kernels_that_cannot_be_captured_run_eagerly(network: Path, stand_in: StandIn) -> None:
    with StyleMeter(picture(40, 33), network) as meter:
        stand_in.fail("cuLaunchKernel", 4)  # the first two run, the second two are recorded
        launches = stand_in.calls("cuGraphLaunch")
        first = meter(picture(20, 30))
        assert meter(picture(20, 30)) == first
        assert stand_in.calls("cuGraphLaunch") == launches


# ---- benchmarks ----


def test_the_benchmarks_of_engines_run(plan: Path) -> None:
    for measure in (engine_benchmark._engine_times, engine_benchmark._frame_times):
        backend = TensorRTBackend(b"plan", None, 0, "impasto build tiny")
        measure(backend, picture()[None][0])
        backend.close()
