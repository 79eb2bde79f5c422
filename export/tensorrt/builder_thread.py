"""The thread that TensorRT builds on, so that Ctrl-C reaches Python at once."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

from impasto.progress import Progress
from impasto.runtime.backends.tensorrt.api import TensorRT

_NAME = "impasto-build"
_PATIENCE_S = 10.0
"""How long Ctrl-C waits for the builder's next step."""

_Result = TypeVar("_Result")


def interruptible(work: Callable[[], _Result], stop: threading.Event) -> _Result:
    """Run `work` on a thread of its own, so that Ctrl-C reaches Python at once, and not one of TensorRT's calls of our log or
    progress monitor: TensorRT swallows what those raise. Python raises KeyboardInterrupt in the main thread only.

    With a progress monitor the builder stops at its next step. Without one (8.x) it cannot be stopped: it goes on by itself, what it
    builds is dropped, and a process that ends waits for it (`is_building`).
    """
    results: list[_Result] = []
    failures: list[BaseException] = []

    def run() -> None:
        try:
            results.append(work())
        except BaseException as error:
            failures.append(error)

    def wait(seconds: float) -> None:
        # Neither `join` nor an event: a join that Ctrl-C interrupts takes the thread for ended (bpo-45274, up to Python 3.12),
        # and an event that it interrupts may keep its lock.
        end = time.monotonic() + seconds
        while not results and not failures and time.monotonic() < end:
            time.sleep(0.02)

    try:
        threading.Thread(target=run, name=_NAME).start()
        wait(float("inf"))
    except KeyboardInterrupt:
        stop.set()
        wait(_PATIENCE_S)
        raise
    if failures:
        raise failures[0]
    return results[0]


def is_building() -> bool:
    """Whether a builder still runs because Ctrl-C could not stop it; Python's own end waits for it."""
    return any(thread.name == _NAME for thread in threading.enumerate())


def monitor(api: TensorRT, progress: Progress, stop: threading.Event) -> Any:
    """The vendor's progress monitor, which the builder asks after every step whether to go on.

    progress: called on the builder's thread with the name of its phase, and its steps.
    """

    class Monitor(api.module.IProgressMonitor):  # type: ignore[name-defined]
        def __init__(self) -> None:
            super().__init__()
            self._steps: dict[str, int] = {}

        def phase_start(self, phase: str, parent: str | None, steps: int) -> None:
            self._steps[phase] = max(steps, 1)
            self._tell(phase, 0)

        def step_complete(self, phase: str, step: int) -> bool:
            self._tell(phase, step + 1)
            return not stop.is_set()

        def phase_finish(self, phase: str) -> None:
            self._tell(phase, self._steps.get(phase, 1))

        def _tell(self, phase: str, done: int) -> None:
            steps = self._steps.get(phase, 1)
            if not stop.is_set():
                progress(phase, min(done, steps), steps)

    return Monitor()
