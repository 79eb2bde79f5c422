"""Cutting a picture into overlapping windows of one size, so that the results join exactly."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Span:
    """One window along one axis."""

    start: int
    """Where the window begins in the picture."""
    keep_from: int
    """First position, in the picture, whose result is taken from this window."""
    keep_to: int
    """One past the last such position."""


def spans(length: int, window: int, overlap: int) -> list[Span]:
    """Windows of `window` positions that cover `length`, neighbours sharing at least 2 x `overlap`.

    A kept position is at least `overlap` away from a window's end unless that end is the picture's own; with
    overlap >= the receptive field's radius it therefore sees just what it would see in the whole picture.
    """
    if window >= length:
        return [Span(0, 0, length)]
    step = window - 2 * overlap
    if step < 1:
        raise ValueError(f"a window of {window} with an overlap of {overlap} on each side never moves on")
    result = []
    kept = 0
    for start in _starts(length, window, step):
        keep_to = length if start + window == length else start + window - overlap
        result.append(Span(start, kept, keep_to))
        kept = keep_to
    return result


def _starts(length: int, window: int, step: int) -> Iterator[int]:
    start = 0
    while start + window < length:
        yield start
        start += step
    yield length - window
