"""The engine cache: keys, whole writes, eviction, locks between processes."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import time
from multiprocessing.synchronize import Event
from pathlib import Path

import pytest
from support.fake_engines import key
from support.fake_engines import record as fake_record

from impasto.errors import OptionError, OutputError
from impasto.export.tensorrt.cache import DEFAULT_LIMIT, CacheEntry, EngineCache, engine_key
from impasto.package.engine_record import EngineRecord
from impasto.package.file_lock import locked

A, B, C, D = (key(name) for name in "abcd")


def record(its: str) -> EngineRecord:
    return fake_record(key=its)


def put(cache: EngineCache, its: str, plan: bytes, age_s: float = 0) -> CacheEntry:
    """What `impasto build` leaves, used so long ago."""
    with cache.locked(its):
        entry = cache.put(record(its), plan)
    then = time.time() - age_s
    for path in (entry.plan, entry.plan.with_suffix(".json")):
        os.utime(path, (then, then))
    return entry


def test_keys_differ_wherever_a_part_does() -> None:
    parts = {"graph": "a", "options": {"precision": "fp16", "sizes": [[1, 2]]}, "gpu": None}
    its = engine_key(parts)
    assert its == engine_key(dict(reversed(parts.items())))
    for changed in ({"graph": "b"}, {"options": {"precision": "int8", "sizes": [[1, 2]]}}, {"gpu": "x"}, {"more": 1}):
        assert engine_key(parts | changed) != its


def test_what_is_put_is_found(tmp_path: Path) -> None:
    cache = EngineCache(tmp_path)
    cache.put(record(A), b"plan")
    found = cache.find(A)
    assert found is not None
    assert (found.record, found.plan.read_bytes()) == (record(A), b"plan")
    assert cache.find(B) is None


@pytest.mark.parametrize("damage", ["cut", "changed", "no plan", "no record", "record is no JSON"])
def test_a_damaged_entry_counts_as_none(tmp_path: Path, damage: str) -> None:
    cache = EngineCache(tmp_path)
    entry = cache.put(record(A), b"the whole plan")
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
    assert cache.find(A) is None
    cache.put(record(A), b"new")
    assert cache.find(A) is not None


def size_of(entry: CacheEntry) -> int:
    """What an entry counts for: its record is a file too."""
    return entry.nbytes + entry.plan.with_suffix(".json").stat().st_size


def test_what_was_used_longest_ago_goes_first(tmp_path: Path) -> None:
    cache = EngineCache(tmp_path)
    sizes = [size_of(put(cache, its, bytes(10), age_s=1000 - age)) for age, its in enumerate((A, B, C))]
    cache.limit = sum(sizes)
    cache.find(A)
    put(cache, D, bytes(10))
    assert {entry.record.key for entry in cache.entries()} == {A, C, D}


def test_what_somebody_holds_is_not_evicted(tmp_path: Path) -> None:
    cache = EngineCache(tmp_path, limit=5)
    with cache.locked(A):
        cache.put(record(A), bytes(10))
        put(cache, B, bytes(10))
        assert cache.clean(everything=True)
        assert [entry.record.key for entry in cache.entries()] == [A]
    assert cache.clean()
    assert not cache.entries()


def _build_many(folder: Path, number: int, results: multiprocessing.Queue[str]) -> None:
    cache = EngineCache(folder, limit=30_000)
    try:
        for index in range(40):
            its = engine_key({"builder": number, "engine": index})
            with cache.locked(its):
                entry = cache.put(record(its), bytes(9000))
                assert entry.plan.stat().st_size == entry.nbytes
                assert cache.find(its)
    except BaseException as error:
        results.put(repr(error))
    else:
        results.put("")


def test_builders_that_evict_at_once_keep_what_they_build(tmp_path: Path) -> None:
    spawn = multiprocessing.get_context("spawn")
    results = spawn.Queue()
    workers = [spawn.Process(target=_build_many, args=(tmp_path, number, results)) for number in range(3)]
    for worker in workers:
        worker.start()
    assert [results.get(timeout=60) for _ in workers] == ["", "", ""]
    for worker in workers:
        worker.join()
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) < 60_000


GPUS = ("0123abcd", "4567cdef")


def test_kernels_count_and_go_with_their_engine(tmp_path: Path) -> None:
    cache = EngineCache(tmp_path)
    used, old = put(cache, A, b"a", age_s=10), put(cache, B, b"b", age_s=1000)
    kernels = [tmp_path / f"{entry.sha256[:32]}-{gpu}.kernels" for entry, gpu in zip((used, old), GPUS, strict=True)]
    for path in kernels:
        path.write_bytes(bytes(1000))
        os.utime(path, (0, 0))
    orphan = tmp_path / f"{C}-{GPUS[0]}.kernels"  # of an engine in a package
    orphan.write_bytes(bytes(1000))
    os.utime(orphan, (0, 0))
    cache.limit = size_of(used) + 1000
    assert cache.clean() == size_of(used) + 2000
    assert {path.name for path in tmp_path.iterdir() if path.suffix != ".lock"} == {
        used.plan.name,
        used.plan.with_suffix(".json").name,
        kernels[0].name,
    }


def test_clean_touches_nothing_of_others(tmp_path: Path) -> None:
    cache = EngineCache(tmp_path)
    put(cache, A, bytes(1000))
    (tmp_path / "tensorrt-8.6.1-Orin-driver12.timing").touch()
    ours = {path for path in tmp_path.iterdir() if path.suffix != ".lock"}
    for name in ("package.json", "npm.lock", "their.plan", "race.timing", f"{B}.txt", ".notes-0123456789abcdef.json"):
        path = tmp_path / name
        path.write_text("theirs")
        os.utime(path, (0, 0))
    (tmp_path / f"{C}.plan").mkdir()
    (tmp_path / "folder.lock").mkdir()
    before = set(tmp_path.iterdir())
    assert cache.clean(everything=True) >= 1000
    assert before - set(tmp_path.iterdir()) == ours


def test_files_of_killed_writers_go_when_they_are_old(tmp_path: Path) -> None:
    cache = EngineCache(tmp_path)
    old, young = (tmp_path / f".{A}-{digit * 16}.plan" for digit in "01")
    for path in (old, young):
        path.write_bytes(bytes(100))
    os.utime(old, (0, 0))
    assert cache.clean() == 100
    assert (old.exists(), young.exists()) == (False, True)


def test_a_record_that_names_other_files_removes_none(tmp_path: Path) -> None:
    victim = tmp_path / "victim.plan"
    victim.write_bytes(b"precious")
    cache = EngineCache(tmp_path / "cache")
    beside = put(cache, A, b"plan").plan.with_suffix(".json")
    data = json.loads(beside.read_text())
    data["record"]["key"] = "../victim"
    beside.write_text(json.dumps(data))
    assert cache.find(A) is None
    assert cache.entries() == []
    assert cache.clean(everything=True)
    assert victim.exists()
    assert not list(cache.folder.glob("*.plan"))


def test_what_cannot_be_removed_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = EngineCache(tmp_path)
    put(cache, A, bytes(10))

    def refuse(path: Path, missing_ok: bool = False) -> None:
        raise OSError(errno.EROFS, "Read-only file system", str(path))

    monkeypatch.setattr(Path, "unlink", refuse)
    with pytest.raises(OutputError, match=r"cannot remove .*\.json: Read-only file system"):
        cache.clean(everything=True)
    assert EngineCache(tmp_path / "none").clean() == 0


@pytest.mark.parametrize(
    ("text", "limit"), [(None, DEFAULT_LIMIT), ("", DEFAULT_LIMIT), ("4GiB", 4 << 30), ("5000000", 5_000_000)]
)
def test_the_limit_is_read_as_people_write_it(monkeypatch: pytest.MonkeyPatch, text: str | None, limit: int) -> None:
    monkeypatch.delenv("IMPASTO_CACHE_BYTES", raising=False)
    if text is not None:
        monkeypatch.setenv("IMPASTO_CACHE_BYTES", text)
    assert EngineCache().limit == limit


def test_a_limit_that_is_none_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMPASTO_CACHE_BYTES", "plenty")
    with pytest.raises(OptionError, match=r"\$IMPASTO_CACHE_BYTES: cannot read .*'plenty'.*512M"):
        EngineCache()


def test_a_corrected_spec_is_recorded(tmp_path: Path) -> None:
    cache = EngineCache(tmp_path)
    entry = put(cache, A, b"plan")
    corrected = entry.record.spec | {"task": "denoise"}
    assert cache.described(entry, corrected).record.spec == corrected
    found = cache.find(A)
    assert found
    assert found.record.spec == corrected


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


def test_a_folder_that_may_not_be_read_is_not_an_empty_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may read everything
    with pytest.raises(OutputError, match="no permission to read the cache"):
        EngineCache(tmp_path).entries()
    assert EngineCache(tmp_path / "none").entries() == []
