"""The committed fatbin: built from the committed source, for every architecture, and as frugal as its table says."""

from __future__ import annotations

import ctypes
import hashlib
import json
import shutil
from dataclasses import asdict

import pytest

from impasto.kernels import build, launch

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
REGISTERS = 65536
"""Of one multiprocessor, on every architecture."""


def test_the_fatbin_was_built_from_the_source():
    stale = "gram.cu or gram.fatbin changed alone: run `make kernels` and commit both, and gram.resources.json"
    assert TABLE["source_sha256"] == build.source_hash(), stale
    assert TABLE["fatbin_sha256"] == hashlib.sha256(launch.fatbin()).hexdigest(), stale


def test_the_fatbin_is_small_enough_to_ship():
    assert len(launch.fatbin()) < 4 * 2**20


def test_every_architecture_has_every_kernel():
    assert set(TABLE["architectures"]) == set(build.ARCHITECTURES)
    for architecture, kernels in TABLE["architectures"].items():
        assert set(kernels) == (KERNELS | HOPPER if architecture == "90a" else KERNELS)


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


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="nvcc is not on the PATH")
def test_the_compiler_agrees_with_the_table(tmp_path):
    _, resources = build.compile_architecture(shutil.which("nvcc"), "86", tmp_path)
    assert {name: asdict(kernel) for name, kernel in resources.items()} == TABLE["architectures"]["86"]
