"""Compiles gram.cu ahead of time: one fatbin for every architecture, and the table of what each kernel takes.

    python kernels/build.py            # also `make kernels`; needs nvcc, and nothing else that is installed
    python kernels/build.py --check    # compile, compare with the committed table, write nothing

The fatbin is committed and ships in the wheel, since users have no nvcc. `gram.resources.json` beside it records the
source that it was built from (SHA-256), the compiler, and registers, shared memory and spills per kernel and
architecture. A changed source without a new fatbin fails the tests.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
SOURCE = HERE / "gram.cu"
FATBIN = HERE / "gram.fatbin"
TABLE = HERE / "gram.resources.json"

ARCHITECTURES = ("75", "80", "86", "87", "89", "90a", "100", "110", "120")
"""Turing, Ampere, its desktop chips, Orin, Ada, Hopper, Blackwell, Thor, its desktop chips. A binary also runs on
later minor versions of its major one, but Hopper's (there is none: 9.0 is all of them), which may name its own
instructions for that. The last is kept as PTX too, for what comes after."""
FLAGS = ("-std=c++17", "-O3")


@dataclass(frozen=True)
class Resources:
    """What one kernel takes on one architecture."""

    registers: int
    """32-bit registers a thread."""
    shared_bytes: int
    """Static shared memory a block, in bytes; the launch adds what `gram_geometry` says."""
    stack_bytes: int
    """Local memory a thread, in bytes: arrays that did not stay in registers."""
    spill_bytes: int
    """Registers that were stored and loaded for want of room, in bytes. 0 is the aim."""


def source_hash() -> str:
    """SHA-256 of the kernel's source."""
    return hashlib.sha256(SOURCE.read_bytes()).hexdigest()


def parse_resources(report: str) -> dict[str, Resources]:
    """What `ptxas -v` says of each kernel, by the kernel's name."""
    found = {}
    for part in re.split(r"Compiling entry function '", report)[1:]:
        name = part.split("'", 1)[0]
        stack, stores, loads = map(
            int, _search(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", part)
        )
        (registers,) = _search(r"Used (\d+) registers", part)
        shared = re.search(r"(\d+) bytes smem", part)
        found[name] = Resources(int(registers), int(shared[1]) if shared else 0, stack, stores + loads)
    return dict(sorted(found.items()))


def _search(pattern: str, text: str) -> tuple[str, ...]:
    match = re.search(pattern, text)
    if match is None:
        raise ValueError(f"ptxas reported nothing like {pattern!r}; its words have changed:\n{text}")
    return match.groups()


def compile_architecture(nvcc: str, architecture: str, folder: Path) -> tuple[Path, dict[str, Resources]]:
    """One cubin in `folder`, and what its kernels take. Raises CalledProcessError with nvcc's words."""
    cubin = folder / f"gram.sm_{architecture}.cubin"
    target = f"arch=compute_{architecture},code=sm_{architecture}"
    report = _run([nvcc, *FLAGS, "-gencode", target, "-Xptxas", "-v", "-cubin", "-o", str(cubin), str(SOURCE)])
    return cubin, parse_resources(report)


def _run(command: list[str]) -> str:
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        sys.stderr.write(result.stdout + result.stderr)
        raise subprocess.CalledProcessError(result.returncode, command)
    return result.stdout + result.stderr


def compile_all(nvcc: str, folder: Path) -> tuple[bytes, dict[str, dict[str, Resources]]]:
    """The fatbin's bytes, and the table {architecture: {kernel: what it takes}}."""
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        built = dict(
            zip(ARCHITECTURES, pool.map(lambda a: compile_architecture(nvcc, a, folder), ARCHITECTURES), strict=True)
        )
    newest = ARCHITECTURES[-1]
    ptx = folder / "gram.ptx"
    _run([nvcc, *FLAGS, "-arch", f"compute_{newest}", "-ptx", "-o", str(ptx), str(SOURCE)])
    images = [f"--image3=kind=elf,sm={a},file={cubin}" for a, (cubin, _) in built.items()]
    fatbin = folder / "gram.fatbin"
    fatbinary = str(Path(nvcc).with_name("fatbinary"))
    images.append(f"--image3=kind=ptx,sm={newest},file={ptx}")
    _run([fatbinary, "--create", str(fatbin), "-64", "--compress-all", "--compress-mode=size", *images])
    return fatbin.read_bytes(), {architecture: table for architecture, (_, table) in built.items()}


def table_of(resources: dict[str, dict[str, Resources]], fatbin: bytes, nvcc: str) -> dict[str, object]:
    """The committed table, ready for JSON."""
    return {
        "source_sha256": source_hash(),
        "fatbin_sha256": hashlib.sha256(fatbin).hexdigest(),
        "compiler": _run([nvcc, "--version"]).strip().splitlines()[-1],
        "architectures": {a: {name: asdict(kernel) for name, kernel in t.items()} for a, t in resources.items()},
    }


def write(path: Path, data: bytes) -> None:
    """All of the file or nothing: a build that is broken off leaves the old one."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_bytes(data)
    temporary.replace(path)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nvcc", default=shutil.which("nvcc"), help="the compiler; the one on the PATH unless given")
    parser.add_argument("--check", action="store_true", help="compare with the committed table instead of writing")
    options = parser.parse_args(arguments)
    if not options.nvcc:
        print("nvcc is not on the PATH; install the CUDA toolkit, or give --nvcc. The fatbin stays as it is.")
        return 1
    with tempfile.TemporaryDirectory() as folder:
        fatbin, resources = compile_all(options.nvcc, Path(folder))
    table = table_of(resources, fatbin, options.nvcc)
    if options.check:
        committed = json.loads(TABLE.read_text())
        same = all(committed[key] == table[key] for key in ("source_sha256", "architectures"))
        print("The table is as committed." if same else f"{TABLE.name} is stale: run python kernels/build.py")
        return 0 if same else 1
    write(FATBIN, fatbin)
    write(TABLE, (json.dumps(table, indent=1) + "\n").encode())
    worst = max(kernel.spill_bytes for kernels in resources.values() for kernel in kernels.values())
    print(
        f"{FATBIN.name}: {len(fatbin) / 1024:.0f} KiB for {len(resources)} architectures; spills at worst {worst} bytes"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
