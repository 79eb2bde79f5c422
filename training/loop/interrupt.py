"""Ctrl-C between two steps and not within one, so that what is saved is a whole step."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any

from impasto.files import STOPPING


class Interrupt:
    """While entered, the first SIGINT, SIGTERM or SIGHUP is only noted in `asked`; a second one raises at once, if not `patient`.

    A signal that is ignored stays so, as SIGHUP under nohup.
    Patient is for torchrun, which passes on the signal that the terminal has already sent, and kills after 30 seconds.

    Outside of the main thread, where Python delivers no signals, it notes nothing.
    """

    def __init__(self, patient: bool = False) -> None:
        self.asked = False
        self._patient = patient
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Interrupt:
        if threading.current_thread() is threading.main_thread():
            heard = [number for number in STOPPING if signal.getsignal(number) != signal.SIG_IGN]
            self._before = {number: signal.signal(number, self._note) for number in heard}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.asked and not self._patient:
            raise KeyboardInterrupt
        self.asked = True
