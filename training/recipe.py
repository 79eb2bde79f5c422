"""The recipe: what a checkpoint says of how it was made."""

from __future__ import annotations

import hashlib
import os
import re
import shlex
from dataclasses import fields
from typing import Any

import torch

from impasto.datasets import VARIABLE, public_path

from . import checkpoint
from .data.photos import Photos
from .data.split import Split
from .loop.processes import launched
from .networks import Network, kmac_per_pixel
from .options import TrainingOptions


def recipe_of(
    options: TrainingOptions, network: Network, split: Split, extra: dict[str, Any], digests: dict[str, Any]
) -> dict[str, Any]:
    """How a training is made, without private paths. extra, digests: what is said besides what all trainings say; digests are of
    contents."""
    start = checkpoint.load(options.start).recipe if options.start else {}
    # Who began with pictures of some terms is bound by them.
    terms = "; ".join(dict.fromkeys(filter(None, (options.terms, start.get("terms")))))
    recipe = {
        "command": options.command,
        **({"terms": terms} if terms else {}),
        "seed": options.fit.seed,
        "steps": options.fit.steps,
        "batch": options.batch,
        **({"processes": launched().count} if launched().count > 1 else {}),
        "crop": options.crop,
        **_changed_weights(options),
        "data": _data(options, split),
        "split": {
            "train": list(split.train.names),
            "validation": list(split.validation.names),
            "test": list(split.test.names) if split.test else [],
        },
        "digests": {**{purpose: _digest_of_all(photos) for purpose, photos in split.by_purpose().items()}, **digests},
        # With the recipe of where it began: one file tells the whole history.
        "start": options.start and {"file": os.fspath(options.start), "recipe": start},
        "kmac_per_pixel": round(kmac_per_pixel(network), 1),
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        **extra,
    }
    return public_recipe(recipe)


def public_recipe(recipe: dict[str, Any]) -> dict[str, Any]:
    """The recipe with every path in it as `datasets.public_path` writes it, also in its command and in the recipes that it holds."""
    return {key: public_command(value) if key == "command" else _public(value) for key, value in recipe.items()}


def public_command(command: str) -> str:
    """A command line with the paths among its arguments as `datasets.public_path` writes them, `--option=PATH` included."""
    try:
        arguments = shlex.split(command)
    except ValueError:  # no shell's: an unclosed quote
        return str(_public(command))
    return " ".join(_quoted(_public_argument(argument)) for argument in arguments)


def _public_argument(argument: str) -> str:
    option, equals, value = argument.rpartition("=")
    return f"{option}{equals}{public_path(value)}"


def _quoted(argument: str) -> str:
    """The argument quoted for a shell. The data folder's variable stays outside of quotes, where the shell replaces it."""
    variable = f"${VARIABLE}"
    if variable not in argument:
        return shlex.quote(argument)
    return variable.join(shlex.quote(part) if part else "" for part in argument.split(variable))


_ABSOLUTE = re.compile(r"""(?<![^\s'"(])/[^\s'":)]+""")
"""A path inside of a sentence."""


def _public(value: Any) -> Any:
    if isinstance(value, dict):
        return public_recipe(value)
    if isinstance(value, (list, tuple)):
        return [_public(item) for item in value]
    if not isinstance(value, str):
        return value
    if re.match(r"\.?\.?/", value) and ": " not in value:
        return public_path(value)
    return _ABSOLUTE.sub(lambda found: public_path(found[0]), value)


def digest_of_weights(network: torch.nn.Module) -> str:
    """32 hexadecimal digits, the same for the same weights."""
    made = hashlib.blake2b(digest_size=16)
    for name, tensor in network.state_dict().items():
        made.update(name.encode())
        made.update(tensor.detach().cpu().contiguous().numpy())
    return made.hexdigest()


def _digest_of_all(photos: Photos) -> str:
    return hashlib.blake2b("".join(photos.digests).encode(), digest_size=16).hexdigest()


def _changed_weights(options: TrainingOptions) -> dict[str, Any]:
    """Where the losses have other weights than usual; a run is not gone on with under other ones."""
    (usual,) = (other.default_factory for other in fields(options) if other.name == "weights")
    assert callable(usual)
    changed = {name: weight for name, weight in options.weights.items() if weight != usual().get(name, 0)}
    return {"weights": changed} if changed else {}


def _data(options: TrainingOptions, split: Split) -> dict[str, Any]:
    """Where the pictures come from, and what became of them."""
    sources, targets = options.data_folders
    folders = [os.fspath(folder) for folder in sources]
    folder = folders[0] if len(folders) == 1 else folders
    return {
        "folder": folder,
        **({"targets": os.fspath(targets)} if targets else {}),
        "photos": len(split.train.names),
        "validation": {
            "folder": os.fspath(options.validation) if options.validation else folder,
            "files": list(split.validation.names),
        },
        **(
            {"test": {"folder": os.fspath(options.test) if options.test else folder, "photos": len(split.test.names)}}
            if split.test
            else {}
        ),
        "skipped": [line for photos in _read(options, split) for line in photos.skipped],
    }


def _read(options: TrainingOptions, split: Split) -> list[Photos]:
    """The sets that were read from a folder each. The others are shares of it, and their files are told with the rest."""
    of_folders = [split.train]
    if options.validation is not None:
        of_folders.append(split.validation)
    if options.test is not None and split.test is not None:
        of_folders.append(split.test)
    return of_folders
