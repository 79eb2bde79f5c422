"""Which of the engines that lie about is taken: for what GPUs, for which pictures, by whom it was described last."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from support.fake_engines import key, picture, record
from support.fake_gpu import FakeDriver, FakeTensorRT
from support.small_models import canonical_graph

import impasto
from impasto.errors import EngineMismatch, OptionError, PackageError
from impasto.export.tensorrt.builder import EngineBuilder
from impasto.export.tensorrt.cache import EngineCache
from impasto.export.tensorrt.options import BuildOptions
from impasto.export.tensorrt.targets import find_target
from impasto.files import sha256
from impasto.package.engine_record import AMPERE_PLUS
from impasto.package.manifest import read_manifest
from impasto.package.spec import ModelSpec, SizeRule
from impasto.runtime import cuda
from impasto.runtime.backends.tensorrt import api as tensorrt_api
from impasto.runtime.loading.source import ModelFiles
from impasto.runtime.loading.stored_engines import read_stored

pytest_plugins = ("support.engine_fixtures",)
pytestmark = pytest.mark.usefixtures("own_cache")

MakePackage = Callable[..., Path]


def put(cache: EngineCache, graph: Path, name: str = "engine", **changed: object) -> Path:
    """An engine of this graph in the cache, for the fake GPU."""
    its = key(name)
    with cache.locked(its):
        return cache.put(record(**{"key": its, "source_sha256": sha256(graph), **changed}), b"plan").plan


def use_gpu(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], name: str = "Other GPU", integrated: bool = False
) -> None:
    fake = FakeDriver(name=name, capability=capability, integrated=integrated)
    monkeypatch.setattr(cuda, "_devices", {})
    monkeypatch.setattr(cuda, "driver", lambda: fake)


COMPATIBLE = {"compute_capabilities": (AMPERE_PLUS,), "gpu": None, "version": "8.6.1"}


def test_int8_is_taken_by_itself_only_where_there_is_no_fp16(
    vendor: FakeTensorRT, make_package: MakePackage, own_cache: EngineCache
) -> None:
    """Whatever size it holds: INT8 changes pictures, and where a vendor does not fuse it, it moves more bytes."""
    package = make_package()
    large = {"image": ((1, 16, 16, 3), (1, 64, 64, 3), (1, 4096, 4096, 3))}
    put(own_cache, package / "model.onnx", "int8", precision="int8", profiles=(large,))
    put(own_cache, package / "model.onnx", "fp16")
    source = ModelFiles(package).engine_source("auto", 0)
    assert source and source.engine
    assert source.engine.precision == "fp16"


@pytest.mark.parametrize(
    ("capability", "integrated", "runs"),
    [
        ((8, 0), False, True),
        ((8, 9), False, True),
        ((12, 0), False, True),
        ((7, 5), False, False),
        ((8, 7), True, False),
    ],
    ids=["A100", "Ada", "Blackwell", "Turing", "Orin"],
)
def test_a_hardware_compatible_engine_runs_from_ampere_on(
    vendor: FakeTensorRT,
    monkeypatch: pytest.MonkeyPatch,
    make_package: MakePackage,
    own_cache: EngineCache,
    capability: tuple[int, int],
    integrated: bool,
    runs: bool,
) -> None:
    vendor.__version__ = "8.6.1"
    package = make_package()
    put(own_cache, package / "model.onnx", **COMPATIBLE)
    use_gpu(monkeypatch, capability, integrated=integrated)
    if not runs:
        with pytest.raises(EngineMismatch, match=r"for compute capability 8\.0\+; this machine has"):
            impasto.load(package, backend="tensorrt")
        return
    source = ModelFiles(package).engine_source("auto", 0, required=True)
    assert source
    assert source.engine


def test_a_hardware_compatible_engine_has_one_key_for_every_gpu_that_runs_it(
    vendor: FakeTensorRT, monkeypatch: pytest.MonkeyPatch, make_package: MakePackage
) -> None:
    api = tensorrt_api.TensorRT(vendor, "tensorrt")
    graph, spec = make_package() / "model.onnx", ModelSpec("tiny")

    def parts(name: str, capability: tuple[int, int], compatible: bool) -> dict[str, object]:
        use_gpu(monkeypatch, capability, name)
        options = BuildOptions("fp32", hardware_compatible=compatible)
        target = find_target(api, options, 0)
        assert target.gpu == name  # which is active while TensorRT builds
        return EngineBuilder(graph, spec, options, api=api, target=target).key_parts()

    assert parts("RTX 3090", (8, 6), True) == parts("RTX 4090", (8, 9), True)
    assert parts("RTX 3090", (8, 6), True)["compute_capabilities"] == [AMPERE_PLUS]
    assert parts("RTX 3090", (8, 6), False) != parts("RTX 4090", (8, 9), False)


@pytest.mark.parametrize(("capability", "integrated"), [((7, 5), False), ((8, 7), True)], ids=["Turing", "Orin"])
def test_hardware_compatible_engines_are_not_built_where_none_runs(
    vendor: FakeTensorRT, monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], integrated: bool
) -> None:
    use_gpu(monkeypatch, capability, integrated=integrated)
    with pytest.raises(OptionError, match=r"Other GPU, .*leave the option out"):
        find_target(tensorrt_api.TensorRT(vendor, "tensorrt"), BuildOptions(hardware_compatible=True), 0)


def test_an_engine_that_never_takes_one_picture_is_passed_over(
    vendor: FakeTensorRT, make_package: MakePackage, own_cache: EngineCache
) -> None:
    package = make_package()
    several = ((4, 16, 16, 3), (4, 16, 16, 3), (4, 512, 512, 3))
    put(own_cache, package / "model.onnx", "several", profiles=({"x": several},))
    with pytest.raises(EngineMismatch, match="several pictures at once"):
        impasto.load(package, backend="tensorrt")
    with impasto.load(package) as model:
        assert model.info.backend != "tensorrt"
    put(own_cache, package / "model.onnx", "one", precision="fp32")
    with impasto.load(package, backend="tensorrt") as model:
        assert model.info.precision == "fp32"


def test_the_wider_range_of_sizes_is_preferred_whatever_the_input_is_called(
    vendor: FakeTensorRT, make_package: MakePackage, own_cache: EngineCache
) -> None:
    package = make_package()
    for name, high in (("narrow", 64), ("wide", 512), ("middle", 256)):
        profile = {"x": ((1, 16, 16, 3), (1, 16, 16, 3), (1, high, high, 3))}
        put(own_cache, package / "model.onnx", name, profiles=(profile,))
    source = ModelFiles(package).engine_source("auto", 0, required=True)
    assert source
    assert source.graph_path.stem == key("wide")


def test_an_engine_has_one_precision_and_says_so(vendor: FakeTensorRT, plan: Path, tmp_path: Path) -> None:
    with impasto.load(plan, precision="fp16") as model:
        assert model.info.precision == "fp16"
    for backend in ("auto", "tensorrt"):
        with pytest.raises(
            PackageError,
            match=r"is fp16, not int8; leave the precision out, or .* built from: tiny",
        ):
            impasto.load(plan, backend=backend, precision="int8")
        with pytest.raises(OptionError, match="unknown precision"):
            impasto.load(plan, backend=backend, precision="nonsense")
    plan.with_suffix(".json").unlink()
    with pytest.raises(PackageError, match="nobody knows whether it is fp16"):
        impasto.load(plan, precision="fp16", trust=True)


def test_of_an_engine_without_a_record_no_command_is_made_up(vendor: FakeTensorRT, plan: Path) -> None:
    plan.with_suffix(".json").unlink()
    plan.write_bytes(b"of another version")
    with pytest.raises(EngineMismatch, match="Build it again: impasto build MODEL, of the model"):
        impasto.load(plan, trust=True)


def test_loading_counts_as_use(vendor: FakeTensorRT, make_package: MakePackage, own_cache: EngineCache) -> None:
    package = make_package()
    plan, unused = put(own_cache, package / "model.onnx"), put(own_cache, package / "model.onnx", "other", version="9")
    for path in (plan, unused):
        os.utime(path, (1000, 1000))
    impasto.load(package, backend="tensorrt").close()
    assert [entry.plan for entry in own_cache.entries()] == [plan, unused]
    os.utime(plan, (1000, 1000))
    impasto.load(plan).close()
    assert plan.stat().st_mtime > 1000


def test_a_cache_that_may_only_be_read_serves(
    vendor: FakeTensorRT, make_package: MakePackage, own_cache: EngineCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = make_package()
    put(own_cache, package / "model.onnx")

    def refuse(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "utime", refuse)
    with impasto.load(package, backend="tensorrt") as model:
        assert model.info.backend == "tensorrt"


@pytest.mark.parametrize(
    "change", [{"precision": "fp8"}, {"profiles": []}, {"spec": None}, {"layers": 3}, {"key": "../x"}], ids=str
)
def test_a_bad_record_in_the_cache_is_passed_over(
    vendor: FakeTensorRT, make_package: MakePackage, own_cache: EngineCache, change: dict[str, object]
) -> None:
    package, image = make_package(), picture()
    beside = put(own_cache, package / "model.onnx").with_suffix(".json")
    data = json.loads(beside.read_text())
    beside.write_text(json.dumps(data | {"record": data["record"] | change}))
    with impasto.load(package) as model:
        assert model.info.backend != "tensorrt"
    put(own_cache, package / "model.onnx", "good")
    with impasto.load(package) as model:
        assert model.info.backend == "tensorrt"
        np.testing.assert_array_equal(model(image), 255 - image)


def test_what_a_package_says_now_counts_and_not_what_it_said_when_the_engine_was_built(
    vendor: FakeTensorRT, make_package: MakePackage, own_cache: EngineCache
) -> None:
    package = make_package()
    old = read_manifest(package).spec.to_json() | {"task": "upscale"}
    plan = put(own_cache, package / "model.onnx", spec=old)
    for path, task in ((package, "denoise"), (plan, "upscale")):
        with impasto.load(path, backend="tensorrt") as model:
            assert model.info.task == task


def test_what_a_sidecar_says_now_counts(vendor: FakeTensorRT, tmp_path: Path, own_cache: EngineCache) -> None:
    graph = tmp_path / "own.onnx"
    onnx.save(canonical_graph(), str(graph))
    put(own_cache, graph, spec=ModelSpec("own", "denoise", size=SizeRule(2, 16), border=2).to_json())
    graph.with_suffix(".json").write_text('{"task": "deblur", "multiple": 4}')
    with impasto.load(graph, backend="tensorrt") as model:
        assert model.info.spec == ModelSpec("own", "deblur", size=SizeRule(4, 16), border=2)
    assert read_stored(next(own_cache.folder.glob("*.plan"))).record.spec["task"] == "denoise"


def test_the_command_that_builds_quotes_the_path(vendor: FakeTensorRT, make_package: MakePackage) -> None:
    package = make_package("my wave")
    with pytest.raises(EngineMismatch, match=r"impasto build '.*/my wave' --precision fp16"):
        impasto.load(package, backend="tensorrt")
