"""Engines with float ends, on the GPU made of NumPy: found, opened with the first picture of 16 bits, named where there is none.

The stand-in's engines invert pictures: 255 - x for uint8, 1 - x for float32.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.command_line import cli
from support.fake_engines import key, picture, record
from support.fake_gpu import THUMBNAIL, FakeDriver, FakeTensorRT

import impasto
from impasto.errors import OptionError, PackageError, ShapeError
from impasto.export import add_float_graph
from impasto.export.tensorrt.cache import CacheEntry, EngineCache
from impasto.export.tensorrt.package_engines import add_to_package
from impasto.export.triton.repository import export_triton
from impasto.package.manifest import FLOAT, read_manifest
from impasto.packing.pack import Pack, _copy
from impasto.runtime.backends import SizeLimits
from impasto.runtime.inference.tile_plan import plan_tiles

pytest_plugins = ("support.engine_fixtures",)
pytestmark = pytest.mark.usefixtures("own_cache", "vendor")

MakePackage = Callable[..., Path]
FINE = np.linspace(0, 65535, 60 * 60).round().reshape(60, 60).astype(np.uint16)
"""Every 18th of the 65,536 levels."""


def deep(height: int = 20, width: int = 30, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 1 << 16, (height, width, 3), np.uint16)


def engine(package: Path, cache: EngineCache, role: str, name: str = "", **changed: Any) -> CacheEntry:
    """An engine in the cache, as `impasto build` makes it of this package's graph of a role."""
    manifest = read_manifest(package)
    graph, context = manifest.find(role), manifest.find("context")
    assert graph
    plan = {"model": b"plan", FLOAT: b"float", "context": b"context"}[role]
    values = {"role": role, "source_sha256": graph.sha256, "spec": manifest.spec.to_json()}
    values["precision"] = "fp16" if role == "model" else "fp32"
    if role == "context":
        values["profiles"] = ({"thumbnail": ((1, THUMBNAIL, THUMBNAIL, 3),) * 3},)
    elif context:
        values["context_sha256"], plan = context.sha256, plan + b"+context"
    return cache.put(record(**{"key": key(role + name), **values, **changed}), plan)


@pytest.fixture
def make_deep(make_package: MakePackage, own_cache: EngineCache) -> MakePackage:
    """Makes a package with a float graph, and an engine for 8 bits."""

    def make(**options: Any) -> Path:
        package = make_package(**options)
        add_float_graph(package)
        engine(package, own_cache, "model")
        if options.get("thumbnail"):
            engine(package, own_cache, "context")
        return package

    return make


@pytest.mark.parametrize("inside", [True, False], ids=["package", "cache"])
@pytest.mark.parametrize("backend", ["auto", "tensorrt"])
def test_every_depth_is_drawn_by_an_engine(
    make_deep: MakePackage, own_cache: EngineCache, inside: bool, backend: str
) -> None:
    package = make_deep()
    floats = engine(package, own_cache, FLOAT)
    if inside:
        add_to_package(package, [engine(package, own_cache, "model"), floats])
        own_cache.clean(everything=True)
    with impasto.load(package, backend=backend) as model:
        assert (model.info.backend, model.info.precision) == ("tensorrt", "fp16")
        assert model.info.depths == ("uint8", "uint16", "float32")
        for image, white in ((picture(), 255), (deep(), 65535), (FINE, 65535)):
            assert np.array_equal(model(image), white - image)
        values = deep().astype(np.float32) / 65535
        assert np.abs(model(values) - (1 - values)).max() < 1e-6


def test_it_is_opened_with_the_first_picture_of_16_bits(
    vendor: FakeTensorRT, make_deep: MakePackage, own_cache: EngineCache
) -> None:
    package = make_deep()
    engine(package, own_cache, FLOAT)
    with impasto.load(package, backend="tensorrt") as model:
        model(picture())
        assert vendor.live_engines == 1
        model(deep())
        assert vendor.live_engines == 2
    assert (vendor.live_engines, vendor.live_contexts) == (0, 0)


def test_all_65536_levels_survive_an_engine(make_deep: MakePackage, own_cache: EngineCache) -> None:
    package = make_deep(border=3)
    engine(package, own_cache, FLOAT)
    levels = np.arange(65536, dtype=np.uint16)
    with impasto.load(package, backend="tensorrt") as model:
        for part in levels.reshape(-1, 64, 64):
            assert np.array_equal(model(part), 65535 - part)


@pytest.mark.parametrize("border", [0, 3])
@pytest.mark.parametrize("size", [(20, 30), (7, 9), (150, 90)], ids=str)
def test_borders_and_tiles_are_those_of_its_own_sizes(
    vendor: FakeTensorRT, make_deep: MakePackage, own_cache: EngineCache, border: int, size: tuple[int, int]
) -> None:
    """The engine for 8 bits takes up to 64 x 64; this one another size."""
    package = make_deep(border=border)
    engine(package, own_cache, FLOAT)
    with impasto.load(package, backend="tensorrt") as model:
        for image in (picture(*size), deep(*size)):
            assert np.array_equal(model(image), np.iinfo(image.dtype).max - image)
        assert model._plan(*size).tiled == (size == (150, 90))
        floats = model._floats.opened()
        floats.limits = SizeLimits((((32, 32), (96, 96)),), "impasto build tiny --with-float")
        model._forget_sizes()
        planned = model._plan_for(*size, "uint16")
        assert planned == plan_tiles(model.info.spec, floats.limits, *size)
        assert planned.window != model._plan(*size).window


def test_a_context_steers_it(make_deep: MakePackage, own_cache: EngineCache) -> None:
    package = make_deep(thumbnail=THUMBNAIL)
    engine(package, own_cache, FLOAT)
    image = np.full((20, 24, 3), 200 * 257, np.uint16)
    with impasto.load(package, backend="tensorrt") as model:
        assert (model((image // 257).astype(np.uint8)) == 255).all()
        assert (model(image) == 65535).all()  # inverted, 55, and brightened by the thumbnail's mean, 200
        darker = image // 2
        assert np.abs(model(darker).astype(int) - 65535).max() <= 257


def refusal(model: impasto.Model, image: np.ndarray = FINE) -> str:
    with pytest.raises(ShapeError) as error:
        model(image)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_without_one_the_command_that_builds_it_is_named(make_deep: MakePackage, own_cache: EngineCache) -> None:
    package = make_deep()
    build = f"build one: impasto build {package} --precision fp16 --with-float"
    with impasto.load(package, backend="tensorrt") as model:
        assert model.info.depths == ("uint8",)
        said = refusal(model)
        assert "got uint16 (60, 60), wanted uint8" in said
        assert f"none has been built; {build}, or choose backend='onnxruntime-cuda'" in said
    engine(package, own_cache, FLOAT, version="9.9")
    with impasto.load(package, backend="tensorrt") as model:
        assert model.info.depths == ("uint8",)
        said = refusal(model)
        assert "none runs here (this engine was built by tensorrt 9.9" in said and build in said


def test_a_package_without_a_float_graph_is_told_to_add_it(make_package: MakePackage, own_cache: EngineCache) -> None:
    package = make_package()
    engine(package, own_cache, "model")
    with impasto.load(package, backend="tensorrt") as model:
        assert f"add it: impasto export {package} --with-float" in refusal(model)


def test_a_picture_that_it_cannot_take_names_its_own_command(make_package: MakePackage, own_cache: EngineCache) -> None:
    package = make_package(tiled=False)
    add_float_graph(package)
    for role in ("model", FLOAT):
        engine(package, own_cache, role)
    with impasto.load(package, backend="tensorrt") as model:
        said = refusal(model, deep(90, 90))
    assert f"impasto build {package} --precision fp16 --with-float --size 90x90" in said


def test_a_single_engine_takes_what_its_ends_take(make_deep: MakePackage, own_cache: EngineCache) -> None:
    package = make_deep()
    plans = add_to_package(package, [engine(package, own_cache, "model"), engine(package, own_cache, FLOAT)])
    with impasto.load(plans[0]) as model:
        assert model.info.depths == ("uint8",)
        assert f"loaded as a single engine; for uint16 and float32 load its package: {package}" in refusal(model)
    with impasto.load(plans[1]) as model:
        assert model.info.depths == ("uint16", "float32")
        assert np.array_equal(model(deep()), 65535 - deep())
        said = refusal(model, picture())
        assert "wanted uint16 or float32" in said and f"for uint8 load its package: {package}" in said
    with pytest.raises(OptionError, match="takes no pictures of 8 bits"):
        export_triton(plans[1], package.parent / "repository")
    with impasto.load(own_cache.folder / plans[1].name) as model:
        assert "for uint8 load the package that it was built from" in refusal(model, picture())


def test_a_changed_plan_is_not_opened(make_deep: MakePackage, own_cache: EngineCache) -> None:
    package = make_deep()
    engine(package, own_cache, FLOAT).plan.write_bytes(b"plan")
    with impasto.load(package, backend="tensorrt") as model:
        model(picture())
        with pytest.raises(PackageError, match="executable code"):
            model(FINE)


def test_what_it_is_is_told(driver: FakeDriver, make_deep: MakePackage, own_cache: EngineCache) -> None:
    package = make_deep()
    plans = add_to_package(package, [engine(package, own_cache, "model"), engine(package, own_cache, FLOAT)])
    assert "tiny (float ends)" in cli("cache", "list")[1]
    for plan, told in zip(plans, ("uint8, 0 to 255", "float32, 0 to 1"), strict=True):
        assert told in cli("inspect", plan)[1]
    roles = [file.role for file in read_manifest(package).files]
    assert roles == ["model", "float", "engine", "engine record", "float engine", "engine record"]
    assert "float engine" in cli("inspect", package)[1]


def test_engines_are_not_packed_for_a_training(make_deep: MakePackage, own_cache: EngineCache, tmp_path: Path) -> None:
    """What a training begins with holds the weights' files: engines and their records are of no use there."""
    package = make_deep()
    add_to_package(package, [engine(package, own_cache, role) for role in ("model", FLOAT)])
    _copy(Path("start/tiny"), package, tmp_path / "pack", Pack(tmp_path, "impasto train"))
    packed = {path.name for path in (tmp_path / "pack").rglob("*") if path.is_file()}
    assert packed == {"manifest.json", "model.onnx", "model.float.onnx"}
