"""How far predictions are from what was measured: every latency under `benchmarks/results`.

    python -m impasto.benchmarks.prediction [FOLDER] [--json FILE]

Each prediction is made for the device whose name the result's machine has, with the layers left out of INT8 that were left out there.
What is not predicted is listed with the reason.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from impasto.errors import ImpastoError, ModelNotFound, OptionError
from impasto.export.graph.layers import Assumed, Layer
from impasto.files import write_text

from .devices import Device, known_devices, likely_of
from .roofline import predict_size, read_work, times

RESULTS = Path(__file__).parents[1] / "results"
_GRAM = {"relu1_2": (64, 512), "relu2_2": (128, 256), "relu3_3": (256, 128), "relu4_3": (512, 64)}
"""Channels and side of VGG16's feature maps of 512 x 512 pixels."""
_OLDER_DENOISE = ("denoise-fp32.json", "denoise-int8.json", "precision.json", "precision-variants.json")
"""Files that measured denoise while it had fewer blocks: the network that deblur has (commit d6792c4)."""
_NO_LATENCY_OF_A_GRAPH = {
    "peers.json": "its seconds a megapixel name no machine",
    "video": "its frames a second include decoding and measuring",
}


@dataclass(frozen=True)
class Measured:
    """One latency that was measured."""

    file: str
    what: str
    """The model, and how it ran."""
    model: str
    machine: str
    backend: str
    precision: str
    height: int
    width: int
    whole: bool
    """Whether from picture to picture; otherwise the graph alone."""
    milliseconds: float
    excluded: tuple[str, ...] = ()
    """Layers that an INT8 graph leaves out."""


@dataclass(frozen=True)
class Compared:
    """It and its prediction."""

    measured: Measured
    device: str
    bound_ms: float
    likely_ms: float

    @property
    def error(self) -> float:
        """Error of the likely time, as a share of the measured one: 0.1 is 10 % too slow."""
        return self.likely_ms / self.measured.milliseconds - 1

    @property
    def factor(self) -> float:
        """How many times too slow or too fast, whichever is above 1."""
        ratio = self.likely_ms / self.measured.milliseconds
        return max(ratio, 1 / ratio)

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary."""
        return {
            **asdict(self.measured), "device": self.device, "bound_ms": self.bound_ms, "likely_ms": self.likely_ms, "error": self.error,
        }  # fmt: skip


@dataclass(frozen=True)
class Errors:
    """Every measurement, predicted or not."""

    compared: tuple[Compared, ...]
    left_out: tuple[str, ...]
    """What is not predicted and why, one line each."""

    def of(self, device: str) -> tuple[Compared, ...]:
        """Those of one device."""
        return tuple(one for one in self.compared if one.device == device)

    def __str__(self) -> str:
        lines = [f"{'measured':>10} {'predicted':>10} {'bound':>9} {'error':>7}"]
        for device in dict.fromkeys(one.device for one in self.compared):
            found = self.of(device)
            lines.append(f"{device}: {known_devices()[device].name}")
            lines += [
                f"{_ms(one.measured.milliseconds):>10} {_ms(one.likely_ms):>10} {_ms(one.bound_ms):>9} {100 * one.error:+6.0f} %  "
                f"{one.measured.what} ({one.measured.file})"
                for one in found
            ]
            lines.append(
                f"{'':10} median error {100 * float(np.median([abs(one.error) for one in found])):.0f} %, "
                f"at worst {max(one.factor for one in found):.2f} times too slow or too fast"
            )
        if self.left_out:
            lines += ["not predicted:", *(f"  {line}" for line in self.left_out)]
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary."""
        return {
            "kind": "impasto.prediction-errors",
            "compared": [one.to_json() for one in self.compared],
            "left_out": list(self.left_out),
        }


def errors(folder: Path = RESULTS) -> Errors:
    """Predict every measurement of a folder of results. Raises OptionError where there are none."""
    compared: list[Compared] = []
    left_out: list[str] = []
    devices = {name: device for device in known_devices().values() for name in device.processors}
    for path in sorted(folder.rglob("*.json")):
        for found in _measurements(path, folder):
            if isinstance(found, str):
                left_out.append(f"{path.relative_to(folder)}: {found}")
            elif found.machine not in devices:
                left_out.append(f"{found.file}: {found.what}: no device of ours is called {found.machine!r}")
            else:
                compared.append(_compare(found, devices[found.machine]))
    if not compared:
        raise OptionError(f"{folder} holds no measured latency; name the folder benchmarks/results of a checkout")
    return Errors(tuple(compared), tuple(dict.fromkeys(left_out)))


def _compare(measured: Measured, device: Device) -> Compared:
    if measured.backend == "gram":
        (time,) = times([_gram_layer(measured)], device, likely_of(device, "auto")[1])
        return Compared(measured, device.key, time.bound_ms, time.likely_ms)
    backend, likely = likely_of(device, measured.backend)
    older = measured.model == "denoise" and Path(measured.file).name in _OLDER_DENOISE
    work = read_work("deblur" if older else measured.model, "fp32", backend, likely)
    if measured.precision != "fp32":
        # The graph that was measured may be another than the package holds by now: what it left out is recorded.
        assumed = Assumed(measured.precision, measured.excluded, likely.beside_int8)
        work = replace(work, precision=measured.precision, assumed=assumed)
    found = predict_size(work, device, likely, measured.height, measured.width)
    return Compared(measured, device.key, found.bound_ms, found.end_to_end_ms if measured.whole else found.likely_ms)


def _gram_layer(measured: Measured) -> Layer:
    """A product of feature maps with themselves, C x C."""
    name, count = measured.model.split(" x")
    channels, side = _GRAM[name]
    batch = int(count)
    values = batch * channels * side * side
    return Layer(
        name=measured.model,
        label="",
        kind="MatMul",
        nodes=(),
        precision="fp16",
        shape=(batch, channels, channels),
        macs=channels * values,
        operations=0,
        weight_bytes=0,
        read_bytes=2 * values,
        written_bytes=4 * batch * channels**2,
        radius=None,
        output="gram",
        inputs=("features",),
    )


def _measurements(path: Path, folder: Path) -> Iterator[Measured | str]:
    """The latencies that a file holds, and why some of them cannot be predicted."""
    name = path.relative_to(folder).as_posix()
    reason = next((why for part, why in _NO_LATENCY_OF_A_GRAPH.items() if part in path.relative_to(folder).parts), None)
    data = json.loads(path.read_text(encoding="utf-8"))
    if reason:
        yield reason
    elif not isinstance(data, dict):
        return
    elif data.get("kind") == "impasto.benchmark":
        yield from _of_benchmark(name, data)
    elif data.get("kind") == "impasto.precision":
        yield from _of_precision(name, data, folder)
    elif "kernel_microseconds" in data:
        yield from _of_gram(name, data)


def _of_benchmark(name: str, data: Mapping[str, Any]) -> Iterator[Measured]:
    model, backend, precision = data["model"]["model"]["name"], data["model"]["backend"], data["model"]["precision"]
    for result in data["results"]:
        size = result["height"], result["width"]
        for what, key in (("the graph alone", "compute"), ("picture to picture", "end_to_end")):
            yield Measured(
                name, f"{model}, {backend} {precision}, {what}", model, data["environment"]["processor"], backend, precision, *size,
                key == "end_to_end", result[key]["median_ms"],
            )  # fmt: skip


def _of_precision(name: str, data: Mapping[str, Any], folder: Path) -> Iterator[Measured | str]:
    for comparison in data["comparisons"]:
        model = comparison["model"]
        for result in comparison["results"]:
            ran, _, variant = result["name"].partition(", ")
            backend, _, precision = ran.partition(" ")
            if ran.startswith(("torch", "classic")):
                yield "torch is no backend of the runtime"
                continue
            if variant not in ("", "in BF16"):
                yield f"{variant}: the backend is not run so"
                continue
            counted = "bf16" if variant else precision.lower()
            yield Measured(
                name, f"{model}, {result['name']}, picture to picture", model, data["environment"]["processor"], backend, counted,
                comparison["height"], comparison["width"], True, result["median_ms"],
                _excluded(folder, model, backend) if counted == "int8" else (),
            )  # fmt: skip


def _excluded(folder: Path, model: str, backend: str) -> tuple[str, ...]:
    """What that model's INT8 graph left out, by the record of its quantization."""
    path = folder / "cpu" / "precision" / f"{model}-int8.json"
    made = json.loads(path.read_text(encoding="utf-8"))["made"] if path.is_file() else []
    return tuple(next((one["spared"] for one in made if backend.startswith(one["family"])), ()))


def _of_gram(name: str, data: Mapping[str, Any]) -> Iterator[Measured]:
    """Gram matrices of one layer: the fastest way that was timed."""
    fastest: dict[str, float] = {}
    for timing in data["timings"]:
        problem = timing["problem"]
        if problem.split(" x")[0] in _GRAM:
            fastest[problem] = min(fastest.get(problem, math.inf), timing["microseconds"])
    for problem, microseconds in fastest.items():
        yield Measured(
            name, f"Gram matrix of {problem}", problem, data["device"], "gram", "fp16", 0, 0, False, microseconds / 1000
        )


def _ms(value: float) -> str:
    return f"{value:.1f} ms" if value >= 10 else f"{value:.3f} ms"


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "folder", type=Path, nargs="?", default=RESULTS, help="of results; by default benchmarks/results"
    )
    parser.add_argument("--json", type=Path, help="write all figures here")
    options = parser.parse_args(arguments)
    try:
        found = errors(options.folder)
        print(found)
        if options.json:
            write_text(options.json, json.dumps(found.to_json(), indent=1) + "\n")
    except (ImpastoError, ModelNotFound) as error:
        sys.exit(f"error: {error}")
