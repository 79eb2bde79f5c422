"""Docstrings say what they are about, and point at no other one instead."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.small_models import REPOSITORY

FOLDERS = ("benchmarks", "export", "impasto", "kernels", "runtime", "training")
RIDDLE = re.compile(r"(Of\b|The same\b|As (`|in\b|\w+ (says?|gives?)\b))")


def docstrings(path: Path) -> Iterator[tuple[int, str]]:
    """Line and text of each, those of attributes included."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            yield node.lineno, node.value.value.strip()


@pytest.mark.parametrize("folder", FOLDERS)
def test_docstrings_begin_with_what_they_are_about(folder: str) -> None:
    files = sorted((REPOSITORY / folder).rglob("*.py"))
    assert sum(len(list(docstrings(path))) for path in files) > 5
    wrong = [
        f"{path.relative_to(REPOSITORY)}:{line}: {text.splitlines()[0]}"
        for path in files
        for line, text in docstrings(path)
        if RIDDLE.match(text)
    ]
    assert not wrong
