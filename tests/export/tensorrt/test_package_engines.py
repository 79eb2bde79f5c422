"""Engines inside packages: recorded, hash-checked, chosen by `load`, and the command line around them."""

from __future__ import annotations

import errno
import json
import re
import shlex
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any

import numpy as np
import onnx
import pytest
from support.command_line import cli
from support.fake_engines import key, picture, record
from support.fake_gpu import CONTEXT, THUMBNAIL, FakeTensorRT
from support.small_models import REPOSITORY, canonical_graph, float_graph

import impasto
from impasto.errors import CheckFailed, EngineMismatch, OptionError, OutputError, PackageError
from impasto.export.inspection import inspect_path
from impasto.export.tensorrt.cache import CacheEntry, EngineCache
from impasto.export.tensorrt.options import BuildOptions, Sizes
from impasto.export.tensorrt.package_engines import (
    BuildResult,
    add_to_package,
    best_precision,
    build_engine,
    find_graph,
)
from impasto.files import sha256
from impasto.package.manifest import MANIFEST, read_manifest
from impasto.package.spec import ModelSpec, SizeRule
from impasto.runtime.loading.opening import SPEC_KEY
from impasto.runtime.loading.source import resolve, shipped_models
from impasto.runtime.loading.stored_engines import read_stored

pytest_plugins = ("support.engine_fixtures",)
pytestmark = pytest.mark.usefixtures("own_cache")

MakePackage = Callable[..., Path]


def engines_of(package: Path, cache: EngineCache, precision: str = "fp16", **changed: object) -> list[CacheEntry]:
    """What `impasto build` leaves in the cache for this package on the fake GPU: the model's engine, and its context's."""
    manifest = read_manifest(package)
    model, context = manifest.find("model"), manifest.find("context")
    assert model
    common = {"spec": manifest.spec.to_json(), **changed}
    own = {"key": key(f"model-{precision}"), "precision": precision, "source_sha256": model.sha256}
    if context is None:
        return [cache.put(record(**own, **common), b"plan")]
    profile = {"thumbnail": ((1, THUMBNAIL, THUMBNAIL, 3),) * 3}
    its = {"key": key("context"), "role": "context", "source_sha256": context.sha256, "profiles": (profile,)}
    return [
        cache.put(record(**own, **common, context_sha256=context.sha256), b"plan+context"),
        cache.put(record(**its, **common), b"context"),
    ]


@pytest.mark.parametrize("inside", [True, False], ids=["package", "cache"])
@pytest.mark.parametrize("backend", ["auto", "tensorrt"])
def test_load_finds_the_engine(
    vendor: FakeTensorRT, make_package: MakePackage, own_cache: EngineCache, inside: bool, backend: str
) -> None:
    package = make_package()
    entries = engines_of(package, own_cache)
    if inside:
        add_to_package(package, entries)
        own_cache.clean(everything=True)
    image = picture()
    with impasto.load(package, backend=backend) as model:
        assert (model.info.backend, model.info.precision, model.info.path) == ("tensorrt", "fp16", package)
        np.testing.assert_array_equal(model(image), 255 - image)


def test_a_context_runs_on_its_own_engine(
    vendor: FakeTensorRT, make_package: MakePackage, own_cache: EngineCache
) -> None:
    package = make_package(thumbnail=THUMBNAIL)
    plans = add_to_package(package, engines_of(package, own_cache))
    image = np.full((20, 24, 3), 200, np.uint8)
    for path in (package, plans[0]):
        with impasto.load(path, backend="tensorrt") as model:
            assert (model(image) == 255).all()  # inverted, 55, and brightened by the thumbnail's mean, 200


def test_an_engine_whose_context_engine_is_missing_is_not_chosen(
    vendor: FakeTensorRT, make_package: MakePackage, own_cache: EngineCache
) -> None:
    package = make_package(thumbnail=THUMBNAIL)
    plans = add_to_package(package, engines_of(package, own_cache)[:1])
    own_cache.clean(everything=True)
    with pytest.raises(EngineMismatch, match=r"engine of its context graph is missing.*impasto build"):
        impasto.load(package, backend="tensorrt")
    with pytest.raises(PackageError, match="engine of its context graph beside it"):
        impasto.load(plans[0])


def test_auto_prefers_fp16_and_int8_must_be_asked_for(
    vendor: FakeTensorRT, make_package: MakePackage, own_cache: EngineCache
) -> None:
    package = make_package()
    for precision in ("fp32", "int8", "fp16"):
        engines_of(package, own_cache, precision)
    for asked, given in (("auto", "fp16"), ("int8", "int8"), ("fp32", "fp32")):
        with impasto.load(package, backend="tensorrt", precision=asked) as model:
            assert model.info.precision == given


def test_nothing_is_built_and_the_command_is_named(
    vendor: FakeTensorRT, make_package: MakePackage, own_cache: EngineCache
) -> None:
    package = make_package()
    with pytest.raises(EngineMismatch, match=r"no fp16 engine has been built.*impasto build .* --precision fp16"):
        impasto.load(package, backend="tensorrt")
    engines_of(package, own_cache, "int8", version="8.6.1")
    with pytest.raises(EngineMismatch, match=r"none of 1 engines runs here .*8\.6\.1.*--precision int8"):
        impasto.load(package, backend="tensorrt", precision="int8")
    with impasto.load(package) as model:
        assert model.info.backend in ("openvino", "onnxruntime-cpu")


def test_an_engine_that_was_exchanged_is_refused(
    vendor: FakeTensorRT, make_package: MakePackage, own_cache: EngineCache
) -> None:
    package = make_package()
    (plan,) = add_to_package(package, engines_of(package, own_cache))
    own_cache.clean(everything=True)
    plan.write_bytes(b"plan, exchanged")
    with pytest.raises(PackageError, match="executable code"):
        impasto.load(package, backend="tensorrt")
    # With a record that fits it, but that the manifest does not vouch for, it is no engine of the package at all.
    beside = plan.with_suffix(".json")
    beside.write_text(json.dumps(json.loads(beside.read_text()) | {"sha256": sha256(plan)}))
    with pytest.raises(EngineMismatch, match="no fp16 engine"):
        impasto.load(package, backend="tensorrt")


def test_a_package_keeps_its_other_files_and_its_engines(make_package: MakePackage, own_cache: EngineCache) -> None:
    package = make_package()
    before = set(json.loads((package / MANIFEST).read_text())["files"])
    for precision in ("fp16", "int8", "fp16"):
        add_to_package(package, engines_of(package, own_cache, precision))
    listed = set(json.loads((package / MANIFEST).read_text())["files"])
    assert listed - before == {
        f"engines/{key(f'model-{p}')}.{kind}" for p in ("fp16", "int8") for kind in ("plan", "json")
    }
    inspect_path(str(package)).require_intact()


def test_engines_are_no_source_for_engines(make_package: MakePackage, own_cache: EngineCache) -> None:
    (entry,) = engines_of(make_package(), own_cache)
    with pytest.raises(OptionError, match="is an engine already"):
        build_engine(entry.plan, BuildOptions())


def test_build_records_engines_of_model_and_context_in_the_package(make_package: MakePackage, tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed: pip install 'impasto[rtx]'")
    package = make_package(thumbnail=THUMBNAIL, border=4)
    options = BuildOptions("fp32", (Sizes.parse("64x64:96x96:128x128"),), targets=("sm86", "sm89"))
    result = build_engine(package, options)
    assert (result.plan.parent, result.built) == (package / "engines", True)
    assert result.context
    assert result.record.profiles[0]["image"] == ((1, 72, 72, 3), (1, 104, 104, 3), (1, 136, 136, 3))
    assert result.record.profiles[0]["context"] == ((1, CONTEXT),) * 3
    assert set(result.record.precisions_by_target) == {"8.6", "8.9"}
    assert not build_engine(package, options).built
    inspect_path(str(package)).require_intact()
    with pytest.raises(EngineMismatch, match="impasto build"):
        impasto.load(package, backend="tensorrt")


def test_an_engine_that_draws_something_else_does_not_stay(
    make_package: MakePackage, own_cache: EngineCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("tensorrt_rtx", reason=REAL)

    def differs(result: BuildResult, device: int) -> None:
        raise CheckFailed("it draws at 3.0 dB")

    monkeypatch.setattr("impasto.cli.build._check", differs)
    package = make_package()
    arguments = ("build", package, "--precision", "fp32", "--size", "64x64", "--target", "sm86")
    assert cli(*arguments, "--no-check")[0] == 0
    (other,) = (package / "engines").glob("*.plan")
    code, _, stderr = cli(*arguments[:-1], "sm89")
    assert code == 1
    assert "the engine was removed, so that nothing loads it; --no-check keeps such a one" in stderr
    assert "it draws at 3.0 dB" in stderr
    assert list((package / "engines").glob("*.plan")) == [other]
    inspect_path(str(package)).require_intact()
    assert [entry.plan.name for entry in own_cache.entries()] == [other.name]


SMALL = BuildOptions("fp32", (Sizes.parse("64x64"),), targets=("sm86",))
REAL = "TensorRT-RTX is not installed: pip install 'impasto[rtx]'"


@pytest.mark.parametrize("how", ["from its folder", "by a path with dots", "by a link"])
def test_a_package_that_shipped_stays_as_it_is_however_it_is_named(
    make_package: MakePackage, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, own_cache: EngineCache, how: str
) -> None:
    pytest.importorskip("tensorrt_rtx", reason=REAL)
    package = make_package("shipped/tiny")
    monkeypatch.setattr("impasto.runtime.loading.source.shipped_models", lambda: package.parent)
    (tmp_path / "link").symlink_to(package)
    monkeypatch.chdir(package.parent)
    named = {
        "from its folder": "tiny",
        "by a path with dots": f"{package.parent}/../shipped/tiny",
        "by a link": tmp_path / "link",
    }
    before = {path: path.read_bytes() for path in package.rglob("*") if path.is_file()}
    assert build_engine(named[how], SMALL).plan.parent == own_cache.folder
    assert before == {path: path.read_bytes() for path in package.rglob("*") if path.is_file()}
    with pytest.raises(PackageError, match=r"impasto quantize tiny --to fp16 .*-o COPY"):
        build_engine(named[how], BuildOptions("fp16", SMALL.sizes, targets=("sm86",)))


@pytest.mark.parametrize("store", ["package", "cache"])
def test_neither_engine_of_a_model_evicts_the_other(
    make_package: MakePackage, own_cache: EngineCache, monkeypatch: pytest.MonkeyPatch, store: str
) -> None:
    pytest.importorskip("tensorrt_rtx", reason=REAL)
    package = make_package(thumbnail=THUMBNAIL)

    def add_after_another_builder(folder: Path, entries: list[CacheEntry]) -> list[Path]:
        EngineCache(limit=1).clean()
        return add_to_package(folder, entries)

    monkeypatch.setattr("impasto.export.tensorrt.package_engines.add_to_package", add_after_another_builder)
    result = build_engine(package, SMALL, store=store, cache=EngineCache(limit=1))
    assert result.context
    assert result.plan.is_file()
    assert result.context.is_file()
    assert own_cache.clean(everything=True)  # nothing is held any longer
    assert not own_cache.entries()


def test_a_cache_that_cannot_be_locked_still_gives_what_it_holds(
    make_package: MakePackage, own_cache: EngineCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("tensorrt_rtx", reason=REAL)
    package = make_package()
    plan = build_engine(package, SMALL, store="cache").plan

    def refuse(path: Path, *mode: str, **how: str) -> IO[Any]:
        if mode == ("a+b",):
            raise OSError(errno.EROFS, "Read-only file system")
        return opened(path, *mode, **how)

    opened = Path.open
    monkeypatch.setattr(Path, "open", refuse)
    found = build_engine(package, SMALL, store="cache")
    assert (found.plan, found.built) == (plan, False)
    with pytest.raises(OutputError, match=r"cannot lock .*Read-only file system; choose another cache"):
        build_engine(package, replace(SMALL, sizes=(Sizes.parse("96x96"),)), store="cache")


def test_a_corrected_sidecar_counts_when_it_is_built_again(tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx", reason=REAL)
    graph = tmp_path / "own.onnx"
    onnx.save(canonical_graph(), str(graph))
    for task, built in (("denoise", True), ("deblur", False)):
        graph.with_suffix(".json").write_text(json.dumps({"multiple": 4, "task": task}))
        result = build_engine(graph, SMALL)
        assert (result.built, result.record.spec["task"]) == (built, task)
        assert read_stored(result.plan).record == result.record


def test_weights_beside_a_graph_are_refused_with_the_command_that_packs_them(tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx", reason=REAL)
    graph = tmp_path / "my own.onnx"
    onnx.save(canonical_graph(), str(graph), save_as_external_data=True, location="w.bin")
    code, _, stderr = cli("build", graph, "--precision", "fp32", "--size", "64x64", "--target", "sm86")
    command = f"impasto export '{graph}' -o FOLDER"
    assert (code, command in stderr) == (1, True)
    assert cli("export", graph, "-o", tmp_path / "packed")[0] == 0
    assert build_engine(tmp_path / "packed", SMALL).built


def test_the_command_line_builds_lists_inspects_and_cleans(make_package: MakePackage, tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed: pip install 'impasto[rtx]'")
    package, report = make_package(), tmp_path / "built.json"
    common = ("build", package, "--size", "64x64", "--target", "sm86", "--store", "cache")
    code, stdout, stderr = cli(*common, "--precision", "fp32", "--json", report)
    assert (code, stdout.startswith("built: ")) == (0, True)
    assert "not checked against ONNX Runtime" in stderr
    plan = json.loads(report.read_text())["plan"]
    assert plan.startswith(cli("cache", "path")[1].strip())
    assert "tiny" in cli("cache", "list")[1]
    shown = cli("inspect", plan)[1]
    assert all(word in shown for word in ("fp32", "tensorrt-rtx", "8.6", "(1, 64, 64, 3)"))
    assert "--against" in cli("check", plan)[2]
    code, _, stderr = cli(*common, "--precision", "fp16")
    assert code == 1
    assert "holds no fp16 graph" in stderr
    assert f"impasto quantize {package} --to fp16 --calibrate PHOTOS;" in stderr
    assert "--precision fp32" in stderr
    assert cli("cache", "clean", "--all")[0] == 0
    assert not Path(plan).exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--size", "big"), "cannot read the size"),
        (("--batch", "2:1"), "cannot read the batch"),
        (("--batch", "4:2:1"), "smallest <= best <= largest"),
        (("--batch", "²"), "cannot read the batch"),
        (("--batch", "4"), "draws one picture at a time, which such an engine could not; begin with 1: --batch 1:4:4"),
        (("--workspace", "lots"), "cannot read the amount"),
        (("--precision", "fp8"), "unknown precision"),
        (("--store", "attic"), "unknown place"),
        (("--product", "vanilla"), "unknown TensorRT product"),
        (("--flavour", "vanilla"), "unknown TensorRT product"),
    ],
)
def test_a_wrong_option_is_one_line(make_package: MakePackage, options: tuple[str, ...], words: str) -> None:
    code, _, stderr = cli("build", make_package(), *options)
    lines = [line for line in stderr.splitlines() if line.strip()]
    assert (code, len(lines)) == (1, 1)
    assert words in lines[0]


def test_a_bare_graph_must_take_pictures(tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed: pip install 'impasto[rtx]'")
    onnx.save(float_graph(), str(tmp_path / "external.onnx"))
    assert "is no uint8 (N, H, W, 3) picture" in cli("build", tmp_path / "external.onnx", "--precision", "fp32")[2]
    onnx.save(canonical_graph(), str(tmp_path / "own.onnx"))
    (tmp_path / "own.json").write_text('{"multiple": 4}')
    arguments = ("--precision", "fp32", "--size", "62x62", "--target", "sm86")
    code, stdout, _ = cli("build", tmp_path / "own.onnx", *arguments)
    assert (code, str(tmp_path / "cache") in stdout) == (0, True)


@pytest.fixture
def tensorrt_rtx() -> None:
    pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed: pip install 'impasto[rtx]'")


def bare(path: Path, sizes: tuple[int | str, int | str, int | str] = ("N", "H", "W"), scale: int = 1) -> Path:
    """A canonical graph that says nothing of itself, of these batch, height and width."""
    graph = canonical_graph(scale)
    for dimension, size in zip(graph.graph.input[0].type.tensor_type.shape.dim, sizes, strict=False):
        dimension.Clear()
        setattr(dimension, "dim_value" if isinstance(size, int) else "dim_param", size)
    graph.graph.output[0].type.CopyFrom(onnx.helper.make_tensor_type_proto(onnx.TensorProto.UINT8, [None] * 3 + [3]))
    onnx.save(graph, str(path))
    path.with_suffix(".json").write_text('{"multiple": 4}')
    return path


@pytest.mark.usefixtures("tensorrt_rtx")
class TestBareGraphs:
    def test_its_scale_is_the_runtimes(self, tmp_path: Path) -> None:
        path = bare(tmp_path / "twice.onnx", scale=2)
        built = build_engine(path, BuildOptions("fp32", (Sizes.parse("64x64"),), targets=("sm86",)))
        with impasto.load(path, backend="onnxruntime-cpu") as model:
            assert built.record.spec == model.info.spec.to_json()
        assert built.record.spec["scale"] == 2

    def test_without_a_size_its_own_is_taken(self, tmp_path: Path) -> None:
        path = bare(tmp_path / "fixed.onnx", (1, 64, 32))
        built = build_engine(path, BuildOptions("fp32", targets=("sm86",)))
        assert built.record.profiles == ({"image": ((1, 64, 32, 3),) * 3},)

    @pytest.mark.parametrize(
        ("sizes", "options", "words"),
        [
            ((1, 64, 32), ("--size", "128x128"), "pictures of 64 x 32 alone: say --size 64x32"),
            (("N", 64, 32), ("--size", "32x32:64x32:64x64"), "pictures of 64 x 32 alone: say --size 64x32"),
            (
                (1, "H", "W"),
                ("--size", "64x64", "--batch", "1:2:4"),
                r"1 x ? x ? x 3, and 2 x 64 x 64 x 3 was asked for; say --batch 1",
            ),
            ((4, "H", "W"), ("--size", "64x64"), "holds 4 pictures at once, and Impasto draws one at a time"),
        ],
    )
    def test_what_it_cannot_be_is_refused(
        self, tmp_path: Path, sizes: tuple[int | str, int | str, int | str], options: tuple[str, ...], words: str
    ) -> None:
        path = bare(tmp_path / "fixed.onnx", sizes)
        code, _, stderr = cli("build", path, "--precision", "fp32", "--target", "sm86", *options)
        assert (code, words in stderr) == (1, True), stderr

    def test_a_height_alone_may_be_fixed(self, tmp_path: Path) -> None:
        """Such a graph says what it is: nothing could try it out."""
        graph = onnx.load(str(bare(tmp_path / "band.onnx", ("N", 64, "W"))))
        spec = ModelSpec("band", size=SizeRule(4), border=8)
        graph.metadata_props.add(key=SPEC_KEY, value=json.dumps(spec.to_json()))
        onnx.save(graph, str(tmp_path / "band.onnx"))
        common = ("build", tmp_path / "band.onnx", "--precision", "fp32", "--target", "sm86", "--size")
        assert cli(*common, "48x32")[0] == 0
        assert "say --size 48x32" in cli(*common, "64x32")[2]

    def test_its_context_alone_is_no_picture(self, make_package: MakePackage) -> None:
        graph = make_package(thumbnail=THUMBNAIL) / "context.onnx"
        assert "does not say what that is" in cli("build", graph, "--precision", "fp32", "--target", "sm86")[2]

    @pytest.mark.parametrize(
        "content", [b"", onnx.helper.make_model(onnx.helper.make_graph([], "g", [], [])).SerializeToString()]
    )
    def test_one_without_inputs_is_named(self, tmp_path: Path, content: bytes) -> None:
        (tmp_path / "empty.onnx").write_bytes(content)
        code, _, stderr = cli("build", tmp_path / "empty.onnx", "--precision", "fp32", "--target", "sm86")
        assert (code, "empty.onnx has no input" in stderr) == (1, True)

    def test_what_it_says_of_itself_must_be_json(self, tmp_path: Path) -> None:
        graph = canonical_graph()
        graph.metadata_props.add(key=SPEC_KEY, value="{")
        onnx.save(graph, str(tmp_path / "broken.onnx"))
        code, _, stderr = cli("build", tmp_path / "broken.onnx", "--precision", "fp32", "--target", "sm86")
        assert (code, "is no JSON" in stderr) == (1, True)

    def test_commands_hold_paths_with_spaces(self, tmp_path: Path) -> None:
        onnx.save(float_graph(), str(tmp_path / "an external.onnx"))
        stderr = cli("build", tmp_path / "an external.onnx", "--precision", "fp32", "--target", "sm86")[2]
        assert f"impasto export {shlex.quote(str(tmp_path / 'an external.onnx'))} --layout" in stderr


def test_what_is_named_twice_is_one() -> None:
    once = BuildOptions(targets=("sm86", "sm89"), tactic_sources=("cudnn",))
    twice = BuildOptions(targets=("sm89", "sm86", "sm86"), tactic_sources=("cudnn", "cudnn"))
    assert twice.to_json() == once.to_json()
    assert len(twice.targets) == 2


def test_the_largest_size_is_that_of_all_profiles(own_cache: EngineCache) -> None:
    sizes = ((64, 96), (1080, 1920), (512, 512))
    profiles = tuple({"context": ((1, 5),) * 3, "image": ((1, *size, 3),) * 3} for size in sizes)
    own_cache.put(record(profiles=profiles), b"plan")
    assert "1080 x 1920" in cli("cache", "list")[1]


@pytest.mark.parametrize(
    ("flags", "held", "wanted", "why"),
    [
        (True, False, "fp16", "makes it of the FP32 graph"),
        (False, False, "fp32", "holds no FP16 graph, which .* needs to build one; make it: impasto quantize"),
        (False, True, "fp16", "the package holds such a graph"),
    ],
)
def test_what_is_built_where_nobody_says_a_precision(
    make_package: MakePackage, monkeypatch: pytest.MonkeyPatch, flags: bool, held: bool, wanted: str, why: str
) -> None:
    package = make_package()
    if held:
        manifest = json.loads((package / MANIFEST).read_text())
        file = manifest["files"]["model.onnx"]
        (package / "model.fp16.onnx").write_bytes((package / "model.onnx").read_bytes())
        manifest["files"]["model.fp16.onnx"] = {**file, "precision": "fp16"}
        (package / MANIFEST).write_text(json.dumps(manifest))
    api = SimpleNamespace(has_precision_flags=flags)
    monkeypatch.setattr("impasto.export.tensorrt.package_engines.find_builder", lambda *_: api)
    precision, told = best_precision(package, BuildOptions("fp32"))
    assert precision == wanted
    assert re.search(why, told)
    find_graph(resolve(package), precision, api)  # type: ignore[arg-type]


def test_without_a_precision_the_command_line_builds_what_can_be_had(
    make_package: MakePackage, monkeypatch: pytest.MonkeyPatch
) -> None:
    built = []

    def builder(graph_path: Path, spec: object, options: BuildOptions, **_: object) -> None:
        built.append(options.precision)
        raise OptionError("no builder here")

    api = SimpleNamespace(has_precision_flags=False)
    monkeypatch.setattr("impasto.export.tensorrt.package_engines.find_builder", lambda *_: api)
    monkeypatch.setattr("impasto.export.tensorrt.package_engines.find_graph", lambda *_: (Path("model.onnx"), "fp32"))
    monkeypatch.setattr("impasto.export.tensorrt.package_engines.EngineBuilder", builder)
    for options in ((), ("--precision", "fp16")):
        assert cli("build", make_package(f"of{len(options)}"), *options)[0] == 1
    assert built == ["fp32", "fp16"]


@pytest.mark.parametrize(
    ("target", "board"), [("sm87", "Jetson Orin"), ("sm72", "Jetson Xavier"), ("sm110", "Jetson Thor")]
)
def test_engines_for_a_board_are_built_on_the_board(make_package: MakePackage, target: str, board: str) -> None:
    code, _, stderr = cli("build", make_package(), "--target", f"sm86,{target}")
    assert code == 1
    assert f"{target} is {board}, whose engines are built on the board itself" in stderr


def documented() -> list[str]:
    """The `impasto build` commands of the documents, with a model that came with Impasto."""
    root = REPOSITORY
    texts = [path.read_text(encoding="utf-8") for path in (root / "README.md", *sorted((root / "docs").glob("*.md")))]
    commands = [found for text in texts for found in re.findall(r"impasto build [^`#\n]+", text)]
    return [command.strip() for command in commands if (shipped_models() / command.split()[2]).is_dir()]


@pytest.mark.parametrize("command", documented())
def test_documented_models_hold_what_is_built(command: str) -> None:
    words = command.split()
    precision = words[words.index("--precision") + 1] if "--precision" in words else "fp16"
    api = SimpleNamespace(has_precision_flags="--target" not in words)  # which are RTX's
    find_graph(resolve(words[2]), precision, api)  # type: ignore[arg-type]
