"""Checkpoints: weights in FP16 and the whole recipe in one .safetensors file.

What ships is what was measured: weights are rounded to FP16 before they are judged, and FP32 arithmetic is done on them.
"""

from __future__ import annotations

import json
import os
import reprlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from impasto.errors import CheckpointError, MissingDependency, OptionError, first_line
from impasto.files import write_bytes
from impasto.package import schema

from . import packages
from .networks import Network, build

KEY = "impasto"
"""The key of the safetensors metadata that holds our JSON."""

SCHEMA = 1

_LARGEST = 4096
"""The largest number of channels, blocks and pixels that a network's config may ask for."""


@dataclass(frozen=True)
class Checkpoint:
    """A loaded checkpoint."""

    network: Network
    """In evaluation mode, float32, on the CPU."""
    name: str
    task: str
    recipe: dict[str, Any] = field(default_factory=dict)
    quality: dict[str, Any] = field(default_factory=dict)
    ours: bool = True
    """Whether the file is of this format; False for another project's."""


def save_checkpoint(
    path: str | os.PathLike[str],
    network: Network,
    *,
    name: str,
    task: str,
    recipe: dict[str, Any],
    quality: dict[str, Any] | None = None,
) -> None:
    """Write the network's weights, rounded to FP16, and what is known of them; atomically. Raises OutputError."""
    about = {
        "schema": SCHEMA,
        "name": name,
        "task": task,
        "network": {"architecture": network.architecture, "config": network.config},
        "recipe": recipe,
        "quality": quality or {},
    }
    tensors = {key: _half(value.detach().cpu()).contiguous() for key, value in network.state_dict().items()}
    write_bytes(path, save(tensors, metadata={KEY: json.dumps(about)}))


def load(path: str | os.PathLike[str]) -> Checkpoint:
    """Read a checkpoint of ours, a model package or, with spandrel, another project's restorer, and build its network.

    Raises CheckpointError where it is missing, damaged or does not fit, MissingDependency where it needs spandrel.
    """
    path = Path(path)
    if path.is_dir():
        return _load_package(path)
    if not path.is_file():
        raise CheckpointError(f"{path} does not exist; give a package or a .safetensors checkpoint of impasto train")
    if path.suffix != ".safetensors":
        return _load_foreign(path)
    try:
        with safe_open(str(path), framework="pt") as file:
            about = schema.parse_json((file.metadata() or {}).get(KEY, "null"))
            tensors = {key: _float(file.get_tensor(key)) for key in file.keys()}  # noqa: SIM118 (not a dict)
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{path} is no safetensors file that can be read: {first_line(error)}") from None
    if not isinstance(about, dict) or "network" not in about:
        try:
            return _load_foreign(path)
        except (CheckpointError, MissingDependency) as error:
            raise CheckpointError(
                f"{path} was not written by impasto train: its metadata has no network description. As another project's: {error}"
            ) from None
    if not isinstance(about.get("schema"), int) or about["schema"] > SCHEMA:
        raise CheckpointError(
            f"{path} has checkpoint schema {about.get('schema')}; this Impasto reads up to {SCHEMA}. Upgrade it"
        )
    return _of_ours(path, about, tensors)


def name_of(path: Path) -> str | None:
    """The name of the model in a checkpoint of ours; None for any other file, a damaged one too."""
    try:
        with safe_open(str(path), framework="pt") as file:
            about = schema.parse_json((file.metadata() or {}).get(KEY, "null"))
        return schema.name(about["name"], "name") if isinstance(about, dict) else None
    except (SafetensorError, OSError, ValueError, KeyError):
        return None


def _load_package(folder: Path) -> Checkpoint:
    held = packages.read(folder)
    if held.checkpoint is not None:
        return load(held.checkpoint)
    return _of_ours(folder, held.about, {key: torch.from_numpy(values) for key, values in held.weights.items()})


def _of_ours(path: Path, about: dict[str, Any], tensors: dict[str, Tensor]) -> Checkpoint:
    try:
        name = schema.name(about["name"], "name") if "name" in about else path.stem
        task = schema.text(about.get("task", "unknown"), "task")
        recipe, quality = (schema.mapping(about.get(key), key) for key in ("recipe", "quality"))
    except schema.Malformed as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from None
    try:
        network = _rebuilt(about["network"]["architecture"], about["network"]["config"], tensors)
    except (OptionError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise CheckpointError(f"{path} does not fit the network that it names: {first_line(error)}") from None
    return Checkpoint(network.eval(), name, task, recipe, quality)


def load_network(path: str | os.PathLike[str]) -> Network:
    """The network of a checkpoint alone; in evaluation mode, float32, on the CPU. Raises what `load` raises."""
    return load(path).network


def _rebuilt(architecture: str, config: dict[str, Any], tensors: dict[str, Tensor]) -> Network:
    from .networks.spandrel_models import FOREIGN, rebuild

    if architecture == FOREIGN:
        return rebuild(tensors)
    _check_numbers(config)
    with torch.device("meta"):  # without memory, of which a file may ask for more than there is
        shapes = {key: value.shape for key, value in build(architecture, config).state_dict().items()}
    if shapes != {key: value.shape for key, value in tensors.items()}:
        raise OptionError(f"its weights are not those of {architecture} with {reprlib.repr(config)}")
    network = build(architecture, config)
    network.load_state_dict(tensors)
    return network


def _check_numbers(config: Any) -> None:
    """Channels and blocks are counted in Python, which takes long even without memory. Raises OptionError."""
    if isinstance(config, dict | list):
        for value in config.values() if isinstance(config, dict) else config:
            _check_numbers(value)
    elif isinstance(config, int | float) and not abs(config) <= _LARGEST:
        raise OptionError(f"its network has a {config:g} in its description; expected at most {_LARGEST}")


def _load_foreign(path: Path) -> Checkpoint:
    from .networks import spandrel_models

    network, task, recipe = spandrel_models.read(path)
    return Checkpoint(network, name=spandrel_models.name_of(path), task=task, recipe=recipe, ours=False)


def _half(tensor: Tensor) -> Tensor:
    return tensor.half() if tensor.is_floating_point() else tensor


def _float(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.is_floating_point() else tensor


def round_to_half(network: Network) -> None:
    """Round all weights to what a checkpoint holds, in place, so that quality is measured on what ships."""
    with torch.no_grad():
        for tensor in network.state_dict().values():
            if tensor.is_floating_point():
                tensor.copy_(tensor.half().to(tensor.dtype))
