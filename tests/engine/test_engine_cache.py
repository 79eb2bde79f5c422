"""The engine cache: keys, whole writes, eviction, locks between processes."""

from __future__ import annotations

import json
import multiprocessing
import os
import time
from multiprocessing.synchronize import Event
from pathlib import Path

import pytest

from impasto.export.engine_cache import EngineCache, engine_key, locked
from impasto.runtime.engine_record import EngineRecord


def record(key: str) -> EngineRecord:
    return EngineRecord(key, "tensorrt", "8.5.3.1", "fp16", ("8.7",), "Orin", "0" * 64, ())


def test_keys_differ_wherever_a_part_does() -> None:
    parts = {"graph": "a", "options": {"precision": "fp16", "sizes": [[1, 2]]}, "gpu": None}
    key = engine_key(parts)
    assert key == engine_key(dict(reversed(parts.items())))
    for changed in ({"graph": "b"}, {"options": {"precision": "int8", "sizes": [[1, 2]]}}, {"gpu": "x"}, {"more": 1}):
        assert engine_key(parts | changed) != key


def test_what_is_put_is_found(tmp_path: Path) -> None:
    cache = EngineCache(tmp_path)
    cache.put(record("a"), b"plan")
    found = cache.find("a")
    assert found is not None
    assert (found.record, found.plan.read_bytes()) == (record("a"), b"plan")
    assert cache.find("b") is None


@pytest.mark.parametrize("damage", ["cut", "changed", "no plan", "no record", "record is no JSON"])
def test_a_damaged_entry_counts_as_none(tmp_path: Path, damage: str) -> None:
    cache = EngineCache(tmp_path)
    entry = cache.put(record("a"), b"the whole plan")
    beside = entry.plan.with_suffix(".json")
    if damage == "cut":
        entry.plan.write_bytes(b"the whole")
    elif damage == "changed":
        entry.plan.write_bytes(b"the other plan")
    elif damage == "no plan":
        entry.plan.unlink()
    elif damage == "no record":
        beside.unlink()
    else:
        beside.write_text("{")
    assert cache.find("a") is None
    cache.put(record("a"), b"new")
    assert cache.find("a") is not None


def test_what_was_used_longest_ago_goes_first(tmp_path: Path) -> None:
    cache = EngineCache(tmp_path, limit=30)
    for age, key in enumerate("abc"):
        entry = cache.put(record(key), bytes(10))
        os.utime(entry.plan, (1000 + age, 1000 + age))
    cache.find("a")
    cache.put(record("d"), bytes(10))
    assert sorted(entry.record.key for entry in cache.entries()) == ["a", "c", "d"]


def test_an_engine_larger_than_the_cache_is_kept_while_it_is_the_newest(tmp_path: Path) -> None:
    cache = EngineCache(tmp_path, limit=5)
    cache.put(record("a"), bytes(10))
    assert cache.find("a") is not None


def test_clean_frees_what_it_says(tmp_path: Path) -> None:
    cache = EngineCache(tmp_path)
    cache.put(record("a"), bytes(1000))
    assert cache.clean(everything=True) >= 1000
    assert cache.entries() == []


def _hold(path: Path, seconds: float, times: multiprocessing.Queue[tuple[float, float]]) -> None:
    with locked(path):
        begun = time.monotonic()
        time.sleep(seconds)
        times.put((begun, time.monotonic()))


def test_processes_hold_a_key_one_after_the_other(tmp_path: Path) -> None:
    spawn = multiprocessing.get_context("spawn")
    times = spawn.Queue()
    workers = [spawn.Process(target=_hold, args=(tmp_path / "k.lock", 0.2, times)) for _ in range(2)]
    for worker in workers:
        worker.start()
    # What two processes put in at nearly one time comes out in either order.
    (first_in, first_out), (second_in, second_out) = sorted(times.get(timeout=60) for _ in range(2))
    for worker in workers:
        worker.join()
    assert first_in < first_out <= second_in < second_out


def _grab(path: Path, held: Event) -> None:
    with locked(path):
        held.set()
        time.sleep(60)


def test_the_lock_ends_with_its_process(tmp_path: Path) -> None:
    spawn = multiprocessing.get_context("spawn")
    held = spawn.Event()
    worker = spawn.Process(target=_grab, args=(tmp_path / "k.lock", held))
    worker.start()
    assert held.wait(60)
    worker.kill()
    worker.join()
    with locked(tmp_path / "k.lock"):
        pass


def test_records_survive_json(tmp_path: Path) -> None:
    original = record("a")
    assert EngineRecord.from_json(json.loads(json.dumps(original.to_json())), "here") == original
