"""NaN is told, and never written as black."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from support.small_models import canonical_graph, picture

import impasto
from impasto.errors import ImpastoWarning, NoNumbers, OptionError
from impasto.export.from_onnx import import_onnx
from impasto.package.onnx_bytes import unbounded, with_output
from impasto.runtime.backends import open_graph
from impasto.runtime.backends.inner_values import WatchedGraph

BACKENDS = ("onnxruntime-cpu", "openvino")
BLACK = np.zeros((40, 56, 3), np.uint8)


def contrast(*, whole: bool = True, bounds: str | None = None) -> onnx.ModelProto:
    """(x - mean) / deviation of the picture (or of each row), without the epsilon that keeps 0 / 0 away.

    bounds: an operator behind it.
    """
    axes = [2, 3] if whole else [3]
    node = helper.make_node
    nodes = [
        node("ReduceMean", ["x"], ["m"], axes=axes),
        node("Sub", ["x", "m"], ["c"]),
        node("Mul", ["c", "c"], ["q"]),
        node("ReduceMean", ["q"], ["v"], axes=axes),
        node("Sqrt", ["v"], ["s"]),
        node("Div", ["c", "s"], ["n"]),
        node("Sigmoid", ["n"], ["s1" if bounds else "y"]),
    ]
    limits = ["low", "high"][: {"Clip": 2, "Min": 1}.get(bounds or "", 0)]
    nodes += [node("Constant", [], [name], value_float=float(name == "high" or bounds == "Min")) for name in limits]
    nodes += [node(bounds, ["s1", *limits], ["y"])] if bounds else []
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 3, "H", "W"]) for name in "xy"]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.fixture
def path(tmp_path):
    onnx.save(contrast(), str(tmp_path / "contrast.onnx"))
    return tmp_path / "contrast.onnx"


@pytest.fixture
def package(path):
    with pytest.warns(ImpastoWarning, match="no numbers .* for a black picture"):
        return import_onnx(path, layout="rgb 0..1").folder


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_picture_of_nan_is_an_error(path, package, backend, recwarn):
    for model in (
        impasto.load(path, backend=backend, layout="rgb 0..1"),
        impasto.load(package, backend=backend),
    ):
        with model:
            assert model(picture(40, 56)).any()
            with pytest.raises(NoNumbers, match="the network computed NaN for this picture"):
                model(BLACK)
            with pytest.raises(NoNumbers):
                list(model.stream([picture(40, 56), BLACK]))
    assert not [told for told in recwarn if issubclass(told.category, RuntimeWarning)]


@pytest.mark.parametrize("backend", BACKENDS)
def test_black_that_is_meant_stays_black(make_package, backend):
    with impasto.load(make_package(), backend=backend, check_values=True) as model:
        assert np.array_equal(model(BLACK), impasto.load(make_package("again"), backend=backend)(BLACK))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("bounds", [None, "Clip", "Relu"])
def test_a_part_of_nan_is_found(tmp_path, backend, bounds):
    """In a network that somebody made; OpenVINO's operators that bound make a number of NaN."""
    onnx.save(contrast(whole=False, bounds=bounds), str(tmp_path / "rows.onnx"))
    with pytest.warns(ImpastoWarning):
        package = import_onnx(tmp_path / "rows.onnx", layout="rgb 0..1").folder
    image = picture(40, 56)
    assert impasto.load(package, backend=backend)(image).any()
    image[:20] = 0
    for model in (
        impasto.load(package, backend=backend),
        impasto.load(tmp_path / "rows.onnx", backend=backend, layout="rgb 0..1"),
    ):
        with model, pytest.raises(NoNumbers, match="NaN"):
            model(image)


def inverse(*, bounded: bool) -> onnx.ModelProto:
    """x + 0.1 / (the largest value of the row), which is infinite in a black row."""
    node, values = helper.make_node, {"t": 0.1, "low": 0.0, "high": 1.0}
    nodes = [node("Constant", [], [name], value_float=value) for name, value in values.items()]
    nodes += [node("ReduceMax", ["x"], ["m"], axes=[1, 3]), node("Div", ["t", "m"], ["d"])]
    nodes += [node("Add", ["x", "d"], ["a" if bounded else "y"])]
    nodes += [node("Clip", ["a", "low", "high"], ["y"])] if bounded else []
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 3, "H", "W"]) for name in "xy"]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.filterwarnings("ignore::impasto.errors.ImpastoWarning")
@pytest.mark.parametrize("backend", BACKENDS)
def test_infinity_is_told_unless_the_network_bounds_it(tmp_path, backend):
    image = picture(40, 56)
    image[:5] = 0
    for bounded in (False, True):
        path = tmp_path / f"{bounded}.onnx"
        onnx.save(inverse(bounded=bounded), str(path))
        for model in (
            impasto.load(path, backend=backend, layout="rgb 0..1"),
            impasto.load(import_onnx(path, layout="rgb 0..1").folder, backend=backend),
        ):
            if bounded:
                assert (model(image)[:5] == 255).all()
                continue
            with pytest.raises(NoNumbers, match="infinite values"):
                model(image)


@pytest.mark.filterwarnings("ignore::impasto.errors.ImpastoWarning")
def test_a_backend_that_hides_nan_is_not_chosen(tmp_path):
    """Here OpenVINO's Relu makes 0 of it, and what comes behind makes a picture of that."""
    hiding = contrast(bounds="Relu")
    hiding.graph.node.append(helper.make_node("Sigmoid", ["y"], ["z"]))
    hiding.graph.output[0].name = "z"
    onnx.save(hiding, str(tmp_path / "hiding.onnx"))
    package = import_onnx(tmp_path / "hiding.onnx", layout="rgb 0..1").folder
    for model in impasto.load(package), impasto.load(tmp_path / "hiding.onnx", layout="rgb 0..1"):
        assert model.info.backend == "onnxruntime-cpu"
        assert "openvino d" in model.info.note
        with pytest.raises(NoNumbers):
            model(BLACK)


@pytest.mark.parametrize("backend", BACKENDS)
def test_every_run_is_looked_at_where_that_is_wanted(make_package, backend, monkeypatch):
    package = make_package()
    image = picture(40, 56)
    drawn = impasto.load(package, backend=backend)(image)
    with impasto.load(package, backend=backend, check_values=True) as model:
        assert isinstance(model._backend, WatchedGraph)
        assert np.array_equal(model(image), drawn)
    monkeypatch.setenv("IMPASTO_CHECK_VALUES", "1")
    assert isinstance(impasto.load(package, backend=backend)._backend, WatchedGraph)
    monkeypatch.setenv("IMPASTO_CHECK_VALUES", "yes, please")
    with pytest.raises(OptionError, match=r"IMPASTO_CHECK_VALUES is 'yes, please'; set it to 1"):
        impasto.load(package)


def test_what_is_rounded_is_read_off_the_file(tmp_path):
    model = canonical_graph().SerializeToString()
    values = unbounded(model)
    assert values is not None
    assert not values.infinite
    by = {name: node for node in canonical_graph().graph.node for name in node.output}
    assert by[values.tensor].op_type not in ("Cast", "Clip", "Round", "Transpose")
    more = onnx.load_from_string(with_output(model, values.tensor))
    assert [value.name for value in more.graph.output] == [canonical_graph().graph.output[0].name, values.tensor]
    assert more.graph.node == canonical_graph().graph.node
    (tmp_path / "more.onnx").write_bytes(with_output(model, values.tensor))
    image = picture(32, 32)[None]
    for backend in BACKENDS:
        drawn, floats = open_graph(tmp_path / "more.onnx", backend, 0, features=True).run_all((image,))
        assert drawn.dtype == np.uint8
        assert floats.dtype == np.float32


@pytest.mark.parametrize("data", [b"", b"hello", b"\x0a\xff", b"\x3a\x02\x0a\x09", b"\xff" * 40, b"\x3b\x3c"])
def test_what_is_no_onnx_file_is_a_value_error(data):
    with pytest.raises(ValueError):
        unbounded(data)


@pytest.mark.parametrize("names", [("x", "x"), ("a", "b")])
def test_a_graph_that_leads_round_in_a_circle_ends(names):
    """No backend loads it; who reads the file before them must not follow it for ever."""
    nodes = [helper.make_node("Relu", [name], [other]) for name, other in zip(names, names[::-1], strict=True)]
    ends = [helper.make_tensor_value_info(names[0], TensorProto.FLOAT, [1])]
    unbounded(helper.make_model(helper.make_graph(nodes, "g", [], ends)).SerializeToString())
