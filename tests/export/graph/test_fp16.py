"""Laws of FP16 in the graph: what is half, what is not, and that it draws the same."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from support.precision_graphs import canonical, chain, extremes, feeds

from impasto.errors import PrecisionError
from impasto.export.graph.fp16 import HEADROOM, HIGHEST, exact_pixels, find_fp32_nodes, rounded, to_half
from impasto.export.graph.helpers import constants, element_types
from impasto.export.quantization.ranges import Session, observe, require_finite
from impasto.metrics import psnr


def fp32_nodes_of(model: onnx.ModelProto) -> dict[str, str]:
    observed = observe(model, (*feeds(), *extremes()))
    return {fp32_node.node: fp32_node.reason for fp32_node in find_fp32_nodes(model, observed)}


def half(model: onnx.ModelProto) -> onnx.ModelProto:
    return to_half(model, fp32_nodes_of(model))


def single(operator: str, inputs: list[str], weights: dict[str, np.ndarray], **attributes: object) -> onnx.ModelProto:
    """One node called `node` between two convolutions; what comes of it is added to the picture."""
    weights = {"w": np.eye(3, dtype=np.float32)[:, :, None, None]} | weights
    nodes = [
        helper.make_node("Conv", ["first", "w"], ["x"], "conv"),
        helper.make_node(operator, inputs, ["y"], "node", **attributes),
        helper.make_node("Conv", ["y", "w"], ["z"], "other"),
        helper.make_node("Add", ["z", "x"], ["last"], "sum"),
    ]
    return canonical(nodes, weights)


@pytest.mark.parametrize("layers", [2, 6])
def test_half_draws_the_same_picture(layers: int) -> None:
    model = chain(layers)
    mixed = half(model)
    exact, narrow = Session(model), Session(rounded(mixed))
    assert min(psnr(exact.draw(feed), narrow.draw(feed)) for feed in feeds()) >= 60
    for feed in extremes():  # one level all over an even picture is 48 dB
        assert np.abs(exact.draw(feed).astype(int) - narrow.draw(feed)).max() <= 1
    types = element_types(mixed)
    weights = [node.input[1] for node in mixed.graph.node if node.op_type == "Conv"]
    assert {types[name] for name in weights} == {TensorProto.FLOAT16}
    assert [value.type.tensor_type.elem_type for value in (*mixed.graph.input, *mixed.graph.output)] == [2, 2]


def test_pixels_are_scaled_and_rounded_in_fp32() -> None:
    mixed = half(chain(2))
    types = element_types(mixed)
    for tensor in ("unit", "first", "light", "levels", "rounded"):
        assert types[tensor] == TensorProto.FLOAT, tensor


NORM = {"scale": np.ones(3, np.float32), "shift": np.zeros(3, np.float32)}


@pytest.mark.parametrize(
    ("operator", "inputs", "weights", "attributes"),
    [
        ("InstanceNormalization", ["x", "scale", "shift"], NORM, {}),
        ("Softmax", ["x"], {}, {"axis": 1}),
        ("GlobalAveragePool", ["x"], {}, {}),
        ("ReduceMean", ["x", "axes"], {"axes": np.array([2, 3])}, {"keepdims": 1}),
        ("ReduceSumSquare", ["x", "axes"], {"axes": np.array([2, 3])}, {"keepdims": 1}),
    ],
)
def test_sums_are_fp32_nodes_and_their_weights_stay_fp32(operator, inputs, weights, attributes) -> None:
    model = single(operator, inputs, weights, **attributes)
    fp32_nodes = fp32_nodes_of(model)
    assert "adds up many values" in fp32_nodes["node"]
    assert "conv" not in fp32_nodes
    mixed = to_half(model, fp32_nodes)
    stored = constants(mixed.graph)
    (node,) = (node for node in mixed.graph.node if node.name == "node")
    assert all(stored[name].dtype != np.float16 for name in node.input if name in stored)


def test_a_variance_is_an_fp32_node_as_a_whole() -> None:
    weights = {"axes": np.array([2, 3]), "w": np.eye(3, dtype=np.float32)[:, :, None, None]}
    nodes = [
        helper.make_node("Conv", ["first", "w"], ["x"], "conv"),
        helper.make_node("ReduceMean", ["x", "axes"], ["mean"], "mean"),
        helper.make_node("Sub", ["x", "mean"], ["centred"], "centred"),
        helper.make_node("Mul", ["centred", "centred"], ["square"], "square"),
        helper.make_node("ReduceMean", ["square", "axes"], ["variance"], "variance"),
        helper.make_node("Add", ["x", "variance"], ["last"], "last"),
    ]
    fp32_nodes = fp32_nodes_of(canonical(nodes, weights))
    assert {"mean", "centred", "square", "variance"} <= set(fp32_nodes)
    assert "conv" not in fp32_nodes


def test_a_gram_product_is_an_fp32_node() -> None:
    weights = {
        "w": np.eye(3, dtype=np.float32)[:, :, None, None],
        "flat": np.array([0, 3, -1]),
        "column": np.array([0, 3, 3, 1]),
        "axes": np.array([2, 3]),
    }
    nodes = [
        helper.make_node("Conv", ["first", "w"], ["x"], "conv"),
        helper.make_node("Reshape", ["x", "flat"], ["f"], "f"),
        helper.make_node("Transpose", ["f"], ["t"], "t", perm=[0, 2, 1]),
        helper.make_node("MatMul", ["f", "t"], ["gram"], "gram"),
        helper.make_node("Reshape", ["gram", "column"], ["c"], "c"),
        helper.make_node("ReduceMax", ["c", "axes"], ["m"], "m"),
        helper.make_node("Add", ["x", "m"], ["last"], "last"),
    ]
    assert "Gram" in fp32_nodes_of(canonical(nodes, weights))["gram"]


def test_what_does_not_fit_a_half_is_an_fp32_node() -> None:
    """Values beyond 65504, and values below the smallest normal half."""
    scales = {"large": 2e5, "small": 1e-5}
    weights = {name: np.float32(value) for name, value in scales.items()} | {"w": np.ones((3, 3, 1, 1), np.float32)}
    for name, value in scales.items():
        nodes = [
            helper.make_node("Conv", ["first", "w"], ["x"], "conv"),
            helper.make_node("Mul", ["x", name], ["away"], "away"),
            helper.make_node("Relu", ["away"], ["relu"], "relu"),
            helper.make_node("Div", ["relu", name], ["back"], "back"),
            helper.make_node("Conv", ["back", "w"], ["last"], "after"),
        ]
        model = canonical(nodes, weights)
        fp32_nodes = fp32_nodes_of(model)
        assert {"away", "relu", "back"} <= set(fp32_nodes), value
        assert not {"conv", "after"} & set(fp32_nodes)
        narrow, exact = Session(rounded(to_half(model, fp32_nodes))), Session(model)
        assert min(psnr(exact.draw(feed), narrow.draw(feed)) for feed in feeds()) >= 60


def test_a_layer_near_the_limit_is_an_fp32_node_before_it_overflows() -> None:
    value = np.float32(1.2 * HIGHEST / HEADROOM)
    model = single("Mul", ["x", "large"], {"large": value})
    assert "node" in fp32_nodes_of(model)
    assert "node" not in fp32_nodes_of(single("Mul", ["x", "large"], {"large": value / 4}))


def test_the_guard_names_the_first_layer_that_overflows() -> None:
    weights = {f"w{index}": np.float32(400) * np.eye(3, dtype=np.float32)[:, :, None, None] for index in range(3)}
    names = ["early", "middle", "late"]
    nodes = [
        helper.make_node("Conv", [source, f"w{index}"], [name], name)
        for index, (name, source) in enumerate(zip(names, ["first", *names], strict=False))
    ]
    model = canonical([*nodes, helper.make_node("Tanh", ["late"], ["last"], "tanh")], weights)
    ends = {name for name, reason in fp32_nodes_of(model).items() if "pixels" in reason}
    with pytest.raises(PrecisionError, match=r"FP16 overflows: the first layer .* 'middle' \(Conv\)"):
        require_finite(rounded(to_half(model, ends)), feeds(), "FP16")
    require_finite(rounded(half(model)), (*feeds(), *extremes()), "FP16")


def test_extreme_pictures_give_numbers() -> None:
    model = chain(4)
    require_finite(rounded(half(model)), extremes(64), "FP16")


def test_rounding_is_written_out() -> None:
    """ONNX Runtime's CPU kernels would drop it: 1 + 2^-12 would survive in float32."""
    nodes = [
        helper.make_node("Add", ["first", "tiny"], ["sum"], "sum"),
        helper.make_node("Sub", ["sum", "first"], ["rest"], "rest"),
        helper.make_node("Mul", ["rest", "huge"], ["last"], "last"),
    ]
    weights = {"tiny": np.float32(2.0**-13), "huge": np.float32(2.0**13)}
    model = canonical(nodes, weights)
    white = {"image": np.full((1, 8, 8, 3), 255, np.uint8)}  # first = 0.5, whose neighbours are 2^-11 away
    assert (Session(model).draw(white) == 255).all()
    mixed = to_half(model, {"planes", "floats", "unit", "first", "light", "levels", "rounded", "clipped", "bytes"})
    assert (Session(rounded(mixed)).draw(white) == 128).all()


def test_every_level_of_a_pixel_is_exact_as_a_half() -> None:
    model = chain(2)
    exact = exact_pixels(model)
    observed = Session(exact)
    for feed in feeds(1):
        assert np.abs(observed.draw(feed).astype(int) - Session(model).draw(feed)).max() <= 1
    levels = (np.arange(256, dtype=np.float32) / np.float32(255) - np.float32(0.5)) * np.float32(255 / 256)
    assert np.abs(levels.astype(np.float16) - levels).max() < 1e-7
    (scale,) = (node for node in exact.graph.node if node.name == "scale first")
    assert constants(exact.graph)[scale.input[1]] == np.float32(255 / 256)
    assert exact_pixels(exact) is exact, "a second time there is nothing to do"


def test_a_context_stays_fp32_at_the_door() -> None:
    from support.small_models import canonical_graph

    from impasto.export.graph.helpers import with_names

    model = with_names(canonical_graph(context=5))
    inputs = [{**feed, "context": np.full((1, 5), 0.1, np.float32)} for feed in feeds(2)]
    mixed = to_half(model, {fp32_node.node for fp32_node in find_fp32_nodes(model, observe(model, inputs))})
    assert [value.type.tensor_type.elem_type for value in mixed.graph.input] == [TensorProto.UINT8, TensorProto.FLOAT]
    exact, narrow = Session(model), Session(rounded(mixed))
    assert min(psnr(exact.draw(feed), narrow.draw(feed)) for feed in inputs) >= 60


def test_operators_of_float32_alone_stay_so() -> None:
    """Resize takes its scales as float32 whatever it resizes."""
    model = single("Resize", ["x", "", "sizes"], {"sizes": np.ones(4, np.float32)}, mode="nearest")
    mixed = half(model)
    (node,) = (node for node in mixed.graph.node if node.name == "node")
    types = element_types(mixed)
    assert (types[node.input[0]], types[node.input[2]]) == (TensorProto.FLOAT16, TensorProto.FLOAT)


def test_weights_beyond_a_half_are_found_without_pictures() -> None:
    weights = {"w9": np.full((3, 3, 1, 1), 1e6, np.float32)}
    model = canonical([helper.make_node("Conv", ["first", "w9"], ["last"], "heavy")], weights)
    assert "w9 reaches 1e+06" in {fp32_node.node: fp32_node.reason for fp32_node in find_fp32_nodes(model, {})}["heavy"]
    assert constants(to_half(model, {"heavy"}).graph)["w9"].dtype == np.float32
