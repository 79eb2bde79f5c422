"""Pictures of uint16 and float32 on a GPU are drawn as on the host: kernels on the emulated GPU, engines with float ends of NumPy."""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import fake_gpu
from support.fake_engines import key, picture, record
from support.gpu_arrays import Capsule, Interface

import impasto
from impasto.errors import ShapeError
from impasto.export import add_float_graph
from impasto.export.tensorrt.cache import EngineCache
from impasto.files import sha256
from impasto.kernels import frames
from impasto.package.manifest import FLOAT, FLOAT_MODEL, MANIFEST, read_manifest
from impasto.runtime.backends.onnxruntime import _DeviceTensors, onnxruntime
from impasto.runtime.gpu.result import GpuArray
from impasto.runtime.inference.context import ContextGraph

pytest_plugins = ("support.engine_fixtures", "support.frame_fixtures")
pytestmark = pytest.mark.usefixtures("own_cache", "vendor", "calls")

ENGINE_STREAM, MINE = 7, 41
FORMS = [(np.uint16, True), (np.uint16, False), (np.float32, True), (np.float32, False)]
NAMES = ["uint16 RGB", "uint16 gray", "float32 RGB", "float32 gray"]
ONE_ULP = 2.0**-23


def content(array: GpuArray) -> np.ndarray:
    pointer, _ = array.__cuda_array_interface__["data"]
    size = int(np.prod(array.shape)) * array.dtype.itemsize
    raw = np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(pointer)).copy()
    return raw.view(np.dtype(array.__cuda_array_interface__["typestr"])).reshape(array.shape)


def deep(size: tuple[int, int], dtype: type, colours: bool, seed: int = 0) -> np.ndarray:
    shape = (*size, 3) if colours else size
    values = np.random.default_rng(seed).integers(0, 1 << 16, shape, np.uint16)
    return values if dtype is np.uint16 else values.astype(np.float32) / 65535


@pytest.fixture
def make_engines(make_package: Callable[..., Path], own_cache: EngineCache) -> Callable[..., Path]:
    """Makes a package with engines for 8 bits and with float ends, which invert pictures. strength: of its spec."""

    def make(strength: float | None = None, floats: bool = True, **options: Any) -> Path:
        package = make_package(**options)
        add_float_graph(package)
        manifest = read_manifest(package)
        spec = manifest.spec.to_json() | ({"strength": strength} if strength else {})
        if strength:
            text = (package / MANIFEST).read_text()
            name = f'"name": "{manifest.spec.name}"'
            (package / MANIFEST).write_text(text.replace(name, f'{name}, "strength": {strength}', 1))
        more = b"+context" if strength else b""
        for role, name, plan in (("model", "model.onnx", b"plan"), (FLOAT, FLOAT_MODEL, b"float"))[: 1 + floats]:
            source = {"source_sha256": sha256(package / name), "role": role, "spec": spec}
            own_cache.put(record(key=key(role), precision="fp32", **source), plan + more)
        return package

    return make


@pytest.fixture(params=[Interface, Capsule], ids=["interface", "dlpack"])
def kind(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.mark.parametrize(("dtype", "colours"), FORMS, ids=NAMES)
@pytest.mark.parametrize("border", [0, 3])
@pytest.mark.parametrize("size", [(20, 30), (7, 9), (150, 90)], ids=str)
def test_a_picture_is_drawn_as_it_is_on_the_host(
    driver, frame_kernels, make_engines, kind, border, size, dtype, colours
):
    """Whole, padded to the engine's smallest size, with a border, and in tiles."""
    with impasto.load(make_engines(border=border), backend="tensorrt") as model:
        image = deep(size, dtype, colours)
        drawn, expected = model(kind(driver, image)), model(image)
        assert (drawn.shape, drawn.dtype) == (expected.shape, expected.dtype)
        assert np.abs(content(drawn).astype(float) - expected).max() <= (
            0 if colours or dtype is np.uint16 else ONE_ULP
        )
        rows = kind(driver, np.zeros_like(image), row_bytes=1024 * 4)
        model.run_into(kind(driver, image, row_bytes=1024 * 3), rows)
        np.testing.assert_array_equal(rows.values, content(drawn))
        np.testing.assert_array_equal(content(model(kind(driver, picture(*size)))), 255 - picture(*size))


def test_float32_rgb_is_read_and_written_where_it_lies(driver, frame_kernels, make_engines):
    image, out = (Interface(driver, deep((20, 32), np.float32, True, seed)) for seed in (0, 1))
    with impasto.load(make_engines(), backend="tensorrt") as model:
        model.run_into(image, out)
        assert frame_kernels == []
        np.testing.assert_array_equal(out.values, 1 - image.values)
        sixteen = Interface(driver, deep((20, 32), np.uint16, True))
        model.run_into(sixteen, sixteen)
        assert frame_kernels == ["deep_in", "deep_out"]
        np.testing.assert_array_equal(sixteen.values, 65535 - deep((20, 32), np.uint16, True))


def test_no_picture_is_copied_through_the_host(driver, frame_kernels, make_engines, monkeypatch):
    with impasto.load(make_engines(border=3), backend="tensorrt") as model:
        image, out = (Interface(driver, deep((20, 30), np.uint16, True)) for _ in range(2))
        model.run_into(image, out)
        with monkeypatch.context() as patched:
            for name in ("mem_alloc", "pagelocked_empty", "memcpy_htod_async", "memcpy_dtoh_async"):
                patched.setattr(driver, name, None)
            model.run_into(image, out)


@pytest.mark.parametrize(("dtype", "colours"), FORMS, ids=NAMES)
def test_a_strength_reaches_the_engine_and_0_is_the_picture(
    driver, frame_kernels, make_engines, monkeypatch, dtype, colours
):
    monkeypatch.setattr(fake_gpu, "CONTEXT", 1)
    image = deep((40, 30), dtype, colours)
    with impasto.load(make_engines(strength=2.0, border=3), backend="tensorrt") as model:
        for strength in (1.0, 0.0, 2.0):
            model.strength = strength
            drawn = content(model(Interface(driver, image)))
            assert np.abs(drawn.astype(float) - model(image)).max() <= (0 if dtype is np.uint16 else ONE_ULP)
            assert strength or np.array_equal(drawn, image)


@pytest.mark.parametrize(("dtype", "colours"), FORMS, ids=NAMES)
def test_the_context_comes_from_the_hosts_thumbnail(driver, frame_kernels, make_engines, monkeypatch, dtype, colours):
    seen = []

    class Sees:
        """A context graph that keeps the thumbnails it is given."""

        class output:  # noqa: N801
            shape = (1, 1)

        def run(self, inputs, out):
            seen.append(inputs[0].copy())
            out[...] = 1

        def close(self): ...

    monkeypatch.setattr(fake_gpu, "CONTEXT", 1)
    image = deep((40, 30), dtype, colours)
    with impasto.load(make_engines(strength=1.0), backend="tensorrt") as model:
        model._context_source = ContextGraph(Sees(), 8, np.empty(0, np.float32))
        model(image)
        model(Interface(driver, image))
    np.testing.assert_array_equal(*seen)


@pytest.fixture
def converting(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernels run on this GPU; otherwise NumPy converts pictures of the host."""
    monkeypatch.setattr(frames, "run_here", lambda: True)


@pytest.mark.parametrize("colours", [True, False], ids=["RGB", "gray"])
@pytest.mark.parametrize("size", [(20, 30), (7, 9), (150, 90)], ids=str)
def test_16_bits_of_the_host_travel_in_2_bytes_a_value(
    driver, frame_kernels, make_engines, calls, monkeypatch, size, colours
):
    """And are drawn to the bit as NumPy converts them, where there are no kernels for the GPU."""
    image = deep((2 * size[0], size[1]), np.uint16, colours)[::2]
    with impasto.load(make_engines(border=3), backend="tensorrt") as model:
        expected = model(image)
        assert (calls.uploads, frame_kernels) == ([], [])
        monkeypatch.setattr(frames, "run_here", lambda: True)
        for _ in range(2):
            np.testing.assert_array_equal(model(image), expected)
        (entry,) = calls.streams
        assert calls.uploads == [(image.nbytes, entry)] * 2
        assert (entry, ENGINE_STREAM) in calls.waits, "the drawing waits for the copy"
        model.run_into(image, out := np.empty_like(expected))
        np.testing.assert_array_equal(out, expected)
        np.testing.assert_array_equal(next(model.stream([image])), expected)
    gc.collect()
    assert (calls.allocated, calls.streams) == (0, set())


@pytest.mark.usefixtures("converting")
def test_what_needs_floats_on_the_host_is_converted_there(driver, frame_kernels, make_engines, calls):
    image = deep((60, 40), np.uint16, True)
    with impasto.load(make_engines(task="stylize"), backend="tensorrt") as model:
        model(image.astype(np.float32) / 65535)
        model.keep_colors = True
        model(image)
    assert calls.uploads == []


def test_streams_are_those_of_8_bits(driver, frame_kernels, make_engines, calls):
    with impasto.load(make_engines(), backend="tensorrt") as model:
        image = Interface(driver, deep((20, 30), np.uint16, False))
        drawn = model(image, stream=MINE)
        assert calls.waits == [(MINE, ENGINE_STREAM), (ENGINE_STREAM, MINE)]
        again = model(drawn)
        np.testing.assert_array_equal(content(again), image.values)
        assert drawn.__cuda_array_interface__["typestr"] == "<u2"
        assert "uint16 (20, 30)" in repr(drawn)


def test_everything_is_freed(driver, frame_kernels, make_engines, calls, vendor):
    package = make_engines(border=3)
    images = [
        Interface(driver, deep(size, dtype, colours))
        for dtype, colours in FORMS
        for size in ((20, 30), (150, 90), (16, 16))
    ]
    before = set(driver.live)
    for _ in range(2):
        with impasto.load(package, backend="tensorrt") as model:
            for image in images:
                model.run_into(image, image)
                model(image)
                model(Interface(driver, picture()))
    gc.collect()
    assert (calls.allocated, calls.streams, vendor.live_contexts, vendor.live_engines) == (0, set(), 0, 0)
    assert before <= set(driver.live)


def test_without_an_engine_with_float_ends_its_command_is_named(driver, frame_kernels, make_engines):
    package = make_engines(floats=False)
    with (
        impasto.load(package, backend="tensorrt") as model,
        pytest.raises(ShapeError, match="the picture on the GPU is uint16; wanted uint8; ") as error,
    ):
        model(Interface(driver, deep((20, 30), np.uint16, True)))
    assert f"impasto build {package} --precision fp32 --with-float" in str(error.value)


def test_what_is_not_taken_is_one_line(driver, frame_kernels, make_engines):
    def refusal(image: Any, out: Any = None, **options: Any) -> str:
        with pytest.raises(ShapeError) as error:
            model(image, **options) if out is None else model.run_into(image, out)
        assert "\n" not in str(error.value)
        return str(error.value)

    sixteen, gray = (Interface(driver, deep((20, 30), np.uint16, colours)) for colours in (True, False))
    floats, bytes_ = Interface(driver, deep((20, 30), np.float32, True)), Interface(driver, picture())
    aslant = Interface(driver, deep((20, 30), np.float32, True), offset=2)
    with impasto.load(make_engines(), backend="tensorrt") as model:
        assert "out is RGB of float32, and the picture RGB of uint16" in refusal(sixteen, floats)
        assert "out is gray of uint16, and the picture RGB of uint16" in refusal(sixteen, gray)
        assert "out is RGB of uint16, and the picture RGB;" in refusal(bytes_, sixteen)
        assert "out is RGB of uint16 of 20 x 30 pixels; wanted 8 x 8" in refusal(
            Interface(driver, deep((8, 8), np.uint16, True)), sixteen
        )
        assert "at multiples of 4 bytes: pass a contiguous copy" in refusal(aslant)
        assert "gray" in refusal(Interface(driver, picture()[..., 0]))
        assert "wanted uint8" in refusal(gray, nv12="bt709")


@pytest.mark.parametrize(("dtype", "colours"), FORMS, ids=NAMES)
def test_onnxruntime_draws_them_where_they_lie(driver, frame_kernels, make_package, calls, kind, dtype, colours):
    """Here its device is the CPU, which takes the same calls."""
    package = make_package()
    add_float_graph(package)
    with impasto.load(package, backend="onnxruntime-cpu") as model:
        for backend in (model._backend, model._floats.opened()):
            backend._held = _DeviceTensors(onnxruntime(), "cpu", 0)
        for size in ((16, 20), (17, 9)):
            image = deep(size, dtype, colours)
            drawn = content(model(kind(driver, image), stream=MINE))
            assert np.abs(drawn.astype(float) - model(image)).max() <= (0 if colours or dtype is np.uint16 else ONE_ULP)
            np.testing.assert_array_equal(content(model(kind(driver, picture(*size)))), model(picture(*size)))
