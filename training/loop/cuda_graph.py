"""CUDA graphs: the kernels of a training step recorded once and replayed, so that Python's own time is not waited for."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

WARM_UP = 3
"""Calls before recording: libraries choose their algorithms and allocate their workspaces in the first ones."""


class Replay:
    """Calls a function of tensors; from the fourth call on, replays what it did on the GPU in the third.

    The function must do the same for every input of one shape, and return one tensor. What it writes besides (gradients)
    is written to the same memory at each replay, so that it may be changed in place but not be taken away.
    """

    def __init__(self, function: Callable[..., Tensor]) -> None:
        self._function = function
        self._calls = 0
        self._graph: torch.cuda.CUDAGraph | None = None
        self._inputs: list[Tensor] = []
        self._output: Tensor | None = None

    @property
    def recorded(self) -> bool:
        """Whether the next call is a replay."""
        return self._graph is not None

    def __call__(self, *inputs: Tensor) -> Tensor:
        self._calls += 1
        if self._calls <= WARM_UP:
            return self._warm_up(inputs)
        if self._graph is None:
            self._record(inputs)
        assert self._graph is not None and self._output is not None
        for mine, given in zip(self._inputs, inputs, strict=True):
            mine.copy_(given)
        self._graph.replay()
        return self._output.clone()

    def _warm_up(self, inputs: tuple[Tensor, ...]) -> Tensor:
        # On a stream of its own, as recording will be: autograd remembers the stream on which it first met a parameter.
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            output = self._function(*inputs)
        torch.cuda.current_stream().wait_stream(side)
        return output

    def _record(self, inputs: tuple[Tensor, ...]) -> None:
        self._inputs = [given.clone() for given in inputs]
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._output = self._function(*self._inputs)
