"""Compile gram.cu and frames.cu for every architecture, each into a zip file, and write tables of registers, shared memory and spills.

    python kernels/build.py            # also `make kernels`; needs nvcc 13.0, and fetches older compilers from PyPI
    python kernels/build.py frames     # only frames.cu, which takes seconds; gram.cu takes minutes
    python kernels/build.py --check    # compile, compare with what is committed, write nothing
    python kernels/build.py --fetch 11.8    # only fetch that compiler, into build/cuda

A driver loads cubins of its own CUDA major version and of older ones (NVIDIA, "CUDA Compatibility"). Many devices cannot
have a new driver: JetPack 5 supports CUDA 11.4, JetPack 6 CUDA 12. So each architecture is compiled by a CUDA as old as
the drivers of its GPUs may be.

The zip files are committed and ship in the wheel, because users have no compiler. `gram.resources.json` records the SHA-256
of gram.cu and of each file in gram.zip, the compilers, and what each kernel needs on each architecture; `frames.resources.json`
does so for frames.cu. Tests fail where source, zip file and table do not belong together. The same source makes the same
cubins and the same PTX.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import ctypes
import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
FETCHED = HERE.parent / "build" / "cuda"
"""The folder of compilers from PyPI, one folder a release, on no environment's path. CUDA 11's and 12's packages have files of
the same names, and torch installs packages of its own with those names, so no environment can hold them all."""

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
"""Turing, Ampere, Ampere's desktop chips, Orin, Ada, Hopper, Blackwell, Thor, Blackwell's desktop chips, and the CUDA that compiles
each: the oldest major version that supports it. A cubin also runs on later minor versions of its major one. Hopper has no later one,
so its cubin is for 9.0a and may use instructions that only Hopper has. Of CUDA 12 the last release compiles, because 12.6 and 12.8
spill in Hopper's float16 loop; every driver of CUDA 12 loads the cubins of either."""
PTX = ("120", "13.0")
"""Architecture and compiler of the PTX. GPUs newer than all of these have drivers newer than CUDA 13.0: no older PTX is needed."""
PACKAGES = {
    "11.8": ("nvidia-cuda-nvrtc-cu11==11.8.89", "nvidia-cuda-nvcc-cu11==11.8.89", "nvidia-cuda-runtime-cu11==11.8.89"),
    "12.9": ("nvidia-cuda-nvrtc-cu12==12.9.86", "nvidia-cuda-nvcc-cu12==12.9.86", "nvidia-cuda-runtime-cu12==12.9.79"),
}
"""Compilers on PyPI: NVRTC (CUDA C++ to PTX), ptxas (PTX to machine code) and headers, without nvcc. The release that is missing
here is that of nvcc on the PATH. nvcc is preferred: it keeps addresses in shared memory in 32 bits, NVRTC in 64."""
FLAGS = ("-std=c++17",)
"""For nvcc and NVRTC."""
STDINT = b"""
typedef unsigned char uint8_t; typedef unsigned short uint16_t; typedef unsigned int uint32_t; typedef unsigned long uint64_t;
typedef signed char int8_t; typedef short int16_t; typedef int int32_t; typedef long int64_t;
"""
"""<stdint.h> for NVRTC, which has none: the types of Linux."""


class BuildError(Exception):
    """A compiler is missing or failed."""


@dataclass(frozen=True)
class KernelFile:
    """One source, and the files that are built from it."""

    name: str

    @property
    def source(self) -> Path:
        return HERE / f"{self.name}.cu"

    @property
    def archive(self) -> Path:
        return HERE / f"{self.name}.zip"

    @property
    def table(self) -> Path:
        return HERE / f"{self.name}.resources.json"

    def source_hash(self) -> str:
        """SHA-256 of the source."""
        return hashlib.sha256(self.source.read_bytes()).hexdigest()

    def committed(self) -> dict[str, bytes]:
        """The files in the zip file. Raises BuildError where it cannot be read."""
        try:
            with zipfile.ZipFile(self.archive) as archive:
                return {name: archive.read(name) for name in archive.namelist()}
        except Exception as error:  # zipfile raises errors of a dozen types for damaged files
            raise BuildError(f"{self.archive} cannot be read: {error}") from error


GRAM, FRAMES = KernelFile("gram"), KernelFile("frames")
KERNEL_FILES = {kernels.name: kernels for kernels in (GRAM, FRAMES)}


@dataclass(frozen=True)
class Resources:
    """What one kernel needs on one architecture."""

    registers: int
    """32-bit registers a thread."""
    shared_bytes: int
    """Static shared memory a block, in bytes; the launch adds what `gram_geometry` says."""
    stack_bytes: int
    """Local memory a thread, in bytes: arrays that the compiler did not keep in registers."""
    spill_bytes: int
    """Bytes of registers that are stored to and loaded from local memory. The aim is 0."""


@dataclass(frozen=True)
class Compiler:
    """The compiler of one CUDA release, from source to machine code."""

    release: str
    root: Path | None
    """The folder of its PyPI packages, or None for nvcc and ptxas on the PATH."""

    @property
    def ptxas(self) -> str:
        return "ptxas" if self.root is None else str(self.root / "nvidia" / "cuda_nvcc" / "bin" / "ptxas")

    def version(self) -> str:
        """The version of its ptxas, such as 11.8.89."""
        (version,) = _search(r"V(\d+\.\d+\.\d+)", _run([self.ptxas, "--version"]))
        return version

    def ptx(self, kernels: KernelFile, architecture: str, flags: Sequence[str] = ()) -> str:
        """A source as PTX. Raises BuildError with the compiler's output."""
        if self.root is not None:
            # NVRTC sets the C locale of its thread and leaves it so. The caller's thread would then read and write ASCII.
            with concurrent.futures.ThreadPoolExecutor(1) as thread:
                options = [*FLAGS, f"-arch=compute_{architecture}", *flags]
                text = thread.submit(self._nvrtc, kernels.source, options).result()
            return _without_process_numbers(text)
        with tempfile.TemporaryDirectory() as folder:
            ptx = Path(folder) / f"{kernels.name}.ptx"
            to_ptx = ["-arch", f"compute_{architecture}", "-ptx", "-o", str(ptx)]
            _run(["nvcc", *FLAGS, *flags, *to_ptx, str(kernels.source)])
            return _without_process_numbers(ptx.read_text(encoding="utf-8"))

    def _nvrtc(self, path: Path, options: Sequence[str]) -> str:
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

        source = path.read_bytes()
        failed = nvrtc.nvrtcCreateProgram(ctypes.byref(program), source, path.name.encode(), 1, headers, names)
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
        """Write machine code to `cubin`; return what each kernel needs. Raises BuildError with ptxas's output."""
        source = cubin.with_suffix(".ptx")
        source.write_text(ptx, encoding="utf-8")
        return parse_resources(_run([self.ptxas, "-v", "-arch", f"sm_{architecture}", "-o", str(cubin), str(source)]))


def compiler(release: str, fetch: bool = True) -> Compiler:
    """The compiler of this release, fetched from PyPI where needed. Raises BuildError where it is missing."""
    if release in PACKAGES:
        root = FETCHED / release
        if not root.is_dir():
            if not fetch:
                raise BuildError(f"CUDA {release} is not in {FETCHED}: run python kernels/build.py --fetch {release}")
            _fetch(release, root)
        return Compiler(release, root)
    if shutil.which("nvcc") is None:
        raise BuildError(f"nvcc is not on the PATH; install CUDA {release}. The zip files stay as they are.")
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
    """The PTX without the compiler's process number, which stands in names of a source's unnamed namespace: builds repeat."""
    return re.sub(r"[0-9a-f]{8}_\d+_(gram|frames)_cu_[0-9a-f]{8}_\d+", r"\1_cu_", ptx)


def parse_resources(report: str) -> dict[str, Resources]:
    """What each kernel needs, by its name. report: the output of `ptxas -v`."""
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
        raise BuildError(f"no {pattern!r} in a compiler's output, whose format has changed:\n{text}")
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
    kernels: KernelFile, architecture: str, folder: Path, flags: Sequence[str] = (), fetch: bool = True
) -> tuple[Path, dict[str, Resources]]:
    """One cubin in `folder`, and what each of its kernels needs. flags: more for the source. Raises BuildError."""
    made_by = compiler(ARCHITECTURES[architecture], fetch)
    cubin = folder / f"sm_{architecture}-cuda{made_by.release}.cubin"
    return cubin, made_by.assembled(made_by.ptx(kernels, architecture, flags), architecture, cubin)


def compile_all(
    kernels: KernelFile, folder: Path
) -> tuple[dict[str, bytes], dict[str, dict[str, Resources]], dict[str, str]]:
    """The zip file's files by name, the table {architecture: {kernel: what it needs}}, and {architecture: its compiler's version}."""
    newest, ptx_release = PTX
    # The newest first: it cannot be fetched, so where it is missing nothing is fetched.
    releases = sorted({*ARCHITECTURES.values(), ptx_release}, key=lambda release: release in PACKAGES)
    versions = {release: compiler(release).version() for release in releases}
    # NVRTC compiles one source at a time in a process, hence processes and not threads.
    with concurrent.futures.ProcessPoolExecutor(os.cpu_count()) as pool:
        ptx = pool.submit(compiler(ptx_release).ptx, kernels, newest)
        count = len(ARCHITECTURES)
        compiled = pool.map(compile_architecture, [kernels] * count, ARCHITECTURES, [folder] * count)
        built = dict(zip(ARCHITECTURES, compiled, strict=True))
        files = {cubin.name: cubin.read_bytes() for cubin, _ in built.values()}
        files[f"sm_{newest}-cuda{ptx_release}.ptx"] = ptx.result().encode()
    compilers = {architecture: versions[release] for architecture, release in ARCHITECTURES.items()}
    compilers["ptx"] = versions[ptx_release]
    return files, {architecture: table for architecture, (_, table) in built.items()}, compilers


def archived(files: dict[str, bytes]) -> bytes:
    """A zip file of these files. It has no time of its own, so that the same files and the same zlib make the same bytes."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name, data in files.items():
            archive.writestr(zipfile.ZipInfo(name), data, zipfile.ZIP_DEFLATED, 9)
    return made.getvalue()


def table_of(
    kernels: KernelFile,
    resources: dict[str, dict[str, Resources]],
    files: dict[str, bytes],
    compilers: dict[str, str],
) -> dict[str, object]:
    """The committed table, ready for JSON."""
    return {
        "source_sha256": kernels.source_hash(),
        "files_sha256": hashes(files),
        "compilers": compilers,
        "architectures": {a: {name: asdict(needs) for name, needs in t.items()} for a, t in resources.items()},
    }


def hashes(files: dict[str, bytes]) -> dict[str, str]:
    """SHA-256 of each file by name. Of the files and not of the zip file, whose bytes depend on zlib's version."""
    return {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}


def differences(kernels: KernelFile, table: dict[str, object]) -> list[str]:
    """What of the committed files differs from this table of a fresh build: names in the committed table, and the zip file."""
    stale = [name for name, value in json.loads(kernels.table.read_text()).items() if value != table.get(name)]
    return stale if hashes(kernels.committed()) == table["files_sha256"] else [*stale, kernels.archive.name]


def write(path: Path, data: bytes) -> None:
    """Write all of the file or nothing: an interrupted build leaves the old file."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_bytes(data)
    temporary.replace(path)


def build(kernels: KernelFile, check: bool) -> bool:
    """Compile one source; write its files, or compare with them. Returns False where they differ. Raises BuildError."""
    with tempfile.TemporaryDirectory() as folder:
        files, resources, compilers = compile_all(kernels, Path(folder))
    table = table_of(kernels, resources, files, compilers)
    if check:
        stale = differences(kernels, table)
        said = f"{', '.join(stale)} differ: run python kernels/build.py {kernels.name}" if stale else "as committed"
        print(f"{kernels.name}: {said}")
        return not stale
    archive = archived(files)
    write(kernels.archive, archive)
    write(kernels.table, (json.dumps(table, indent=1) + "\n").encode())
    worst = max(needs.spill_bytes for each in resources.values() for needs in each.values())
    size = f"{len(archive) / 1024:.0f} KiB for {len(resources)} architectures"
    print(f"{kernels.archive.name}: {size}; spills at worst {worst} bytes")
    return True


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(KERNEL_FILES)}; all unless given")
    parser.add_argument("--check", action="store_true", help="compare with what is committed instead of writing")
    parser.add_argument("--fetch", choices=sorted(PACKAGES), help="fetch this CUDA's compiler, and do no more")
    options = parser.parse_args(arguments)
    if unknown := sorted({*options.names} - {*KERNEL_FILES}):
        parser.error(f"{unknown[0]!r} is none of {', '.join(KERNEL_FILES)}")
    try:
        if options.fetch:
            print(f"CUDA {compiler(options.fetch).version()} is in {FETCHED}")
            return 0
        as_wanted = [build(KERNEL_FILES[name], options.check) for name in options.names or KERNEL_FILES]
    except BuildError as error:
        print(error, file=sys.stderr)
        return 1
    return 0 if all(as_wanted) else 1


if __name__ == "__main__":
    sys.exit(main())
