"""Compiles gram.cu ahead of time: one fatbin for every architecture, and the table of what each kernel takes.

    python kernels/build.py            # also `make kernels`; needs nvcc 13.0, and fetches older compilers from PyPI
    python kernels/build.py --check    # compile, compare with what is committed, write nothing
    python kernels/build.py --fetch 11.8    # only fetch that compiler, into build/cuda

A driver loads what a CUDA of its own major version or an older one compiled ("CUDA Compatibility", NVIDIA), and many
devices cannot have a new driver: JetPack 5 knows CUDA 11.4, JetPack 6 CUDA 12. So each architecture is compiled by a
CUDA as old as the drivers that its GPUs may have.

The fatbin is committed and ships in the wheel, since users have no compiler. `gram.resources.json` beside it records the
source that it was built from (SHA-256), the compilers, and registers, shared memory and spills per kernel and
architecture. A changed source without a new fatbin fails the tests. The same source makes the same bytes.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import ctypes
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
SOURCE = HERE / "gram.cu"
FATBIN = HERE / "gram.fatbin"
TABLE = HERE / "gram.resources.json"
FETCHED = HERE.parent / "build" / "cuda"
"""Where compilers from PyPI lie: a folder for each release, on no environment's path. CUDA 11's and 12's packages have files of
the same names, and torch brings such packages of its own, so that no environment could hold them all."""

ARCHITECTURES = {
    "75": "11.8",
    "80": "11.8",
    "86": "11.8",
    "87": "11.8",
    "89": "11.8",
    "90a": "12.9",
    "100": "12.9",
    "110": "13.0",
    "120": "12.9",
}
"""Turing, Ampere, its desktop chips, Orin, Ada, Hopper, Blackwell, Thor, Blackwell's desktop chips, and the CUDA that compiles each:
the oldest major version that knows it. A binary also runs on later minor versions of its major one, but Hopper's (there is none: 9.0
is all of them), which may name its own instructions for that. Of CUDA 12 it is the last release, since 12.6 and 12.8 spill in
Hopper's float16 loop; every driver of CUDA 12 takes either."""
PTX = ("120", "13.0")
"""For what comes after. A GPU younger than all of these has a driver younger than CUDA 13.0, and needs no older PTX."""
PACKAGES = {
    "11.8": ("nvidia-cuda-nvrtc-cu11==11.8.89", "nvidia-cuda-nvcc-cu11==11.8.89", "nvidia-cuda-runtime-cu11==11.8.89"),
    "12.9": ("nvidia-cuda-nvrtc-cu12==12.9.86", "nvidia-cuda-nvcc-cu12==12.9.86", "nvidia-cuda-runtime-cu12==12.9.79"),
}
"""Compilers on PyPI: NVRTC (CUDA C++ to PTX), ptxas (PTX to machine code) and headers. They have no nvcc. The one release that is
not here is nvcc's, on the PATH: its front end keeps addresses in shared memory in 32 bits, where NVRTC's takes 64."""
FLAGS = ("-std=c++17",)
"""For nvcc and NVRTC."""
STDINT = b"""
typedef unsigned char uint8_t; typedef unsigned short uint16_t; typedef unsigned int uint32_t; typedef unsigned long uint64_t;
typedef signed char int8_t; typedef short int16_t; typedef int int32_t; typedef long int64_t;
"""
"""NVRTC knows no host, and so no <stdint.h>. These are Linux's."""


class BuildError(Exception):
    """A compiler that is not there, or did not compile."""


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


@dataclass(frozen=True)
class Compiler:
    """One CUDA release's way from source to machine code."""

    release: str
    root: Path | None
    """The folder of its PyPI packages, or None for nvcc and ptxas on the PATH."""

    @property
    def ptxas(self) -> str:
        return "ptxas" if self.root is None else str(self.root / "nvidia" / "cuda_nvcc" / "bin" / "ptxas")

    def version(self) -> str:
        """Of its ptxas, such as 11.8.89."""
        (version,) = _search(r"V(\d+\.\d+\.\d+)", _run([self.ptxas, "--version"]))
        return version

    def ptx(self, architecture: str, flags: Sequence[str] = ()) -> str:
        """gram.cu as PTX. Raises BuildError with the compiler's words."""
        if self.root is not None:
            # In a thread of its own, to which NVRTC leaves the C locale: whoever called would read and write ASCII from then on.
            with concurrent.futures.ThreadPoolExecutor(1) as thread:
                text = thread.submit(self._nvrtc, [*FLAGS, f"-arch=compute_{architecture}", *flags]).result()
            return _without_process_numbers(text)
        with tempfile.TemporaryDirectory() as folder:
            ptx = Path(folder) / "gram.ptx"
            _run(["nvcc", *FLAGS, *flags, "-arch", f"compute_{architecture}", "-ptx", "-o", str(ptx), str(SOURCE)])
            return _without_process_numbers(ptx.read_text(encoding="utf-8"))

    def _nvrtc(self, options: Sequence[str]) -> str:
        """NVRTC User Guide, "Basic Usage"."""
        assert self.root is not None
        (library,) = (self.root / "nvidia" / "cuda_nvrtc" / "lib").glob("libnvrtc.so.*")
        nvrtc = ctypes.CDLL(str(library))
        options = [*options, f"-I{self.root / 'nvidia' / 'cuda_runtime' / 'include'}"]
        words = (ctypes.c_char_p * len(options))(*(option.encode() for option in options))
        headers, names = (ctypes.c_char_p * 1)(STDINT), (ctypes.c_char_p * 1)(b"stdint.h")
        program = ctypes.c_void_p()

        def text(what: str) -> str:
            size = ctypes.c_size_t()
            getattr(nvrtc, f"nvrtcGet{what}Size")(program, ctypes.byref(size))
            room = ctypes.create_string_buffer(size.value)
            getattr(nvrtc, f"nvrtcGet{what}")(program, room)
            return room.value.decode()

        source = SOURCE.read_bytes()
        failed = nvrtc.nvrtcCreateProgram(ctypes.byref(program), source, SOURCE.name.encode(), 1, headers, names)
        if failed:
            raise BuildError(f"NVRTC {self.release} cannot begin: error {failed}")
        try:
            failed = nvrtc.nvrtcCompileProgram(program, len(options), words)
            if failed:
                raise BuildError(f"NVRTC {self.release}, error {failed}:\n{text('ProgramLog')}")
            return text("PTX")
        finally:
            nvrtc.nvrtcDestroyProgram(ctypes.byref(program))

    def assembled(self, ptx: str, architecture: str, cubin: Path) -> dict[str, Resources]:
        """Writes machine code and says what its kernels take. Raises BuildError with ptxas's words."""
        source = cubin.with_suffix(".ptx")
        source.write_text(ptx, encoding="utf-8")
        return parse_resources(_run([self.ptxas, "-v", "-arch", f"sm_{architecture}", "-o", str(cubin), str(source)]))


def compiler(release: str, fetch: bool = True) -> Compiler:
    """The compiler of this release, fetched if it must be. Raises BuildError where it cannot be had."""
    if release in PACKAGES:
        root = FETCHED / release
        if not root.is_dir():
            if not fetch:
                raise BuildError(f"CUDA {release} is not in {FETCHED}: run python kernels/build.py --fetch {release}")
            _fetch(release, root)
        return Compiler(release, root)
    if shutil.which("nvcc") is None:
        raise BuildError(f"nvcc is not on the PATH; install CUDA {release}. The fatbin stays as it is.")
    (found,) = _search(r"release (\d+\.\d+)", _run(["nvcc", "--version"]))
    if found != release:
        raise BuildError(
            f"nvcc on the PATH is of CUDA {found}; put that of CUDA {release} there, which the table names."
        )
    return Compiler(release, None)


def _fetch(release: str, root: Path) -> None:
    print(f"fetching CUDA {release}'s compiler into {root}", flush=True)
    root.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=root.parent) as folder:
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        try:
            _run([*pip, "--no-deps", "--only-binary", ":all:", "--target", f"{folder}/root", *PACKAGES[release]])
        except BuildError as error:
            raise BuildError(
                f"CUDA {release}'s compiler cannot be fetched: it needs pip, its index, and x86-64 Linux.\n{error}"
            ) from error
        Path(folder, "root").replace(root)


def _without_process_numbers(ptx: str) -> str:
    """PTX whose names from gram.cu's unnamed namespace lack the compiler's process number, so that two builds are one."""
    return re.sub(r"[0-9a-f]{8}_7_gram_cu_[0-9a-f]{8}_\d+", "gram_cu_", ptx)


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
        raise BuildError(f"a compiler said nothing like {pattern!r}; its words have changed:\n{text}")
    return match.groups()


def _run(command: list[str]) -> str:
    try:
        result = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace", check=False)
    except OSError as error:
        raise BuildError(f"{command[0]} does not start: {error}") from error
    if result.returncode:
        raise BuildError(f"{' '.join(command)} failed:\n{result.stdout}{result.stderr}")
    return result.stdout + result.stderr


def compile_architecture(
    architecture: str, folder: Path, flags: Sequence[str] = (), fetch: bool = True
) -> tuple[Path, dict[str, Resources]]:
    """One cubin in `folder`, and what its kernels take. flags: more for the source. Raises BuildError."""
    made_by = compiler(ARCHITECTURES[architecture], fetch)
    cubin = folder / f"gram.sm_{architecture}.cubin"
    return cubin, made_by.assembled(made_by.ptx(architecture, flags), architecture, cubin)


def compile_all(folder: Path) -> tuple[bytes, dict[str, dict[str, Resources]], dict[str, str]]:
    """The fatbin's bytes, the table {architecture: {kernel: what it takes}}, and {architecture: its compiler's version}."""
    newest, ptx_release = PTX
    # The newest first: it alone cannot be fetched, so where it is missing nothing is.
    releases = sorted({*ARCHITECTURES.values(), ptx_release}, key=lambda release: release in PACKAGES)
    versions = {release: compiler(release).version() for release in releases}
    # NVRTC compiles one source at a time in a process, hence processes and not threads.
    with concurrent.futures.ProcessPoolExecutor(os.cpu_count()) as pool:
        ptx = pool.submit(compiler(ptx_release).ptx, newest)
        built = dict(
            zip(
                ARCHITECTURES, pool.map(compile_architecture, ARCHITECTURES, [folder] * len(ARCHITECTURES)), strict=True
            )
        )
        (folder / "newest.ptx").write_text(ptx.result(), encoding="utf-8")
    images = [f"--image3=kind=elf,sm={a},file={cubin}" for a, (cubin, _) in built.items()]
    images.append(f"--image3=kind=ptx,sm={newest},file={folder / 'newest.ptx'}")
    fatbin = folder / "gram.fatbin"
    # `speed` is LZ4, as CUDA 11 wrote it. The other modes are Zstandard, which drivers know from CUDA 12.4 on.
    _run(["fatbinary", "--create", str(fatbin), "-64", "--compress-all", "--compress-mode=speed", *images])
    compilers = {architecture: versions[release] for architecture, release in ARCHITECTURES.items()}
    compilers["ptx"] = versions[ptx_release]
    return fatbin.read_bytes(), {architecture: table for architecture, (_, table) in built.items()}, compilers


def table_of(resources: dict[str, dict[str, Resources]], fatbin: bytes, compilers: dict[str, str]) -> dict[str, object]:
    """The committed table, ready for JSON."""
    return {
        "source_sha256": source_hash(),
        "fatbin_sha256": hashlib.sha256(fatbin).hexdigest(),
        "compilers": compilers,
        "architectures": {a: {name: asdict(kernel) for name, kernel in t.items()} for a, t in resources.items()},
    }


def write(path: Path, data: bytes) -> None:
    """All of the file or nothing: a build that is broken off leaves the old one."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_bytes(data)
    temporary.replace(path)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare with what is committed instead of writing")
    parser.add_argument("--fetch", choices=sorted(PACKAGES), help="fetch this CUDA's compiler, and do no more")
    options = parser.parse_args(arguments)
    try:
        if options.fetch:
            print(f"CUDA {compiler(options.fetch).version()} is in {FETCHED}")
            return 0
        with tempfile.TemporaryDirectory() as folder:
            fatbin, resources, compilers = compile_all(Path(folder))
    except BuildError as error:
        print(error, file=sys.stderr)
        return 1
    table = table_of(resources, fatbin, compilers)
    if options.check:
        stale = [key for key, value in json.loads(TABLE.read_text()).items() if value != table[key]]
        print(f"{', '.join(stale)} differ: run python kernels/build.py" if stale else "All is as committed.")
        return 1 if stale else 0
    write(FATBIN, fatbin)
    write(TABLE, (json.dumps(table, indent=1) + "\n").encode())
    worst = max(kernel.spill_bytes for kernels in resources.values() for kernel in kernels.values())
    print(
        f"{FATBIN.name}: {len(fatbin) / 1024:.0f} KiB for {len(resources)} architectures; spills at worst {worst} bytes"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
