"""The committed gram.zip: built from the committed source, for every architecture and its drivers, with the registers of its table."""

from __future__ import annotations

import ctypes
import json
import locale
import re
import struct
import zipfile
from dataclasses import asdict

import pytest

from impasto.errors import KernelError
from impasto.kernels import binaries, build, launch
from impasto.kernels.binaries import Binary
from impasto.kernels.feature_map import ELEMENT_BYTES

TABLE = json.loads(build.GRAM.table.read_text())
KERNELS = (
    {
        f"gram_{step}_{dtype}_{layout}"
        for step in ("forward", "backward")
        for dtype in ELEMENT_BYTES
        for layout in ("nchw", "nhwc")
    }
    | {f"gram_pack_{dtype}" for dtype in ELEMENT_BYTES}
    | {"gram_finish"}
)
HOPPER = {f"gram_forward_{dtype}_{layout}_wgmma" for dtype in ("f16", "bf16") for layout in ("nchw", "nhwc")}
TWO_BLOCKS = {"90a", "100", "110"}
"""Architectures whose shared memory has room for two blocks on one multiprocessor."""
OLDEST = {"75": 11, "80": 11, "86": 11, "87": 11, "89": 11, "90a": 12, "100": 12, "110": 13, "120": 12}
"""The oldest CUDA major version of which some driver knows the architecture, as 9.0a and 11.0 are called now."""
REGISTERS = 65536
"""Of one multiprocessor, on every architecture."""
FILES = build.GRAM.committed()
BINARIES = [Binary.named(name) for name in FILES]
CUBINS = {binary.architecture: binary for binary in BINARIES if binary.kind == "cubin"}


def test_the_zip_file_was_built_from_the_source():
    stale = "gram.cu or gram.zip changed alone: run `make kernels` and commit both, and gram.resources.json"
    assert TABLE["source_sha256"] == build.GRAM.source_hash(), stale
    assert TABLE["files_sha256"] == build.hashes(FILES), stale


def test_the_zip_file_is_small_enough_to_ship():
    assert binaries.FILE.stat().st_size < 4 * 2**20


def test_the_standard_library_alone_opens_the_zip_file():
    with zipfile.ZipFile(binaries.FILE) as archive:
        assert archive.testzip() is None
        assert {entry.compress_type for entry in archive.infolist()} == {zipfile.ZIP_DEFLATED}, "any unzip knows it"


def test_the_same_files_make_the_same_bytes():
    files = {"sm_75-cuda11.8.cubin": bytes(1000), "sm_120-cuda13.0.ptx": b".version 9.0"}
    assert build.archived(files) == build.archived(dict(files))
    assert b"sm_75-cuda11.8.cubin" in build.archived(files)


def test_every_architecture_has_every_kernel():
    assert set(TABLE["architectures"]) == set(build.ARCHITECTURES)
    for architecture, kernels in TABLE["architectures"].items():
        assert set(kernels) == (KERNELS | HOPPER if architecture == "90a" else KERNELS)


def test_every_architecture_is_there_once_and_ptx_for_newer_ones():
    assert [binary.architecture for binary in BINARIES] == [*build.ARCHITECTURES, build.PTX[0]]
    assert [binary.kind for binary in BINARIES] == ["cubin"] * len(build.ARCHITECTURES) + ["ptx"]
    text = FILES[BINARIES[-1].name]
    assert b".target sm_120\n" in text
    assert all(f".entry {kernel}(".encode() in text for kernel in KERNELS)


@pytest.mark.parametrize("architecture", build.ARCHITECTURES)
def test_a_cubin_was_made_by_the_cuda_that_its_drivers_support(architecture):
    binary, release = CUBINS[architecture], build.ARCHITECTURES[architecture]
    assert compiler_release(FILES[binary.name]) == binary.cuda == release
    assert TABLE["compilers"][architecture].startswith(f"{release}.")
    assert binary.cuda_major == OLDEST[architecture]


def compiler_release(cubin: bytes) -> str:
    """The CUDA release that wrote a cubin. CUDA 11 and 12 mark it with 0x33 and write it to e_version: 118 is CUDA 11.8."""
    if cubin[7] == 0x33:
        (version,) = struct.unpack_from("<I", cubin, 20)
        return f"{version // 10}.{version % 10}"
    found = re.search(rb"\0Cuda compilation tools, release (\d+\.\d+)", cubin)  # in the section .note.nv.tkinfo
    assert found
    return found[1].decode()


def test_the_ptx_is_of_the_newest_compiler_only():
    """PTX ISA 9 is CUDA 13's (PTX ISA, "Release Notes"); a driver reads its own release's and older."""
    assert (BINARIES[-1].cuda, BINARIES[-1].cuda_major) == ("13.0", 13)
    assert re.search(rb"\n\.version 9\.\d+\n", FILES[BINARIES[-1].name])
    assert TABLE["compilers"]["ptx"].startswith(f"{build.PTX[1]}.")


@pytest.mark.parametrize("architecture", ["75", "80", "86", "87", "89"])
def test_what_cuda_11_loads_has_the_elf_header_that_cuda_11_wrote(architecture):
    assert FILES[CUBINS[architecture].name][:9] == b"\x7fELF\2\1\1\x33\7"  # CUDA 13 writes \x41\x08


@pytest.mark.parametrize("architecture", build.ARCHITECTURES)
def test_a_cubin_is_the_elf_file_that_the_table_describes(architecture):
    image = FILES[CUBINS[architecture].name]
    assert image.startswith(b"\x7fELF")
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
    binary = binaries.chosen(BINARIES, capability)
    assert (binary and ("PTX" if binary.kind == "ptx" else binary.architecture)) == taken
    assert binary == binaries.chosen(BINARIES[::-1], capability), "the order does not matter"


def test_a_gpu_gets_the_bytes_of_its_file():
    for capability in ((7, 5), (8, 7), (9, 0), (13, 0)):
        binary, image = binaries.for_gpu(capability)
        assert image == FILES[binary.name]


@pytest.mark.parametrize("name", [*TABLE["files_sha256"], "sm_86-cuda11.8.cubin", "sm_100-cuda12.9.ptx"])
def test_a_name_says_what_a_file_is(name):
    assert Binary.named(name).name == name
    assert name.startswith(f"sm_{Binary.named(name).architecture}-")


@pytest.mark.parametrize(
    "name", ["", "sm_86.cubin", "sm_86-cuda11.cubin", "sm_86-cuda11.8.txt", "../sm_86-cuda11.8.cubin"]
)
def test_another_name_is_refused(name):
    with pytest.raises(ValueError, match="it holds a file named"):
        Binary.named(name)


# ---- files that are missing or damaged ----


@pytest.fixture
def damaged(tmp_path, monkeypatch):
    """Puts other bytes in gram.zip's place."""

    def damaged(data: bytes) -> None:
        monkeypatch.setattr(binaries, "FILE", tmp_path / "gram.zip")
        binaries.FILE.write_bytes(data)

    return damaged


def test_a_missing_file(tmp_path, monkeypatch):
    monkeypatch.setattr(binaries, "FILE", tmp_path / "gram.zip")
    with pytest.raises(KernelError, match=r"gram\.zip is missing: reinstall Impasto, or run `make kernels`"):
        binaries.for_gpu((8, 6))


@pytest.mark.parametrize("length", [0, 1, 1000, -1, -30])
def test_a_file_that_is_cut_off(damaged, length):
    damaged(binaries.FILE.read_bytes()[:length])
    with pytest.raises(KernelError, match=r"gram\.zip is damaged \(.*\): reinstall Impasto\."):
        binaries.for_gpu((8, 6))


def test_a_byte_that_changed_never_reaches_the_driver(damaged):
    """Each byte of a small zip file: KernelError, or the right bytes."""
    kept = (CUBINS["75"].name, CUBINS["86"].name, BINARIES[-1].name)
    small = build.archived({name: FILES[name][:30] for name in kept})
    wanted = FILES[CUBINS["86"].name][:30]
    refused = 0
    for at in range(len(small)):
        damaged(small[:at] + bytes([small[at] ^ 0x55]) + small[at + 1 :])
        try:
            assert binaries.for_gpu((8, 6)) == (CUBINS["86"], wanted), at
        except KernelError as error:
            assert "gram.zip is damaged" in str(error)
            refused += 1
    assert refused > 100


def test_a_file_of_another_program(damaged):
    damaged(build.archived({"readme.txt": b"hello"}))
    with pytest.raises(KernelError, match=r"damaged \(it holds a file named 'readme.txt'\)"):
        binaries.for_gpu((8, 6))


# ---- registers and spills ----


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
    _, resources = build.compile_architecture(build.GRAM, architecture, tmp_path, ["-DGRAM_ONLY_FLOAT16"], fetch=False)
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
