"""Write the API reference of the public modules as HTML, by pdoc. A warning of pdoc's is an error.

usage: python docs/tools/api.py [FOLDER]        (`make docs`)
"""

from __future__ import annotations

import importlib
import sys
import warnings
from dataclasses import is_dataclass
from pathlib import Path
from types import ModuleType
from typing import get_type_hints

import pdoc

MODULES = (
    "impasto",
    "impasto.errors",
    "impasto.runtime",
    "impasto.export",
    "impasto.training",
    "impasto.evaluation",
    "impasto.package",
    "impasto.package.spec",
    "impasto.package.manifest",
    "impasto.package.engine_record",
    "impasto.images",
    "impasto.videos",
)


def write(folder: Path) -> None:
    """One page a module, an index and a search index."""
    pdoc.render.configure(docformat="google")
    modules = {name: pdoc.doc.Module(_complete(name)) for name in MODULES}
    folder.mkdir(parents=True, exist_ok=True)
    for name, module in modules.items():
        page = folder / f"{name.replace('.', '/')}.html"
        page.parent.mkdir(exist_ok=True)
        page.write_text(pdoc.render.html_module(module, modules), encoding="utf-8")
    # Not html_index, which shows the page of `impasto` alone.
    index = pdoc.render.env.get_template("index.html.jinja2").render(all_modules=modules, root_module_name=None)
    (folder / "index.html").write_text(index, encoding="utf-8")
    (folder / "search.js").write_text(pdoc.render.search_index(modules), encoding="utf-8")


def _complete(name: str) -> ModuleType:
    """The module with its public names in it: some modules import these on first use, where pdoc does not look for them."""
    module = importlib.import_module(name)
    for public in getattr(module, "__all__", ()):
        value = getattr(module, public)
        setattr(module, public, value)
        if isinstance(value, type) and is_dataclass(value):
            _resolve_fields(value)
    return module


def _resolve_fields(dataclass: type) -> None:
    """A constructor's annotations as types. They are text, and pdoc reads inherited ones in the wrong module."""
    hints = get_type_hints(dataclass)
    for parameter in set(hints) & set(dataclass.__init__.__annotations__):
        dataclass.__init__.__annotations__[parameter] = hints[parameter]


if __name__ == "__main__":
    warnings.simplefilter("error", UserWarning)
    write(Path(sys.argv[1] if len(sys.argv) > 1 else "build/docs"))
