"""Public names that are imported on their first use."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

from impasto.errors import MissingDependency

SHELF = """
from impasto.late_imports import late_imports

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
