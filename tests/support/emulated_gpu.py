"""gram.cu and frames.cu as C++ for this machine's own processor: index arithmetic and barriers, checked where there is no GPU.

The source is taken as it is but for three things: each inline assembly statement becomes a call of what emulated_gpu.h says of that
instruction, dynamic shared memory becomes an array, and CUDA's headers are left out.
"""

from __future__ import annotations

import ctypes
import functools
import re
import shutil
import struct
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from impasto.errors import KernelError
from impasto.kernels import build
from impasto.kernels.feature_map import BulkTensor
from impasto.kernels.module import BULK_COPY_SIDE, dynamic_shared_bytes

COMPILER = "g++"
MACHINE = Path(__file__).with_name("emulated_gpu.h")
FLAGS = ("-std=c++17", "-O2", "-march=native", "-fno-strict-aliasing", "-U_FORTIFY_SOURCE", "-w", "-fPIC", "-shared")

_ASSEMBLY = re.compile(r"\basm(?: volatile)?\(((?:[^\"()]|\"[^\"]*\"|\((?:[^()]|\((?:[^()]|\([^()]*\))*\))*\))*)\);")
_TEXT = re.compile(r'(?:\s*"[^"]*")+')
_OPERAND = re.compile(r'"[+=]?[a-z]"\(((?:[^()]|\((?:[^()]|\([^()]*\))*\))*)\)')


@functools.cache
def missing() -> str | None:
    """Why nothing can be emulated here."""
    if shutil.which(COMPILER) is None:
        return f"needs {COMPILER}"
    command = [COMPILER, "-x", "c++", "-std=c++17", "-fsyntax-only", "-"]
    program = "int main() { _Float16 x = 1; return x > 2; }"
    able = subprocess.run(command, input=program, text=True, capture_output=True, check=False).returncode == 0
    return None if able else f"needs a {COMPILER} that knows _Float16 (12 or later)"


@pytest.fixture(scope="session")
def emulated(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], EmulatedModule]:
    """A function that gives the kernels as they are for one architecture, compiled once."""
    if missing():
        pytest.skip(str(missing()))
    folder = tmp_path_factory.mktemp("emulated")
    library = functools.cache(lambda architecture: compiled(folder, architecture))
    return lambda architecture: module(library(architecture), architecture)


_EMULATE = {
    "gram": """
extern "C" const char* emulate(void* kernel, unsigned blocks, unsigned threads, unsigned shared_bytes,
                               const Group* group, const TensorMaps* maps, unsigned seed) {
  const auto body = [=] {
    if (maps) return reinterpret_cast<void (*)(Group, TensorMaps)>(kernel)(*group, *maps);
    reinterpret_cast<void (*)(Group)>(kernel)(*group);
  };
  return gpu::run(body, blocks, threads, shared_bytes, seed);
}
""",
    "frames": """
extern "C" const char* emulate(void* kernel, unsigned blocks, unsigned threads, unsigned shared_bytes,
                               const Frame* frame, const void*, unsigned seed) {
  return gpu::run([=] { reinterpret_cast<void (*)(Frame)>(kernel)(*frame); }, blocks, threads, shared_bytes, seed);
}
""",
}
"""How the kernels of each source are called."""


def translated(source: str, name: str = "gram") -> str:
    """CUDA C++ as the C++ that emulated_gpu.h explains. Raises ValueError where inline assembly does not read as it ought to."""
    text = re.sub(r"#include <cuda_\w+\.h>\n", "", source)
    text = text.replace("namespace {", "inline namespace kernel {")
    text = re.sub(
        r"extern __shared__ __align__\(1024\) uint8_t (\w+)\[\];", r"uint8_t* \1 = gpu::shared_memory.data();", text
    )
    text, calls = _ASSEMBLY.subn(_call, text)
    if calls != len(re.findall(r"\basm\b", source)):
        raise ValueError(f"{calls} inline assembly statements were understood of {source.count('asm')}")
    return f'#include "{MACHINE}"\n{text}\n{_EMULATE[name]}'


def _call(match: re.Match[str]) -> str:
    statement = match[1]
    text = "".join(re.findall(r'"([^"]*)"', _TEXT.match(statement)[0]))
    instructions = re.findall(r"(?:^|[;{])\s*([a-z][\w.:]+)", text)
    if not instructions:
        if text:
            raise ValueError(f"no instruction in {statement!r}")
        return ";"  # only there for the compiler
    # What a statement is about has the longest name; the others hand predicates to it and take them from it.
    name = re.sub(r"\W+", "_", max(instructions, key=len))
    return f"{name}({', '.join(_OPERAND.findall(statement))});"


def compiled(
    folder: Path, architecture: int, source: str | None = None, *flags: str, kernels: build.KernelFile = build.GRAM
) -> Path:
    """A library of the source's kernels, as they are for one architecture (750, 800, 900). Raises CalledProcessError.

    source: in place of the kernels' own. flags: the compiler's, behind FLAGS.
    """
    name = folder / f"{kernels.name}_{architecture}"
    text = translated(source or kernels.source.read_text(encoding="utf-8"), kernels.name)
    name.with_suffix(".cpp").write_text(text, encoding="utf-8")
    command = [COMPILER, *FLAGS, *flags, f"-D__CUDA_ARCH__={architecture}", "-o", f"{name}.so", f"{name}.cpp"]
    if architecture == 900:
        command.append("-D__CUDA_ARCH_FEAT_SM90_ALL")
    subprocess.run(command, check=True, capture_output=True, encoding="utf-8")
    return name.with_suffix(".so")


@dataclass
class EmulatedModule:
    """Stands in for `Module` of kernels/module.py."""

    library: ctypes.CDLL
    shared_bytes: int
    residents: int = 6
    """Blocks that run at once on the device that it pretends to be; small, so that blocks have much to do each."""
    use_wgmma: bool = False
    seed: int = 0
    """Of the order in which blocks and warps run."""
    launched: list[str] = field(default_factory=list)

    def resident_blocks(self, name: str) -> int:
        return self.residents

    def launch(
        self,
        name: str,
        blocks: int,
        threads: int,
        shared_bytes: int,
        parameters: Sequence[ctypes.Structure],
        stream: int,
    ) -> None:
        """Runs one kernel to its end. Raises KernelError with what the machine has to say."""
        self.launched.append(name)
        kernel = ctypes.cast(getattr(self.library, name), ctypes.c_void_p)
        group, maps = (*map(ctypes.byref, parameters), None)[:2]
        said = self.library.emulate(kernel, blocks, threads, shared_bytes, group, maps, self.seed)
        if said is not None:
            raise KernelError(f"{name}: {said.decode()}")

    def tensor_map(self, tensor: BulkTensor) -> bytes:
        """`Tiles` of emulated_gpu.h, of what cuTensorMapEncodeTiled would accept."""
        assert tensor.pointer % 16 == 0 and all(0 < extent <= 2**32 for extent in tensor.extents)
        assert all(stride % 16 == 0 and 0 < stride < 2**40 for stride in tensor.strides)
        packed = struct.pack(
            "<6Q4I", tensor.pointer, *tensor.extents, *tensor.strides, BULK_COPY_SIDE, BULK_COPY_SIDE, 1, 2
        )
        return packed.ljust(128, b"\xff")


def module(library: Path, architecture: int) -> EmulatedModule:
    """What `compiled` made, ready to run."""
    loaded = ctypes.CDLL(str(library))
    loaded.emulate.restype = ctypes.c_char_p
    return EmulatedModule(loaded, dynamic_shared_bytes(architecture // 100))
