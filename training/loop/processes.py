"""Several processes that train one network together, as torchrun starts them; a single one is the case of one."""

from __future__ import annotations

import datetime
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from impasto.errors import TrainingError

Result = TypeVar("Result")

_PATIENCE = datetime.timedelta(days=1)
"""How long a process waits for another. A dead one is noticed at once, by its closed connection; a validation takes its time."""


@dataclass(frozen=True)
class Processes:
    """Which of how many processes this is, on all machines and on this one."""

    rank: int = 0
    count: int = 1
    local_rank: int = 0
    local_count: int = 1

    @property
    def chief(self) -> bool:
        """Whether this is the one that writes files and shows progress."""
        return self.rank == 0

    def part(self, whole: int) -> slice:
        """The share of this process in `whole` crops, a multiple of `count`: equal parts, in order."""
        each = whole // self.count
        return slice(self.rank * each, (self.rank + 1) * each)


ALONE = Processes()


def launched() -> Processes:
    """What torchrun says in the environment; one process where something else started it."""
    if not dist.is_available() or not dist.is_torchelastic_launched():
        return ALONE
    rank, count, local_rank, local_count = (
        int(os.environ[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
    )
    return Processes(rank, count, local_rank, local_count)


class Together:
    """What the processes tell each other besides gradients. Every method must be called by all of them, in the same order.

    The words go through gloo on the CPU, so that nothing waits for a GPU.
    """

    def __init__(self, processes: Processes) -> None:
        """The process group must be there before."""
        self.processes = processes
        alone = processes.count == 1
        self._group: Any = None if alone else dist.new_group(backend="gloo", timeout=_PATIENCE)

    def any(self, flag: bool) -> bool:
        """Whether one of them says so."""
        if self._group is None:
            return flag
        said = torch.tensor(float(flag))
        with self.watched():
            dist.all_reduce(said, dist.ReduceOp.MAX, group=self._group)
        return bool(said)

    def mean(self, values: Tensor) -> Tensor:
        """The mean over processes, on the CPU; NaN where one of them has NaN."""
        if self._group is None:
            return values
        values = values.cpu()
        with self.watched():
            dist.all_reduce(values, dist.ReduceOp.SUM, group=self._group)
        return values / self.processes.count

    def from_chief(self, work: Callable[[], Result]) -> Result:
        """What `work` returns in the chief, in all of them; the others wait. Where it fails there, TrainingError elsewhere."""
        if self._group is None:
            return work()
        answer: list[Any] = [None]
        try:
            if self.processes.chief:
                answer = [(work(),)]
        finally:  # the others must hear of it, whatever happened
            with self.watched():
                dist.broadcast_object_list(answer, 0, group=self._group)
        if answer[0] is None:
            raise TrainingError("process 0 of this training has stopped; it says why")
        result: Result = answer[0][0]
        return result

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Where another process is gone in the middle of a word, raise TrainingError."""
        try:
            yield
        except RuntimeError as error:
            if self._group is None or not _lost(error):
                raise
            raise TrainingError("another process of this training is gone; look at what it said last") from None

    def leave(self) -> None:
        """End the process group.

        Its threads end when nobody holds it any more. One that still lets go of its last tensor while Python shuts down would
        abort the process.
        """
        if self._group is not None and dist.is_initialized():
            self._group = None
            dist.destroy_process_group()


def _lost(error: RuntimeError) -> bool:
    """Whether gloo or NCCL speaks of a lost connection."""
    text = str(error).lower()
    return any(word in text for word in ("gloo", "nccl", "connection closed", "connection reset"))
