"""A graph rewritten for a parser computes what it computed before."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from support.engine_graphs import network, quantized
from support.parser_laws import broken_laws
from support.shipped_graphs import SHIPPED, normalised
from support.small_models import canonical_graph, context_graph, picture

from impasto.errors import ExportError
from impasto.export.tensorrt.parser_graph import prepare
from impasto.metrics import psnr


def draw(model: onnx.ModelProto) -> np.ndarray:
    """What a graph makes of plausible inputs, as float64."""
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    feeds = {}
    for value in session.get_inputs():
        sides = [size if isinstance(size, int) else 64 for size in value.shape[1:]]
        pixels = value.type == "tensor(uint8)"
        feeds[value.name] = picture(*sides[:2])[None] if pixels else np.full((1, *sides), 0.1, np.float32)
    return session.run(None, feeds)[0].astype(np.float64)


@pytest.mark.parametrize("opset", [17, 20])
@pytest.mark.parametrize(
    "model",
    [network(4, 32, 1), canonical_graph(2), canonical_graph(1, 5), context_graph(8, 5), normalised()],
    ids=["network", "upscaler", "with context", "context", "instance norm"],
)
def test_older_operators_compute_the_same(model: onnx.ModelProto, opset: int) -> None:
    prepared = prepare(model, opset)
    assert prepared.opset_import[0].version == opset
    np.testing.assert_allclose(draw(prepared), draw(model), atol=1e-3)
    assert opset > 17 or "InstanceNormalization" not in {node.op_type for node in prepared.graph.node}


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_shipped_graphs_have_an_older_form(path: Path) -> None:
    model = onnx.load(str(path))
    older, wanted = draw(prepare(model, 17)), draw(model)
    if ".int8-tensorrt." in path.name:
        # What is FP16 there is FP32 for older parsers, and the builder's flag makes it FP16 again. So values round to other levels.
        assert psnr(older.round().astype(np.uint8), wanted.round().astype(np.uint8)) > 40
    else:
        np.testing.assert_allclose(older, wanted, atol=1e-3)


def test_quantized_weights_become_floats_that_round_to_the_same_levels(tmp_path: Path) -> None:
    onnx.save(network(4, 32, 1), str(tmp_path / "model.onnx"))
    quantized(tmp_path / "model.onnx", tmp_path / "int8.onnx", [picture(64, 64, seed) for seed in range(2)])
    model = onnx.load(str(tmp_path / "int8.onnx"))
    prepared = prepare(model, 17)
    levels = [tensor for tensor in prepared.graph.initializer if tensor.data_type == TensorProto.INT8]
    assert not [tensor for tensor in levels if len(tensor.dims) > 1], "weights are still stored as levels"
    assert np.abs(draw(prepared) - draw(model)).max() <= 1


def test_pixels_meet_casts_alone() -> None:
    prepared = prepare(network(4, 32, 1), 20).graph
    assert [node.op_type for node in prepared.node if "image" in node.input] == ["Cast"]
    assert [node.op_type for node in prepared.node if "picture" in node.output] == ["Cast"]


def test_an_operator_without_an_older_form_is_named() -> None:
    model = normalised()
    model.graph.node[-1].CopyFrom(helper.make_node("CenterCropPad", ["x"], ["y"], "crop"))
    del model.graph.initializer[:]
    with pytest.raises(ExportError, match=r"CenterCropPad \(node 'crop'\).*TensorRT 10 or later"):
        prepare(model, 17)


def picture_network(
    nodes: list[onnx.NodeProto], last: str, weights: dict[str, np.ndarray], opset: int = 18
) -> onnx.ModelProto:
    """float32 (1, 4, 6, 6) `x` through these nodes to `last`, as others write graphs."""
    graph = helper.make_graph(
        nodes,
        "others",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4, 6, 6])],
        [helper.make_tensor_value_info(last, TensorProto.FLOAT, None)],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def parts(axis: int, count: int) -> list[onnx.NodeProto]:
    names = [f"part{index}" for index in range(count)]
    return [
        helper.make_node("Split", ["x"], names, "split", axis=axis, num_outputs=count),
        helper.make_node("Add", names[:2], ["y"], "sum"),
    ]


@pytest.mark.parametrize(
    ("nodes", "weights"),
    [
        (parts(1, 2), {}),
        ([helper.make_node("ReduceL2", ["x", "axes"], ["y"])], {"axes": np.array([1])}),
        pytest.param(
            [helper.make_node("ReduceMean", ["x"], ["y"], noop_with_empty_axes=1)],
            {},
            marks=pytest.mark.skipif(
                onnxruntime.__version__ < "1.24", reason="this ONNX Runtime does not run it itself"
            ),
        ),
        (
            [
                helper.make_node("Constant", [], ["axis"], value_ints=[2]),
                helper.make_node("Constant", [], ["k"], value_float=2.0),
                helper.make_node("Unsqueeze", ["x", "axis"], ["deep"]),
                helper.make_node("Mul", ["deep", "k"], ["y"]),
            ],
            {},
        ),
        ([helper.make_node("Pad", ["x", "border"], ["y"], mode="edge")], {"border": np.array([0, 0, 1, 2] * 2)}),
    ],
    ids=["split", "l2", "mean of nothing", "constants", "pad"],
)
def test_what_others_write_computes_the_same(nodes: list[onnx.NodeProto], weights: dict[str, np.ndarray]) -> None:
    model = picture_network(nodes, "y", weights)
    prepared = prepare(model, 17)
    assert "Constant" not in {node.op_type for node in prepared.graph.node}
    np.testing.assert_allclose(computed(prepared), computed(model), rtol=1e-6)


def computed(model: onnx.ModelProto) -> np.ndarray:
    """What a picture network makes of random numbers around 0."""
    feed = {"x": np.random.default_rng(0).normal(0, 2, (1, 4, 6, 6)).astype(np.float32)}
    return onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, feed)[
        0
    ]


def transposed(side: int, **attributes: object) -> tuple[list[onnx.NodeProto], dict[str, np.ndarray]]:
    weights = np.random.default_rng(1).normal(size=(4, 3, side, side)).astype(np.float32)
    return [helper.make_node("ConvTranspose", ["x", "w"], ["y"], "up", **attributes)], {"w": weights}


def one(kind: str, *constants: np.ndarray, **attributes: object) -> tuple[list[onnx.NodeProto], dict[str, np.ndarray]]:
    weights = {f"c{index}": value for index, value in enumerate(constants)}
    names = [name if value.size else "" for name, value in weights.items()]
    return [helper.make_node(kind, ["x", *names], ["y"], **attributes)], weights


def in_halves(
    kind: str, *constants: np.ndarray, **attributes: object
) -> tuple[list[onnx.NodeProto], dict[str, np.ndarray]]:
    """One node on halves, between casts."""
    nodes, weights = one(kind, *constants, **attributes)
    nodes[0].input[0], nodes[0].output[0] = "x half", "y half"
    before = helper.make_node("Cast", ["x"], ["x half"], to=TensorProto.FLOAT16)
    return [before, *nodes, helper.make_node("Cast", ["y half"], ["y"], to=TensorProto.FLOAT)], weights


ODD = [3, 4]  # a side of the kernel, and a total of pads that two ends cannot share, or can
SCALE = np.linspace(0.5, 1.5, 6, dtype=np.float32)
NONE = np.array([], np.float32)
STRANGE = {
    **{
        f"auto_pad {side} {mode}": transposed(side, strides=[2, 2], auto_pad=mode)
        for side in ODD
        for mode in ("SAME_UPPER", "SAME_LOWER")
    },
    "auto_pad and output_padding": transposed(3, strides=[2, 2], auto_pad="SAME_UPPER", output_padding=[1, 1]),
    "auto_pad, dilated": transposed(2, strides=[2, 2], auto_pad="SAME_LOWER", dilations=[3, 3]),
    "auto_pad, valid": transposed(3, strides=[2, 2], auto_pad="VALID"),
    "output_shape": transposed(3, strides=[2, 2], output_shape=[12, 11]),
    "output_shape, upper": transposed(4, strides=[2, 2], output_shape=[11, 13], auto_pad="SAME_UPPER"),
    "output_padding": transposed(3, strides=[2, 2], output_padding=[1, 1], pads=[1, 1, 1, 1]),
    "gelu": one("Gelu"),
    "gelu, tanh": one("Gelu", approximate="tanh"),
    "mish": one("Mish"),
    "hard swish": one("HardSwish"),
    "selu": one("Selu"),
    "elu": one("Elu", alpha=0.3),
    "softplus": one("Softplus"),
    "pow": one("Pow", np.array(2)),
    "clip": one("Clip", NONE, np.float32(0.5)),
    "pad": one("Pad", np.array([1, 0, 2, 1]), NONE, np.array([-1, 2]), mode="edge"),
    "norm": one("LayerNormalization", SCALE),
    "norm of planes": one(
        "LayerNormalization", np.ones((6, 6), np.float32), np.eye(6, dtype=np.float32), axis=2, epsilon=0.1
    ),
    "norm of groups": (
        [
            helper.make_node("Reshape", ["x", "groups"], ["g"]),
            helper.make_node("InstanceNormalization", ["g", "scale", "bias"], ["n"]),
            helper.make_node("Reshape", ["n", "planes"], ["y"]),
        ],
        {
            "groups": np.array([0, 2, -1]),
            "planes": np.array([0, 4, 6, 6]),
            "scale": np.float32([1, 2]),
            "bias": np.float32([0.5, 0]),
        },
    ),
    "norm in halves": in_halves("LayerNormalization", SCALE.astype(np.float16)),
    "gelu in halves": in_halves("Gelu"),
    "clip in halves": in_halves("Clip", NONE, np.float16(0.5)),
    "shape": (
        [helper.make_node("Shape", ["x"], ["s"], start=1, end=-1), helper.make_node("Cast", ["s"], ["y"], to=1)],
        {},
    ),
    "shape to the end": (
        [helper.make_node("Shape", ["x"], ["s"], start=-3), helper.make_node("Cast", ["s"], ["y"], to=1)],
        {},
    ),
}


@pytest.mark.parametrize("opset", [17, 20])
@pytest.mark.parametrize("name", STRANGE)
def test_what_parsers_refuse_or_misread_computes_the_same(name: str, opset: int) -> None:
    nodes, weights = STRANGE[name]
    model = onnx.shape_inference.infer_shapes(picture_network(nodes, "y", weights, 20))
    prepared = prepare(model, opset)
    assert broken_laws(prepared) == []
    halves = name.endswith("halves")
    np.testing.assert_allclose(
        computed(prepared), computed(model), rtol=2e-3 if halves else 1e-5, atol=2e-3 if halves else 2e-6
    )


@pytest.mark.parametrize(
    ("nodes", "weights", "words"),
    [
        (parts(1, 3), {}, "Split 'split' has 3 parts"),
        (
            [helper.make_node("Pad", ["x", "border"], ["y"], "pad", mode="wrap")],
            {"border": np.array([0, 0, 1, 1] * 2)},
            "Pad 'pad' uses what came with opset 18",
        ),
    ],
)
def test_what_has_no_older_form_is_named(
    nodes: list[onnx.NodeProto], weights: dict[str, np.ndarray], words: str
) -> None:
    with pytest.raises(ExportError, match=rf"{words}.*TensorRT 10 or later"):
        prepare(picture_network(nodes, "y", weights), 17)


def with_mean() -> tuple[list[onnx.NodeProto], dict[str, np.ndarray]]:
    nodes, weights = one("LayerNormalization", SCALE)
    nodes[0].output[:] = ["normal", "y"]
    nodes[0].name = "norm"
    return nodes, weights


@pytest.mark.parametrize("opset", [17, 20])
@pytest.mark.parametrize(
    ("strange", "words"),
    [
        (one("MaxPool", kernel_shape=[2, 2], dilations=[2, 2]), "MaxPool '' is dilated, which no TensorRT computes"),
        (
            transposed(3, output_shape=[9, 9]),
            "ConvTranspose 'up' says how large its result is, for pictures of a free size",
        ),
        (with_mean(), "something reads the mean .* LayerNormalization 'norm'"),
    ],
)
def test_what_no_parser_reads_is_named(
    strange: tuple[list[onnx.NodeProto], dict[str, np.ndarray]], words: str, opset: int
) -> None:
    nodes, weights = strange
    model = picture_network(nodes, "y", weights, 20)
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_param = "H"
    with pytest.raises(ExportError, match=words):
        prepare(model, opset)


@pytest.mark.parametrize("opset", [17, 20])
def test_quantized_convolutions_say_how_large_they_are(opset: int, tmp_path: Path) -> None:
    """ONNX leaves kernel_shape and the zero point to be guessed, and names need not differ; parsers want all three."""
    onnx.save(network(4, 32, 1), str(tmp_path / "model.onnx"))
    quantized(tmp_path / "model.onnx", tmp_path / "int8.onnx", [picture(64, 64, seed) for seed in range(2)])
    model = onnx.load(str(tmp_path / "int8.onnx"))
    expected = draw(model)
    for node in model.graph.node:
        if node.op_type == "DequantizeLinear":  # int8 by its input; a QuantizeLinear without one would be uint8
            del node.input[2]
            node.name = "dequantize"
    prepared = prepare(model, opset)
    convolutions = [node for node in prepared.graph.node if node.op_type == "Conv"]
    shapes = [helper.get_node_attr_value(node, "kernel_shape") for node in convolutions]
    assert shapes == [[3, 3]] * 4
    quantizers = [node for node in prepared.graph.node if node.op_type.endswith("quantizeLinear")]
    assert quantizers
    assert all(len(node.input) == 3 or opset > 17 for node in quantizers)
    names = [node.name for node in quantizers if node.name]
    assert len(names) == len(set(names))
    np.testing.assert_allclose(draw(prepared), expected, atol=1)
