"""Real TensorRT-RTX engines of what `quantize` makes: of every shipped model and of the classic network.

For two kinds of GPU where the graphs are the first of their kind, for one where they differ from those in their weights alone.
"""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from support.parser_laws import broken_laws
from support.precisions import half_and_whole
from support.shipped_graphs import representatives

from impasto.export.graph.helpers import with_names
from impasto.export.graph.int8 import layers_of
from impasto.export.graph.qdq_lint import problems
from impasto.export.graph.weight_storage import without_fp16_storage
from impasto.export.tensorrt.builder import EngineBuilder
from impasto.export.tensorrt.cache import EngineCache
from impasto.export.tensorrt.options import BuildOptions, Sizes
from impasto.export.tensorrt.parser_graph import prepare
from impasto.package.spec import ModelSpec
from impasto.runtime.loading.source import known_names, resolve

pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed: pip install 'impasto[rtx]'")

SIZES = (Sizes.parse("64x64:128x128:256x256"),)


def classic(folder: Path) -> tuple[onnx.ModelProto, ModelSpec]:
    torch = pytest.importorskip("torch", reason="torch is not installed: pip install 'impasto[train]'")
    from impasto.export import from_torch as canonical
    from impasto.training import networks

    torch.manual_seed(0)
    network = networks.build("classic-stylizer", {"blocks": 1}).folded()  # the blocks are alike
    spec = canonical.spec_of(network, "classic", "stylize")
    return canonical.export_model(network, spec), spec


def shipped(name: str) -> tuple[onnx.ModelProto, ModelSpec]:
    if not (known_names()[name] / "model.onnx").is_file():
        pytest.skip(f"{name} holds no graph here: impasto export makes it")
    source = resolve(name)
    assert source.manifest
    return onnx.load(str(source.graph_path)), source.manifest.spec


@pytest.mark.parametrize("name", [*sorted(known_names()), "classic"])
def test_engines_compute_in_what_the_graph_says(name: str, tmp_path: Path) -> None:
    """`EngineBuilder` reads each layer's type back and refuses an engine that is not what it claims."""
    model, spec = classic(tmp_path) if name == "classic" else shipped(name)
    graphs = half_and_whole(model)
    assert problems(graphs["int8"]) == ()
    layers = len(layers_of(with_names(without_fp16_storage(model))))
    for precision, graph in graphs.items():
        for opset in (17, 20):
            assert broken_laws(prepare(graph, opset)) == [], (precision, opset)
        path = tmp_path / f"model.{precision}.onnx"
        onnx.save(graph, str(path))
        for target in ("sm86", "sm120") if name in {*representatives(), "classic"} else ("sm86",):
            options = BuildOptions(precision, SIZES, targets=(target,))
            record = EngineBuilder(path, spec, options, cache=EngineCache(tmp_path)).build()[0].record
            assert record.precisions()[precision] >= layers // 2, (precision, target, record.precisions())
