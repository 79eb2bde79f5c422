"""A model's benchmark: compute-only and end-to-end latency at several sizes, with all that is needed to repeat it."""

from __future__ import annotations

import datetime
import json
import os
import platform
from collections.abc import Mapping, Sequence
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
from impasto.progress import Progress, silent
from impasto.runtime.cpu import usable_cores

from .energy import Energy, Sensor, find_sensors, measure_energy
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
    """Energy of the same pictures; None where it was not asked for."""
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
        """A plain dictionary of the form that `report.schema.json` describes."""
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


@dataclass(frozen=True)
class BenchmarkOptions:
    """How much `benchmark` measures. Raises OptionError."""

    iterations: int = 50
    """Timed runs of each size; fewer where 20 s are not enough for them."""
    warmup: int = 5
    """Runs before them, untimed."""
    batches: tuple[int, ...] = ()
    """Also time the graph on so many pictures at once. An engine takes only the batches that it was built for."""
    energy: bool = False
    """Also count joules, for 7 more seconds a size."""

    def __post_init__(self) -> None:
        if wrong := [batch for batch in self.batches if batch < 1]:
            raise OptionError(f"a batch of {wrong[0]}; wanted at least 1 picture")


def benchmark(
    model: str | os.PathLike[str],
    sizes: Sequence[str] = ("512x512",),
    *,
    backend: str = "auto",
    precision: str = "auto",
    device: int = 0,
    layout: str | None = None,
    options: BenchmarkOptions = BenchmarkOptions(),
    progress: Progress = silent,
) -> BenchmarkReport:
    """Measure a model on seeded noise pictures (content does not change the work), at their own size whatever its working size.

    sizes: "HEIGHTxWIDTH" or a name of `impasto.images.sizes`. backend, precision, device, layout: as `impasto.load` takes them.
    options: how often, and what besides latency. progress: called with a line before each step.
    Raises OptionError, and what `impasto.load` raises.
    """
    shapes = [parse_size(size) for size in sizes]
    if not shapes:
        raise OptionError("no sizes to measure; give one such as 512x512")
    sensors = find_sensors() if options.energy else []
    results = []
    with impasto.load(
        model, backend=backend, precision=precision, device=device, layout=layout, working_size=None
    ) as loaded:
        for shape in shapes:
            progress(f"{loaded.info.name} at {shape[0]} x {shape[1]}")
            results.append(_measure_size(loaded, shape, options, sensors))
        return BenchmarkReport(loaded.info, tuple(results), options.warmup, describe_machine())


def _measure_size(
    model: impasto.Model, shape: tuple[int, int], options: BenchmarkOptions, sensors: Sequence[Sensor]
) -> SizeResult:
    height, width = shape
    timed = partial(measure, iterations=options.iterations, warmup=options.warmup)
    memory = PeakMemory()
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    draw = partial(model.run_into, image, np.empty(model.output_shape(image), np.uint8))
    compute, end_to_end = timed(model.computation(image)), timed(draw)
    peak = memory.bytes()  # before batches, which need more
    return SizeResult(
        height,
        width,
        compute,
        end_to_end,
        energy=measure_energy(draw, sensors) if sensors else None,
        batches={batch: timed(model.computation(image, batch=batch)) for batch in options.batches},
        peak_memory_bytes=peak,
    )


def describe_machine() -> dict[str, Any]:
    """Where and with what a figure was measured."""
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "impasto": impasto.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": _processor(),
        "cores": usable_cores(),
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
