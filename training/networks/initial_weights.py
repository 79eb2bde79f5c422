"""The network that a training begins with: fresh weights, or those of a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import torch

from impasto.errors import OptionError

from .. import checkpoint
from ..degrade import MISSING_COLOUR, Degradation, Missing
from ..options import TrainingOptions
from . import Network, UnetRestorer, build
from .spandrel_models import FOREIGN


def new_network(
    options: TrainingOptions, implied: Mapping[str, Any] = MappingProxyType({}), style: str = ""
) -> Network:
    """Fresh weights of this seed, or those of a checkpoint.

    implied: arguments that follow from the task. style: what a network of one style is to learn, as one of several may know it.
    """
    if options.start is None:
        torch.manual_seed(options.fit.seed)
        return build(options.architecture, {**implied, **options.config}).train()
    network = checkpoint.load_network(options.start)
    if network.architecture == FOREIGN and options.accepts_foreign and not options.config:
        return network.train()
    if network.architecture != options.architecture:
        raise OptionError(
            f"{options.start} holds a {network.architecture}; this training wants a {options.architecture}"
        )
    implied = {**implied, **options.config}
    # Configurations leave out what is empty.
    if any((network.config.get(key) or None) != (value or None) for key, value in implied.items()):
        return _rebuilt(network, implied, options.fit.seed, style).train()
    return network.train()


def arguments_for(architecture: str, scale: int, degradation: Degradation | None) -> dict[str, Any]:
    """What a damage asks of a network. Where nothing but missing pixels is to be mended, the others are right as they are."""
    if architecture != UnetRestorer.architecture:
        return {"scale": scale} if scale > 1 else {}
    return {"scale": scale, "marker": list(MISSING_COLOUR) if isinstance(degradation, Missing) else None}


def _rebuilt(network: Network, implied: Mapping[str, Any], seed: int, style: str) -> Network:
    """The network with other arguments; weights that do not fit them, such as those of its head, begin afresh."""
    torch.manual_seed(seed)
    other = build(network.architecture, {**network.config, **implied})
    other.adopt(network, style)
    return other
