"""Pictures on a GPU: what is drawn, which streams wait for which, what is copied, what is refused, what is freed.

The kernels run on the emulated GPU, the engine and the driver are NumPy. The law: a picture on the GPU is drawn as it is on the host.
"""

from __future__ import annotations

import ctypes
import gc
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import fake_gpu
from support.emulated_frames import nv12_picture, rgb_picture
from support.fake_engines import picture, write_plan
from support.fake_gpu import FakeDriver, FakeTensorRT
from support.gpu_arrays import Capsule, DriverCalls, Interface

import impasto
from impasto.errors import BackendError, OptionError, ShapeError
from impasto.kernels import frames
from impasto.package.spec import ModelSpec, SizeRule
from impasto.runtime.backends.onnxruntime import OnnxRuntimeBackend, _DeviceTensors, onnxruntime
from impasto.runtime.gpu.result import GpuArray
from impasto.runtime.inference.context import ContextGraph

pytest_plugins = ("support.engine_fixtures", "support.frame_fixtures")

ENGINE_STREAM, MINE, OTHER = 7, 41, 42
"""The stand-in's only stream, and two of the caller's."""


def content(array: GpuArray) -> np.ndarray:
    pointer, _ = array.__cuda_array_interface__["data"]
    size = int(np.prod(array.shape))
    return np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(pointer)).reshape(array.shape).copy()


def spec(**changed: Any) -> dict[str, Any]:
    """A record's spec: a restorer whose pictures have a border and are cut into tiles above the engine's 64 x 64."""
    return replace(ModelSpec("tiny", task="denoise", receptive_field=4), **changed).to_json()


@pytest.fixture(params=[Interface, Capsule], ids=["interface", "dlpack"])
def kind(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.mark.parametrize("driver", [False, True], indirect=True, ids=["discrete", "integrated"])
@pytest.mark.parametrize("border", [0, 3])
@pytest.mark.parametrize("size", [(20, 30), (16, 16), (7, 9), (58, 58), (150, 90)], ids=str)
def test_a_picture_is_drawn_as_it_is_on_the_host(
    driver: FakeDriver, vendor: FakeTensorRT, calls: DriverCalls, frame_kernels: Any, tmp_path: Path, kind: Any,
    border: int, size: tuple[int, int],
) -> None:  # fmt: skip
    """Whole, padded to the engine's smallest size, with a border, and in tiles."""
    with impasto.load(write_plan(tmp_path, spec=spec(border=border))) as model:
        for seed in range(2):
            image = picture(*size, seed=seed)
            drawn = model(kind(driver, image))
            assert drawn.shape == image.shape
            np.testing.assert_array_equal(content(drawn), model(image))


def test_rows_may_have_bytes_between_them(driver, vendor, calls, frame_kernels, plan, kind):
    image = picture(20, 30)
    out = kind(driver, np.zeros_like(image), row_bytes=256)
    with impasto.load(plan) as model:
        model.run_into(kind(driver, image, row_bytes=128), out)
    np.testing.assert_array_equal(out.values, 255 - image)


def test_without_a_border_the_engine_reads_and_writes_the_callers_memory(driver, vendor, calls, frame_kernels, plan):
    image, out = Interface(driver, picture(20, 30)), Interface(driver, np.zeros((20, 30, 3), np.uint8))
    with impasto.load(plan) as model:
        model.run_into(image, out)
        assert frame_kernels == []
        np.testing.assert_array_equal(out.values, 255 - image.values)
        aslant = Interface(driver, image.values, offset=3)
        out.values[...] = 0
        model.run_into(aslant, out)
        assert frame_kernels == ["frame_in"], "an engine takes addresses of 256 bytes"
        np.testing.assert_array_equal(out.values, 255 - image.values)
        model.run_into(image, image)
        np.testing.assert_array_equal(image.values, out.values)
        np.testing.assert_array_equal(model(picture(20, 30)), 255 - picture(20, 30))


def test_no_picture_is_copied_through_the_host_and_no_memory_is_taken(
    driver, vendor, calls, frame_kernels, tmp_path, monkeypatch
):
    """After the first picture of a size."""
    with impasto.load(write_plan(tmp_path, spec=spec(border=3))) as model:
        image, out = Interface(driver, picture(20, 30)), Interface(driver, np.zeros((20, 30, 3), np.uint8))
        model.run_into(image, out)
        with monkeypatch.context() as patched:
            for name in ("mem_alloc", "pagelocked_empty", "memcpy_htod_async", "memcpy_dtoh_async"):
                patched.setattr(driver, name, None)
            model.run_into(image, out)
    np.testing.assert_array_equal(out.values, 255 - image.values)


@pytest.mark.parametrize("matrix", frames.MATRICES)
@pytest.mark.parametrize("size", [(20, 30), (150, 90)], ids=str)
def test_nv12_is_drawn_as_its_rgb_is(driver, vendor, calls, frame_kernels, tmp_path, kind, matrix, size):
    """Both ways, or one way: what `out` is says itself."""
    surface = np.random.default_rng(1).integers(0, 256, (size[0] * 3 // 2, size[1]), np.uint8)
    rgb, wanted = np.zeros((*size, 3), np.uint8), np.zeros_like(surface)
    frames.read_window(nv12_picture(surface, matrix), rgb_picture(rgb), 0, 0, 0)
    with impasto.load(write_plan(tmp_path, spec=spec(border=3))) as model:
        expected = model(rgb)
        frames.write_part(rgb_picture(expected), nv12_picture(wanted, matrix), 0, 0, 0)
        np.testing.assert_array_equal(content(model(kind(driver, surface), nv12=matrix)), wanted)
        one_channel = kind(driver, surface[..., None], row_bytes=128)
        np.testing.assert_array_equal(content(model(one_channel, nv12=matrix)), wanted)
        as_rgb, as_nv12 = kind(driver, np.zeros_like(rgb)), kind(driver, np.zeros_like(surface))
        model.run_into(kind(driver, surface), as_rgb, nv12=matrix)
        np.testing.assert_array_equal(as_rgb.values, expected)
        model.run_into(kind(driver, rgb), as_nv12, nv12=matrix)
        np.testing.assert_array_equal(as_nv12.values, wanted)


def test_the_context_is_computed_from_a_thumbnail_made_on_the_gpu(driver, vendor, calls, frame_kernels, tmp_path):
    class Mean:
        """A context graph: five times a thumbnail's mean."""

        class output:  # noqa: N801
            shape = (1, 5)

        def run(self, inputs, out):
            out[...] = inputs[0].mean()

        def close(self): ...

    with impasto.load(write_plan(tmp_path, b"plan+context", spec=spec(strength=1.0))) as model:
        model._context_source = ContextGraph(Mean(), 8, np.empty(0, np.float32))
        for seed in range(3):
            image = picture(40, 30, seed=seed) // 2 + 40 * seed
            np.testing.assert_array_equal(content(model(Interface(driver, image))), model(image))
        assert frame_kernels.count("frame_thumbnail") == 3


def test_a_strength_reaches_the_engine_and_0_is_the_picture(
    driver, vendor, calls, frame_kernels, tmp_path, monkeypatch
):
    monkeypatch.setattr(fake_gpu, "CONTEXT", 1)
    image = picture(40, 30)
    with impasto.load(write_plan(tmp_path, b"plan+context", spec=spec(strength=2.0, border=3))) as model:
        for strength in (1.0, 0.0, 2.0):
            model.strength = strength
            np.testing.assert_array_equal(content(model(Interface(driver, image))), model(image))
        model.strength = 0
        surface = Interface(driver, np.full((60, 30), 128, np.uint8))
        np.testing.assert_array_equal(content(model(surface, nv12="bt709")), surface.values)


# ---- streams ----


def test_without_a_stream_the_call_returns_when_the_drawing_is_there(
    driver, vendor, calls, frame_kernels, plan, monkeypatch
):
    waited = []
    monkeypatch.setattr(driver.Stream, "synchronize", lambda self: waited.append(self.handle))
    with impasto.load(plan) as model:
        drawn = model(Interface(driver, picture()))
        assert calls.waits == []
        assert waited[-1] == ENGINE_STREAM
        assert drawn.__cuda_array_interface__["stream"] is None


def test_the_callers_stream_is_waited_for_and_waits(driver, vendor, calls, frame_kernels, plan, monkeypatch):
    with impasto.load(plan) as model:
        image = Interface(driver, picture())
        model(image)
        waited = []
        monkeypatch.setattr(driver.Stream, "synchronize", lambda self: waited.append(self.handle))
        drawn = model(image, stream=MINE)
        assert calls.waits == [(MINE, ENGINE_STREAM), (ENGINE_STREAM, MINE)]
        assert not waited, "it returns at once"
        assert drawn.__cuda_array_interface__["stream"] == MINE


def test_the_stream_that_an_array_names_is_the_callers(driver, vendor, calls, frame_kernels, plan):
    """Version 3 of the interface. Of two arrays both must name one; otherwise the call waits."""
    image, out = Interface(driver, picture()), Interface(driver, picture())
    with impasto.load(plan) as model:
        image.changed = {"stream": MINE}
        assert model(image).stream == MINE
        assert calls.waits == [(MINE, ENGINE_STREAM), (ENGINE_STREAM, MINE)]
        calls.waits.clear()
        model.run_into(image, out)
        assert calls.waits == [(MINE, ENGINE_STREAM)]
        out.changed = {"stream": OTHER}
        calls.waits.clear()
        model.run_into(image, out)
        assert set(calls.waits[:2]) == {(MINE, ENGINE_STREAM), (OTHER, ENGINE_STREAM)}
        assert calls.waits[2:] == [(ENGINE_STREAM, MINE), (ENGINE_STREAM, OTHER)]


def test_the_owner_of_a_dlpack_array_makes_our_stream_wait(driver, vendor, calls, frame_kernels, plan):
    image, out = Capsule(driver, picture()), Capsule(driver, picture())
    with impasto.load(plan) as model:
        model.run_into(image, out)
        (entry,) = calls.streams
        assert image.streams == out.streams == [entry]
        assert calls.waits == [(entry, ENGINE_STREAM)]
        calls.waits.clear()
        model.run_into(image, out, stream=MINE)
        assert set(calls.waits[:-1]) == {(entry, ENGINE_STREAM), (MINE, ENGINE_STREAM)}
        assert calls.waits[-1] == (ENGINE_STREAM, MINE)


def test_the_reader_of_a_result_waits_for_it(driver, vendor, calls, frame_kernels, plan):
    with impasto.load(plan) as model:
        drawn = model(Interface(driver, picture()), stream=MINE)
        for given, waits in ((OTHER, [(MINE, OTHER)]), (None, [(MINE, 1)]), (-1, [])):
            calls.waits.clear()
            drawn.__dlpack__(stream=given, max_version=(1, 1))
            assert calls.waits == waits
        assert drawn.__dlpack_device__() == (2, 0)
        for wrong in ({"stream": 0}, {"copy": True}, {"dl_device": (1, 0)}):
            with pytest.raises(BufferError):
                drawn.__dlpack__(**wrong)


def test_a_result_is_another_models_picture(driver, vendor, calls, frame_kernels, plan):
    image = picture()
    with impasto.load(plan) as model:
        np.testing.assert_array_equal(content(model(model(Interface(driver, image), stream=MINE))), image)


# ---- memory ----


def test_everything_is_freed(driver, vendor, calls, frame_kernels, tmp_path, kind, monkeypatch):
    monkeypatch.setattr(fake_gpu, "CONTEXT", 1)
    made = write_plan(tmp_path, b"plan+context", spec=spec(strength=2.0, border=3))
    images = [kind(driver, picture(*size)) for size in ((20, 30), (16, 16), (150, 90), (30, 20), (40, 40), (41, 40))]
    surface = kind(driver, np.full((225, 90), 128, np.uint8))
    before = set(driver.live)
    for _ in range(3):
        with impasto.load(made) as model:
            for image in images:
                model(image)
            model(surface, nv12="bt601")
    gc.collect()
    assert (set(driver.live), calls.allocated, calls.streams) == (before, 0, set())
    assert vendor.live_contexts == 0


def test_a_result_outlives_its_model_and_is_freed_with_its_last_reader(driver, vendor, calls, frame_kernels, plan):
    image = picture()
    with impasto.load(plan) as model:
        drawn = model(Interface(driver, image))
    capsule = drawn.__dlpack__()
    np.testing.assert_array_equal(content(drawn), 255 - image)
    del drawn
    gc.collect()
    assert calls.allocated == 1
    del capsule
    gc.collect()
    assert calls.allocated == 0


def test_an_error_on_the_gpu_leaves_the_model_usable(driver, vendor, calls, frame_kernels, plan, kind):
    with impasto.load(plan) as model:
        model(kind(driver, picture()))
        vendor.fail_next_run = True
        with pytest.raises(BackendError, match="refused to run"):
            model(kind(driver, picture()))
        np.testing.assert_array_equal(content(model(kind(driver, picture()))), 255 - picture())
    with pytest.raises(BackendError, match="this model is closed"):
        model(kind(driver, picture()))


# ---- what is refused ----


def on_device_1(driver: FakeDriver) -> Capsule:
    array = Capsule(driver, picture())
    array.device = (2, 1)
    return array


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        (lambda d: Interface(d, np.zeros((4, 4, 3), np.float32)), {}, "GPU is float32; wanted uint8; .*load the package"),
        (lambda d: Interface(d, np.zeros((4, 4, 3), np.int16)), {}, r"the picture is int16 \(4, 4, 3\); wanted uint8"),
        (lambda d: Capsule(d, np.zeros((4, 4, 3), np.float64)), {}, r"the picture is float64 \(4, 4, 3\); wanted uint8"),
        (lambda d: Interface(d, np.zeros((4, 4, 3), ">u2")), {}, "the picture is uint16 of another byte order"),
        (lambda d: Capsule(d, np.zeros((6, 4), np.uint16)), {"nv12": "bt709"}, r"the picture is uint16 \(6, 4\); wanted"),
        (lambda d: Interface(d, np.zeros((4, 4, 1), np.uint16)), {}, r"the picture is uint16 \(4, 4, 1\); wanted"),
        (lambda d: Interface(d, np.zeros((3, 4, 4), np.uint8)), {}, r"the picture is uint8 \(3, 4, 4\); wanted uint8 \(H, W, 3\)"),
        (lambda d: Interface(d, np.zeros((6, 4), np.uint8)), {}, r"pass nv12='bt709'"),
        (lambda d: Interface(d, np.zeros((7, 4), np.uint8)), {"nv12": "bt709"}, r"or uint8 \(H \* 3 / 2, W\) NV12 with even"),
        (lambda d: Interface(d, np.zeros((6, 5), np.uint8)), {"nv12": "bt709"}, r"is uint8 \(6, 5\); wanted"),
        (on_device_1, {}, r"the picture is on CUDA device 1 and the model on device 0; copy it there, or load .*device=1"),
    ],
)  # fmt: skip
def test_another_layout_dtype_or_device_is_one_line(driver, vendor, calls, frame_kernels, plan, make, options, message):
    with impasto.load(plan) as model, pytest.raises(ShapeError, match=message) as refused:
        model(make(driver), **options)
    assert "\n" not in str(refused.value)


def test_channels_first_behind_a_transposed_view_are_one_line(driver, vendor, calls, frame_kernels, plan):
    array = Interface(driver, np.zeros((3, 4, 4), np.uint8))
    array.values = array.values.transpose(1, 2, 0)
    with (
        impasto.load(plan) as model,
        pytest.raises(ShapeError, match=r"strides of \(4, 1, 16\) bytes; .*contiguous copy"),
    ):
        model(array)


@pytest.mark.parametrize(
    ("changed", "message"),
    [({"data": (12345, False)}, "at an address that CUDA does not know"), ({"mask": object()}, "has a mask")],
)
def test_an_interface_that_says_what_we_cannot_take_is_one_line(
    driver, vendor, calls, frame_kernels, plan, changed, message
):
    array = Interface(driver, picture())
    array.changed = changed
    with impasto.load(plan) as model, pytest.raises(ShapeError, match=message):
        model(array)


def test_out_must_fit(driver, vendor, calls, frame_kernels, plan):
    image = Interface(driver, picture(20, 30))
    read_only = Interface(driver, picture(20, 30))
    read_only.changed = {"data": (read_only.values.ctypes.data, True)}
    with impasto.load(plan) as model:
        for out, message in (
            (Interface(driver, picture(20, 32)), "out is RGB of 20 x 32 pixels; wanted 20 x 30"),
            (picture(20, 30), "out is a ndarray in host memory; wanted an array on CUDA device 0"),
            (read_only, "out is read-only"),
        ):
            with pytest.raises(ShapeError, match=message):
                model.run_into(image, out)


def test_what_is_done_on_the_cpu_alone_is_one_line(driver, vendor, calls, frame_kernels, tmp_path):
    image = Interface(driver, picture(60, 40))
    style = ModelSpec("tiny", task="stylize", working_size=32, size=SizeRule(1, 1)).to_json()
    with impasto.load(write_plan(tmp_path, spec=style)) as model:
        with pytest.raises(ShapeError, match=r"60 x 40, above the working size of 32.*working_size=None"):
            model(image)
        model.keep_colors = True
        with pytest.raises(OptionError, match="keep_colors works on NumPy arrays alone"):
            model(image)
        with pytest.raises(ShapeError, match="go through model\\(image\\) and run_into"):
            next(model.stream([image]))


def test_options_for_a_gpu_are_refused_elsewhere(driver, vendor, calls, plan):
    with impasto.load(plan) as model:
        for options in ({"stream": MINE}, {"nv12": "bt709"}):
            with pytest.raises(OptionError, match="no array on a GPU; leave"):
                model(picture(), **options)
        with pytest.raises(OptionError, match="nv12 is 'bt2020'; wanted 'bt601' or 'bt709'"):
            model(Interface(driver, picture()), nv12="bt2020")


def test_a_backend_on_the_cpu_says_what_to_load(driver, calls, make_package):
    with (
        impasto.load(make_package(), backend="onnxruntime-cpu") as model,
        pytest.raises(BackendError, match="onnxruntime-cpu on CPU takes none from there; pass a NumPy array, or load"),
    ):
        model(Interface(driver, picture()))


# ---- ONNX Runtime; here its device is the CPU, which takes the same calls ----


@pytest.mark.parametrize("thumbnail", [None, 8])
def test_onnxruntime_reads_and_writes_where_the_pictures_lie(
    driver, calls, frame_kernels, make_package, thumbnail, kind
):
    with impasto.load(make_package(thumbnail=thumbnail), backend="onnxruntime-cpu") as model:
        assert isinstance(model._backend, OnnxRuntimeBackend)
        model._backend._held = _DeviceTensors(onnxruntime(), "cpu", 0)
        for seed, size in enumerate([(16, 20), (17, 9), (16, 20)]):
            image = picture(*size, seed=seed)
            drawn = model(kind(driver, image), stream=MINE)
            np.testing.assert_array_equal(content(drawn), model(image))
        assert calls.waits[-1][1] == MINE
        calls.host_waits.clear()
        model(kind(driver, image))
        assert calls.host_waits, "ONNX Runtime has a stream of its own, so the host waits for the picture"
    gc.collect()
    del drawn
    assert (calls.allocated, calls.streams) == (0, set())
