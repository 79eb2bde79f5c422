"""Public names are imported on their first use, and old ones go on working."""

from __future__ import annotations

import importlib
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from impasto.errors import MissingDependency
from impasto.export import QuantizeOptions
from impasto.export.quantization.speed import Timing
from impasto.package import manifest
from impasto.package.manifest import PackageFile

SHELF = """
from impasto.public_names import late_imports

__all__ = ["here", "needs_onnx", "needs_more"]
__getattr__, __dir__ = late_imports(__name__, {"here": "inner", "needs_onnx": "heavy", "needs_more": "wrong"})
"""


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = tmp_path / "shelf"
    folder.mkdir()
    (folder / "__init__.py").write_text(SHELF)
    (folder / "inner.py").write_text("here = 7\n")
    (folder / "heavy.py").write_text("import onnx\nneeds_onnx = 8\n")
    (folder / "wrong.py").write_text("import shelf.nowhere\nneeds_more = 9\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield importlib.import_module("shelf")
    for name in [name for name in sys.modules if name.split(".")[0] == "shelf"]:
        del sys.modules[name]


def test_a_name_is_imported_on_its_first_use(shelf) -> None:
    assert "shelf.inner" not in sys.modules
    assert set(shelf.__all__) <= set(dir(shelf))
    assert "shelf.inner" not in sys.modules, "looking at the names imports nothing"
    assert shelf.here == 7
    with pytest.raises(AttributeError, match="module 'shelf' has no attribute 'there'"):
        shelf.there  # noqa: B018


def test_a_missing_library_is_a_sentence_with_the_command(shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(MissingDependency, match=r"onnx is not installed: pip install .*\[export\]"):
        shelf.needs_onnx  # noqa: B018


def test_a_fault_of_ours_stays_a_fault(shelf) -> None:
    with pytest.raises(ModuleNotFoundError, match=r"shelf\.nowhere"):
        shelf.needs_more  # noqa: B018


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
