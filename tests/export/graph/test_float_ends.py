"""The graph with float ends: what the canonical graph draws, before it rounds."""

from __future__ import annotations

import json

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from support.small_models import canonical_graph, float_graph, picture, write_graph

from impasto.errors import ExportError, OptionError, PackageError
from impasto.export import add_float_graph, import_onnx
from impasto.export.graph.float_ends import float_file, with_float_ends
from impasto.export.graph.helpers import graph_file
from impasto.package.manifest import FLOAT, FLOAT_MODEL, MODEL, read_manifest, verify
from impasto.package.spec import ModelSpec, SizeRule

SPEC = ModelSpec("small", task="denoise", size=SizeRule(4, 4), receptive_field=7)


def drawn(model: onnx.ModelProto, image: np.ndarray) -> np.ndarray:
    return onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"image": image[None]})[0][0]


@pytest.mark.parametrize("scale", [1, 2])
def test_it_draws_what_the_canonical_graph_rounds(scale):
    graph, image = canonical_graph(scale), picture(32, 48)
    floats = with_float_ends(graph)
    values = drawn(floats, image.astype(np.float32) / 255)
    assert values.dtype == np.float32 and values.min() >= 0 and values.max() <= 1
    assert np.array_equal(np.rint(values * 255), drawn(graph, image))
    assert np.abs(values * 255 - np.rint(values * 255)).max() > 0.4  # it does not round itself


def test_scalings_by_255_at_the_ends_cancel():
    kinds = [node.op_type for node in with_float_ends(canonical_graph()).graph.node]
    assert "Mul" not in kinds and "Round" not in kinds and "Cast" not in kinds
    assert kinds.count("Clip") == 1


def test_a_graph_may_read_its_pictures_shape():
    graph, image = canonical_graph(), picture(32, 48)
    nodes = {node.op_type: node for node in graph.graph.node}
    reshape = helper.make_node("Reshape", ["x", "sides"], ["x as it was"])
    nodes["SpaceToDepth"].input[0] = "x as it was"
    graph.graph.node.insert(3, reshape)
    graph.graph.node.insert(2, helper.make_node("Shape", ["t"], ["sides"]))
    values = drawn(with_float_ends(graph), image.astype(np.float32) / 255)
    assert np.array_equal(np.rint(values * 255), drawn(canonical_graph(), image))


def test_a_layout_of_0_to_255_stays_inside(tmp_path):
    onnx.save(float_graph(gain=0.3), str(tmp_path / "outside.onnx"))
    folder = import_onnx(tmp_path / "outside.onnx", tmp_path / "package", layout="bgr 0..255").folder
    manifest = read_manifest(folder)
    floats = onnx.load(str(verify(folder, manifest.find(FLOAT))))
    image = np.random.default_rng(1).random((8, 8, 3), np.float32)
    assert np.allclose(drawn(floats, image), image * np.array([1, 1, 0.3], np.float32), atol=1e-6)


def changed_ends(kind: str) -> onnx.ModelProto:
    graph = canonical_graph()
    nodes = {node.op_type: node for node in graph.graph.node}
    if kind == "no Round":
        nodes["Clip"].input[0] = "levels"
        graph.graph.node.remove(nodes["Round"])
    elif kind == "other bounds":
        graph.graph.initializer.append(numpy_helper.from_array(np.array(16, np.float32), "black"))
        nodes["Clip"].input[1] = "black"
    else:  # bytes are added up, before they are cast
        graph.graph.node[0].output[0] = "first"
        graph.graph.node.insert(1, helper.make_node("Max", ["first", "first"], ["t"]))
    return graph


@pytest.mark.parametrize(
    ("kind", "told"), [("no Round", "without a Round"), ("other bounds", "bounds"), ("bytes", "bytes into Max")]
)
def test_what_says_nothing_of_values_between_levels_is_refused(kind, told):
    with pytest.raises(ExportError, match=told):
        with_float_ends(changed_ends(kind))


def test_it_keeps_its_weights_in_the_canonical_graphs_file():
    graph = canonical_graph()
    holder = graph_file(MODEL, graph)
    file = float_file(graph, holder, SPEC.size)
    assert (file.name, file.role) == (FLOAT_MODEL, FLOAT)
    stored = onnx.load_from_string(file.content)
    outside = [tensor.name for tensor in stored.graph.initializer if tensor.data_location == TensorProto.EXTERNAL]
    assert outside == ["w1", "w2"] and len(file.content) < len(holder.content) / 4


def test_a_package_gets_it_and_keeps_all_else(tmp_path):
    folder = write_graph(tmp_path / "small", SPEC, canonical_graph())
    before = json.loads((folder / "manifest.json").read_text())
    assert add_float_graph(folder) == add_float_graph(folder) == folder / FLOAT_MODEL
    after = json.loads((folder / "manifest.json").read_text())
    assert after["files"].pop(FLOAT_MODEL)["role"] == FLOAT
    assert after | {"impasto": ""} == before


def test_no_package_is_made_by_adding(tmp_path):
    with pytest.raises(PackageError, match="no model package"):
        add_float_graph(tmp_path / "missing")
    assert not (tmp_path / "missing").exists()
    spec = ModelSpec("features", task="perceptual")
    with pytest.raises(OptionError, match="perceptual"):
        add_float_graph(write_graph(tmp_path / "features", spec, canonical_graph()))


def test_an_external_graph_without_a_round_takes_8_bits_alone(tmp_path):
    onnx.save(changed_ends("no Round"), str(tmp_path / "cut.onnx"))
    with pytest.warns(UserWarning, match="takes pictures of 8 bits alone: the graph makes bytes"):
        folder = import_onnx(tmp_path / "cut.onnx", tmp_path / "package").folder
    assert read_manifest(folder).find(FLOAT) is None
