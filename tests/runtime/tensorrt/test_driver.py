"""The runtime's CUDA layer with the real PyCUDA, over a driver of our own that needs no GPU.

Opt-in but for the first test: they run where PyCUDA is installed; CONTRIBUTING.md says how. The driver takes the place of
libcuda.so.1 in a process of its own, and checks what a GPU would not: see driver/stand_in_driver.cpp.
"""

from __future__ import annotations

import ctypes.util
import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.small_models import REPOSITORY

DRIVER = REPOSITORY / "tests" / "support" / "driver"


def pycuda_extension() -> Path | None:
    """PyCUDA's compiled part, not imported: that would need the driver."""
    found = importlib.util.find_spec("pycuda")
    folders = found.submodule_search_locations if found else None
    return next((file for folder in folders or () for file in Path(folder).glob("_driver*.so")), None)


def cuda_headers() -> Path | None:
    """Where cuda.h lies."""
    compiler = shutil.which("nvcc")
    homes = [os.environ.get("CUDA_HOME"), compiler and Path(compiler).resolve().parents[1], "/usr/local/cuda"]
    homes += sorted(Path("/usr/local").glob("cuda-*"), reverse=True)
    folders = (Path(home) / "include" for home in homes if home)
    return next((folder for folder in folders if (folder / "cuda.h").is_file()), None)


MISSING = [
    reason
    for reason, missing in {
        "g++ or nm is missing": not (shutil.which("g++") and shutil.which("nm")),
        "cuda.h is not found": cuda_headers() is None,
        "a real driver is here, and tests with it": ctypes.util.find_library("cuda") is not None,
    }.items()
    if missing
]
pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"opt-in: {'; '.join(MISSING)}")


def names(library: Path, which: str) -> set[str]:
    listed = subprocess.run(["nm", "-D", which, str(library)], capture_output=True, text=True, check=True).stdout
    return {name for name in (line.split()[-1] for line in listed.splitlines()) if name.startswith("cu")}


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The stand-in libcuda.so.1, with a stub for each call that PyCUDA wants and the stand-in lacks."""
    folder = tmp_path_factory.mktemp("driver")
    made, stubs = folder / "libcuda.so.1", folder / "stubs.cpp"
    compiler = ["g++", "-std=c++17", "-O1", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-pthread"]
    command = [*compiler, f"-I{cuda_headers()}", f"-Wl,-soname,{made.name}", "-o", str(made)]
    command += [str(DRIVER / "stand_in_driver.cpp"), str(stubs), "-ldl"]
    stubs.touch()
    subprocess.run(command, check=True)
    extension = pycuda_extension()
    if extension is None:
        return made
    lacking = sorted(names(extension, "--undefined-only") - names(made, "--defined-only"))
    lines = [f'extern "C" int {name}() {{ return stand_in_lacks("{name}"); }}\n' for name in lacking]
    stubs.write_text('extern "C" int stand_in_lacks(const char*);\n' + "".join(lines))
    subprocess.run(command, check=True)
    return made


def test_memory_streams_and_contexts_without_pycuda(library: Path, tmp_path: Path) -> None:
    """What pictures that are on a GPU already need, by ctypes alone."""
    paths = os.pathsep.join([str(DRIVER), str(REPOSITORY / "tests"), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "LD_PRELOAD": str(library), "PYTHONPATH": paths}
    command = [sys.executable, str(DRIVER / "memory_and_streams.py")]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout == "report: []\n"


@pytest.mark.skipif(pycuda_extension() is None, reason="opt-in: PyCUDA is not installed (CONTRIBUTING.md)")
@pytest.mark.parametrize("memory", ["discrete", "integrated"])
def test_the_runtime_over_a_strict_driver(library: Path, tmp_path: Path, memory: str) -> None:
    paths = os.pathsep.join([str(DRIVER), str(REPOSITORY / "tests"), *filter(None, [os.environ.get("PYTHONPATH")])])
    # Loaded first, it is what everybody finds under its name; a PyCUDA made without a driver asks for its calls by no name at all.
    environment = {**os.environ, "LD_PRELOAD": str(library), "PYTHONPATH": paths, "STAND_IN": memory}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--noconftest", "-c"]
    command += [str(REPOSITORY / "pyproject.toml"), str(DRIVER / "driver_checks.py")]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-4000:]
    assert "PyCUDA" not in done.stderr, done.stderr  # it complains when the process ends
