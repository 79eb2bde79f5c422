"""Old names of the public face go on working."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from impasto.export import QuantizeOptions
from impasto.export.quantization.speed import Timing
from impasto.package import manifest
from impasto.package.manifest import PackageFile


def test_an_old_argument_and_attribute_are_the_new_ones() -> None:
    with pytest.warns(DeprecationWarning, match="QuantizeOptions.families is now called target_backends") as warned:
        options = QuantizeOptions(Path("photos"), families=("openvino",))  # type: ignore[call-arg]
    assert warned[0].filename == __file__, "the warning points at the caller"
    assert options == QuantizeOptions(Path("photos"), target_backends=("openvino",))
    with pytest.warns(DeprecationWarning, match="families is now called"):
        assert options.families == ("openvino",)  # type: ignore[attr-defined]
    assert replace(options, to="auto").target_backends == ("openvino",)


def test_every_old_name_of_a_target_backend_works() -> None:
    assert manifest.FAMILIES is manifest.TARGET_BACKENDS
    with pytest.warns(DeprecationWarning):
        assert PackageFile("a.onnx", "model", "0" * 64, family="tensorrt").family == "tensorrt"  # type: ignore
    with pytest.warns(DeprecationWarning):
        assert Timing("openvino", "int8", None, (8, 8)).family == "openvino"  # type: ignore[attr-defined]


def test_json_keeps_the_key() -> None:
    assert PackageFile("a.onnx", "model", "0" * 64, "int8", "tensorrt").to_json()["family"] == "tensorrt"
    assert next(iter(Timing("openvino", "int8", None, (8, 8)).to_json().items())) == ("family", "openvino")
