"""A model's benchmark: compute-only and end-to-end latency at several sizes, with all that is needed to repeat it."""

from __future__ import annotations

import datetime
import json
import os
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

import impasto
from impasto.errors import OptionError
from impasto.files import write_text
from impasto.images.sizes import parse_size

from .energy import Energy, find_sensors, measure_energy
from .measure import Latency, measure
from .memory import PeakMemory

SCHEMA = 1
"""Version of the JSON; `report.schema.json` beside this file describes it."""


@dataclass(frozen=True)
class SizeResult:
    """Latency at one picture size, one picture at a time."""

    height: int
    width: int
    compute: Latency
    """The graph alone, on buffers that are in place: of somebody else's float graph without the conversion of pixels."""
    end_to_end: Latency
    """From a NumPy picture to a NumPy picture: padding, copies, compute, cropping."""
    energy: Energy | None = None
    """Of the same, where it was asked for."""
    batches: Mapping[int, Latency] = field(default_factory=dict)
    """The graph alone on so many pictures at once, where that was asked for."""
    peak_memory_bytes: int | None = None
    """The process's largest resident memory while it drew this size; None where the system does not say."""

    def to_json(self) -> dict[str, Any]:
        found: dict[str, Any] = {
            "height": self.height,
            "width": self.width,
            "batch": 1,
            "compute": self.compute.to_json(),
            "end_to_end": self.end_to_end.to_json(),
        }
        if self.energy:
            found["energy"] = self.energy.to_json()
        if self.batches:
            found["batches"] = {str(batch): latency.to_json() for batch, latency in self.batches.items()}
        if self.peak_memory_bytes is not None:
            found["peak_memory_bytes"] = self.peak_memory_bytes
        return found


@dataclass(frozen=True)
class BenchmarkReport:
    """One model on one backend of one machine."""

    info: impasto.ModelInfo
    results: tuple[SizeResult, ...]
    warmup: int
    environment: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        """As `report.schema.json` says."""
        return {
            "schema": SCHEMA,
            "kind": "impasto.benchmark",
            "model": self.info.to_json(),
            "warmup": self.warmup,
            "results": [result.to_json() for result in self.results],
            "environment": self.environment,
        }

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write the JSON atomically. Raises OutputError."""
        write_text(path, json.dumps(self.to_json(), indent=1) + "\n")


def benchmark(
    model: str | os.PathLike[str],
    sizes: Sequence[str] = ("512x512",),
    *,
    backend: str = "auto",
    precision: str = "auto",
    device: int = 0,
    layout: str | None = None,
    iterations: int = 50,
    warmup: int = 5,
    batches: Sequence[int] = (),
    energy: bool = False,
    progress: Callable[[str], None] = lambda step: None,
) -> BenchmarkReport:
    """Measure a model on seeded noise pictures (content does not change the work), at their own size whatever its working size.

    sizes: "HEIGHTxWIDTH" or a name of `impasto.images.sizes`. energy: also count joules, for 7 more seconds a size.
    batches: also time the graph on so many pictures at once, which an engine takes only where it was built for them.
    progress: called with a line before each step. Raises OptionError, and what `impasto.load` raises.
    """
    shapes = [parse_size(size) for size in sizes]
    if wrong := [batch for batch in batches if batch < 1]:
        raise OptionError(f"a batch of {wrong[0]}; wanted at least 1 picture")
    if not shapes:
        raise OptionError("no sizes to measure; give one such as 512x512")
    sensors = find_sensors() if energy else []
    results = []
    with impasto.load(
        model, backend=backend, precision=precision, device=device, layout=layout, working_size=None
    ) as loaded:
        for height, width in shapes:
            progress(f"{loaded.info.name} at {height} x {width}")
            memory = PeakMemory()
            image = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
            out = np.empty(loaded.output_shape(image), np.uint8)
            compute = measure(loaded.computation(image), iterations=iterations, warmup=warmup)
            whole = measure(partial(loaded.run_into, image, out), iterations=iterations, warmup=warmup)
            peak = memory.bytes()  # before batches, which need more
            joules = measure_energy(partial(loaded.run_into, image, out), sensors) if sensors else None
            at_once = {
                batch: measure(loaded.computation(image, batch=batch), iterations=iterations, warmup=warmup)
                for batch in batches
            }
            results.append(SizeResult(height, width, compute, whole, joules, at_once, peak))
        return BenchmarkReport(loaded.info, tuple(results), warmup, describe_machine())


def describe_machine() -> dict[str, Any]:
    """Where and with what a figure was measured."""
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "impasto": impasto.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "libraries": _versions(
            "numpy", "onnxruntime", "onnxruntime-gpu", "openvino", "tensorrt", "tensorrt-rtx-cu13", "torch"
        ),
    }


def _processor(proc: Path = Path("/proc")) -> str:
    """The board's name where there is one, as on a Jetson, whose cores have none; else the CPU's."""
    try:
        return (proc / "device-tree" / "model").read_text(encoding="utf-8").rstrip("\0\n")
    except OSError:
        pass  # a PC
    try:
        lines = (proc / "cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def _versions(*distributions: str) -> dict[str, str]:
    found = {}
    for name in distributions:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
