"""`impasto models`."""

from __future__ import annotations

from rich.table import Table

from . import options
from .console import out, write_json


def models(json: options.Json = None) -> None:
    """List the models that `run` and `load` know by name."""
    from impasto.runtime.manifest import read_manifest
    from impasto.runtime.resolve import known_names

    found = {name: (path, read_manifest(path)) for name, path in known_names().items()}
    table = Table("name", "task", "scale", "precisions", "where")
    for name, (path, manifest) in found.items():
        table.add_row(name, manifest.spec.task, f"×{manifest.spec.scale}", ", ".join(manifest.precisions()), str(path))
    out.print(table)
    write_json(json, {name: {"path": str(path), **manifest.to_json()} for name, (path, manifest) in found.items()})
