"""`impasto.load`, `Model`, `ModelInfo` and `StyleMeter`: their docstrings are complete, and their examples run as they stand."""

from __future__ import annotations

import ast
import doctest
import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.perceptual_networks import write_perceptual
from support.small_models import REPOSITORY, picture

from impasto import runtime


def public(kind: type) -> Iterator[tuple[str, Any]]:
    """The class's own methods and properties that users call: those without an underscore, `__call__`, and StyleMeter's `__init__`."""
    called = {"__call__", "__init__"} if kind is runtime.StyleMeter else {"__call__"}
    for name, member in vars(kind).items():
        described = inspect.isfunction(member) or isinstance(member, property)
        if described and (name in called or not name.startswith("_")):
            yield name, member


METHODS = {
    f"{kind.__name__}.{name}": member for kind in (runtime.Model, runtime.StyleMeter) for name, member in public(kind)
}
CLASSES = {
    kind.__name__: kind for kind in (runtime.Model, runtime.ModelInfo, runtime.StyleDistance, runtime.StyleMeter)
}


@pytest.mark.parametrize("name", ["load", *METHODS])
def test_every_function_says_what_it_takes_gives_and_raises(name: str) -> None:
    documented = {"load": runtime.load, **METHODS}[name]
    wanted = ["Example:"]
    if inspect.isfunction(documented):
        signature = inspect.signature(documented)
        given = set(signature.parameters) - {"self"}
        wanted += ["Args:"] if given else []
        wanted += [f" {parameter}: " for parameter in given]
        wanted += ["Returns:"] if signature.return_annotation != "None" else []
    if not name.endswith(".close"):
        wanted.append("Raises:")
    assert [part for part in wanted if part not in (documented.__doc__ or "")] == []


@pytest.mark.parametrize("name", ["load", *CLASSES, *METHODS])
def test_the_example_runs(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMPASTO_CACHE", str(tmp_path / "cache"))  # an engine in it would be another precision
    documented: Callable[..., Any] | type | property = {"load": runtime.load, **CLASSES, **METHODS}[name]
    names = {"network": write_perceptual(tmp_path / "small"), "painting": picture(48, 70)} if "Style" in name else {}
    (example,) = doctest.DocTestFinder(recurse=False).find(documented, name, module=False, globs=names)
    assert example.examples
    said: list[str] = []
    assert doctest.DocTestRunner().run(example, out=said.append).failed == 0, "".join(said)


def test_every_property_of_a_models_info_is_described() -> None:
    properties = {name: member for name, member in vars(runtime.ModelInfo).items() if isinstance(member, property)}
    assert [name for name, member in properties.items() if not member.__doc__] == []


@pytest.mark.parametrize("path", sorted((REPOSITORY / "runtime").rglob("*.py")), ids=lambda path: path.name)
def test_a_docstring_says_what_it_means_without_another(path: Path) -> None:
    """It does not begin with "The same …" or "As `_x` …", which a reader has to look up."""
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef)
    nodes = [node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, kinds)]
    assert [
        text for node in nodes if (text := ast.get_docstring(node) or "").startswith(("The same", "As ", "Like"))
    ] == []
