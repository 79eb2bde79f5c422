"""What gram.fatbin holds, and which of it a GPU takes.

NVIDIA documents no format for the container. This is what fatbinary of CUDA 13.0 writes, and what libraries of CUDA 11.8
hold (nvJPEG's was compared): a header, and entries of a header and an image each, which say their own lengths. Each image
is one architecture's machine code (a cubin, an ELF file) or PTX, which a driver compiles.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from functools import cached_property

MAGIC = 0xBA55ED50
_CONTAINER = struct.Struct("<IHHQ")
"""Magic, version, this header's bytes, bytes of all entries."""
_ENTRY = struct.Struct("<HHIQIIHHIIIQQQ")
"""Kind, version, this header's bytes, image's bytes with padding, and without it where it is compressed, where options are,
two words of a version, architecture, two words of a name, flags, zero, bytes decompressed. Options may follow."""
_KINDS = {1: "ptx", 2: "cubin"}
_LZ4, _ZSTD, _SPECIFIC = 0x2000, 0x8000, 0x100000
_OS_ABI, _FIRST_ABI, _SECOND_ABI = 7, 0x33, 0x41
"""The byte of an ELF file that tells how to read the rest; CUDA 11 and 12 write the first, and for Blackwell the second."""


@dataclass(frozen=True)
class Entry:
    """One binary of a container."""

    kind: str
    """`cubin` or `ptx`."""
    capability: tuple[int, int]
    """Compute capability that it was compiled for."""
    is_specific: bool
    """Runs on exactly this compute capability (sm_90a). Always False for PTX."""
    compression: str
    """`none`, `lz4`, which drivers of CUDA 11 read, or `zstd`, which they and those of CUDA 12.0 to 12.3 do not."""
    size: int
    """Bytes of the image."""
    stored: bytes
    """The entry as it lies in the container, header and all."""

    @property
    def architecture(self) -> str:
        """The compilers' name for it: `86`, `90a`."""
        major, minor = self.capability
        return f"{major}{minor}{'a' if self.is_specific else ''}"

    def __str__(self) -> str:
        return f"{'PTX' if self.kind == 'ptx' else 'binary'} for sm_{self.architecture}"

    @cached_property
    def image(self) -> bytes:
        """The ELF file, or PTX. Raises ValueError where it cannot be decompressed."""
        (at,) = struct.unpack_from("<I", self.stored, 4)
        (compressed,) = struct.unpack_from("<I", self.stored, 16)
        if self.compression == "none":
            return self.stored[at : at + self.size]
        if self.compression == "lz4":
            return decompressed(self.stored[at : at + compressed], self.size)
        raise ValueError(f"the {self} is compressed by {self.compression}, which is not read here")

    def release(self) -> tuple[int, int]:
        """The CUDA release that compiled this cubin. Raises ValueError where it does not say so."""
        image = self.image
        if image[_OS_ABI] == _FIRST_ABI:
            (version,) = struct.unpack_from("<I", image, 20)  # e_version: 118 is CUDA 11.8
            return divmod(version, 10)
        found = re.search(rb"\0Cuda compilation tools, release (\d+)\.(\d+)", image)  # its section .note.nv.tkinfo
        if found is None:
            raise ValueError(f"the {self} does not say who compiled it")
        return int(found[1]), int(found[2])

    def cuda_major(self) -> int:
        """The CUDA major version that a driver must know to take it. Raises ValueError where it does not say so.

        A binary loads on every driver of its compiler's major version and later ("CUDA Compatibility"). PTX ISA 7 is
        CUDA 11's, 8 CUDA 12's, 9 CUDA 13's (PTX ISA, "Release Notes"); a driver reads its own release's and older.
        """
        if self.kind == "cubin":
            return self.release()[0]
        found = re.search(rb"\.version (\d+)\.", self.image)
        if found is None:
            raise ValueError(f"the {self} has no version")
        return int(found[1]) + 4

    def alone(self) -> bytes:
        """A container of this entry only."""
        return _CONTAINER.pack(MAGIC, 1, _CONTAINER.size, len(self.stored)) + self.stored

    def suits(self, capability: tuple[int, int]) -> bool:
        """Whether a GPU takes it: PTX of no newer one, a binary of its major version and no later minor one.

        CUDA Programming Guide, "Binary Compatibility" and "PTX Compatibility".
        """
        if self.kind == "ptx":
            return self.capability <= capability
        if self.is_specific:
            return self.capability == capability
        return self.capability[0] == capability[0] and self.capability <= capability


def is_container(data: bytes) -> bool:
    """Whether these bytes are a fatbin, and not a single cubin or PTX."""
    return data[:4] == MAGIC.to_bytes(4, "little")


def entries(container: bytes) -> tuple[Entry, ...]:
    """All binaries, in their order. Raises ValueError unless this is one container and nothing else."""
    magic, version, at, length = _CONTAINER.unpack_from(container)
    if magic != MAGIC or version != 1 or at + length != len(container):
        raise ValueError(f"not a whole fatbin of version 1: {container[:16].hex()}, {len(container)} bytes")
    found = []
    while at < len(container):
        entry = _entry(container, at)
        found.append(entry)
        at += len(entry.stored)
    return tuple(found)


def _entry(container: bytes, at: int) -> Entry:
    kind, _, header, padded, _, _, _, _, architecture, _, _, flags, _, size = _ENTRY.unpack_from(container, at)
    stored = container[at : at + header + padded]
    if kind not in _KINDS or len(stored) != header + padded:
        raise ValueError(f"no whole entry at byte {at}: kind {kind}, {header} + {padded} bytes")
    compression = "zstd" if flags & _ZSTD else "lz4" if flags & _LZ4 else "none"
    is_specific = kind == 2 and bool(flags & _SPECIFIC)
    size = padded if compression == "none" else size
    return Entry(_KINDS[kind], divmod(architecture, 10), is_specific, compression, size, stored)


def chosen(found: tuple[Entry, ...], capability: tuple[int, int]) -> Entry | None:
    """What a GPU of this compute capability is given: the nearest binary, else the nearest PTX, else nothing."""
    suited = [entry for entry in found if entry.suits(capability)]
    return max(suited, key=lambda entry: (entry.kind == "cubin", entry.capability), default=None)


def decompressed(block: bytes, size: int) -> bytes:
    """What an LZ4 block (lz4_Block_format.md) of `size` bytes holds. Raises ValueError unless it is as long as that."""
    out, at = bytearray(), 0

    def length(nibble: int) -> int:
        nonlocal at
        total, more = nibble, nibble == 15
        while more:
            total += block[at]
            more = block[at] == 255
            at += 1
        return total

    try:
        while len(out) < size:
            token = block[at]
            at += 1
            literals = length(token >> 4)
            out += block[at : at + literals]
            at += literals
            if at == len(block):  # the last sequence has no match
                break
            back = block[at] | block[at + 1] << 8
            at += 2
            matched = length(token & 15) + 4
            start = len(out) - back
            if not 0 < back <= len(out):
                raise ValueError(f"an LZ4 match begins {back} bytes back of {len(out)}")
            while matched > 0:  # a match may run into what it writes
                piece = out[start : start + matched]
                out += piece
                matched -= len(piece)
    except IndexError as error:
        raise ValueError("an LZ4 block ends too soon") from error
    if len(out) != size:
        raise ValueError(f"an LZ4 block holds {len(out)} bytes; {size} were expected")
    return bytes(out)
