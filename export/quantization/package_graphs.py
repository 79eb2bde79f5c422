"""Graphs of other precisions put beside the FP32 one: in its package, or in a copy of it."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from impasto.errors import OptionError, PackageError
from impasto.export.graph.weight_storage import with_fp16_storage, with_shared_weights
from impasto.package.manifest import FLOAT, LOCK, MANIFEST, TARGET_BACKENDS, Manifest, PackageFile, read_manifest
from impasto.package.writer import NewFile, PackageChange, change_package, check_folder
from impasto.runtime.loading.source import Source, is_shipped

from .quantized_graph import QuantizedGraph

QUALITY = "precision"
"""The key of a manifest's quality under which each graph's own is kept."""


def target_of(source: Source, output: Path | None) -> Path:
    """The folder to write into. Raises OptionError or OutputError where that may not be, before any work is done."""
    folder = source.path if output is None else output
    if is_shipped(folder):
        name = folder.resolve().name
        raise OptionError(f"{name} came with Impasto and stays as it is; write a copy: -o {name}")
    check_folder(folder)
    if (folder / MANIFEST).is_file():
        _require_same(source, folder)
    elif folder.is_dir() and any(path.name != LOCK for path in folder.iterdir()):  # a try that failed leaves that one
        raise OptionError(f"{folder} exists and is no copy of {source.path}; choose a new folder with -o")
    return folder


def package_of(source: Source) -> Manifest:
    """The manifest of what is to get other precisions. Raises OptionError for a graph by itself, with the folder to name instead.

    What is known of a model, and what its graphs of other precisions are, stands in a manifest: beside a lone file there is none.
    """
    if source.manifest is not None:
        return source.manifest
    folder = source.path.parent
    if (folder / MANIFEST).is_file() and source.path.name in {file.name for file in read_manifest(folder).files}:
        raise OptionError(
            f"{source.path} is a file of the package {folder}; name the package: impasto quantize {shlex.quote(str(folder))}"
        )
    raise OptionError(
        f"{source.path} is a graph by itself, and other precisions are files of a package; make one of it first: "
        f"impasto export {shlex.quote(str(source.path))} -o FOLDER (--layout 'rgb 0..1', or what its pixels are, unless they are bytes)"
    )


def write_graphs(source: Source, target: Path, graphs: Sequence[QuantizedGraph]) -> list[QuantizedGraph]:
    """Write the graphs, and the manifest last. Returns them with their paths.

    Raises OutputError, PackageError, and OptionError where somebody has put another model into `target` since `target_of` looked.
    """
    with change_package(target) as change:  # others may be adding engines, or exporting
        manifest = _present(source, target, change)
        held = manifest.find("model")
        added = {graph.file.name: change.add(_sharing(graph, source, held)) for graph in graphs}
        files = sorted((*(file for file in manifest.files if file.name not in added), *added.values()), key=_order)
        quality = manifest.quality.get(QUALITY, {}) | {graph.key: graph.for_manifest() for graph in graphs}
        change.manifest = replace(manifest, files=tuple(files), quality={**manifest.quality, QUALITY: quality})
    return [replace(graph, path=target / name) for name, graph in zip(added, graphs, strict=True)]


def _sharing(graph: QuantizedGraph, source: Source, held: PackageFile | None) -> NewFile:
    """The graph as a file that leaves to the FP32 file `held`, which lies beside it, what that one stores already.

    That one stores exact halves, so an INT8 graph's weights of excluded layers become halves first. TensorRT's graphs have none in
    FP32.
    """
    if held is None:
        return graph.file
    content = (source.path / held.name).read_bytes()
    return replace(graph, model=with_shared_weights(with_fp16_storage(graph.model), held.name, content)).file


def _present(source: Source, target: Path, change: PackageChange) -> Manifest:
    """What the package in `target` holds already; for a new copy, its files are written first."""
    assert source.manifest
    if (target / MANIFEST).is_file():
        return _require_same(source, target)
    kept = []
    for file in source.manifest.files:
        if file.role in ("context", "checkpoint", FLOAT) or (file.role, file.precision) == ("model", "fp32"):
            copied = change.add(
                NewFile(file.name, file.role, source.path / file.name, file.precision, file.target_backend)
            )
            if copied != file:
                raise PackageError(f"{source.path / file.name} has changed meanwhile; quantize it again")
            kept.append(file)
    quality = {key: value for key, value in source.manifest.quality.items() if key != QUALITY}
    return replace(source.manifest, files=tuple(kept), quality=quality)


def _require_same(source: Source, folder: Path) -> Manifest:
    """What the package in `folder` holds, which must be the FP32 graphs that lower precisions are made of. Raises OptionError."""
    assert source.manifest
    try:
        manifest = read_manifest(folder)
    except PackageError as error:
        raise OptionError(f"{folder} holds a package that cannot be read ({error}); choose another folder") from None
    here, there = ([one.find(role) for role in ("model", "context")] for one in (source.manifest, manifest))
    if [file and file.sha256 for file in here] != [file and file.sha256 for file in there]:
        raise OptionError(
            f"{folder} holds another model than {source.manifest.spec.name}; choose another folder with -o"
            if folder != source.path
            else f"{folder} holds another model by now; quantize it again"
        )
    return manifest


def _order(file: PackageFile) -> tuple[bool, str, int]:
    """Other files first, as they were; then precisions, their target backends in the order that `manifest.TARGET_BACKENDS` explains."""
    if file.role != "model" or file.precision == "fp32":
        return False, "", 0
    return True, file.precision, TARGET_BACKENDS.index(file.target_backend) if file.target_backend else -1
