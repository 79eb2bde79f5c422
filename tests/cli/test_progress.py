"""What is shown while a verb works: at 80 columns, in a pipe, and by `impasto eval` and `quantize`."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from impasto.cli.progress import Bar


@pytest.fixture
def clock():
    return [0.0]


def shown(bar: Bar, width: int = 80) -> str:
    file = io.StringIO()
    Console(file=file, width=width, force_terminal=True, color_system=None).print(bar.get_renderable())
    return file.getvalue()


def counting(bar: Bar, clock: list[float], words: str, steps: int = 200_000) -> None:
    for step in range(0, 120_001, 1000):
        clock[0] += 300
        bar.say(words, step, steps)


@pytest.fixture
def bar(clock):
    return Bar("steps", get_time=lambda: clock[0])


def test_at_80_columns_losses_give_way_and_nothing_else(bar, clock):
    losses = "  ".join(f"a-long-loss-{index} {index / 7:.4f}" for index in range(6))
    counting(bar, clock, losses)
    (line,) = shown(bar).splitlines()
    assert len(line) <= 80
    assert re.match(r"120000/200000 ━+\S* *3\.3 steps/s 6:40:00 a-long", line)
    assert line.rstrip().endswith("…")
    assert losses in shown(bar, 240)


def test_what_is_not_counted_shows_no_count(bar, clock):
    bar.say("calibrating [by] percentile")
    assert re.fullmatch(r" *━+ +calibrating \[by\] percentile *\n", shown(bar))


def test_in_a_pipe_a_line_a_minute(bar, clock, capsys):
    for step in range(0, 1500):
        clock[0] += 0.1
        bar.say("loss 0.5", step, 3000)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert re.fullmatch(r" *599/3000, 10\.0 steps/s, 04:0\d left, loss 0\.5", lines[0])


def test_another_count_begins_its_own_speed(bar, clock):
    counting(bar, clock, "reading", 120_000)
    bar.say("judging", 0, 10)
    assert "0/10" in shown(bar) and "steps/s" not in shown(bar) and "reading" not in shown(bar)


def test_those_who_do_not_speak_are_silent(clock, capsys):
    bar = Bar("steps", quiet=True, get_time=lambda: clock[0])
    counting(bar, clock, "loss")
    assert capsys.readouterr().err == ""
