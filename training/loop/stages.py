"""Fine-tuning that spares what a network has learnt: frozen stages, and lower learning rates further from the head."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from impasto.errors import OptionError
from impasto.training.networks import Network


@dataclass(frozen=True)
class Group:
    """Parameters that learn at one rate."""

    parameters: tuple[nn.Parameter, ...]
    share: float
    """The factor of the learning rate."""


def freeze(network: Network, prefixes: Sequence[str]) -> None:
    """Let the parameters whose names begin with one of these not learn. Raises OptionError for a prefix that none has."""
    for prefix in prefixes:
        found = [parameter for name, parameter in network.named_parameters() if within(name, prefix)]
        if not found:
            raise OptionError(
                f"a {network.architecture} has no stage {prefix!r} to freeze; choose of {', '.join(network.stages())}"
            )
        for parameter in found:
            parameter.requires_grad_(False)
    if not any(parameter.requires_grad for parameter in network.parameters()):
        raise OptionError(f"with {', '.join(prefixes)} frozen, nothing is left to learn; freeze fewer stages")


def groups(network: Network, decay: float) -> list[Group]:
    """The parameters that learn, with `decay` to the power of their stage's distance from the head as their rate's share.

    Howard and Ruder 2018, "Universal language model fine-tuning", section 3.2. decay: above 0, at most 1.
    """
    learning = {name: parameter for name, parameter in network.named_parameters() if parameter.requires_grad}
    if decay == 1:
        return [Group(tuple(learning.values()), 1.0)]
    found = []
    for distance, stage in enumerate(reversed(network.stages())):
        parameters = tuple(parameter for name, parameter in learning.items() if within(name, stage))
        if parameters:
            found.append(Group(parameters, decay**distance))
    return found


def within(name: str, prefix: str) -> bool:
    """Whether a parameter of this name belongs to a stage, or to what the prefix names."""
    return name == prefix or name.startswith(prefix + ".")
