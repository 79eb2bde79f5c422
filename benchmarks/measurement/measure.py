"""Latency by the clock: warm-up, many repetitions, and the figures that people compare."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from impasto.errors import OptionError

Draw = Callable[[np.ndarray], np.ndarray]
"""uint8 (H, W, 3) to uint8 (H x scale, W x scale, 3)."""

TURNS = 3
"""Calls of each in a round of `in_turn`, of which the fastest counts."""


@dataclass(frozen=True)
class Latency:
    """The distribution of one function's run time. All times in milliseconds."""

    samples_ms: tuple[float, ...]

    @property
    def median_ms(self) -> float:
        return float(np.median(self.samples_ms))

    @property
    def mean_ms(self) -> float:
        return float(np.mean(self.samples_ms))

    @property
    def standard_deviation_ms(self) -> float:
        """Standard deviation of the sample (n - 1); 0 for a single one."""
        return float(np.std(self.samples_ms, ddof=1)) if len(self.samples_ms) > 1 else 0.0

    def percentile_ms(self, percent: float) -> float:
        """Linear interpolation between the closest ranks."""
        return float(np.percentile(self.samples_ms, percent))

    @property
    def images_per_second(self) -> float:
        """Pictures a second, one after the other: 1000 / median."""
        return 1000 / self.median_ms

    def to_json(self) -> dict[str, Any]:
        """The figures and every sample."""
        return {
            "median_ms": self.median_ms,
            "p90_ms": self.percentile_ms(90),
            "p99_ms": self.percentile_ms(99),
            "mean_ms": self.mean_ms,
            "standard_deviation_ms": self.standard_deviation_ms,
            "minimum_ms": min(self.samples_ms),
            "images_per_second": self.images_per_second,
            "samples_ms": list(self.samples_ms),
        }


def measure(function: Callable[[], object], *, iterations: int = 50, warmup: int = 5, seconds: float = 20.0) -> Latency:
    """Time a function, by the wall clock, one call at a time.

    iterations: calls timed; fewer where they would take longer than `seconds`, but at least 3.
    warmup: calls before, untimed: lazy initialisation, caches, clock frequencies. Raises OptionError.
    """
    if iterations < 1 or warmup < 0 or seconds <= 0:
        raise OptionError(
            f"iterations {iterations}, warmup {warmup}, seconds {seconds}: wanted at least 1, at least 0 and above 0"
        )
    for _ in range(warmup):
        function()
    samples: list[float] = []
    spent = 0.0
    while len(samples) < iterations and (spent < seconds or len(samples) < 3):
        start = time.perf_counter()
        function()
        elapsed = time.perf_counter() - start
        samples.append(1000 * elapsed)
        spent += elapsed
    return Latency(tuple(samples))


def in_turn(
    draws: Mapping[str, Draw], image: np.ndarray, rounds: int, progress: Callable[[int], None] = lambda done: None
) -> dict[str, tuple[float, ...]]:
    """Milliseconds of each in every round, after one that is not counted: what else the machine does meets all alike.

    The fastest of TURNS calls counts, since that only ever adds to a time. progress: called with the rounds that are done.
    """
    samples: dict[str, list[float]] = {name: [] for name in draws}
    for done in range(rounds + 1):
        for name, draw in draws.items():
            samples[name].append(min(_milliseconds(draw, image) for _ in range(TURNS)))
        progress(done)
    return {name: tuple(times[1:]) for name, times in samples.items()}


def _milliseconds(draw: Draw, image: np.ndarray) -> float:
    start = time.perf_counter()
    draw(image)
    return 1000 * (time.perf_counter() - start)
