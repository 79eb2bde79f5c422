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
from impasto.package.onnx_bytes import unrounded, with_output
from impasto.runtime.backends import open_graph

BACKENDS = ("onnxruntime-cpu", "openvino")
BLACK = np.zeros((40, 56, 3), np.uint8)


def contrast(*, whole: bool = True) -> onnx.ModelProto:
    """(x - mean) / deviation of the picture (or of each row), without the epsilon that keeps 0 / 0 away."""
    axes = [2, 3] if whole else [3]
    node = helper.make_node
    nodes = [
        node("ReduceMean", ["x"], ["m"], axes=axes),
        node("Sub", ["x", "m"], ["c"]),
        node("Mul", ["c", "c"], ["q"]),
        node("ReduceMean", ["q"], ["v"], axes=axes),
        node("Sqrt", ["v"], ["s"]),
        node("Div", ["c", "s"], ["n"]),
        node("Sigmoid", ["n"], ["y"]),
    ]
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
            with pytest.raises(NoNumbers, match="no numbers"):
                model(BLACK)
            with pytest.raises(NoNumbers):
                list(model.stream([picture(40, 56), BLACK]))
    assert not [told for told in recwarn if issubclass(told.category, RuntimeWarning)]


@pytest.mark.parametrize("backend", BACKENDS)
def test_black_that_is_meant_stays_black(make_package, backend):
    with impasto.load(make_package(), backend=backend, check_values=True) as model:
        assert np.array_equal(model(BLACK), impasto.load(make_package("again"), backend=backend)(BLACK))


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_part_of_nan_is_found_where_every_run_is_looked_at(tmp_path, backend, monkeypatch):
    """A picture that is black in part only raises no suspicion, and looking takes a second run."""
    onnx.save(contrast(whole=False), str(tmp_path / "rows.onnx"))
    with pytest.warns(ImpastoWarning):
        package = import_onnx(tmp_path / "rows.onnx", layout="rgb 0..1").folder
    image = picture(40, 56)
    image[:20] = 0
    with impasto.load(package, backend=backend) as model:
        model(image)
    with impasto.load(package, backend=backend, check_values=True) as model, pytest.raises(NoNumbers):
        model(image)
    monkeypatch.setenv("IMPASTO_CHECK_VALUES", "1")
    with impasto.load(package, backend=backend) as model, pytest.raises(NoNumbers):
        model(image)
    monkeypatch.setenv("IMPASTO_CHECK_VALUES", "yes, please")
    with pytest.raises(OptionError, match=r"IMPASTO_CHECK_VALUES is 'yes, please'; set it to 1"):
        impasto.load(package)


def test_what_is_rounded_is_read_off_the_file(tmp_path):
    model = canonical_graph().SerializeToString()
    tensor = unrounded(model)
    by = {name: node for node in canonical_graph().graph.node for name in node.output}
    assert by[tensor].op_type not in ("Cast", "Clip", "Round", "Transpose")
    more = onnx.load_from_string(with_output(model, tensor))
    assert [value.name for value in more.graph.output] == [canonical_graph().graph.output[0].name, tensor]
    assert more.graph.node == canonical_graph().graph.node
    (tmp_path / "more.onnx").write_bytes(with_output(model, tensor))
    image = picture(32, 32)[None]
    for backend in BACKENDS:
        drawn, values = open_graph(tmp_path / "more.onnx", backend, 0, features=True).run_all((image,))
        assert drawn.dtype == np.uint8
        assert values.dtype == np.float32


@pytest.mark.parametrize("data", [b"", b"hello", b"\x0a\xff", b"\x3a\x02\x0a\x09", b"\xff" * 40, b"\x3b\x3c"])
def test_what_is_no_onnx_file_is_a_value_error(data):
    with pytest.raises(ValueError):
        unrounded(data)
