"""What `impasto export` lets through reaches every builder: the parsers' laws hold for it, and it computes what it did."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper, numpy_helper
from support.external_graphs import bent, looking_around, restorer, u_net, upscaler
from support.parser_laws import broken_laws
from support.precisions import half_and_whole
from support.small_models import picture

from impasto.export.from_onnx import import_onnx
from impasto.export.graph.fp16 import widened
from impasto.export.graph.helpers import copy
from impasto.export.tensorrt.parser_graph import prepare
from impasto.package.manifest import read_manifest

SKETCHES = {
    "restorer": (restorer(), {}),
    "upscaler": (upscaler(2), {"scale": 2}),
    "u-net": (u_net(2), {}),
    "bent": (bent(), {"opset": 20}),
    "looking around": (looking_around(), {"opset": 17}),
}


@pytest.fixture(scope="module")
def packages(tmp_path_factory):
    """A function that gives a sketch's package, made once."""
    made = {}

    def make(name: str):
        if name not in made:
            sketch, options = SKETCHES[name]
            path = tmp_path_factory.mktemp("external") / "graph.onnx"
            onnx.save(sketch.model(**options), str(path))
            made[name] = import_onnx(path, layout="bgr 0..1").folder
        return made[name]

    return make


@pytest.fixture
def graphs(packages):
    """A function that gives a package's graph as `impasto build` reads it."""
    return lambda name: onnx.load(str(packages(name) / "model.onnx"))


def drawn(model: onnx.ModelProto) -> np.ndarray:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"image": picture(36, 44)[None]})[0].astype(int)


@pytest.mark.parametrize("name", SKETCHES)
def test_packages_are_read_and_compute_the_same(graphs, name):
    whole = graphs(name)
    for precision, graph in {"fp32": whole, **half_and_whole(whole)}.items():
        for opset in (17, 20):
            prepared = prepare(graph, opset)
            assert broken_laws(prepared) == [], (precision, opset)
            # Old parsers quantize float32 alone, and get FP16 by a flag.
            same = widened(graph) if (precision, opset) == ("int8", 17) else graph
            assert np.abs(drawn(prepared) - drawn(same)).max() <= 1, (precision, opset)


def first(model: onnx.ModelProto, operator: str) -> onnx.NodeProto:
    return next(node for node in model.graph.node if node.op_type == operator)


def become(node: onnx.NodeProto, operator: str, **attributes: object) -> None:
    """Another operator, or other attributes; where nothing is given, none."""
    node.op_type = operator
    del node.attribute[:]
    node.attribute.extend(helper.make_attribute(name, value) for name, value in attributes.items())


def added(operator: str, *constants: np.ndarray, **attributes: object) -> Callable[[onnx.ModelProto], None]:
    """One more node on the float planes."""

    def damage(model: onnx.ModelProto) -> None:
        weights = {f"more {index}": value for index, value in enumerate(constants)}
        model.graph.initializer.extend(numpy_helper.from_array(value, key) for key, value in weights.items())
        inputs = [first(model, "Conv").input[0], *(key if value.size else "" for key, value in weights.items())]
        model.graph.node.append(helper.make_node(operator, inputs, ["more"], "more", **attributes))

    return damage


def defaults_of_selu(model: onnx.ModelProto) -> None:
    become(first(model, "Selu"), "Selu", alpha=1.67326)


def padded_by_itself(model: onnx.ModelProto) -> None:
    become(first(model, "ConvTranspose"), "ConvTranspose", auto_pad="SAME_UPPER", strides=[2, 2])


def another_kernel(model: onnx.ModelProto) -> None:
    become(first(model, "ConvTranspose"), "ConvTranspose", kernel_shape=[2, 2], strides=[2, 2], pads=[0, 0, 1, 1])


def counted_beyond_the_border(model: onnx.ModelProto) -> None:
    become(first(model, "AveragePool"), "AveragePool", kernel_shape=[3, 3], ceil_mode=1, count_include_pad=1)


def dilated(model: onnx.ModelProto) -> None:
    become(first(model, "MaxPool"), "MaxPool", kernel_shape=[3, 3], pads=[2] * 4, dilations=[2, 2])


def some_sizes(model: onnx.ModelProto) -> None:
    become(first(model, "Shape"), "Shape", start=2)


def no_bias(model: onnx.ModelProto) -> None:
    del first(model, "LayerNormalization").input[2]


E8 = np.ones(8, np.float32)


@pytest.mark.parametrize(
    ("name", "opset", "damage", "words"),
    [
        ("bent", 17, defaults_of_selu, "no ['gamma']"),
        ("bent", 20, defaults_of_selu, "no ['gamma']"),
        ("bent", 17, added("Gelu"), "nobody has read its importer"),
        ("bent", 20, added("Mish"), "nobody has read its importer"),
        ("bent", 20, added("HardSwish"), "nobody has read its importer"),
        ("bent", 20, added("Pow", np.array(2)), "inputs of types"),
        ("bent", 17, added("PRelu", np.ones((2, 1, 1), np.float32)), "a slope [2, 1, 1]"),
        ("bent", 20, added("Squeeze"), "no axes"),
        ("bent", 20, added("Reshape", np.zeros((1, 4), int)), "no list of sizes"),
        ("bent", 17, added("Gather", E8, axis=1), "indices of type 1"),
        ("bent", 17, added("Where", E8, E8), "inputs of types"),
        ("bent", 20, added("Pad", np.array([1, 1]), np.array([]), np.array([2])), "4 inputs"),
        ("bent", 20, added("Resize", np.array([]), np.float32([2, 1, 1, 1]), mode="linear"), "scales along more"),
        ("bent", 17, added("Resize", np.array([]), np.array([]), np.array([4, 4])), "not one for each axis"),
        ("bent", 17, added("BatchNormalization", E8, E8, E8, E8, training_mode=1), "training"),
        ("looking around", 17, added("LayerNormalization", E8, E8), "nobody has read its importer"),
        ("looking around", 20, added("LayerNormalization", E8, E8[:1]), "scale and bias of two shapes"),
        ("looking around", 20, no_bias, "2 inputs"),
        ("looking around", 17, padded_by_itself, "attributes ['auto_pad']"),
        ("looking around", 20, another_kernel, "kernel_shape [2, 2]"),
        ("looking around", 17, counted_beyond_the_border, "what is counted"),
        ("looking around", 20, dilated, "dilations"),
        ("looking around", 17, some_sizes, "attributes ['start']"),
    ],
)
def test_what_a_parser_would_refuse_or_misread_breaks_a_law(graphs, name, opset, damage, words):
    model = copy(prepare(graphs(name), opset))
    damage(model)
    assert any(words in problem for problem in broken_laws(model)), broken_laws(model)


@pytest.mark.parametrize("name", ["u-net", "bent", "looking around"])
def test_they_are_built_in_every_precision(packages, graphs, name, tmp_path):
    pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed: pip install 'impasto[rtx]'")
    from impasto.export.tensorrt.builder import EngineBuilder
    from impasto.export.tensorrt.cache import EngineCache
    from impasto.export.tensorrt.options import BuildOptions, Sizes

    spec, whole = read_manifest(packages(name)).spec, graphs(name)
    for precision, graph in {"fp32": whole, **half_and_whole(whole)}.items():
        path = tmp_path / f"{precision}.onnx"
        onnx.save(graph, str(path))
        options = BuildOptions(precision, (Sizes.parse("64x64:128x128:256x256"),), targets=("sm86",))
        record = EngineBuilder(path, spec, options, cache=EngineCache(tmp_path)).build()[0].record
        assert record.precisions()[precision] >= 2, (precision, record.precisions())
