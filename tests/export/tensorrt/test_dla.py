"""Engines for a Jetson's DLA: what the builder is told, what falls back to the GPU, what is refused. The builder is a stand-in."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import pytest
from support.bindings import VERSIONS, Bindings
from support.bindings import gpu as gpu  # a fixture
from support.command_line import cli
from support.engine_graphs import network
from support.fake_engines import record

from impasto.errors import ExportError, OptionError, PackageError
from impasto.export.tensorrt import builder, package_engines, targets
from impasto.export.tensorrt.builder import EngineBuilder
from impasto.export.tensorrt.cache import EngineCache
from impasto.export.tensorrt.dla import check_core
from impasto.export.tensorrt.options import BuildOptions, Sizes
from impasto.export.tensorrt.targets import Target
from impasto.package.engine_record import DlaUse, EngineRecord
from impasto.package.spec import ModelSpec, SizeRule
from impasto.runtime.backends.tensorrt.engine import TensorRTBackend

WITH_DLA = [version for version in VERSIONS if version.startswith(("8.", "10."))]
ONE_SIZE = (Sizes.parse("64x64"),)


def on_a_jetson(version: str, cores: int = 2) -> Bindings:
    """Convolutions and activations run on the DLA, as on every one; nothing else does."""
    bindings = Bindings(version)
    bindings.builder.num_DLA_cores = cores
    bindings.config.can_run_on_DLA.side_effect = lambda layer: layer.type.name in ("CONVOLUTION", "ACTIVATION")
    return bindings


def built(bindings: Bindings, folder: Path, precision: str = "fp16", core: int = 1) -> EngineRecord:
    onnx.save(network(4, 32, 1), str(folder / "model.onnx"))
    made = EngineBuilder(
        folder / "model.onnx",
        ModelSpec("m", size=SizeRule(4)),
        BuildOptions(precision, ONE_SIZE, dla_core=core),
        graph_precision="fp32",
        api=bindings.api,
        target=Target(("8.7",), "Fake GPU", 12),
        cache=EngineCache(folder),
    )
    return made.build()[0].record


@pytest.mark.parametrize("version", WITH_DLA)
def test_the_builder_is_told_and_the_record_says_what_falls_back(version: str, gpu: Any, tmp_path: Path) -> None:
    bindings = on_a_jetson(version)
    made = built(bindings, tmp_path)
    flags = {call.args[0].name for call in bindings.config.set_flag.call_args_list}
    assert {"FP16", "GPU_FALLBACK"} <= flags
    assert (bindings.config.default_device_type.name, bindings.config.DLA_core) == ("DLA", 1)
    bindings.builder.create_network.assert_called_once_with(bindings.api.network_flags(typed=False))
    kinds = {layer.layer.type.name for layer in bindings.layers}
    assert made.dla is not None
    assert {text.rsplit("(", 1)[1].rstrip(")") for text in made.dla.gpu_layers} == kinds - {"CONVOLUTION", "ACTIVATION"}
    assert made.dla.layers + len(made.dla.gpu_layers) == len(bindings.layers)
    assert str(made.dla).startswith(
        f"DLA core 1 computes {made.dla.layers} of {len(bindings.layers)} layers, the GPU these:"
    )
    again = EngineRecord.from_json(json.loads(json.dumps(made.to_json())), "here")
    assert again == made


@pytest.mark.parametrize("version", ["8.6.1", "10.3.0"])
def test_int8_takes_flags_too(version: str, gpu: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bindings = on_a_jetson(version)
    monkeypatch.setattr(builder, "require_precision", lambda *_: None)  # the stand-in's one convolution is FP16
    built(bindings, tmp_path, "int8", 0)
    flags = {call.args[0].name for call in bindings.config.set_flag.call_args_list}
    assert {"INT8", "FP16", "GPU_FALLBACK"} <= flags


def test_an_engine_without_a_dla_is_built_as_before(gpu: Any, tmp_path: Path) -> None:
    """And keeps its key: nothing new is in its options."""
    bindings = on_a_jetson("10.3.0")
    onnx.save(network(4, 32, 1), str(tmp_path / "model.onnx"))
    options = BuildOptions("fp16", ONE_SIZE)
    made = EngineBuilder(
        tmp_path / "model.onnx", ModelSpec("m", size=SizeRule(4)), options, graph_precision="fp32",
        api=bindings.api, target=Target(("8.7",), "Fake GPU", 12), cache=EngineCache(tmp_path),
    ).build()[0].record  # fmt: skip
    assert made.dla is None
    assert "GPU_FALLBACK" not in {call.args[0].name for call in bindings.config.set_flag.call_args_list}
    assert "dla_core" not in options.to_json()
    assert replace(options, dla_core=0).to_json()["dla_core"] == 0


@pytest.mark.parametrize("version", VERSIONS)
def test_other_versions_are_refused_with_the_reason(version: str) -> None:
    api = Bindings(version).api
    check_core(api, None)
    if version in WITH_DLA:
        check_core(api, 0)
        return
    reason = "which have no DLA" if version.startswith("rtx") else "the flags that give a DLA FP16 and INT8 are gone"
    with pytest.raises(OptionError, match=reason) as refused:
        check_core(api, 0)
    assert "leave --dla out" in str(refused.value)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"precision": "fp32"}, "computes in FP16 and INT8; say --precision fp16"),
        ({"sizes": (Sizes.parse("64x64:64x64:128x128"),)}, "a DLA takes one size"),
        ({"batch": (1, 1, 2)}, "a DLA takes one size; say one --size and one --batch"),
        ({"dla_core": -1}, "DLA core -1; wanted 0 or more"),
    ],
)
def test_what_no_dla_computes_is_refused(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        BuildOptions(**{"precision": "fp16", "sizes": ONE_SIZE, "dla_core": 0, **changed})


@pytest.mark.parametrize(
    ("cores", "core", "message"),
    [(0, 0, "finds no DLA here: .* Orin Nano, Thor"), (2, 2, "DLA core 2 does not exist: this device has 2")],
)
def test_a_device_without_this_core_is_one_line(gpu: Any, tmp_path: Path, cores: int, core: int, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        built(on_a_jetson("10.3.0", cores), tmp_path, core=core)


def test_a_network_of_which_nothing_runs_there_is_refused(gpu: Any, tmp_path: Path) -> None:
    bindings = on_a_jetson("10.3.0")
    bindings.config.can_run_on_DLA.side_effect = lambda layer: False
    with pytest.raises(ExportError, match=r"none of the network's .* layers can run on a DLA"):
        built(bindings, tmp_path)


def test_the_engine_is_loaded_for_its_core(gpu: Any) -> None:
    bindings = on_a_jetson("10.3.0")
    runtime = bindings.module.Runtime(None)
    made = record(version=bindings.facts["version"], dla=DlaUse(1, 3, ()))
    with pytest.MonkeyPatch.context() as patched:
        for module in ("engine", "compatibility"):
            patched.setattr(f"impasto.runtime.backends.tensorrt.{module}.tensorrt", lambda product: bindings.api)
        TensorRTBackend(b"plan", made, 0, "impasto build m").close()
    assert runtime.DLA_core == 1


@pytest.mark.parametrize(
    "use",
    [{"core": -1, "layers": 1, "gpu_layers": []}, {"core": 0}, "0", {"core": 0, "layers": 1, "gpu_layers": [1]}],
)
def test_a_malformed_record_is_one_line(use: object) -> None:
    with pytest.raises(PackageError, match="malformed"):
        EngineRecord.from_json({**record().to_json(), "dla": use}, "here")


def test_the_command_lists_what_falls_back(
    gpu: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_package: Any
) -> None:
    bindings = on_a_jetson("10.3.0")
    monkeypatch.setenv("IMPASTO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(targets, "tensorrt", lambda product: bindings.api)
    monkeypatch.setattr(package_engines, "why_not_here", lambda *_: "the builder is a stand-in")
    code, out, err = cli("build", str(make_package()), "--size", "64x64", "--dla", "0", "--precision", "fp16")
    assert code == 0, err
    lines = out.splitlines()
    start = next(index for index, line in enumerate(lines) if line.startswith("DLA core 0 computes"))
    assert lines[start].endswith("the GPU these:")
    assert any(line.startswith("  ") and line.endswith("(SHUFFLE)") for line in lines[start + 1 :])
    code, _, err = cli("build", str(make_package("other")), "--dla", "0", "--precision", "fp32")
    assert code == 1 and "say --precision fp16" in err
