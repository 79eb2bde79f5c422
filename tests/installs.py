"""Install a wheel with each of its extras into an empty environment, for each Python, and try what the extra is for.

usage: python tests/installs.py WHEEL [--extras cpu,openvino] [--pythons 3.10,3.13] [--json FILE]
Pythons are pyenv's. Environments are made below a temporary folder and removed. Only the packages of SOURCES are built from
source, since the index has no wheels of them; where another has none for a Python, that is what the table says.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
PYTHONS = ("3.10", "3.11", "3.12", "3.13")

_DRAWS = (
    "import impasto, numpy; m = impasto.load('upscale-x2', backend='{}');"
    "assert m(numpy.zeros((40, 56, 3), numpy.uint8)).shape == (80, 112, 3)"
)
TRIES = {
    "cpu": _DRAWS.format("onnxruntime-cpu"),
    "openvino": _DRAWS.format("openvino"),
    "cli": "import subprocess, sys; subprocess.run([sys.executable, '-m', 'impasto', 'models'], check=True)",
    "deep": "import imagecodecs, tifffile; from impasto import images; images.read_deep",
    "medical": "import pydicom, impasto.medical",
    "ray": "import ray, impasto.batch.ray",
    "video": "import av, impasto.videos",
    "export": "import impasto.export as e; e.quantize, e.import_onnx, e.build_engine",
    "train": "import impasto.training as t; t.train_style, t.train_restorer",
    "backbones": "import impasto",
    "plots": "import matplotlib",
    "rtx": "import tensorrt_rtx",
    "gpu": "import pynvml, onnxruntime",
}
"""By the extra's name, the program that tries it."""

SOURCES = {
    "rtx": ("tensorrt-rtx-cu13",),
    "gpu": ("pycuda",),
}
"""By the extra's name, the packages that the index has as sources alone: NVIDIA's names its wheels, PyCUDA compiles against CUDA."""


def pyenv_python(version: str) -> Path | None:
    """The newest interpreter of this version that pyenv has; None without one."""
    root = subprocess.run(["pyenv", "root"], capture_output=True, text=True, check=False).stdout.strip()
    found = sorted(Path(root, "versions").glob(f"{version}.*/bin/python")) if root else []
    return found[-1] if found else None


def tried(python: Path, wheel: Path, extra: str) -> str:
    """ "ok", or the line that says why not."""
    with tempfile.TemporaryDirectory() as folder:
        own = Path(folder) / "environment"
        subprocess.run([python, "-m", "venv", own], check=True)
        install = [
            own / "bin/python",
            "-m",
            "pip",
            "install",
            "-q",
            "--disable-pip-version-check",
            "--only-binary",
            ":all:",
            *(word for package in SOURCES.get(extra, ()) for word in ("--no-binary", package)),
        ]
        for step in (
            [*install, "-c", REPOSITORY / "constraints.txt", f"{wheel}[{extra}]"],
            [own / "bin/python", "-c", TRIES[extra]],
        ):
            done = subprocess.run(step, capture_output=True, text=True, cwd=folder, check=False)
            if done.returncode:
                lines = [line for line in done.stderr.splitlines() if line.strip()]
                return next(
                    (line for line in reversed(lines) if line.startswith("ERROR")), lines[-1] if lines else "failed"
                )
    return "ok"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wheel", type=Path)
    parser.add_argument("--extras", default=",".join(TRIES))
    parser.add_argument("--pythons", default=",".join(PYTHONS))
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    if shutil.which("pyenv") is None:
        sys.exit("there is no pyenv here, from which the Pythons come; install it, or try each extra by hand")
    extras = given.extras.split(",")
    if unknown := sorted(set(extras) - TRIES.keys()):
        sys.exit(f"unknown extras {', '.join(unknown)}; there are {', '.join(TRIES)}")
    results: dict[str, dict[str, str]] = {}
    for version in given.pythons.split(","):
        python = pyenv_python(version)
        for extra in extras:
            result = tried(python, given.wheel.resolve(), extra) if python else f"pyenv has no Python {version}"
            results.setdefault(version, {})[extra] = result
            print(f"{version:<6}{extra:<11}{result}", flush=True)
    if given.json:
        given.json.write_text(json.dumps(results, indent=1) + "\n")
    sys.exit(any(result != "ok" for row in results.values() for result in row.values()))


if __name__ == "__main__":
    main()
