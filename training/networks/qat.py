"""Quantization-aware fine-tuning: convolutions that compute, in FP32, what INT8 will make of them.

The placement is that of `impasto quantize` for TensorRT and OpenVINO: int8 with zero point 0 at what a convolution reads, one step
size for the whole map, and for its weights one a channel. Biases and all else stay as they are. Gradients go straight through the
rounding (Bengio et al. 2013); ranges are learnt with the weights.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from impasto.errors import OptionError

from .base import Network
from .spandrel_models import FOREIGN

if TYPE_CHECKING:
    from impasto.training.loop.task import Task

RECIPE = "int8"
"""The key of a checkpoint's recipe that holds what was learnt: {"ranges": {layer: range}}."""

LEVELS = 127
"""Steps from 0 to the end of a range."""

LOOKED_AT = 4
"""Batches from which the first ranges are taken."""

_PERCENTILE = 0.9999
_MOST = 1 << 20
"""Values of a map that a percentile is taken of."""


class Quantized(nn.Module):
    """A convolution whose input and weights are rounded to what int8 holds."""

    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__()
        self.convolution = convolution
        # Learnt as a logarithm, because ranges of different layers differ by orders of magnitude and Adam's steps do not:
        # Jain et al. 2020, "Trained quantization thresholds", section 3.
        self.log_range = nn.Parameter(torch.zeros((), device=convolution.weight.device))
        self._seen: list[Tensor] | None = None

    def look(self) -> None:
        """From now on compute in float, and take note of the inputs' ranges."""
        self._seen = []

    def learn(self) -> None:
        """Begin with the mean of the ranges that were noted."""
        assert self._seen
        with torch.no_grad():
            self.log_range.copy_(torch.stack(self._seen).mean().clamp(min=1e-6).log2())
        self._seen = None

    @property
    def range(self) -> float:
        """The largest input that is not clipped."""
        return float(self.log_range.detach().exp2())

    def forward(self, x: Tensor) -> Tensor:
        if self._seen is not None:
            self._seen.append(_highest(x.detach()))
            result: Tensor = self.convolution(x)
            return result
        weight = self.convolution.weight
        ends = weight.detach().abs().amax((1, 2, 3), keepdim=True).clamp(min=1e-12)
        rounded = {"weight": _rounded(weight, ends)}
        return functional_call(self.convolution, rounded, (_rounded(x.float(), self.log_range.exp2()),))


def prepare(task: Task) -> None:
    """Quantize every convolution of the task's picture path, with ranges as its first batches have them.

    The thumbnail's path stays in float, as it does in a package. Raises OptionError for another project's network.
    """
    network = task.network
    if network.architecture == FOREIGN:  # they look into their convolutions, or are not made of them
        raise OptionError("only networks of ours are trained for INT8; teach one of them first: impasto train distill")
    found = _convolutions(network)
    layers = [Quantized(convolution) for convolution in found.values()]
    for name, layer in zip(found, layers, strict=True):
        network.set_submodule(name, layer)
        layer.look()
    with torch.no_grad():
        for step in range(LOOKED_AT):
            task(*task.batch(step))
    for layer in layers:
        layer.learn()


def removed(network: Network) -> tuple[Network, dict[str, Any]]:
    """A copy that computes in float, and what a recipe is to say under RECIPE."""
    plain = copy.deepcopy(network)
    ranges = {}
    for name, layer in [*plain.named_modules()]:
        if isinstance(layer, Quantized):
            ranges[name] = layer.range
            plain.set_submodule(name, layer.convolution)
    return plain, {"ranges": ranges}


def restored(network: Network, learnt: Mapping[str, Any]) -> Network:
    """The reverse of `removed`: a copy that computes what its INT8 graph will."""
    quantized = copy.deepcopy(network)
    for name, end in learnt["ranges"].items():
        convolution = quantized.get_submodule(name)
        assert isinstance(convolution, nn.Conv2d)
        layer = Quantized(convolution)
        with torch.no_grad():
            layer.log_range.fill_(end).log2_()
        quantized.set_submodule(name, layer)
    return quantized


def _convolutions(network: Network) -> dict[str, nn.Conv2d]:
    """The convolutions that pictures go through, by name."""
    seen: set[nn.Module] = set()
    hooks = [
        module.register_forward_pre_hook(lambda module, _: seen.add(module))
        for module in network.modules()
        if isinstance(module, nn.Conv2d)
    ]
    device = next(network.parameters()).device
    side = max(network.minimum, network.multiple)
    extra: tuple[Tensor, ...] = ()
    try:
        with torch.no_grad():
            if network.thumbnail:
                context = network.context(torch.zeros(1, 3, network.thumbnail, network.thumbnail, device=device))
                extra = (context[:, 0] if network.styles else context,)
            seen.clear()
            network(torch.zeros(1, 3, side, side, device=device), *extra)
    finally:
        for hook in hooks:
            hook.remove()
    return {
        name: module for name, module in network.named_modules() if isinstance(module, nn.Conv2d) and module in seen
    }


def _rounded(x: Tensor, end: Tensor) -> Tensor:
    """x on the steps from -end to end. By autograd, `end` gets the gradient of Jain et al. 2020, equation 6, and x its own where
    it is not clipped."""
    step = end / LEVELS
    levels = (x / step).clamp(-LEVELS - 1, LEVELS)
    return (levels + (levels.round() - levels).detach()) * step


def _highest(x: Tensor) -> Tensor:
    """Nearly the largest magnitude: few outliers would cost all other values their resolution."""
    values = x.float().abs().flatten()
    return values[:: -(-len(values) // _MOST)].quantile(_PERCENTILE)
