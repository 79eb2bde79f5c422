"""Model packages as checkpoints: their FP32 graphs hold the weights, under the names that the network has for them.

Reads the manifest by itself, since training knows nothing of the runtime, and takes of it what a checkpoint says.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from impasto.errors import CheckpointError, first_line
from impasto.files import sha256
from impasto.package import schema

MANIFEST = "manifest.json"
PREFIX = "network."
"""What the exporter puts before a parameter's name: the name that its wrappers give to the network."""

_HOLD_WEIGHTS = (("model", "fp32"), ("context", "fp32"))
"""Role and precision of those graphs."""


@dataclass(frozen=True)
class Packaged:
    """What a package knows of its training."""

    about: dict[str, Any]
    """As in a checkpoint's metadata: name, task, network, recipe, quality."""
    weights: dict[str, np.ndarray]
    checkpoint: Path | None
    """Holds the weights instead, where the graphs do not have them as they were trained."""


def read(folder: Path) -> Packaged:
    """Raises CheckpointError where the folder holds no package, or one that cannot be trained on or was changed."""
    path = folder / MANIFEST
    try:
        manifest = schema.mapping(schema.read_json(path), "the manifest")
        model, files = manifest["model"], manifest["files"]
        graphs = [name for name, file in files.items() if (file["role"], file["precision"]) in _HOLD_WEIGHTS]
        checkpoint = next((name for name, file in files.items() if file["role"] == "checkpoint"), None)
        about = {
            "name": schema.name(model["name"], "name"),
            "task": schema.text(model["task"], "task"),
            **{key: schema.mapping(manifest[key], key) for key in ("recipe", "quality")},
        }
        hashes = {schema.inner_path(name): schema.digest(file["sha256"], name) for name, file in files.items()}
    except FileNotFoundError:
        raise CheckpointError(
            f"{folder} is a folder without a {MANIFEST}; give a package or a .safetensors file"
        ) from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        told = f"{type(error).__name__}: {error}" if isinstance(error, KeyError | TypeError | AttributeError) else error
        raise CheckpointError(f"{path} is no manifest that can be read ({told})") from None
    if checkpoint is not None:
        return Packaged(about, {}, _unchanged(folder, checkpoint, hashes[checkpoint]))
    if not manifest.get("network"):
        raise CheckpointError(
            f"{folder} does not say which network it was made of; train on its .safetensors checkpoint"
        )
    paths = [_unchanged(folder, name, hashes[name]) for name in graphs]
    return Packaged({**about, "network": manifest["network"]}, _weights_in(paths), None)


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


def _unchanged(folder: Path, name: str, digest: str) -> Path:
    """The file, if it is what the manifest says, and lies in the package."""
    path = folder / name
    if Path(name).name != name:
        raise CheckpointError(f"{folder / MANIFEST} names the file {name!r}, which is outside of the package")
    if not path.is_file():
        raise CheckpointError(f"{folder} lacks {name}, which its manifest lists; export the model again")
    if sha256(path) != digest:
        raise CheckpointError(f"{path} is not the file that its manifest describes; export the model again")
    return path
