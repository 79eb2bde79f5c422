"""The committed fatbin: built from the committed source, for every architecture and its drivers, and as frugal as its table says."""

from __future__ import annotations

import ctypes
import hashlib
import json
import locale
import struct
from dataclasses import asdict

import pytest

from impasto.kernels import build, fat_binary, launch

TABLE = json.loads(build.TABLE.read_text())
KERNELS = (
    {
        f"gram_{step}_{flavour}_{layout}"
        for step in ("forward", "backward")
        for flavour in launch.ELEMENT_BYTES
        for layout in ("nchw", "nhwc")
    }
    | {f"gram_pack_{flavour}" for flavour in launch.ELEMENT_BYTES}
    | {"gram_finish"}
)
HOPPER = {f"gram_forward_{flavour}_{layout}_wgmma" for flavour in ("f16", "bf16") for layout in ("nchw", "nhwc")}
TWO_BLOCKS = {"90a", "100", "110"}
"""Architectures whose shared memory has room for two blocks on one multiprocessor."""
OLDEST = {"75": 11, "80": 11, "86": 11, "87": 11, "89": 11, "90a": 12, "100": 12, "110": 13, "120": 12}
"""The oldest CUDA major version of which some driver knows the architecture, as 9.0a and 11.0 are called now."""
REGISTERS = 65536
"""Of one multiprocessor, on every architecture."""
ENTRIES = fat_binary.entries(launch.fatbin())
CUBINS = {entry.architecture: entry for entry in ENTRIES if entry.kind == "cubin"}


def test_the_fatbin_was_built_from_the_source():
    stale = "gram.cu or gram.fatbin changed alone: run `make kernels` and commit both, and gram.resources.json"
    assert TABLE["source_sha256"] == build.source_hash(), stale
    assert TABLE["fatbin_sha256"] == hashlib.sha256(launch.fatbin()).hexdigest(), stale


def test_the_fatbin_is_small_enough_to_ship():
    """5 MiB. Zstandard took 1.8 MiB of it, but drivers before CUDA 12.4 do not know that."""
    assert len(launch.fatbin()) < 5 * 2**20


def test_every_architecture_has_every_kernel():
    assert set(TABLE["architectures"]) == set(build.ARCHITECTURES)
    for architecture, kernels in TABLE["architectures"].items():
        assert set(kernels) == (KERNELS | HOPPER if architecture == "90a" else KERNELS)


def test_every_architecture_is_there_once_and_ptx_for_what_comes_after():
    assert [entry.architecture for entry in ENTRIES] == [*build.ARCHITECTURES, build.PTX[0]]
    assert [entry.kind for entry in ENTRIES] == ["cubin"] * len(build.ARCHITECTURES) + ["ptx"]
    text = ENTRIES[-1].image
    assert b".target sm_120\n" in text
    assert all(f".entry {kernel}(".encode() in text for kernel in KERNELS)


@pytest.mark.parametrize("architecture", build.ARCHITECTURES)
def test_a_binary_was_made_by_the_cuda_that_its_drivers_know(architecture):
    release = build.ARCHITECTURES[architecture]
    assert "{}.{}".format(*CUBINS[architecture].release()) == release
    assert TABLE["compilers"][architecture].startswith(f"{release}.")
    assert CUBINS[architecture].cuda_major() == OLDEST[architecture]


def test_the_ptx_is_of_the_newest_compiler_only():
    assert ENTRIES[-1].cuda_major() == 13
    assert TABLE["compilers"]["ptx"].startswith(f"{build.PTX[1]}.")


@pytest.mark.parametrize("architecture", ["75", "80", "86", "87", "89"])
def test_what_cuda_11_loads_lies_as_cuda_11_packed_it(architecture):
    """Field by field as in libraries that CUDA 11.8 built, such as libnvjpeg.so.11: an entry of 64 bytes, 64-bit, Linux, LZ4."""
    fields = fat_binary._ENTRY.unpack_from(CUBINS[architecture].stored)
    _, _, _, padded, compressed, _, _, _, _, _, _, _, _, size = fields
    assert fields == (2, 0x101, 64, padded, compressed, 0, 7, 1, int(architecture), 0, 0, 0x2011, 0, size)
    assert padded == -(-compressed // 8) * 8
    assert CUBINS[architecture].image[:9] == b"\x7fELF\2\1\1\x33\7"  # CUDA 13's is \x41\x08


def test_no_compression_that_old_drivers_do_not_know():
    assert {entry.compression for entry in ENTRIES} <= {"none", "lz4"}


@pytest.mark.parametrize("architecture", build.ARCHITECTURES)
def test_a_binary_is_the_elf_file_that_the_table_describes(architecture):
    image = CUBINS[architecture].image
    assert image.startswith(b"\x7fELF") and len(image) == CUBINS[architecture].size
    assert {name[6:] for name in sections(image) if name.startswith(".text.")} == set(
        TABLE["architectures"][architecture]
    )


def sections(elf: bytes) -> list[str]:
    """Names of an ELF64 file's sections."""
    (at,) = struct.unpack_from("<Q", elf, 40)
    size, count, names = struct.unpack_from("<HHH", elf, 58)
    headers = [struct.unpack_from("<II4Q", elf, at + size * i) for i in range(count)]
    start, length = headers[names][4:6]
    table = elf[start : start + length]
    return [table[header[0] : table.index(b"\0", header[0])].decode() for header in headers]


@pytest.mark.parametrize(
    ("capability", "taken"),
    [
        ((7, 2), None),  # Xavier
        ((7, 5), "75"),
        ((8, 0), "80"),
        ((8, 6), "86"),
        ((8, 7), "87"),  # Orin: Tegras run no other chip's binaries
        ((8, 9), "89"),
        ((9, 0), "90a"),
        ((10, 0), "100"),
        ((10, 3), "100"),
        ((11, 0), "110"),
        ((12, 0), "120"),
        ((12, 1), "120"),
        ((13, 0), "PTX"),
    ],
)
def test_a_gpu_takes_its_own_binary(capability, taken):
    entry = fat_binary.chosen(ENTRIES, capability)
    assert (entry and ("PTX" if entry.kind == "ptx" else entry.architecture)) == taken
    assert entry is None or entry == fat_binary.chosen(ENTRIES[::-1], capability), "the order does not matter"


def test_an_entry_alone_is_a_container():
    for entry in ENTRIES:
        assert fat_binary.entries(entry.alone()) == (entry,)


def test_what_is_not_whole_is_no_container():
    whole = launch.fatbin()
    for broken in (whole[:-1], whole + b"\0", b"\x7fELF" + whole[4:]):
        with pytest.raises(ValueError, match="whole"):
            fat_binary.entries(broken)


def test_lz4():
    """Blocks made by hand from lz4_Block_format.md."""
    assert fat_binary.decompressed(b"\x30abc", 3) == b"abc"
    assert fat_binary.decompressed(b"\x1fa\1\0\5\x20bc", 27) == b"a" * 25 + b"bc"  # 15 + 5 + 4 of the byte before
    assert fat_binary.decompressed(b"\x32abc\3\0\x10d", 10) == b"abcabcabcd"
    assert fat_binary.decompressed(b"\xf0\xff\x01" + b"x" * 271, 271) == b"x" * 271
    for broken in (b"", b"\x30ab", b"\x10a\2\0", b"\x10a\0\0", b"\x1fa\1\0\xff"):
        with pytest.raises(ValueError, match="LZ4"):
            fat_binary.decompressed(broken, 30)


def test_registers_leave_room_for_the_blocks_that_should_share_a_multiprocessor():
    for architecture, kernels in TABLE["architectures"].items():
        for name, kernel in kernels.items():
            blocks = 2 if architecture in TWO_BLOCKS and "_f32" not in name else 1
            assert kernel["registers"] * 256 * blocks <= REGISTERS, (architecture, name)


def test_spills_are_few_and_none_where_training_runs():
    """A few registers in the set-up of channels-last kernels; none in float16 and bfloat16 as torch lays them out."""
    for architecture, kernels in TABLE["architectures"].items():
        for name, kernel in kernels.items():
            allowed = 0 if ("f16_nchw" in name and architecture != "75") or name in HOPPER else 256
            assert kernel["spill_bytes"] <= allowed, (architecture, name)


def test_the_parameters_are_as_large_as_gram_cu_asserts():
    assert (ctypes.sizeof(launch._Layer), ctypes.sizeof(launch._Group)) == (224, 3624)


@pytest.mark.parametrize("architecture", ["86", "90a", "110"])
def test_the_compiler_agrees_with_the_table(architecture, tmp_path):
    """An architecture for each compiler that is here, float16 alone: its kernels depend on no others and take a quarter of the time."""
    try:
        build.compiler(build.ARCHITECTURES[architecture], fetch=False)
    except build.BuildError as error:
        pytest.skip(str(error))
    encoding = locale.nl_langinfo(locale.CODESET)
    _, resources = build.compile_architecture(architecture, tmp_path, ["-DGRAM_ONLY_FLOAT16"], fetch=False)
    assert locale.nl_langinfo(locale.CODESET) == encoding, "NVRTC's locale was left to this thread"
    table = TABLE["architectures"][architecture]
    assert set(resources) == {name for name in table if "_f16" in name or name == "gram_finish"}
    assert all(asdict(kernel) == table[name] for name, kernel in resources.items())


def test_a_compiler_that_is_not_here_is_a_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(build, "FETCHED", tmp_path)
    with pytest.raises(build.BuildError, match=r"CUDA 11.8 is not in .*: run python kernels/build.py --fetch 11.8"):
        build.compiler("11.8", fetch=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(build.BuildError, match=r"nvcc is not on the PATH; install CUDA 13.0"):
        build.compiler("13.0")
    (tmp_path / "nvcc").write_text("#!/bin/sh\necho Cuda compilation tools, release 12.4, V12.4.99\n")
    (tmp_path / "nvcc").chmod(0o755)
    with pytest.raises(build.BuildError, match=r"nvcc on the PATH is of CUDA 12.4; put that of CUDA 13.0 there"):
        build.compiler("13.0")


def test_names_without_the_compilers_process_number():
    first, second = (
        f".shared _ZN45_GLOBAL__N__00000000_7_gram_cu_99ee5005_{process}6sharedE[];" for process in (18702, 1559)
    )
    assert build._without_process_numbers(first) == build._without_process_numbers(second)
