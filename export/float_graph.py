"""Adds the graph with float ends, which draws pictures of 16 bits and float32, to a package that was made before there was one."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from impasto.errors import OptionError
from impasto.export.graph.float_ends import float_file
from impasto.export.graph.helpers import read_graph
from impasto.package.manifest import FLOAT, read_manifest, verify
from impasto.package.spec import PERCEPTUAL
from impasto.package.writer import NewFile, change_package


def add_float_graph(package: str | os.PathLike[str]) -> Path:
    """Add the FP32 graph with float ends to a package, so that it takes pictures of 16 bits a channel and of float32.

    The graph refers to the weights that the package holds already, and adds some 30 kB. One that is there is written anew. It must draw
    what the package's FP32 graph draws, or the package stays as it was.

    Args:
        package: the folder.

    Returns:
        Path: the file that was added.

    Raises:
        PackageError: for what is no package, or one whose files have changed.
        OptionError: for a perceptual network, which draws nothing.
        ExportError: for a graph that cannot take floats.
        OutputError: where the package cannot be written.

    Example:
        >>> from impasto.export import add_float_graph
        >>> add_float_graph(package).name
        'model.float.onnx'
    """
    folder = Path(package)
    read_manifest(folder)  # before the folder is made or locked
    with change_package(folder) as change:
        manifest = read_manifest(folder)
        if manifest.spec.task == PERCEPTUAL:
            raise OptionError(f"{folder} is a perceptual network, which draws nothing")
        held = manifest.find("model")
        if held is None:
            raise OptionError(f"{folder} holds no FP32 graph, which pictures of 16 bits are drawn by")
        path = verify(folder, held)
        added = float_file(read_graph(path), NewFile(held.name, held.role, path), manifest.spec.size)
        entry = change.add(added)
        kept = [file for file in manifest.files if file.role != FLOAT]
        place = kept.index(held) + 1
        change.manifest = replace(manifest, files=(*kept[:place], entry, *kept[place:]))
    return folder / entry.name
