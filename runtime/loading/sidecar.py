"""Sidecars: `NAME.json` beside an external `NAME.onnx`, with what the ONNX file does not say."""

from __future__ import annotations

import reprlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from impasto.errors import PackageError
from impasto.package import schema
from impasto.package.spec import ModelSpec, Pixels


@dataclass(frozen=True)
class Sidecar:
    """A sidecar's content, such as {"layout": "rgb 0..1", "multiple": 4, "task": "denoise"}."""

    pixels: Pixels | None
    """The pixel layout of the graph's input and output; None if the sidecar does not give it."""
    described: dict[str, Any]
    """Fields of a ModelSpec, by their JSON keys."""


def read_sidecar(graph_path: Path) -> Sidecar | None:
    """The sidecar of an ONNX file; None if it has none. Raises PackageError if the sidecar cannot be read."""
    path = graph_path.with_suffix(".json")
    if not path.is_file():
        return None
    try:
        data = schema.read_json(path)
    except OSError as error:
        raise PackageError(
            f"cannot read {path}, which describes {graph_path.name}: {error.strerror or error}"
        ) from None
    except schema.Malformed as error:
        raise PackageError(f"cannot read {path}, which describes {graph_path.name}: {error}") from None
    if not isinstance(data, dict):
        raise PackageError(f'{path} holds {type(data).__name__}; expected an object such as {{"layout": "rgb 0..1"}}')
    layout = data.pop("layout", None)
    if "multiple" in data:
        data["size"] = {"multiple": data.pop("multiple")}
    spec = described_spec(graph_path, data, path)  # a wrong field raises before the graph is loaded
    known = set(spec.to_json())
    if unknown := set(data) - known:
        told = ", ".join(sorted(unknown)[:4])
        told = told if told.isprintable() and len(told) < schema.NAME_LENGTH else reprlib.repr(told)
        raise PackageError(f"{path}: unknown {told}; known: layout, multiple, {', '.join(sorted(known))}")
    return Sidecar(Pixels.parse(str(layout)) if layout is not None else None, data)


def described_spec(graph_path: Path, described: dict[str, Any], source: Path) -> ModelSpec:
    """The spec with these fields, and the file's name if no name is given. source: for error messages. Raises PackageError.

    A file's name is not checked: it is part of a path already, and may hold any bytes.
    """
    if "name" in described:
        return ModelSpec.from_json(described, str(source))
    return replace(ModelSpec.from_json({"name": "unnamed", **described}, str(source)), name=graph_path.stem)
