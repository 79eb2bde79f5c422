"""Copies of frames in threads: what NumPy's own assignment gives, whole when it returns."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from impasto.runtime import host_copies
from impasto.runtime.host_copies import copied, copy_into


@pytest.fixture(params=[2, 8, 64])
def cores(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(host_copies, "_cores", lambda: request.param)
    return request.param


@pytest.mark.parametrize(
    "shape", [(1080, 1920, 3), (1, 1080, 1920, 3), (2, 700, 301, 3), (1, 3_000_001), (1_500_007,), (3, 2, 1), ()]
)
def test_a_copy_is_an_assignment(cores: int, shape: tuple[int, ...]) -> None:
    source = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    target = np.zeros(shape, np.uint8)
    copy_into(target, source)
    np.testing.assert_array_equal(target, source)
    again = copied(source)
    assert again.flags.c_contiguous and again.flags.owndata
    np.testing.assert_array_equal(again, source)


def test_parts_of_larger_arrays_and_other_strides_are_copied(cores: int) -> None:
    source = np.random.default_rng(0).integers(0, 256, (3, 900, 700), np.uint8).transpose(1, 2, 0)
    target = np.zeros((920, 720, 3), np.uint8)
    copy_into(target[10:910, 10:710], source)
    np.testing.assert_array_equal(target[10:910, 10:710], source)
    assert not target[:10].any() and not target[910:].any() and not target[:, :10].any() and not target[:, 710:].any()


def test_large_ones_take_threads_and_small_ones_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_copies, "_cores", lambda: 16)
    copying, seen = np.copyto, set()

    def noted(target: np.ndarray, source: np.ndarray) -> None:
        seen.add(threading.current_thread())
        time.sleep(0.02)
        copying(target, source)

    monkeypatch.setattr(np, "copyto", noted)
    copied(np.zeros((1080, 1920, 3), np.uint8))
    assert len(seen) == 4
    seen.clear()
    copied(np.zeros((100, 100, 3), np.uint8))
    assert not seen


def test_an_error_in_the_midst_waits_for_the_other_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """As Ctrl-C is: afterwards the caller frees what they write."""
    monkeypatch.setattr(host_copies, "_cores", lambda: 16)
    done: list[str] = []

    def slow(target: np.ndarray, source: np.ndarray) -> None:
        if threading.current_thread() is threading.main_thread():
            raise KeyboardInterrupt
        time.sleep(0.05)
        done.append("copied")

    monkeypatch.setattr(np, "copyto", slow)
    with pytest.raises(KeyboardInterrupt):
        copied(np.zeros((1080, 1920, 3), np.uint8))
    assert len(done) == 3


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_process_copies() -> None:
    # In a process of its own: in the tests', libraries may run threads that no fork survives.
    program = """
import os, numpy as np
from impasto.runtime import host_copies
host_copies._cores = lambda: 16
source = np.ones((1080, 1920, 3), np.uint8)
host_copies.copied(source)
child = os.fork()
if not child:
    os._exit(0 if (host_copies.copied(source) == source).all() else 1)
raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    assert subprocess.run([sys.executable, "-c", program], timeout=120, check=False).returncode == 0
