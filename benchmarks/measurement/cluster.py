"""How many pictures a second one machine draws by `impasto run --ray local`, against the number of workers.

usage: python -m impasto.benchmarks.measurement.cluster MODEL [--pictures 96] [--side 256] [--workers 1 2] [--rounds 2] [-o FILE]

Each number of workers draws the same pictures, one core a worker, in turn and in several rounds; a run's time counts from the first
batch that is handed out to the last result, so Ray's start is left out and loading the model is in. `alone` is `impasto run` without
Ray, the whole command.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from impasto import images
from impasto.files import write_text

from .report import describe_machine

_BATCH = 4


def measure(model: str, pictures: int, side: int, workers: Sequence[int], rounds: int) -> dict[str, Any]:
    """Seconds and pictures a second of every round, by number of workers."""
    runs: dict[str, list[float]] = {"alone": [], **{str(number): [] for number in workers}}
    load: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "in")
        source.mkdir()
        for number in range(pictures):
            images.write(source / f"{number:04}.png", _photo_like(side, number))
        for round_ in range(rounds):
            for name, seconds in runs.items():
                load.append(os.getloadavg()[0])
                seconds.append(_run(model, source, Path(folder, f"{name}-{round_}"), name))
                print(f"{name}: {pictures / seconds[-1]:.2f} pictures/s, load {load[-1]:.1f}", file=sys.stderr)
    return {
        "model": model,
        "pictures": pictures,
        "side": side,
        "batch": _BATCH,
        "seconds": runs,
        "pictures_per_second": {name: pictures / median(seconds) for name, seconds in runs.items()},
        "load_average": load,
        "environment": describe_machine(),
    }


def _photo_like(side: int, seed: int) -> np.ndarray:
    """Smooth colours with fine noise, uint8 (side, side, 3): about as many bytes of PNG as a photo's part."""
    generator = np.random.default_rng(seed)
    coarse = generator.integers(0, 256, (8, 8, 3)).repeat(-(-side // 8), 0).repeat(-(-side // 8), 1)[:side, :side]
    return np.clip(coarse + generator.normal(0, 6, (side, side, 3)), 0, 255).astype(np.uint8)


def _run(model: str, source: Path, target: Path, workers: str) -> float:
    """Seconds that a run took. workers: a number, or "alone"."""
    report = target.with_suffix(".json")
    command = [sys.executable, "-m", "impasto", "run", model, str(source), "-o", str(target), "--json", str(report)]
    cores = sorted(os.sched_getaffinity(0))
    if workers != "alone":
        cores = cores[: int(workers)]  # as many cores as workers: a local cluster has what its process may use
        command += ["--ray", "local", "--ray-cores", "1", "--ray-batch", str(_BATCH)]
    begun = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True, preexec_fn=lambda: os.sched_setaffinity(0, cores))
    whole = time.perf_counter() - begun
    return whole if workers == "alone" else float(json.loads(report.read_text())["seconds"])


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--pictures", type=int, default=96)
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("-o", "--output", type=Path)
    given = parser.parse_args(arguments)
    found = measure(given.model, given.pictures, given.side, given.workers, given.rounds)
    text = json.dumps(found, indent=1) + "\n"
    if given.output:
        write_text(given.output, text)
    print(text, end="")


if __name__ == "__main__":
    main()
