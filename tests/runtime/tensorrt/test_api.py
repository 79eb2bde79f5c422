"""Every call of ours exists in every TensorRT that devices run. `api/` holds what each version's real bindings offer.

The builder and the backend run against strict stand-ins: an attribute that a version lacks raises, reading or setting.
With IMPASTO_BINDINGS_TEST=1, the facts themselves are compared with the real `-bindings` wheels (downloads, a C compiler).
"""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
import time
import types
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from support.bindings import API, VERSIONS, Bindings
from support.bindings import gpu as gpu  # a fixture
from support.engine_graphs import half, network

from impasto.errors import BackendError, OptionError
from impasto.export.tensorrt.builder import CompiledEngine, EngineBuilder
from impasto.export.tensorrt.cache import EngineCache
from impasto.export.tensorrt.options import BuildOptions, Sizes
from impasto.export.tensorrt.targets import Target, check_options
from impasto.package.spec import ModelSpec, SizeRule
from impasto.runtime.backends.tensorrt import api as tensorrt_api
from impasto.runtime.backends.tensorrt.api import TensorRT
from impasto.runtime.backends.tensorrt.engine import TensorRTBackend


@pytest.fixture(params=VERSIONS)
def bindings(request: pytest.FixtureRequest) -> Bindings:
    return Bindings(request.param)


def everything(api: TensorRT, **changed: Any) -> BuildOptions:
    """As many options as this version takes."""
    options: dict[str, Any] = {
        "precision": "fp16",
        "sizes": (Sizes.parse("64x64:64x64:128x128"), Sizes.parse("512x512")),
        "workspace_bytes": 1 << 30,
        "optimization_level": 3,
        "hardware_compatible": True,
        "tactic_sources": ("jit_convolutions", "edge_mask_convolutions"),
    } | changed
    for name, neutral in (
        ("workspace_bytes", None), ("optimization_level", None), ("hardware_compatible", False), ("tactic_sources", None),
    ):  # fmt: skip
        try:
            check_options(api, BuildOptions(**{name: options[name]}))
        except OptionError:
            options[name] = neutral
    return BuildOptions(**options)


def test_the_builder_calls_only_what_the_version_has(bindings: Bindings, gpu: Any, tmp_path: Path) -> None:
    onnx.save(network(4, 32, 1), str(tmp_path / "model.onnx"))
    engine = compiled(bindings, tmp_path)
    assert (engine.plan, engine.device_memory_bytes) == (b"plan", 1000)
    assert [layer.precision for layer in engine.layers] == ["fp16"]
    assert len(engine.profiles) == 2
    flags = [call.args[0].name for call in bindings.config.set_flag.call_args_list]
    assert ("FP16" in flags) == bindings.api.has_precision_flags
    assert len(list(tmp_path.glob("*.timing"))) == bindings.api.has_timing_cache


@pytest.mark.parametrize(
    ("sizes", "fixed"), [(("64x64",), True), (("64x64", "512x512"), False), (("64x64:64x64:128x128",), False)]
)
def test_inputs_of_one_size_are_fixed(
    bindings: Bindings, gpu: Any, tmp_path: Path, sizes: tuple[str, ...], fixed: bool
) -> None:
    """Free sizes that have but one value make every version build more kernels, and 8.5 may refuse uint8 for them."""
    onnx.save(network(4, 32, 1), str(tmp_path / "model.onnx"))
    compiled(bindings, tmp_path, sizes=tuple(map(Sizes.parse, sizes)))
    image, context = bindings.network.get_input(0), bindings.network.get_input(1)
    assert image.shape == ((1, 64, 64, 3) if fixed else (-1, -1, -1, 3))
    assert context.shape == (1, 5)


def test_a_vendor_that_makes_nothing_says_why(bindings: Bindings, gpu: Any, tmp_path: Path) -> None:
    """As pybind's constructors do with a driver that is too old: TypeError, and the reason as a line of the log."""

    def nothing(*_: Any) -> None:
        bindings.api.log.receive("WARNING", "CUDA initialization failure with error: 35")
        raise TypeError("pybind11::init(): factory function returned nullptr")

    bindings.module.Runtime = bindings.module.Builder = nothing
    with pytest.raises(
        BackendError, match=r"failed to create the runtime: pybind11.*; CUDA initialization failure with error: 35"
    ):
        bindings.api.create_runtime()
    onnx.save(network(4, 32, 1), str(tmp_path / "model.onnx"))
    with pytest.raises(BackendError, match=r"failed to create the builder: .*error: 35"):
        compiled(bindings, tmp_path)
    bindings.module.Builder = lambda log: bindings.builder
    bindings.builder.create_network.return_value = None
    with pytest.raises(BackendError, match="failed to create the network: it gave no reason"):
        compiled(bindings, tmp_path)


def compiled(bindings: Bindings, folder: Path, **changed: Any) -> CompiledEngine:
    """The engine of `model.onnx` in the folder, with every option that the version has."""
    return builder_of(bindings, everything(bindings.api, **changed), folder).compile()


def builder_of(
    bindings: Bindings, options: BuildOptions, folder: Path, graph_precision: str | None = None
) -> EngineBuilder:
    return EngineBuilder(
        folder / "model.onnx",
        ModelSpec("m", size=SizeRule(4)),
        options,
        graph_precision=graph_precision,
        api=bindings.api,
        target=Target(("8.7",), "Fake GPU", 12),
        cache=EngineCache(folder),
    )


def test_a_timing_cache_that_does_not_fit_costs_time_and_nothing_else(
    bindings: Bindings, gpu: Any, tmp_path: Path
) -> None:
    """A Jetson in another power mode has other multiprocessors and the same name."""
    onnx.save(network(4, 32, 1), str(tmp_path / "model.onnx"))
    if not bindings.api.has_timing_cache:
        assert compiled(bindings, tmp_path).plan == b"plan"
        return
    config, tried = bindings.config, []

    def set_timing_cache(cache: Any, ignore_mismatch: bool) -> bool:
        tried.append(cache)
        return len(tried) != 2

    config.create_timing_cache.side_effect = lambda content: content
    config.set_timing_cache.side_effect = set_timing_cache
    for _ in range(2):
        assert compiled(bindings, tmp_path).plan == b"plan"
    assert tried == [b"", b"measured", b""]
    config.get_timing_cache.return_value = None
    assert compiled(bindings, tmp_path).plan == b"plan"


def test_tensorrt_rtx_allocates_nothing_while_it_runs(bindings: Bindings, tmp_path: Path) -> None:
    """Otherwise no stream can be captured where sizes are large ("BuilderFlag", REQUIRE_USER_ALLOCATION)."""
    builder_of(bindings, BuildOptions(), tmp_path, "fp16")._configure(bindings.config)
    flags = [call.args[0].name for call in bindings.config.set_flag.call_args_list]
    assert ("REQUIRE_USER_ALLOCATION" in flags) == (bindings.product == "tensorrt-rtx")


@pytest.mark.parametrize("version", ["8.5.3.1", "8.6.1"])
@pytest.mark.parametrize(
    ("sizes", "batch"), [("512x512", (1, 1, 1)), ("64x64:64x64:512x512", (1, 1, 1)), ("512x512", (1, 1, 2))]
)
def test_free_sizes_ask_for_the_compiler_that_takes_them(
    version: str, sizes: str, batch: tuple[int, int, int], tmp_path: Path
) -> None:
    bindings = Bindings(version)
    options = BuildOptions("fp16", (Sizes.parse(sizes),), batch)
    builder_of(bindings, options, tmp_path)._configure(bindings.config)
    asked = [call.args[0].name for call in bindings.config.set_preview_feature.call_args_list]
    wanted = ["FASTER_DYNAMIC_SHAPES_0805", *(["PROFILE_SHARING_0806"] if version == "8.6.1" else [])]
    assert asked == (wanted if options.has_free_sizes else [])


def test_targets_are_set_where_they_can_be_chosen(gpu: Any, tmp_path: Path) -> None:
    bindings = Bindings(next(version for version in VERSIONS if version.startswith("rtx")))
    options = BuildOptions(targets=("sm86", "sm120"))
    builder_of(bindings, options, tmp_path)._configure(bindings.config)
    assert bindings.config.num_compute_capabilities == 2
    chosen = {call.args[0].name: call.args[1] for call in bindings.config.set_compute_capability.call_args_list}
    assert chosen == {"SM120": 0, "SM86": 1}


def test_the_backend_calls_only_what_the_version_has(
    bindings: Bindings, gpu: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("IMPASTO_CACHE", str(tmp_path))
    monkeypatch.setattr("impasto.runtime.backends.tensorrt.engine.tensorrt", lambda product: bindings.api)
    backend = TensorRTBackend(b"plan", None, 0, "impasto build m")
    out = np.empty((1, 64, 64, 3), np.uint8)
    backend.run((np.zeros((1, 64, 64, 3), np.uint8), np.zeros((1, 5), np.float32)), out)
    backend.close()
    assert bindings.context.execute_async_v3.called


def test_kernels_that_were_compiled_on_the_device_are_kept(
    gpu: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("IMPASTO_CACHE", str(tmp_path))
    bindings = Bindings(next(version for version in VERSIONS if version.startswith("rtx")))
    monkeypatch.setattr("impasto.runtime.backends.tensorrt.engine.tensorrt", lambda product: bindings.api)
    TensorRTBackend(b"plan", None, 0, "impasto build m").close()
    (kept,) = tmp_path.glob("*.kernels")
    assert kept.read_bytes() == b"kernels"
    os.utime(kept, (1000, 1000))
    # A graph is recorded of the first frame's kernels, so they must be the right ones.
    assert bindings.runtime_config.dynamic_shapes_kernel_specialization_strategy.name == "EAGER"
    bindings.kernels.deserialize.assert_not_called()
    TensorRTBackend(b"plan", None, 0, "impasto build m").close()
    bindings.kernels.deserialize.assert_called_once_with(b"kernels")
    assert kept.stat().st_mtime > 1000, "loading is use"
    gpu.name = "another GPU that shares this home"
    bindings.kernels.deserialize.reset_mock()
    TensorRTBackend(b"plan", None, 0, "impasto build m").close()
    bindings.kernels.deserialize.assert_not_called()
    assert len(list(tmp_path.glob("*.kernels"))) == 2
    EngineCache(tmp_path).clean(everything=True)
    assert not list(tmp_path.glob("*.kernels"))


@pytest.mark.parametrize(
    ("version", "typed", "flags", "timing", "create_network"),
    [
        ("8.5.3.1", False, True, True, 1),
        ("8.6.1", False, True, True, 1),
        ("10.3.0", True, True, True, None),
        ("10.16.1.11", True, True, True, None),
        ("11.0.0.114", None, False, True, None),
        ("11.4.0.106", None, False, True, None),
        ("rtx-1.7.1.116", None, False, False, None),
    ],
)
def test_what_each_version_can_do(
    version: str, typed: bool | None, flags: bool, timing: bool, create_network: int | None
) -> None:
    api = Bindings(version).api
    assert (api.has_precision_flags, api.has_timing_cache) == (flags, timing)
    if typed is not None:
        assert api.strongly_typed == typed
    if create_network is not None:
        assert api.network_flags(typed=False) == create_network


BINDINGS = {
    "8.6.1": "tensorrt-bindings==8.6.1",
    "10.3.0": "tensorrt-cu12-bindings==10.3.0",
    "10.16.1.11": "tensorrt-cu13-bindings==10.16.1.11",
    "11.0.0.114": "tensorrt-cu13-bindings==11.0.0.114",
    "11.4.0.106": "tensorrt-cu13-bindings==11.4.0.106",
}
STUBS = (
    "createInferBuilder_INTERNAL", "createInferRuntime_INTERNAL", "createInferRefitter_INTERNAL",
    "createNvOnnxParser_INTERNAL", "createNvOnnxParserRefitter_INTERNAL", "getBuilderPluginRegistry",
    "getPluginRegistry", "initLibNvInferPlugins", "getNvOnnxParserVersion",
    # The Caffe and UFF parsers of 8.x, C++ names and all.
    "_ZN14nvcaffeparser117createCaffeParserEv", "_ZN14nvcaffeparser123shutdownProtobufLibraryEv",
    "_ZN11nvuffparser15createUffParserEv", "_ZN11nvuffparser8FieldMapC1EPKcPKvNS_9FieldTypeEi",
)  # fmt: skip
READ = """
import importlib.util, json, sys
loader = importlib.util.spec_from_file_location("tensorrt", sys.argv[1])
module = importlib.util.module_from_spec(loader)
loader.loader.exec_module(module)
facts = json.load(open(sys.argv[2]))
missing = [f"{k}.{n}" for k, names in facts.items() if k != "version" for n in names if not hasattr(getattr(module, k), n)]
print(json.dumps(missing))
"""


def test_a_process_has_one_tensorrt_with_one_log(monkeypatch: pytest.MonkeyPatch) -> None:
    """TensorRT keeps the first logger that it is given: a second one would never hear an error."""

    def slowly(name: str) -> types.SimpleNamespace:
        time.sleep(0.05)
        return types.SimpleNamespace(ILogger=object, __version__="10.0")

    monkeypatch.setattr(tensorrt_api.importlib, "import_module", slowly)
    monkeypatch.setattr(tensorrt_api, "_loaded", functools.cache(tensorrt_api._loaded.__wrapped__))
    with ThreadPoolExecutor(8) as pool:
        found = set(pool.map(tensorrt_api.tensorrt, ["auto", "tensorrt"] * 4))
    assert len(found) == 1
    assert tensorrt_api.tensorrt("tensorrt-rtx") not in found


def test_ctrl_c_while_tensorrt_loads_is_ctrl_c(monkeypatch: pytest.MonkeyPatch) -> None:
    """pybind11 turns what is raised in a module's initialization into an ImportError."""

    def interrupted(name: str) -> None:
        raise ImportError("initialization failed") from KeyboardInterrupt()

    monkeypatch.setattr(tensorrt_api.importlib, "import_module", interrupted)
    monkeypatch.setattr(tensorrt_api, "_loaded", tensorrt_api._loaded.__wrapped__)
    with pytest.raises(KeyboardInterrupt):
        tensorrt_api.tensorrt("tensorrt")


@pytest.mark.skipif(
    not os.environ.get("IMPASTO_BINDINGS_TEST"), reason="opt-in: set IMPASTO_BINDINGS_TEST=1 (downloads)"
)
@pytest.mark.parametrize("version", BINDINGS)
def test_the_facts_are_those_of_the_real_bindings(version: str, tmp_path: Path) -> None:
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(tmp_path)]
    subprocess.run([*pip, BINDINGS[version]], check=True)
    source = tmp_path / "stub.c"
    source.write_text("".join(f"void* {name}(void) {{ return 0; }}\n" for name in STUBS))
    major = version.split(".")[0]
    for library in ("nvinfer", "nvinfer_plugin", "nvonnxparser", "nvparsers"):
        name = f"lib{library}.so.{major}"
        command = ["cc", "-shared", "-fPIC", f"-Wl,-soname,{name}", "-o", str(tmp_path / name), str(source)]
        subprocess.run(command, check=True)
    (extension,) = tmp_path.glob("tensorrt_bindings/tensorrt.so")
    environment = {**os.environ, "LD_LIBRARY_PATH": str(tmp_path)}
    command = [sys.executable, "-c", READ, str(extension), str(API / f"{version}.json")]
    read = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert json.loads(read.stdout) == []


@pytest.mark.parametrize("version", ["10.3.0", "10.13.3.9"])
@pytest.mark.parametrize("name", ["net.onnx", "net.fp16.onnx"])
@pytest.mark.parametrize("halves", [False, True])
def test_the_graph_says_its_precision_and_its_name_does_not(
    version: str, name: str, halves: bool, tmp_path: Path, gpu: Any
) -> None:
    """An FP32 graph becomes FP16 by a flag, whatever it is called; one of halves is typed by itself."""
    bindings = Bindings(version)
    onnx.save(half(network(4, 32, 1)) if halves else network(4, 32, 1), str(tmp_path / name))
    builder = EngineBuilder(
        tmp_path / name,
        ModelSpec("m", size=SizeRule(4)),
        BuildOptions("fp16", (Sizes.parse("64x64"),)),
        api=bindings.api,
        target=Target(("8.7",), "Fake GPU", 12),
        cache=EngineCache(tmp_path),
    )
    assert builder.graph_precision == ("fp16" if halves else "fp32")
    assert builder.typed == halves
    assert builder.precision_flags == (() if halves else ("FP16",))
    builder.compile()
    flags = [call.args[0].name for call in bindings.config.set_flag.call_args_list]
    assert ("FP16" in flags) == (not halves)


def test_what_the_manifest_says_needs_no_reading_of_the_graph(tmp_path: Path) -> None:
    """On a device without the onnx library."""
    bindings = Bindings("10.3.0")
    assert builder_of(bindings, BuildOptions("fp16"), tmp_path, "fp16").typed
    assert not builder_of(bindings, BuildOptions("fp16"), tmp_path, "fp32").typed
