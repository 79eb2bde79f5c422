"""Branches beside convolutions: more ways to learn a kernel, merged into it at every step and gone in what ships.

Ding et al. 2021, "Diverse branch block" (transforms I to V), after Ding et al. 2021, "RepVGG". There each branch computes its own
feature map; here, since all are linear and read the same map, their kernels are added up first and one convolution is computed, so
that a step costs hardly more. Branches have no biases, because a bias before a zero-padded convolution cannot be merged at borders.
"""

from __future__ import annotations

from typing import TypeGuard

import torch
import torch.nn.functional as F
from torch import Tensor, nn

WIDER = 2
"""Channels of the branch that widens first, relative to the convolution's own."""


class BranchedConv2d(nn.Conv2d):
    """A 3 × 3 convolution from C channels to C whose kernel is its own plus those of 1 × 1, 1 × 3, 3 × 1, and a 1 × 1 to
    WIDER · C channels followed by 3 × 3.

    What is added begins as zero, so that a trained network goes on from where it was.
    """

    def __init__(self, plain: nn.Conv2d, generator: torch.Generator) -> None:
        """plain: what it takes over, parameters and all; `branch_out` says of which there can be branches."""
        channels, wide = plain.out_channels, WIDER * plain.out_channels
        super().__init__(channels, channels, 3, padding=1, padding_mode=plain.padding_mode, device="meta")
        self.weight, self.bias = plain.weight, plain.bias
        self.point = nn.Parameter(plain.weight.new_zeros(channels, channels, 1, 1))
        self.row = nn.Parameter(plain.weight.new_zeros(channels, channels, 1, 3))
        self.column = nn.Parameter(plain.weight.new_zeros(channels, channels, 3, 1))
        # Adam moves each branch by the learning rate, so together they move the kernel further than it alone would. At twice this
        # scale the steps are too long: a denoiser of 2000 steps ended 1.3 dB below one without branches.
        widen = torch.randn(wide, channels, generator=generator) * (0.5 / channels**0.5)
        self.widen = nn.Parameter(widen.to(plain.weight))
        self.narrow = nn.Parameter(plain.weight.new_zeros(channels, wide, 3, 3))

    def merged(self) -> Tensor:
        """The kernel that all branches make together, (C, C, 3, 3)."""
        small = F.pad(self.point, (1, 1, 1, 1)) + F.pad(self.row, (0, 0, 1, 1)) + F.pad(self.column, (1, 1, 0, 0))
        return self.weight + small + torch.einsum("owyx,wi->oiyx", self.narrow, self.widen)

    def forward(self, input: Tensor) -> Tensor:
        return self._conv_forward(input, self.merged(), self.bias)

    def plain(self) -> nn.Conv2d:
        """The same without branches."""
        channels = self.out_channels
        convolution = nn.Conv2d(channels, channels, 3, padding=1, padding_mode=self.padding_mode, device="meta")
        convolution.weight, convolution.bias = nn.Parameter(self.merged().detach()), self.bias
        return convolution.train(self.training)


def branch_out(network: nn.Module, seed: int) -> int:
    """Put branches beside the 3 × 3 convolutions that keep channels and size, those of residual blocks. Returns how many."""
    found = [(name, module) for name, module in network.named_modules() if _keeps_shape(module)]
    generator = torch.Generator().manual_seed(seed)
    for name, module in found:
        network.set_submodule(name, BranchedConv2d(module, generator))
    return len(found)


def merge(network: nn.Module) -> None:
    """Leave plain convolutions that draw the same."""
    for name, module in [*network.named_modules()]:
        if isinstance(module, BranchedConv2d):
            network.set_submodule(name, module.plain())


def _keeps_shape(module: nn.Module) -> TypeGuard[nn.Conv2d]:
    return (
        isinstance(module, nn.Conv2d)
        and module.kernel_size == (3, 3)
        and module.stride == module.dilation == module.padding == (1, 1)
        and module.groups == 1
        and module.bias is not None
        and module.in_channels == module.out_channels
    )
