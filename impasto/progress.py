"""How a long call says how far it is."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """A function that is called while the work goes on, with what is being done and how much of it is done.

    words: one line. done: from 0 to `total`. total: None where nothing is counted. Those who count nothing give words alone.
    """

    def __call__(self, words: str, done: int = 0, total: int | None = None, /) -> None: ...


def silent(words: str, done: int = 0, total: int | None = None, /) -> None:
    """The Progress of work that nobody watches."""
