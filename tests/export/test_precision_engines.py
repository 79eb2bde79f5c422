"""Real TensorRT-RTX engines of what `quantize` makes: of every shipped model and of the classic network, for two kinds of GPU."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from conftest import picture
from impasto.export.engine import build_engine
from impasto.export.engine_cache import EngineCache
from impasto.export.engine_options import BuildOptions, Sizes
from impasto.export.graph_parts import with_names
from impasto.export.precision_fp16 import find_islands, to_half
from impasto.export.precision_int8 import find_ranges, layers_of, quantized
from impasto.export.precision_lint import problems
from impasto.export.precision_ranges import observe
from impasto.export.stored_weights import unpacked
from impasto.runtime.resolve import known_names, resolve
from impasto.runtime.spec import ModelSpec

pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed: pip install 'impasto[rtx]'")

SIZES = (Sizes.parse("64x64:128x128:256x256"),)


def classic(folder: Path) -> tuple[onnx.ModelProto, ModelSpec]:
    torch = pytest.importorskip("torch", reason="torch is not installed: pip install 'impasto[train]'")
    from impasto.export import onnx as canonical
    from impasto.training import networks

    torch.manual_seed(0)
    network = networks.build("classic-stylizer", {}).folded()
    spec = canonical.spec_of(network, "classic", "stylize")
    return canonical.export_model(network, spec), spec


def shipped(name: str) -> tuple[onnx.ModelProto, ModelSpec]:
    if not (known_names()[name] / "model.onnx").is_file():
        pytest.skip(f"{name} holds no graph here: impasto export makes it")
    source = resolve(name)
    assert source.manifest
    return onnx.load(str(source.graph)), source.manifest.spec


@pytest.mark.parametrize("name", [*sorted(known_names()), "classic"])
def test_engines_compute_in_what_the_graph_says(name: str, tmp_path: Path) -> None:
    """`build_engine` reads each layer's type back and refuses an engine that is not what it claims."""
    model, spec = classic(tmp_path) if name == "classic" else shipped(name)
    model = with_names(unpacked(model))
    feeds = [{"image": picture(64, 96, seed)[None]} for seed in range(2)]
    if spec.thumbnail:
        length = model.graph.input[1].type.tensor_type.shape.dim[1].dim_value
        feeds = [{**feed, "context": np.full((1, length), 0.1, np.float32)} for feed in feeds]
    names = {island.node for island in find_islands(model, observe(model, feeds))}
    whole = quantized(model, find_ranges(model, feeds, "min-max"), (), "tensorrt")
    graphs = {"fp16": to_half(model, names), "int8": to_half(whole, names)}
    assert problems(graphs["int8"]) == ()
    layers = len(layers_of(model))
    for precision, graph in graphs.items():
        path = tmp_path / f"model.{precision}.onnx"
        onnx.save(graph, str(path))
        for target in ("sm86", "sm120"):
            options = BuildOptions(precision, SIZES, targets=(target,))
            record = build_engine(path, spec, options, cache=EngineCache(tmp_path))[0].record
            assert record.precisions()[precision] >= layers // 2, (precision, target, record.precisions())
