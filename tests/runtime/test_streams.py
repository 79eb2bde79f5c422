"""Streams that end otherwise than by their last frame: their source fails, they are closed, or the garbage collector finds them."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest
from support.small_models import picture

import impasto
from impasto.locks import ReentrantLock
from impasto.runtime.backends.base import Slot
from impasto.runtime.inference.streaming import SlotPool, overlapped


@pytest.fixture
def model(make_package):
    with impasto.load(make_package()) as model:
        yield model


def workers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("impasto-stream")]


def assert_they_end() -> None:
    for thread in workers():
        thread.join(5)
        assert not thread.is_alive()


@pytest.mark.parametrize("depth", [1, 2, 5])
def test_what_the_source_raises_comes_after_the_frames_before_it(model, depth):
    frames = [picture(8, 8, seed=seed) for seed in range(3)]

    def source() -> Iterator[np.ndarray]:
        yield from frames
        raise OSError("the camera is gone")

    results = model.stream(source(), depth=depth)
    for frame in frames:
        assert np.array_equal(next(results), model(frame))
    with pytest.raises(OSError, match="the camera is gone"):
        next(results)
    assert_they_end()


def test_nothing_is_drawn_after_close(model, monkeypatch):
    drawing = []
    draw = model._run_into

    def slow(*arguments: object) -> None:
        drawing.append(1)
        time.sleep(0.05)
        draw(*arguments)
        drawing.pop()

    monkeypatch.setattr(model, "_run_into", slow)
    frames = iter([picture(8, 8)] * 20)
    results = model.stream(frames, depth=5)
    next(results)
    results.close()
    assert not drawing
    assert_they_end()
    assert not drawing
    assert len(list(frames)) == 15, "the source is the caller's"


def test_a_stream_collected_by_a_thread_that_holds_the_model_ends(model):
    """The collector runs anywhere: here where the worker waits for the lock that this thread holds."""

    def source() -> Iterator[np.ndarray]:
        yield picture(8, 8)
        time.sleep(0.1)  # the first is drawn meanwhile
        model._lock.__enter__()
        yield picture(8, 8)

    def abandon() -> None:
        results = model.stream(source())
        next(results)
        cycle: list[object] = [results]
        cycle.append(cycle)
        del results, cycle
        gc.collect()
        model._lock.__exit__(None, None, None)

    thread = threading.Thread(target=abandon, daemon=True)
    thread.start()
    thread.join(5)
    assert not thread.is_alive()
    assert_they_end()


def test_a_stream_collected_by_its_own_worker_ends(model, monkeypatch):
    held: list[Iterator[np.ndarray]] = []
    abandoned, collected = threading.Event(), threading.Event()
    draw = model._run_into

    def collect(*arguments: object) -> None:
        if held:  # the second frame
            abandoned.wait(5)
            held.clear()
            collected.set()
        draw(*arguments)

    def source() -> Iterator[np.ndarray]:
        yield picture(8, 8)
        time.sleep(0.1)
        held.append(stream.pop())
        yield picture(8, 8)

    monkeypatch.setattr(model, "_run_into", collect)
    failures: list[object] = []
    monkeypatch.setattr("sys.unraisablehook", failures.append)
    stream = [model.stream(source())]
    next(stream[0])
    abandoned.set()
    assert collected.wait(5)
    assert_they_end()
    assert not failures


class CountedSlot(Slot):
    """Gives back what was put in; `open` counts those that hold something."""

    open = 0

    def __init__(self, frame: np.ndarray) -> None:
        self.images, self.result = [np.empty_like(frame)], np.empty_like(frame)
        CountedSlot.open += 1

    def start(self) -> None:
        time.sleep(0.05)
        self.result[...] = self.images[0]

    def wait(self) -> None: ...

    def close(self) -> None:
        CountedSlot.open -= 1


@pytest.mark.parametrize("waits", [True, False])
@pytest.mark.parametrize("taken", [0, 1, 3, 8])
def test_every_slot_is_freed_whoever_closes_the_stream(waits, taken):
    def fill(slot: Slot, frame: np.ndarray) -> None:
        slot.images[0][...] = frame

    frames = [picture(8, 8 + seed // 4, seed) for seed in range(8)]  # the second half is of another size
    pool = SlotPool(CountedSlot)
    results = overlapped(iter(frames), 3, pool, fill, lambda slot, frame: slot.result.copy(), lambda frame: frame)
    for frame in frames[:taken]:
        assert np.array_equal(next(results), frame)
    if waits:
        results.close()
        assert CountedSlot.open == 0
    else:
        with ReentrantLock():
            results.close()
    assert_they_end()
    assert CountedSlot.open == 0
