"""Fused ends draw the same pictures, and TensorRT-RTX makes one kernel of each."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from support.engine_graphs import half, network
from support.parser_laws import broken_laws
from support.shipped_graphs import SHIPPED
from support.small_models import canonical_graph, picture

from impasto.export.graph.helpers import attribute
from impasto.export.tensorrt.builder import EngineBuilder
from impasto.export.tensorrt.cache import EngineCache
from impasto.export.tensorrt.options import BuildOptions, Sizes
from impasto.export.tensorrt.parser_graph import prepare
from impasto.export.tensorrt.picture_ends import fuse_picture_ends
from impasto.package.spec import ModelSpec, SizeRule

H, W = 48, 64
PICTURES = [path for path in SHIPPED if path.name == "model.onnx"]


def drawn(model: onnx.ModelProto, batch: int = 1) -> np.ndarray:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    image = np.stack([picture(H, W, seed) for seed in range(batch)])
    others = {value.name: np.full((batch, *value.shape[1:]), 0.4, np.float32) for value in session.get_inputs()[1:]}
    return session.run(None, {session.get_inputs()[0].name: image} | others)[0]


def fused(model: onnx.ModelProto, batch: int = 1) -> onnx.ModelProto:
    """The prepared graph with fused ends, after it was seen to draw what it drew."""
    prepared = prepare(model, 20)
    result = fuse_picture_ends(prepared, (batch, H, W))
    difference = np.abs(drawn(result, batch).astype(int) - drawn(prepared, batch).astype(int))
    assert difference.max() <= 1
    assert (difference > 0).mean() <= 1e-4, "and no more than what another order of a convolution's sums makes"
    return result


def kinds(model: onnx.ModelProto) -> Counter[str]:
    return Counter(node.op_type for node in model.graph.node)


def is_fused(model: onnx.ModelProto) -> bool:
    """Whether pixels are shuffled at both ends, and nowhere else."""
    found = kinds(model)
    orders = [attribute(node, "perm", []) for node in model.graph.node if node.op_type == "Transpose"]
    blocks = found["SpaceToDepth"] + found["DepthToSpace"]
    return blocks == 0 and orders == [[0, 2, 4, 5, 1, 3], [0, 4, 1, 5, 2, 3]]


def changed(**kinds_of: dict[str, object]) -> onnx.ModelProto:
    """The small network with attributes of some kinds of nodes replaced."""
    model = network(4, 16, 1)
    for node in model.graph.node:
        for name, value in kinds_of.get(node.op_type, {}).items():
            kept = [entry for entry in node.attribute if entry.name != name]
            del node.attribute[:]
            node.attribute.extend([*kept, helper.make_attribute(name, value)])
    return model


def without_the_sum() -> onnx.ModelProto:
    """The small network, which adds a constant and not the picture: its ends have nothing in common."""
    model = network(4, 16, 1)
    model.graph.initializer.append(numpy_helper.from_array(np.float32(0.5), "middle"))
    for node in model.graph.node:
        if node.output[0] == "y":
            node.input[:] = ["middle", "detail"]  # the places that `half` reads
    return model


def with_values_for_each_colour() -> onnx.ModelProto:
    """The small network, whose first factor differs by colour; something else reads it too."""
    model = network(4, 16, 1)
    for tensor in model.graph.initializer:
        if tensor.name == "k":
            tensor.CopyFrom(numpy_helper.from_array(np.array([1, 2, 3], np.float32).reshape(1, 3, 1, 1) / 765, "k"))
    model.graph.node.append(helper.make_node("Mul", ["k", "k"], ["square"]))
    model.graph.output.append(helper.make_tensor_value_info("square", TensorProto.FLOAT, [1, 3, 1, 1]))
    return model


@pytest.mark.parametrize(
    "model",
    [
        network(4, 16, 1),
        network(2, 16, 1),
        changed(DepthToSpace={"mode": "DCR"}),
        without_the_sum(),
        half(network(4, 16, 1)),
    ],
    ids=["a sum with the picture", "blocks of 2", "DCR", "no sum", "FP16"],
)
@pytest.mark.parametrize("batch", [1, 2])
def test_both_ends_become_one_shuffle_each(model: onnx.ModelProto, batch: int) -> None:
    assert is_fused(fused(model, batch))


def test_values_for_each_colour_become_values_for_each_channel() -> None:
    result = fused(with_values_for_each_colour())
    assert is_fused(result)
    tables = {tensor.name: list(tensor.dims) for tensor in result.graph.initializer if tensor.name.startswith("k")}
    assert tables == {"k": [1, 3, 1, 1], "k of cells": [1, 48, 1, 1]}


@pytest.mark.parametrize("path", PICTURES, ids=lambda path: path.parent.name)
def test_shipped_graphs_draw_the_same(path: Path) -> None:
    fused(onnx.load(str(path)))


@pytest.mark.parametrize("name", ["great-wave", "denoise"])
def test_shipped_networks_with_blocks_at_both_ends_are_fused(name: str) -> None:
    (path,) = [path for path in PICTURES if path.parent.name == name]
    orders = [
        attribute(node, "perm", []) for node in fused(onnx.load(str(path))).graph.node if node.op_type == "Transpose"
    ]
    assert orders == [[0, 2, 4, 5, 1, 3], [0, 4, 1, 5, 2, 3]]


def test_parsers_read_fused_graphs() -> None:
    for model in (network(4, 16, 1), without_the_sum()):
        assert not broken_laws(fuse_picture_ends(prepare(model, 17), (1, H, W)))


def test_a_quantized_head_keeps_its_channels() -> None:
    """Its weights come out of a DequantizeLinear; the start, which reorders nothing, is fused."""
    model = without_the_sum()
    scale = numpy_helper.from_array(np.float32(0.01), "head.scale")
    (weights,) = (tensor for tensor in model.graph.initializer if tensor.name == "head.w")
    levels = np.clip(np.round(numpy_helper.to_array(weights) / 0.01), -127, 127).astype(np.int8)
    weights.CopyFrom(numpy_helper.from_array(levels, "head.levels"))
    model.graph.initializer.append(scale)
    model.graph.node.insert(0, helper.make_node("DequantizeLinear", ["head.levels", "head.scale"], ["head.w"]))
    found = kinds(fused(model))
    assert (found["SpaceToDepth"], found["DepthToSpace"]) == (0, 1)


@pytest.mark.parametrize(
    ("model", "picture_size"),
    [(canonical_graph(2), (1, H, W)), (network(4, 16, 1), (1, H, W + 2))],
    ids=["a Resize of the picture", "sizes that no block divides"],
)
def test_other_ends_stay_as_they_are(model: onnx.ModelProto, picture_size: tuple[int, int, int]) -> None:
    prepared = prepare(model, 20)
    assert fuse_picture_ends(prepared, picture_size) is prepared


# ---- the builder ----


@pytest.fixture
def builder(tmp_path: Path) -> EngineBuilder:
    pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed: pip install 'impasto[rtx]'")
    onnx.save(half(without_the_sum()), str(tmp_path / "model.onnx"))
    return building(tmp_path, "256x256")


def building(folder: Path, *sizes: str, batch: tuple[int, int, int] = (1, 1, 1)) -> EngineBuilder:
    options = BuildOptions("fp16", tuple(map(Sizes.parse, sizes)), batch, targets=("sm86",))
    spec = ModelSpec("small", size=SizeRule(4))
    return EngineBuilder(folder / "model.onnx", spec, options, graph_precision="fp16", cache=EngineCache(folder))


def test_an_engine_of_one_size_has_fewer_kernels_and_moves_less(
    builder: EngineBuilder, monkeypatch: pytest.MonkeyPatch
) -> None:
    after = builder.compile().layers
    monkeypatch.setattr(EngineBuilder, "fixed_picture", None)
    before = builder.compile().layers
    assert len(after) < len(before)
    saved = sum(layer.moved_bytes or 0 for layer in before) - sum(layer.moved_bytes or 0 for layer in after)
    assert saved >= 2 * 256 * 256 * 3 * 4, "the picture as FP32, written and read at the end"


def test_only_one_size_and_one_batch_are_fixed(builder: EngineBuilder, tmp_path: Path) -> None:
    assert builder.fixed_picture == (1, 256, 256)
    assert building(tmp_path, "250x256").fixed_picture == (1, 252, 256)
    assert building(tmp_path, "64x64:128x128:256x256").fixed_picture is None
    assert building(tmp_path, "64x64", "128x128").fixed_picture is None
    assert building(tmp_path, "64x64", batch=(1, 2, 2)).fixed_picture is None
    assert "picture_ends" in builder.key_parts()
    assert "picture_ends" not in building(tmp_path, "64x64:128x128:256x256").key_parts(), (
        "those engines stay in the cache"
    )
