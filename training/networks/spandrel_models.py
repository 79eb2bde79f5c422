"""Restorers in other people's formats (Real-ESRGAN, SPAN, NAFNet, …), read by spandrel; the only file that imports it."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from impasto.errors import CheckpointError, MissingDependency, first_line, install
from impasto.files import sha256

from .base import Network

FOREIGN = "foreign"
"""What a checkpoint of ours names such a network's architecture; spandrel finds out the rest from the weights."""


class ForeignRestorer(Network):
    """Another project's network for RGB pictures. Whether it sees whole pictures is not known, so none is cut into tiles."""

    architecture = FOREIGN
    receptive_field = None

    def __init__(self, descriptor: Any) -> None:
        """descriptor: spandrel's ImageModelDescriptor."""
        super().__init__()
        size = descriptor.size_requirements
        self.scale = int(descriptor.scale)
        self.multiple = int(size.multiple_of)
        self.minimum = -(-max(int(size.minimum), 1) // self.multiple) * self.multiple
        self.config = {"architecture": str(descriptor.architecture.name), "tags": list(descriptor.tags)}
        self.model: nn.Module = descriptor.model
        # The public call clips, and takes gradients away. spandrel is pinned.
        self._call: Callable[[nn.Module, Tensor], Tensor] = descriptor._call_fn

    def forward(self, image: Tensor, context: Tensor | None = None) -> Tensor:
        return self._call(self.model, image)

    def stages(self) -> tuple[str, ...]:
        # In the order in which their author wrote them down, mostly that of the picture's way; as deep as it takes to have several.
        names = [name.split(".") for name, _ in self.named_parameters()]
        for depth in range(2, 5):
            found = tuple(dict.fromkeys(".".join(name[:depth]) for name in names))
            if len(found) > 1:
                break
        return found

    def folded(self) -> Network:
        network = super().folded()
        for module in network.modules():
            # SPAN's convolutions fold their branches again at each call: here once, so that exporters see a convolution.
            if hasattr(module, "update_params") and hasattr(module, "eval_conv"):
                module.update_params()  # type: ignore[operator]
                module.update_params = _nothing  # type: ignore[assignment]
        return network


def name_of(path: Path) -> str:
    """A model's name made of a file's."""
    return re.sub(r"[^a-z0-9._-]+", "-", path.stem.lower()).strip("._-") or "foreign"


def read(path: Path) -> tuple[ForeignRestorer, str, dict[str, Any]]:
    """A network in evaluation mode, what it does ("upscale", "restore"), and where it is from. Raises CheckpointError,
    MissingDependency."""
    loader = _spandrel().ModelLoader()
    try:
        descriptor = loader.load_from_file(path)
    except Exception as error:  # whatever unpickling and detection raise
        reason = first_line(error)
        raise CheckpointError(f"{path} holds no network that spandrel knows: {reason}") from None
    network = _restorer(descriptor, path)
    about = {"architecture": network.config["architecture"], "file": path.name, "sha256": sha256(path)}
    return network, "upscale" if network.scale > 1 else "restore", {"foreign": about}


def rebuild(tensors: Mapping[str, Tensor]) -> ForeignRestorer:
    """The network of a checkpoint of ours, by its weights. Raises CheckpointError, MissingDependency."""
    state = {key.removeprefix("model."): value for key, value in tensors.items()}
    try:
        descriptor = _spandrel().ModelLoader().load_from_state_dict(state)
    except MissingDependency:
        raise
    except Exception as error:
        reason = first_line(error)
        raise CheckpointError(f"these weights are of no network that spandrel knows: {reason}") from None
    return _restorer(descriptor, "the checkpoint")


def _restorer(descriptor: Any, source: object) -> ForeignRestorer:
    """The network, if it takes and gives RGB pictures of any rectangle."""
    kind = descriptor.architecture.name
    channels = (descriptor.input_channels, descriptor.output_channels)
    if not hasattr(descriptor, "_call_fn") or descriptor.purpose == "Inpainting":
        raise CheckpointError(
            f"{source} holds a {kind} that wants a mask beside the picture; Impasto's networks do not"
        )
    if channels != (3, 3) or descriptor.size_requirements.square or not math.isclose(descriptor.scale % 1, 0):
        raise CheckpointError(
            f"{source} holds a {kind} from {channels[0]} to {channels[1]} channels, ×{descriptor.scale}"
            f"{', for square pictures' if descriptor.size_requirements.square else ''}; wanted RGB to RGB, any rectangle"
        )
    network: ForeignRestorer = ForeignRestorer(descriptor).float().eval().requires_grad_(True)
    return network


def _nothing() -> None:
    pass


def _spandrel() -> Any:
    try:
        import spandrel
    except (ImportError, RuntimeError, OSError) as error:  # a torchvision for another torch raises the latter two
        reason = first_line(error)
        raise MissingDependency(
            f"networks of other projects are read by spandrel ({reason}): {install('zoo')}; its torchvision must be the "
            f"one made for torch {torch.__version__}"
        ) from None
    return spandrel
