"""`impasto models`."""

from __future__ import annotations

from typing import Any

from rich.markup import escape
from rich.table import Table

from impasto.errors import PackageError

from . import options
from .console import out, write_json


def models(json: options.Json = None) -> None:
    """List the models that `run` and `load` know by name."""
    from impasto.package.manifest import read_manifest
    from impasto.runtime.loading.source import known_names

    table = Table()
    for heading in ("name", "task", "scale", "precisions", "where"):
        table.add_column(heading, overflow="fold")
    found: dict[str, Any] = {}
    terms: dict[str, list[str]] = {}
    for name, path in known_names().items():
        try:
            manifest = read_manifest(path)
        except PackageError as error:  # the others can be run all the same
            found[name] = {"path": str(path), "error": str(error)}
            table.add_row(escape(name), "[red]unreadable[/]", "", "", escape(str(error)))
            continue
        found[name] = {"path": str(path), **manifest.to_json()}
        if isinstance(said := manifest.recipe.get("terms"), str):
            terms.setdefault(said, []).append(name)
        row = (name, manifest.spec.task, f"×{manifest.spec.scale}", ", ".join(manifest.precisions()), str(path))
        table.add_row(*map(escape, row))
    out.print(table)
    for said, names in terms.items():
        out.print(f"{', '.join(names)}: trained on pictures with these terms: {said}", markup=False, soft_wrap=True)
    write_json(json, found)
