"""Model packages as checkpoints: their FP32 graphs hold the weights, under the names that the network has for them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from impasto.errors import CheckpointError, PackageError, first_line
from impasto.package.manifest import MANIFEST, PackageFile, read_manifest, verify

PREFIX = "network."
"""What the exporter puts before a parameter's name: the name that its wrappers give to the network."""


@dataclass(frozen=True)
class Packaged:
    """What a package knows of its training."""

    about: dict[str, Any]
    """What a checkpoint's metadata says: name, task, network, recipe, quality."""
    weights: dict[str, np.ndarray]
    checkpoint: Path | None
    """Holds the weights instead, where the graphs do not have them as they were trained."""


def read(folder: Path) -> Packaged:
    """Raises CheckpointError where the folder holds no package, or one that cannot be trained on or was changed."""
    path = folder / MANIFEST
    if not path.is_file():
        raise CheckpointError(f"{folder} is a folder without a {MANIFEST}; give a package or a .safetensors file")
    try:
        manifest = read_manifest(folder)
    except PackageError as error:
        raise CheckpointError(f"{path} is no manifest that can be read ({error})") from None
    spec = manifest.spec
    about = {"name": spec.name, "task": spec.task, "recipe": manifest.recipe, "quality": manifest.quality}
    checkpoint = next((file for file in manifest.files if file.role == "checkpoint"), None)
    if checkpoint is not None:
        return Packaged(about, {}, _unchanged(folder, checkpoint))
    if not manifest.network:
        raise CheckpointError(
            f"{folder} does not say which network it was made of; train on its .safetensors checkpoint"
        )
    graphs = [file for role in ("model", "context") for file in manifest.held(role, "fp32")]
    weights = _weights_in([_unchanged(folder, file) for file in graphs])
    return Packaged({**about, "network": manifest.network}, weights, None)


def weights_of(graphs: Iterable[onnx.ModelProto]) -> dict[str, np.ndarray]:
    """The network's weights that the graphs of a package hold, float32, by the network's own names for them."""
    found = {}
    for graph in graphs:
        for tensor in graph.graph.initializer:
            if tensor.name.startswith(PREFIX):
                found[tensor.name.removeprefix(PREFIX)] = numpy_helper.to_array(tensor).astype(np.float32)
    return found


def _weights_in(paths: list[Path]) -> dict[str, np.ndarray]:
    found = {}
    for path in paths:
        try:
            found.update(weights_of([onnx.load(str(path))]))
        except (
            Exception
        ) as error:  # protobuf's DecodeError has no public base that onnx promises, nor have wrong tensors
            raise CheckpointError(f"{path} is no ONNX file that can be read: {first_line(error)}") from None
    return found


def _unchanged(folder: Path, file: PackageFile) -> Path:
    """The file, if it is what the manifest says. Raises CheckpointError."""
    try:
        return verify(folder, file)
    except PackageError as error:
        raise CheckpointError(str(error)) from None
