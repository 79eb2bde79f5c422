"""The optimizers that a training can choose from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

OPTIMIZERS = ("adam", "muon")


def new_optimizer(
    name: str, groups: Sequence[dict[str, Any]], learning_rate: float, *, fused: bool
) -> torch.optim.Optimizer:
    """The optimizer of this name, one of OPTIMIZERS.

    groups: dictionaries with a key "params", as `torch.optim` takes them. fused: one kernel for all parameters, for GPUs.
    """
    if name == "adam":
        return torch.optim.Adam(groups, lr=learning_rate, fused=fused)
    return Muon(groups, lr=learning_rate)


class Muon(torch.optim.Optimizer):
    """Muon for the kernels of convolutions and other matrices, Adam for vectors, at one learning rate.

    Muon replaces the averaged gradient of a kernel, seen as a matrix of its output channels by all else, by the nearest matrix whose
    singular values are 1, about. So all directions of a layer learn at one speed: Jordan et al. 2024,
    https://kellerjordan.github.io/posts/muon/. A step's root mean square is 0.2 of the learning rate, as Adam's is, about: Liu et al.
    2025, "Muon is scalable for LLM training", section 2.2.

    `torch.optim.Muon` takes matrices alone and computes in BF16. On a CPU without units for BF16 that takes longer than all the rest
    of a step of `unet-restorer`.
    """

    def __init__(
        self,
        params: Sequence[dict[str, Any]],
        lr: float,
        momentum: float = 0.95,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
    ) -> None:
        """momentum: of the kernels' gradients, as Nesterov's. betas, eps: Adam's, for vectors."""
        super().__init__(params, {"lr": lr, "momentum": momentum, "betas": betas, "eps": eps})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step. closure: computes the loss anew, as every optimizer of PyTorch takes it."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    change = self._of_matrix if is_matrix(parameter) else self._of_vector
                    parameter.add_(change(parameter.grad, self.state[parameter], group), alpha=-group["lr"])
        return loss

    @staticmethod
    def _of_matrix(gradient: Tensor, state: dict[str, Any], group: dict[str, Any]) -> Tensor:
        if not state:
            state["momentum"] = torch.zeros_like(gradient)
        mean = state["momentum"].lerp_(gradient, 1 - group["momentum"])
        matrix = gradient.lerp(mean, group["momentum"]).flatten(1)
        return orthogonalized(matrix).mul_(0.2 * max(matrix.shape) ** 0.5).view(gradient.shape)

    @staticmethod
    def _of_vector(gradient: Tensor, state: dict[str, Any], group: dict[str, Any]) -> Tensor:
        first, second = group["betas"]
        if not state:
            state |= {"step": 0, "mean": torch.zeros_like(gradient), "square": torch.zeros_like(gradient)}
        state["step"] += 1
        mean = state["mean"].lerp_(gradient, 1 - first) / (1 - first ** state["step"])
        square = state["square"].lerp_(gradient.square(), 1 - second) / (1 - second ** state["step"])
        return mean / (square.sqrt() + group["eps"])


def is_matrix(parameter: Tensor) -> bool:
    """Whether a parameter has several rows of several numbers; a shift for each channel, (C, 1, 1), has not."""
    return parameter.ndim > 1 and min(parameter.flatten(1).shape) > 1


def orthogonalized(matrix: Tensor) -> Tensor:
    """U S Vᵀ for a matrix U Σ Vᵀ, (M, N), with all of S near 1 (0.7 to 1.2) where Σ is not far below its largest; 0 for 0.

    Five iterations X ← (a + b X Xᵀ + c (X Xᵀ)²) X of Jordan et al. 2024. All are polynomials of the first X Xᵀ, so that the small
    Gram matrix alone is iterated, and the long matrix is multiplied once.

    Example:
        >>> orthogonalized(torch.tensor([[3.0, 0.0], [0.0, 4.0]])).round().abs()
        tensor([[1., 0.],
                [0., 1.]])
    """
    wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    wide = wide / (wide.norm() + 1e-12)
    gram = wide @ wide.T
    identity = product = torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    for _ in range(5):
        factor = 3.4445 * identity + gram @ (2.0315 * gram - 4.7750 * identity)
        product = factor @ product
        gram = factor @ gram @ factor
    result = product @ wide
    return result if matrix.shape[0] <= matrix.shape[1] else result.T
