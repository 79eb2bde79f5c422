"""Backends that draw something else than ONNX says are not chosen, and the reason is told."""

from __future__ import annotations

import json
import platform
import re
import sys
import warnings

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from support.small_models import picture

import impasto
from impasto.errors import ImpastoWarning, MissingDependency, PackageError
from impasto.export.from_onnx import import_onnx
from impasto.package.manifest import Manifest, read_manifest
from impasto.runtime.backends import openvino
from impasto.runtime.loading.choosing import agree

pytest.importorskip("openvino")

HALF, DOUBLE = [1, 1, 0.5, 0.5], [1, 1, 2, 2]
UP = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}


@pytest.fixture(autouse=True)
def prefers_openvino(monkeypatch):
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")


def graph(*nodes, opset=18, **constants) -> onnx.ModelProto:
    """From x to y, (1, 3, H, W) float32 each."""
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 3, f"H{name}", f"W{name}"]) for name in "xy"]
    values = [numpy_helper.from_array(np.array(value, np.float32), name) for name, value in constants.items()]
    body = helper.make_graph(list(nodes), "g", ends[:1], ends[1:], values)
    return helper.make_model(body, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def resized(**attributes) -> onnx.ModelProto:
    """Half as large, and back by repeating pixels."""
    node = helper.make_node
    return graph(
        node("Resize", ["x", "", "down"], ["a"], **attributes),
        node("Resize", ["a", "", "up"], ["y"], **UP),
        down=HALF,
        up=DOUBLE,
    )


def transposed(auto_pad: str) -> onnx.ModelProto:
    weights = np.random.default_rng(0).random((3, 3, 3, 3)) / 6
    return graph(helper.make_node("ConvTranspose", ["x", "w"], ["y"], strides=[2, 2], auto_pad=auto_pad), w=weights)


def old_softmax() -> onnx.ModelProto:
    """Up to opset 12, over all axes from the given one on."""
    node = helper.make_node
    return graph(node("Softmax", ["x"], ["s"], axis=1), node("Mul", ["s", "k"], ["y"]), opset=11, k=3000)


DRAWN_OTHERWISE = {
    "antialias": (resized(mode="cubic", antialias=1, cubic_coeff_a=-0.5, exclude_outside=1), 1, "draws"),
    "exclude_outside": (resized(mode="cubic", exclude_outside=1), 1, "draws"),
    "softmax": (old_softmax(), 1, "draws"),
    "same_upper": (
        transposed("SAME_UPPER"),
        2,
        "64 x 64 into 129 x 129|did not draw|Can't set the output tensor|was expected",
    ),
    "same_lower": (
        transposed("SAME_LOWER"),
        2,
        "64 x 64 into 129 x 129|did not draw|Can't set the output tensor|was expected",
    ),
}


def loaded(path, **options):
    """What is drawn of noise, with the model's info and what was told."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with impasto.load(path, **options) as model:
            drawn = model(picture(48, 64)).astype(int)
    return drawn, model.info, [str(told.message) for told in caught if issubclass(told.category, ImpastoWarning)]


@pytest.mark.parametrize(
    ("form", "kind"),
    [
        *(("bare", kind) for kind in DRAWN_OTHERWISE),
        # The old Softmax becomes a modern one in a package, which OpenVINO computes right.
        *((form, k) for form in ("package", "package of another machine") for k in DRAWN_OTHERWISE if k != "softmax"),
    ],
)
def test_a_backend_that_draws_something_else_is_not_chosen(tmp_path, kind, form):
    model, scale, why = DRAWN_OTHERWISE[kind]
    path, options = tmp_path / "model.onnx", {"layout": "rgb 0..1"}
    onnx.save(model, str(path))
    wanted = loaded(path, backend="onnxruntime-cpu", **options)[0]
    if form != "bare":
        with pytest.warns(ImpastoWarning, match="openvino .* so backend='auto' does not choose it"):
            path = import_onnx(path, tmp_path / "package", **options).folder
        options = {}
        assert not read_manifest(path).backends["openvino"].passed
        assert read_manifest(path).backends["onnxruntime-cpu"].passed
    if form == "package of another machine":  # which had no OpenVINO to compare
        change(path, lambda manifest: manifest["backends"].pop("openvino"))
    drawn, info, told = loaded(path, **options)
    assert drawn.shape == (48 * scale, 64 * scale, 3)
    assert np.abs(drawn - wanted).max() <= 1
    assert info.backend == "onnxruntime-cpu"
    assert told == [info.note]
    assert re.search(why, info.note)


def test_one_that_draws_the_same_is_chosen_without_a_word(tmp_path):
    onnx.save(resized(mode="linear"), str(tmp_path / "model.onnx"))
    assert loaded(tmp_path / "model.onnx", layout="rgb 0..1")[1:][0].backend == "openvino"
    folder = import_onnx(tmp_path / "model.onnx", tmp_path / "package", layout="rgb 0..1").folder
    _, info, told = loaded(folder)
    assert (info.backend, info.note, told) == ("openvino", None, [])
    assert read_manifest(folder).backends["openvino"].passed


def test_who_names_a_backend_that_draws_something_else_gets_it_and_is_told(tmp_path):
    onnx.save(resized(mode="cubic", exclude_outside=1), str(tmp_path / "model.onnx"))
    with pytest.warns(ImpastoWarning):
        folder = import_onnx(tmp_path / "model.onnx", tmp_path / "package", layout="rgb 0..1").folder
    _, info, told = loaded(folder, backend="openvino")
    assert info.backend == "openvino"
    assert told == [info.note]
    assert "away from what ONNX Runtime draws" in info.note


def change(package, edit) -> None:
    manifest = json.loads((package / "manifest.json").read_text())
    edit(manifest)
    (package / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        (7, "'the entry of openvino' is 7; expected an object"),
        ({}, "passed of openvino is None; expected true or false"),
        ({"passed": 1, "max_difference": 0}, "passed of openvino is 1; expected true or false"),
        ({"passed": True, "max_difference": 256}, "'max_difference of openvino' is 256; expected at most 255"),
    ],
)
def test_a_record_of_another_form_is_refused(make_package, entry, says):
    package = make_package()
    change(package, lambda manifest: manifest.update(backends={"openvino": entry}))
    with pytest.raises(PackageError, match=says):
        read_manifest(package)


def test_what_was_compared_survives_reading_and_writing(make_package):
    package = make_package()
    change(package, lambda manifest: manifest.update(backends={"openvino": {"passed": False, "max_difference": None}}))
    manifest = read_manifest(package)
    assert Manifest.from_json(manifest.to_json(), "again") == manifest


def test_roundings_of_a_precision_are_no_difference():
    one = picture(30, 30).clip(10, 240)
    assert agree(one, one + 2, "fp32")
    assert not agree(one, one + 3, "fp32")
    assert agree(one, one + 5, "int8")
    assert not agree(one, one + 5, "fp16")


def test_a_missing_onnx_runtime_says_why_openvino_was_left_out(make_package, monkeypatch):
    """OpenVINO is there and draws FP32, so that "no backend is installed" would be untrue."""
    monkeypatch.setattr(openvino, "computes_int8", lambda: False)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    package = make_package()
    with impasto.load(package) as model:
        assert model.info.backend == "openvino"
    with pytest.raises(
        MissingDependency, match=r"^OpenVINO does not compute INT8 .*; and ONNX Runtime is not installed: "
    ):
        impasto.load("denoise", precision="int8")
