"""Where backbones' weights come from: a named file, the cache, an installed package, or the official place."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from impasto.errors import CheckpointError, TrainingError, first_line, install
from impasto.files import make_folder

from .base import Backbone

# os.path's leaves the ~ where nobody knows a home, and Path's would raise; whoever trains there names the weights' file.
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")) / "impasto" / "backbones"  # noqa: PTH111
"""Where weights are looked for when no file is named, and kept when they were downloaded."""

OFFICIAL = "https://download.pytorch.org/models/"
"""Where torchvision's weights lie. Each file's name holds the beginning of its SHA-256."""


def find(kind: type[Backbone], path: str | os.PathLike[str] | None) -> Path:
    """A file with the backbone's weights. Raises TrainingError where there is none."""
    if path is not None:
        if not Path(path).is_file():
            raise TrainingError(f"no {kind.title} weights at {path}; name a file that exists with --backbone-weights")
        return Path(path)
    cached = [CACHE / name for name in kind.files if (CACHE / name).is_file()]
    if cached:
        return cached[0]
    if kind.package is not None:
        return _in_package(kind.title, *kind.package)
    assert kind.official is not None
    return download(kind.official, kind.title)


def download(name: str, title: str) -> Path:
    """Fetch a file of the official place into the cache and check its SHA-256, with a progress bar. Raises TrainingError."""
    target = make_folder(CACHE) / name
    from filelock import FileLock  # torch itself needs it

    with FileLock(f"{target}.lock"):  # of several processes, one fetches
        if target.is_file():
            return target
        try:
            torch.hub.download_url_to_file(OFFICIAL + name, str(target), _digits(name))
        except (OSError, RuntimeError) as error:  # RuntimeError: another checksum
            raise TrainingError(
                f"no {title} weights in {CACHE}, and none came from {OFFICIAL + name}: {error}. Fetch that file elsewhere and name it "
                "with --backbone-weights"
            ) from None
    return target


def read(file: Path, title: str) -> dict[str, Tensor]:
    """The tensors of a .safetensors or .pth file. Raises CheckpointError."""
    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        tensors = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises whatever unpickling raises
        raise CheckpointError(f"{file} holds no {title} weights: {first_line(error)}") from None
    if not isinstance(tensors, dict):
        raise CheckpointError(
            f"{file} holds no {title} weights: wanted tensors by name, got a {type(tensors).__name__}"
        )
    return {key: value for key, value in tensors.items() if isinstance(value, Tensor)}


def _in_package(title: str, package: str, name: str) -> Path:
    """A file of an installed package, checked. Raises TrainingError."""
    try:
        files = importlib.metadata.files(package) or []
    except importlib.metadata.PackageNotFoundError:
        raise TrainingError(
            f"no {title} weights in {CACHE}, and {package} is not installed: {install('backbones')}"
        ) from None
    found = [Path(str(file.locate())) for file in files if file.as_posix().endswith(name)]
    if not found or not hashlib.sha256(found[0].read_bytes()).hexdigest().startswith(_digits(name)):
        raise TrainingError(f"{package} is installed but {name} in it is missing or altered; install it again")
    return found[0]


def _digits(name: str) -> str:
    """The beginning of the SHA-256 in a file's name."""
    return Path(name).stem.rpartition("-")[2]
