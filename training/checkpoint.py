"""Checkpoints: weights in FP16 and the whole recipe in one .safetensors file.

What ships is what was measured: weights are rounded to FP16 before they are judged, and FP32 arithmetic is done on them.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from impasto.errors import CheckpointError, OptionError
from impasto.files import write_bytes

from .networks import Network, build

KEY = "impasto"
"""The key of the safetensors metadata that holds our JSON."""

SCHEMA = 1


@dataclass(frozen=True)
class Checkpoint:
    """A loaded checkpoint."""

    network: Network
    """In evaluation mode, float32, on the CPU."""
    name: str
    task: str
    recipe: dict[str, Any] = field(default_factory=dict)
    quality: dict[str, Any] = field(default_factory=dict)


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
    tensors = {key: value.detach().to("cpu", torch.float16).contiguous() for key, value in network.state_dict().items()}
    write_bytes(path, save(tensors, metadata={KEY: json.dumps(about)}))


def load(path: str | os.PathLike[str]) -> Checkpoint:
    """Read a checkpoint and build its network. Raises CheckpointError where it is missing, damaged or does not fit."""
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"{path} does not exist; give a .safetensors checkpoint of impasto train")
    try:
        with safe_open(str(path), framework="pt") as file:
            about = json.loads((file.metadata() or {}).get(KEY, "null"))
            tensors = {key: file.get_tensor(key).float() for key in file.keys()}  # noqa: SIM118 (not a dict)
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{path} is no safetensors file that can be read: {error}") from None
    if not isinstance(about, dict) or "network" not in about:
        raise CheckpointError(f"{path} was not written by impasto train: its metadata has no network description")
    if not isinstance(about.get("schema"), int) or about["schema"] > SCHEMA:
        raise CheckpointError(
            f"{path} has checkpoint schema {about.get('schema')}; this Impasto reads up to {SCHEMA}. Upgrade it"
        )
    try:
        network = build(about["network"]["architecture"], about["network"]["config"])
        network.load_state_dict(tensors)
    except (OptionError, KeyError, TypeError, RuntimeError) as error:
        raise CheckpointError(f"{path} does not fit the network that it names: {str(error).splitlines()[0]}") from None
    return Checkpoint(
        network.eval(),
        name=str(about.get("name", path.stem)),
        task=str(about.get("task", "unknown")),
        recipe=about.get("recipe") or {},
        quality=about.get("quality") or {},
    )


def round_to_half(network: Network) -> None:
    """Round all weights to what a checkpoint holds, in place, so that quality is measured on what ships."""
    with torch.no_grad():
        for tensor in network.state_dict().values():
            if tensor.is_floating_point():
                tensor.copy_(tensor.half().to(tensor.dtype))
