"""gram.zip and frames.zip: the compiled kernels, one file for each GPU architecture in a plain zip file.

`sm_86-cuda11.8.cubin` is machine code for compute capability 8.6, compiled by CUDA 11.8. `sm_120-cuda13.0.ptx` is PTX, which
a driver compiles for GPUs that are newer than every cubin. `kernels/build.py` writes the zip files.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from impasto.errors import KernelError

FILE = Path(__file__).with_name("gram.zip")
FRAMES_FILE = Path(__file__).with_name("frames.zip")
_NAME = re.compile(r"sm_(?P<major>\d+)(?P<minor>\d)(?P<specific>a?)-cuda(?P<cuda>\d+\.\d+)\.(?P<kind>cubin|ptx)")


@dataclass(frozen=True)
class Binary:
    """One file of a zip file."""

    kind: str
    """`cubin` or `ptx`."""
    architecture: str
    """The compute capability that it was compiled for, as compilers write it: `86`, or `90a` for exactly this one."""
    cuda: str
    """The CUDA release of its compiler, such as `11.8`."""

    @classmethod
    def named(cls, name: str) -> Binary:
        """The file of this name. Raises ValueError where the name is of another form."""
        match = _NAME.fullmatch(name)
        if match is None:
            raise ValueError(f"it holds a file named {name!r}")
        return cls(match["kind"], f"{match['major']}{match['minor']}{match['specific']}", match["cuda"])

    @property
    def name(self) -> str:
        return f"sm_{self.architecture}-cuda{self.cuda}.{self.kind}"

    @property
    def capability(self) -> tuple[int, int]:
        """Compute capability, such as (8, 6)."""
        digits = self.architecture.rstrip("a")
        return int(digits[:-1]), int(digits[-1])

    @property
    def cuda_major(self) -> int:
        """The CUDA major version that a driver must support.

        A driver loads cubins and PTX of its own CUDA major version and of older ones (NVIDIA, "CUDA Compatibility").
        """
        return int(self.cuda.split(".")[0])

    def __str__(self) -> str:
        return f"{'PTX' if self.kind == 'ptx' else 'cubin'} for sm_{self.architecture}"

    def runs_on(self, capability: tuple[int, int]) -> bool:
        """Whether a GPU of this compute capability can run it.

        PTX runs on the same and on newer GPUs, a cubin on the same and on later minor versions of the same major version
        (CUDA Programming Guide, "Binary Compatibility" and "PTX Compatibility"). A cubin for 9.0a runs on 9.0 alone.
        """
        if self.kind == "ptx":
            return self.capability <= capability
        if self.architecture.endswith("a"):
            return self.capability == capability
        return self.capability[0] == capability[0] and self.capability <= capability


def for_gpu(capability: tuple[int, int], file: Path | None = None) -> tuple[Binary, bytes]:
    """What a GPU of this compute capability is given: the nearest cubin, or else the nearest PTX, and its bytes.

    file: gram.zip unless given. Raises KernelError where it is missing or damaged, or has nothing for this GPU.
    """
    file = file or FILE
    if not file.is_file():
        raise KernelError(f"{file} is missing: reinstall Impasto, or run `make kernels` in its repository.")
    try:
        with zipfile.ZipFile(file) as archive:
            found = [Binary.named(name) for name in archive.namelist()]
            if not any(binary.kind == "ptx" for binary in found):
                raise ValueError("its last file, the PTX, is missing")  # zipfile does not count files
            binary = chosen(found, capability)
            image = b"" if binary is None else archive.read(binary.name)  # compares the CRC-32
    except Exception as error:  # zipfile raises errors of a dozen types for damaged files
        raise KernelError(f"{file} is damaged ({error}): reinstall Impasto.") from error
    if binary is None:
        has = ", ".join(f"sm_{each.architecture}" for each in found if each.kind == "cubin")
        raise KernelError(
            f"{file.name} has nothing for this GPU, of compute capability {capability[0]}.{capability[1]}: "
            f"it is compiled for {has} and newer GPUs. Compute on the CPU here."
        )
    return binary, image


def chosen(found: Iterable[Binary], capability: tuple[int, int]) -> Binary | None:
    """The nearest cubin that the GPU can run, or else the nearest PTX, or else None."""
    able = [binary for binary in found if binary.runs_on(capability)]
    return max(able, key=lambda binary: (binary.kind == "cubin", binary.capability), default=None)
