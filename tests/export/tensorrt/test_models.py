"""Real TensorRT-RTX engines of every model that ships, and of the classic network; and plans that are none."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import onnx
import pytest
from support.engine_graphs import half_convolutions, network, quantized
from support.parser_laws import broken_laws
from support.shipped_graphs import representatives
from support.small_models import picture

from impasto.errors import BackendError, PrecisionMismatch
from impasto.export.tensorrt.builder import CompiledEngine, EngineBuilder
from impasto.export.tensorrt.cache import EngineCache
from impasto.export.tensorrt.options import BuildOptions, Sizes
from impasto.export.tensorrt.parser_graph import prepare
from impasto.package.manifest import read_manifest
from impasto.package.spec import ModelSpec, SizeRule
from impasto.runtime.backends.tensorrt.api import tensorrt
from impasto.runtime.inference.context import ContextGraph
from impasto.runtime.loading.source import known_names
from impasto.styles import mixture

pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed: pip install 'impasto[rtx]'")

SHIPPED = sorted(known_names())
SIZES = (Sizes.parse("64x64:128x128:256x256"),)
SMALL = ModelSpec("small", size=SizeRule(4))


def build(graph: Path, spec: ModelSpec, precision: str, folder: Path, *targets: str) -> dict[str, int]:
    """Layers by precision; the builder raises where they are not what was asked for."""
    options = BuildOptions(precision, SIZES, targets=targets or ("sm86",))
    return EngineBuilder(graph, spec, options, cache=EngineCache(folder)).build()[0].record.precisions()


def all_precisions(plain: Path, spec: ModelSpec, context: np.ndarray | None, folder: Path) -> None:
    half, whole = folder / "model.fp16.onnx", folder / "model.int8.onnx"
    onnx.save(half_convolutions(onnx.load(str(plain))), str(half))
    quantized(plain, whole, [picture(128, 128, seed) for seed in range(2)], context)
    for graph, precision in ((plain, "fp32"), (half, "fp16"), (whole, "int8")):
        layers = build(graph, spec, precision, folder)
        assert layers[precision] >= 3, layers


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_model_becomes_engines(name: str, tmp_path: Path) -> None:
    package = known_names()[name]
    if not (package / "model.onnx").is_file():
        pytest.skip(f"{package} holds no graph here: impasto export makes it")
    spec, context = read_manifest(package).spec, None
    if spec.thumbnail:
        context = _context(package, spec)
        thumbnails = ModelSpec("context", size=SizeRule(fixed=(spec.thumbnail, spec.thumbnail)))
        build(package / "context.onnx", thumbnails, "fp32", tmp_path)
    elif spec.strength:
        context = np.ones((1, 1), np.float32)  # what the network was trained for
    if name in representatives():
        all_precisions(package / "model.onnx", spec, context, tmp_path)
    else:  # weights alone tell its graph from one that is built in every precision
        assert build(package / "model.onnx", spec, "fp32", tmp_path)["fp32"] >= 3


def test_the_classic_network_becomes_engines_of_every_precision(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed: pip install 'impasto[train]'")
    from impasto.export import from_torch as canonical
    from impasto.training import networks

    torch.manual_seed(0)
    classic = networks.build("classic-stylizer", {"blocks": 1}).folded()  # the blocks are alike
    spec = canonical.spec_of(classic, "classic", "stylize")
    model = canonical.export_model(classic, spec)
    assert [broken_laws(prepare(model, opset)) for opset in (17, 20)] == [[], []]
    onnx.save(model, str(tmp_path / "model.onnx"))
    all_precisions(tmp_path / "model.onnx", spec, None, tmp_path)


def test_each_target_is_read_back_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A plan for several GPUs logs the layers of one of them; Turing, which has no INT8 there, may not hide behind it."""
    onnx.save(network(4, 32, 1), str(tmp_path / "model.onnx"))
    quantized(tmp_path / "model.onnx", tmp_path / "model.int8.onnx", [picture(64, 64, seed) for seed in range(2)])
    for targets in (("sm120", "sm75"), ("sm75", "sm86"), ("sm89", "sm75", "sm80")):
        with pytest.raises(PrecisionMismatch, match=r"compute capability 7\.5 is not int8"):
            build(tmp_path / "model.int8.onnx", SMALL, "int8", tmp_path, *targets)
    options = BuildOptions("int8", SIZES, targets=("sm86", "sm120"))
    builds = []
    compile_once = EngineBuilder.compile

    def counted(self: EngineBuilder, *arguments: object) -> CompiledEngine:
        builds.append(self.options.targets)
        return compile_once(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(EngineBuilder, "compile", counted)
    entry, _ = EngineBuilder(tmp_path / "model.int8.onnx", SMALL, options, cache=EngineCache(tmp_path)).build()
    assert builds == [("sm120",), ("sm86", "sm120")]
    assert {name: counts["int8"] >= 2 for name, counts in entry.record.precisions_by_target.items()} == {
        "8.6": True,
        "12.0": True,
    }


@pytest.mark.parametrize("targets", [("sm75", "sm86"), ("sm120", "sm75"), ("sm86", "sm120")])
def test_the_log_of_a_build_for_several_targets_names_the_lowest(
    tmp_path: Path, targets: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that target needs no build of its own. Turing computes INT8 layers in FP32, which tells it from the others."""
    monkeypatch.setattr("impasto.export.tensorrt.builder.require_precision", lambda *_: None)
    onnx.save(network(4, 32, 1), str(tmp_path / "model.onnx"))
    quantized(tmp_path / "model.onnx", tmp_path / "model.int8.onnx", [picture(64, 64, seed) for seed in range(2)])

    def layers(*names: str) -> list[tuple[str, str]]:
        options = BuildOptions("int8", SIZES, targets=names)
        builder = EngineBuilder(tmp_path / "model.int8.onnx", SMALL, options, cache=EngineCache(tmp_path))
        return [(layer.kind, layer.precision) for layer in builder.compile().layers]

    lowest = min(targets, key=lambda name: int(name[2:]))
    assert layers(*targets) == layers(lowest)
    assert ("sm75" in targets) == (layers(*targets) != layers("sm89"))


def test_the_real_library_refuses_what_is_no_plan_of_its_own(tmp_path: Path) -> None:
    api = tensorrt("tensorrt-rtx")
    onnx.save(network(4, 32, 1), str(tmp_path / "model.onnx"))
    build(tmp_path / "model.onnx", SMALL, "fp32", tmp_path)
    (plan,) = tmp_path.glob("*.plan")
    content = plan.read_bytes()
    runtime = api.create_runtime()
    damaged = {
        "empty": b"",
        "16 bytes": content[:16],
        "half": content[: len(content) // 2],
        "one byte short": content[:-1],
        "random": random.Random(0).randbytes(100_000),
        "of another TensorRT": b"ftrt" + content[4:],
        "a picture": b"\x89PNG\r\n\x1a\n" + bytes(10_000),
        "its record": plan.with_suffix(".json").read_bytes(),
    }
    for name, content in damaged.items():
        with pytest.raises(BackendError, match=r"cannot read this engine: .+") as refused:
            api.deserialize(runtime, content)
        assert "it gave no reason" not in str(refused.value), name


def _context(package: Path, spec: ModelSpec) -> np.ndarray:
    from impasto.runtime.backends import open_graph

    context = ContextGraph(
        open_graph(package / "context.onnx", "onnxruntime-cpu", 0), spec.thumbnail or 0, mixture(spec.styles)
    )
    found = context.of_picture(picture(100, 100)).copy()
    context.close()
    return found
