"""The options of an engine build, and how the command line writes them."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

from impasto.errors import OptionError
from impasto.images.sizes import parse_size
from impasto.package.spec import ModelSpec

_TACTIC_SOURCES = ("cublas", "cublas_lt", "cudnn", "edge_mask_convolutions", "jit_convolutions")


@dataclass(frozen=True)
class Sizes:
    """Smallest, best and largest picture that an engine takes, as (height, width); three times the same where fixed."""

    low: tuple[int, int]
    best: tuple[int, int]
    high: tuple[int, int]

    @classmethod
    def parse(cls, text: str) -> Sizes:
        """Read "1080p", "512x512" (height x width) or "256x256:1080p:2160p". Raises OptionError."""
        sides = [parse_size(part) for part in text.split(":")]
        if len(sides) == 1:
            sides *= 3
        if len(sides) != 3 or any(a > b for one, other in pairwise(sides) for a, b in zip(one, other, strict=True)):
            raise OptionError(
                f"cannot read the size {text!r}; write one size, or smallest:best:largest, none above the next"
            )
        return cls(*sides)

    def padded(self, spec: ModelSpec) -> Sizes:
        """The sizes with the network's border, rounded up to what the network accepts."""
        low, best, high = (
            spec.size.padded(height + 2 * spec.border, width + 2 * spec.border)
            for height, width in (self.low, self.best, self.high)
        )
        return Sizes(low, best, high)


def only_size(spec: ModelSpec) -> Sizes | None:
    """The one size of picture, less the border, that a graph of fixed sizes takes; None where sizes are free."""
    if spec.size.fixed is None:
        return None
    height, width = (side - 2 * spec.border for side in spec.size.fixed)
    return Sizes((height, width), (height, width), (height, width))


_BOARDS = {
    "sm53": "Jetson Nano",
    "sm62": "Jetson TX2",
    "sm72": "Jetson Xavier",
    "sm87": "Jetson Orin",
    "sm101": "Jetson Thor",
    "sm110": "Jetson Thor",
}
"""Compute capabilities of integrated GPUs, which TensorRT-RTX builds nothing for."""


@dataclass(frozen=True)
class BuildOptions:
    """Options of `build_engine`."""

    precision: str = "fp16"
    """"fp32", "fp16", "int8", or "auto": FP16 where it is possible, otherwise FP32. `build_engine` replaces it."""
    sizes: tuple[Sizes, ...] = ()
    """One optimization profile each. Empty: the only size of a graph that has one, otherwise 1080p."""
    batch: tuple[int, int, int] = (1, 1, 1)
    """Smallest, best and largest number of pictures at once. The smallest is always 1: the runtime draws one at a time."""
    workspace_bytes: int | None = None
    """Most scratch memory that a layer may use; None leaves it to TensorRT."""
    optimization_level: int | None = None
    """0 (fast build) to 5 (fast engine); None leaves it to TensorRT."""
    tactic_sources: tuple[str, ...] | None = None
    """Libraries to choose kernels from, such as "jit_convolutions"; None leaves it to TensorRT."""
    hardware_compatible: bool = False
    """Whether the engine must run on every GPU from Ampere on, at some cost in speed."""
    targets: tuple[str, ...] = ()
    """TensorRT-RTX only: compute capabilities to build for, such as "sm86"; empty means the GPU in this machine."""
    dla_core: int | None = None
    """Jetson: the deep learning accelerator that computes what it can, by number; None leaves everything to the GPU."""
    with_float: bool = False
    """Whether the package's graph with float ends gets an engine of these sizes too, in FP32, for pictures of 16 bits and float32."""

    def __post_init__(self) -> None:
        for target in self.targets:
            if board := _BOARDS.get(target):
                raise OptionError(
                    f"{target} is {board}, whose engines are built on the board itself, by the TensorRT of its JetPack: run "
                    "impasto build there, without --target"
                )
        if self.precision not in ("auto", "fp32", "fp16", "int8"):
            raise OptionError(f"unknown precision {self.precision!r}; choose fp32, fp16 or int8")
        if not 1 <= self.batch[0] <= self.batch[1] <= self.batch[2]:
            raise OptionError(f"batch {self.batch}; wanted smallest <= best <= largest, from 1")
        if self.batch[0] > 1:
            raise OptionError(
                f"the smallest batch is {self.batch[0]}, and Impasto draws one picture at a time, which such an engine could not; "
                f"begin with 1: --batch 1:{self.batch[1]}:{self.batch[2]}"
            )
        if self.optimization_level is not None and not 0 <= self.optimization_level <= 5:
            raise OptionError(f"optimization level {self.optimization_level}; wanted 0 to 5")
        if self.dla_core is not None:
            self._check_dla(self.dla_core)
        unknown = set(self.tactic_sources or ()) - set(_TACTIC_SOURCES)
        if unknown:
            raise OptionError(f"unknown tactic source {', '.join(unknown)}; choose among {', '.join(_TACTIC_SOURCES)}")
        # One that is named twice is one: the key must not tell such engines apart, nor the builder be told twice.
        object.__setattr__(self, "targets", tuple(dict.fromkeys(self.targets)))
        if self.tactic_sources is not None:
            object.__setattr__(self, "tactic_sources", tuple(dict.fromkeys(self.tactic_sources)))

    def _check_dla(self, core: int) -> None:
        if core < 0:
            raise OptionError(f"DLA core {core}; wanted 0 or more")
        if self.precision == "fp32":
            raise OptionError("a DLA computes in FP16 and INT8; say --precision fp16, or leave --dla out")
        if self.has_free_sizes:
            raise OptionError("a DLA takes one size; say one --size and one --batch, or leave --dla out")

    def with_default_sizes(self, spec: ModelSpec) -> BuildOptions:
        """The options, with default sizes if they name none."""
        return self if self.sizes else replace(self, sizes=(only_size(spec) or Sizes.parse("1080p"),))

    @property
    def has_free_sizes(self) -> bool:
        """Whether the engine must take inputs of more than one shape."""
        several = len(self.sizes) > 1 or self.batch[0] != self.batch[2]
        return several or any(sizes.low != sizes.high for sizes in self.sizes)

    def to_json(self) -> dict[str, Any]:
        """Everything that one engine is built by, for the key and the record."""
        return {
            "precision": self.precision,
            "sizes": [[list(sizes.low), list(sizes.best), list(sizes.high)] for sizes in self.sizes],
            "batch": list(self.batch),
            "workspace_bytes": self.workspace_bytes,
            "optimization_level": self.optimization_level,
            "tactic_sources": sorted(self.tactic_sources) if self.tactic_sources is not None else None,
            "hardware_compatible": self.hardware_compatible,
            "targets": sorted(self.targets),
            # Only where it is asked for: engines without it keep their keys.
            **({"dla_core": self.dla_core} if self.dla_core is not None else {}),
        }


def parse_batch(text: str) -> tuple[int, int, int]:
    """Read "1" or "1:4:8". Raises OptionError."""
    parts = text.split(":")
    if len(parts) not in (1, 3) or not all(part.isdecimal() for part in parts):
        raise OptionError(f"cannot read the batch {text!r}; write 1, or smallest:best:largest such as 1:4:8")
    numbers = [int(part) for part in parts]
    low, best, high = numbers if len(numbers) == 3 else numbers * 3
    return low, best, high


def parse_bytes(text: str) -> int:
    """Read "512M", "2G", "4GiB" or plain bytes. Raises OptionError."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?", text.strip(), re.IGNORECASE)
    if not match or len(match[1]) > 15:
        raise OptionError(f"cannot read the amount of memory {text!r:.100}; write 512M, 2G or a number of bytes")
    return int(float(match[1]) * 1024 ** " KMGT".index(match[2].upper() or " "))
