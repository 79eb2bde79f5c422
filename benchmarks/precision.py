"""FP32 and INT8 on the CPU: torch eager, ONNX Runtime and OpenVINO in turn in one run, each from picture to picture.

    python -m impasto.benchmarks.precision great-wave denoise --json precision.json
    python -m impasto.benchmarks.precision my-wave my-night --record precision.json=great-wave

The second form measures nothing. It writes into packages how much faster OpenVINO's INT8 was in an earlier run, on which processor:
`impasto run` tells it to those who draw in FP32. The network after = is the one that was measured. Another one may take its figure if
it has the same layers, and the package then names the measured one.

All do the same work on the same picture: reflect its border, run the network (of a stylizer also the thumbnail's), round, crop.
Torch runs the network as it is exported, with norms and branches folded.
Stylizers are also compared with the classic network of Johnson et al. 2016 in torch eager. Each library computes with all cores
that this process may use; `taskset -c 0,1` gives it two. In every round each takes three turns, of which the fastest counts,
since whatever else the machine does only ever adds to a time; the figure is the median over the rounds.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import impasto
from impasto import images
from impasto.benchmarks.measurement.measure import TURNS, Draw, Latency, in_turn
from impasto.benchmarks.measurement.report import describe_machine
from impasto.errors import ImpastoError, OptionError, PackageError
from impasto.files import write_text
from impasto.images.sizes import parse_size
from impasto.metrics import psnr
from impasto.package.manifest import read_manifest
from impasto.package.writer import change_package
from impasto.runtime.backends.openvino import OpenVinoBackend
from impasto.runtime.loading.source import is_shipped, resolve

ROUNDS = 15
EAGER, CLASSIC = "torch eager FP32", "classic network, torch eager FP32"
VARIANTS: dict[str, dict[str, dict[str, str]]] = {
    "fp32": {"free sizes": {}, "in BF16": {"INFERENCE_PRECISION_HINT": "bf16"}},
    "int8": {"free sizes": {}, "else float32": {"INFERENCE_PRECISION_HINT": "f32"}},
}
"""OpenVINO's options by precision that differ from the backend's own."""
RUNTIMES = (("onnxruntime-cpu", "fp32"), ("onnxruntime-cpu", "int8"), ("openvino", "fp32"), ("openvino", "int8"))


@dataclass(frozen=True)
class Result:
    """One way to draw the picture."""

    name: str
    latency: Latency
    psnr_db: float | None
    """PSNR of its picture against torch's FP32 picture of the same network; None for another network."""

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary."""
        return {"name": self.name, "psnr_db": self.psnr_db, **self.latency.to_json()}


@dataclass(frozen=True)
class Comparison:
    """All ways to draw one model's picture."""

    model: str
    height: int
    width: int
    results: tuple[Result, ...]

    def faster(self, name: str, than: str) -> float:
        """How many times `name` is as fast as `than`, by medians."""
        median = {result.name: result.latency.median_ms for result in self.results}
        return median[than] / median[name]

    def __str__(self) -> str:
        names = [result.name for result in self.results]
        lines = [f"{self.model}, {self.height} x {self.width}"]
        for result in self.results:
            low, high = result.latency.percentile_ms(25), result.latency.percentile_ms(75)
            alike = "" if result.psnr_db is None else f"{result.psnr_db:6.1f} dB"
            factors = "".join(f"{self.faster(result.name, than):8.1f} x" for than in (EAGER, CLASSIC) if than in names)
            time_ms = f"{result.latency.median_ms:8.1f} ms  ({low:.1f} to {high:.1f})"
            lines.append(f"  {result.name:36}{time_ms:30}{factors}   {alike}")
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary, with every sample."""
        return {
            "model": self.model,
            "height": self.height,
            "width": self.width,
            "results": [result.to_json() for result in self.results],
        }


def compare(
    model: str, size: tuple[int, int], rounds: int = ROUNDS, *, variants: bool = False, picture: Path | None = None
) -> Comparison:
    """Time one package by every library, in turn.

    size: height and width. variants: also VARIANTS. picture: what to draw; None for the
    package's own example. Raises what `impasto.load` raises, and PackageError for a package without INT8 graphs.
    """
    from impasto.training.checkpoint import load_network
    from impasto.training.inference import draw as torch_draw
    from impasto.training.networks.classic import ClassicStylizer

    source = resolve(model)
    if source.manifest is None:
        raise PackageError(f"{model} is no package; the comparison needs its checkpoint and its INT8 graphs")
    spec = source.manifest.spec
    image = images.read_scaled(picture or source.path / "picture.jpg", size)
    with ExitStack() as opened:
        network = load_network(source.path).folded()
        eager = partial(torch_draw, network)
        draws: dict[str, Draw] = {EAGER: eager}
        if spec.task == "stylize":  # random weights take as long as others
            draws[CLASSIC] = partial(torch_draw, ClassicStylizer().eval())
        for backend, precision in RUNTIMES:
            loaded = opened.enter_context(
                impasto.load(source.path, backend=backend, precision=precision, working_size=None)
            )
            draws[f"{backend} {precision.upper()}"] = loaded
            if variants and backend == "openvino":
                for name, options in VARIANTS[precision].items():
                    loaded = opened.enter_context(
                        impasto.load(source.path, backend=backend, precision=precision, working_size=None)
                    )
                    loaded._backend = Variant(
                        resolve(source.path, precision, target_backend="openvino").graph_path, options
                    )
                    draws[f"{backend} {precision.upper()}, {name}"] = loaded
        reference = eager(image)
        samples = in_turn(draws, image, rounds)
        results = tuple(
            Result(name, Latency(samples[name]), None if name == CLASSIC else psnr(draw(image), reference))
            for name, draw in draws.items()
        )
    return Comparison(spec.name, *size, results)


def record_speed(package: Path, measured: str, report: Any, processor: str | None = None) -> dict[str, Any]:
    """Write into a package's manifest how many times as fast as FP32 OpenVINO's INT8 was, and return the entry.

    measured: the network that was timed. report: what `--json` wrote, as parsed JSON. processor: its name, where people know more
    than the report says. An earlier entry of the same processor is replaced.
    Raises PackageError if the report does not hold that network, or the package is none or cannot be changed.
    """
    try:
        (results,) = (each["results"] for each in report["comparisons"] if each["model"] == measured)
        median = {each["name"]: float(each["median_ms"]) for each in results}
        entry = {
            "precision": "int8",
            "backend": "openvino",
            "times_fp32": round(median["openvino FP32"] / median["openvino INT8"], 2),
            "processor": str(processor or report["environment"]["processor"]),
        }
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise PackageError(
            f"the report holds no times of {measured} in OpenVINO ({type(error).__name__}: {error}); write one with "
            f"python -m impasto.benchmarks.precision {measured} --json FILE"
        ) from None
    read_manifest(package)  # before the folder is made or locked
    with change_package(package) as change:
        manifest = read_manifest(package)
        if manifest.spec.name != measured:
            entry["network"] = measured
        speeds = manifest.quality.get("speed", [])
        known = speeds if isinstance(speeds, list) else []
        others = [each for each in known if each.get("processor") != entry["processor"]]
        change.manifest = replace(manifest, quality={**manifest.quality, "speed": [*others, entry]})
    return entry


class Variant(OpenVinoBackend):
    """OpenVINO with other options than the backend's own, to see what those are worth."""

    def __init__(self, path: Path, options: dict[str, str]) -> None:
        """options: OpenVINO's; none: compiled once for all sizes."""
        super().__init__(path)
        self._other = options

    def _request(self, shapes: tuple[tuple[int, ...], ...]) -> Any:
        return super()._request(shapes if self._other else ())

    def _options(self) -> dict[str, Any]:
        return super()._options() | self._other


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", metavar="MODEL", help="a package's name or folder")
    parser.add_argument("--size", default="512x512")
    parser.add_argument("--picture", type=Path, help="what to draw; by default the package's own example")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--variants", action="store_true", help="also OpenVINO with other options than the backend's")
    parser.add_argument("--json", type=Path, help="write all figures here")
    parser.add_argument(
        "--record", metavar="FILE=NETWORK", help="measure nothing; write an earlier run's speed into packages"
    )
    parser.add_argument("--processor", help="with --record: the processor's name, in place of the one in FILE")
    options = parser.parse_args(arguments)
    try:
        if options.record:
            _record(options)
            return
        before = os.getloadavg()[0]
        comparisons = []
        for model in options.models:
            size = parse_size(options.size)
            comparisons.append(compare(model, size, options.rounds, variants=options.variants, picture=options.picture))
            print(comparisons[-1], flush=True)
        if options.json:
            report = {
                "kind": "impasto.precision",
                "rounds": options.rounds,
                "turns": TURNS,
                "comparisons": [comparison.to_json() for comparison in comparisons],
                "load": [before, os.getloadavg()[0]],
                "environment": describe_machine(),
            }
            write_text(options.json, json.dumps(report, indent=1) + "\n")
    except ImpastoError as error:
        sys.exit(f"error: {error}")


def _record(options: argparse.Namespace) -> None:
    path, _, measured = options.record.rpartition("=")
    try:
        report = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise OptionError(f"--record takes FILE=NETWORK, and cannot read {path!r} as JSON: {error}") from None
    for model in options.models:
        folder = resolve(model).path
        if is_shipped(folder):
            raise OptionError(f"{model} came with Impasto and is not changed; copy its folder first and name the copy")
        print(folder, record_speed(folder, measured, report, options.processor))


if __name__ == "__main__":
    main()
