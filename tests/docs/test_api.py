"""`make docs` writes the API reference without a warning."""

from __future__ import annotations

import subprocess
import sys

import pytest
from support.small_models import REPOSITORY


def test_the_api_reference_is_written_without_a_warning(tmp_path) -> None:
    pytest.importorskip("pdoc")
    command = [sys.executable, str(REPOSITORY / "docs" / "tools" / "api.py"), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    page = (tmp_path / "impasto" / "runtime.html").read_text(encoding="utf-8")
    assert "load a model package" in page.lower()
    index = (tmp_path / "index.html").read_text(encoding="utf-8")
    for name in ("runtime", "export", "training", "evaluation", "errors", "package"):
        assert f"impasto/{name}.html" in index
