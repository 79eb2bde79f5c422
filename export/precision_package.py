"""Graphs of other precisions put beside the FP32 one: in its package, in a copy of it, or beside a bare ONNX file."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import onnx

from impasto.errors import OptionError, PackageError
from impasto.files import atomic_path, make_folder, sha256
from impasto.runtime.manifest import FAMILIES, MANIFEST, Manifest, PackageFile, read_manifest
from impasto.runtime.resolve import Source, is_shipped

from .engine_cache import locked

QUALITY = "precision"
"""The key of a manifest's quality under which each graph's own is kept."""


@dataclass(frozen=True)
class NewGraph:
    """A graph to write."""

    model: onnx.ModelProto
    precision: str
    family: str | None
    quality: dict[str, Any]
    """What the manifest is to say of it."""

    @property
    def key(self) -> str:
        return f"{self.precision}-{self.family}" if self.family else self.precision


def target_of(source: Source, output: Path | None) -> Path:
    """The folder to write into. Raises OptionError where that may not be, before any work is done."""
    if output is not None:
        if source.manifest and (output / MANIFEST).is_file():
            _require_copy(source.manifest, output)
        elif output.exists() and (not output.is_dir() or any(output.iterdir())):
            raise OptionError(f"{output} exists and is no copy of {source.path}; choose a new folder with -o")
        return output
    folder = source.path if source.manifest else source.path.parent
    if source.manifest and is_shipped(folder):
        raise OptionError(
            f"{source.manifest.spec.name} came with Impasto and stays as it is; write a copy: -o {source.manifest.spec.name}"
        )
    if not os.access(folder, os.W_OK):
        raise OptionError(f"{folder} cannot be written to; write a copy elsewhere with -o FOLDER")
    return folder


def write_graphs(source: Source, target: Path, graphs: Sequence[NewGraph]) -> list[Path]:
    """Write the graphs, and the manifest last. Returns their paths, in their order. Raises OutputError, PackageError.

    All files are complete before the first is renamed: a failure leaves what was there.
    """
    make_folder(target)
    if source.manifest is None:
        return _write_beside(source.path, target, graphs)
    with locked(target / ".lock"), ExitStack() as renames:  # a build may be adding engines
        manifest_path = renames.enter_context(atomic_path(target / MANIFEST))  # entered first, renamed last
        manifest = _present(source, target, renames)
        added: dict[str, PackageFile] = {}
        for graph in graphs:
            name = f"model.{graph.key}.onnx"
            path = renames.enter_context(atomic_path(target / name))
            path.write_bytes(graph.model.SerializeToString(deterministic=True))
            added[name] = PackageFile(name, "model", sha256(path), graph.precision, graph.family)
        files = sorted((*(file for file in manifest.files if file.name not in added), *added.values()), key=_order)
        quality = manifest.quality.get(QUALITY, {}) | {graph.key: graph.quality for graph in graphs}
        complete = replace(manifest, files=tuple(files), quality={**manifest.quality, QUALITY: quality})
        manifest_path.write_text(json.dumps(complete.to_json(), indent=1) + "\n", encoding="utf-8")
    return [target / name for name in added]


def _write_beside(graph: Path, target: Path, graphs: Sequence[NewGraph]) -> list[Path]:
    paths = [target / f"{graph.stem}.{new.key}.onnx" for new in graphs]
    with ExitStack() as renames:
        for path, new in zip(paths, graphs, strict=True):
            temporary = renames.enter_context(atomic_path(path))
            temporary.write_bytes(new.model.SerializeToString(deterministic=True))
    return paths


def _present(source: Source, target: Path, renames: ExitStack) -> Manifest:
    """What the package in `target` holds already; for a new copy, its files are written first."""
    assert source.manifest
    if (target / MANIFEST).is_file():
        return read_manifest(target)
    kept = []
    for file in source.manifest.files:
        if file.role in ("context", "checkpoint") or (file.role, file.precision) == ("model", "fp32"):
            copied = renames.enter_context(atomic_path(target / file.name))
            shutil.copyfile(source.path / file.name, copied)
            kept.append(file)
    quality = {key: value for key, value in source.manifest.quality.items() if key != QUALITY}
    return replace(source.manifest, files=tuple(kept), quality=quality)


def _require_copy(manifest: Manifest, output: Path) -> None:
    """The package at `output` must be of the same FP32 model."""
    try:
        there = read_manifest(output).find("model")
    except PackageError as error:
        raise OptionError(f"{output} holds a package that cannot be read ({error}); choose another folder") from None
    here = manifest.find("model")
    if there is None or here is None or there.sha256 != here.sha256:
        raise OptionError(f"{output} holds another model than {manifest.spec.name}; choose another folder with -o")


def _order(file: PackageFile) -> tuple[bool, str, int]:
    """Other files first, as they were; then precisions, their families in the order that `manifest.FAMILIES` explains."""
    if file.role != "model" or file.precision == "fp32":
        return False, "", 0
    return True, file.precision, FAMILIES.index(file.family) if file.family else -1
