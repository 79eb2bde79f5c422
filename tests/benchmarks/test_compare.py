"""Models against each other: who takes turns, what is compared with what, and what an interval says."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from PIL import Image
from support.command_line import cli
from support.small_models import float_graph, picture

import impasto
from impasto.benchmarks.measurement.compare import Contender, compare, median_interval
from impasto.benchmarks.measurement.measure import in_turn
from impasto.errors import OptionError
from impasto.metrics import psnr

MakePackage = Callable[..., Path]


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    Image.fromarray(picture(40, 60)).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


@pytest.mark.parametrize("count", [1, 5, 6, 9, 15, 40])
def test_the_interval_holds_the_median_as_often_as_it_says(count: int) -> None:
    generator = np.random.default_rng(count)
    held = 0
    for _ in range(2000):
        low, middle, high = median_interval(generator.exponential(1, count))
        assert low <= middle <= high
        held += low <= np.log(2) <= high
    # Few values cannot say more than from their least to their largest.
    assert held / 2000 >= min(0.94, 1 - 2 * 0.5**count - 0.02)
    assert count < 6 or held / 2000 < 0.995


def test_the_interval_does_not_depend_on_order() -> None:
    values = np.random.default_rng(0).normal(size=15)
    assert median_interval(values) == median_interval(values[::-1])
    assert median_interval(values) == tuple(np.sort(values)[[3, 7, 11]])


@pytest.mark.parametrize(
    ("text", "model", "choices"),
    [
        ("denoise", "denoise", {}),
        ("a/b,c.onnx,layout=bgr 0..255", "a/b,c.onnx", {"layout": "bgr 0..255"}),
        ("four-styles,style=ejiri,strength=0.5", "four-styles", {"style": "ejiri", "strength": "0.5"}),
        ("denoise,backend=openvino,precision=int8", "denoise", {"backend": "openvino", "precision": "int8"}),
    ],
)
def test_how_a_contender_is_written(text: str, model: str, choices: dict[str, str]) -> None:
    assert Contender.parse(text) == Contender(text, model, choices)


def test_each_draws_as_it_does_alone_and_is_compared_with_the_first(
    make_package: MakePackage, photo: Path, tmp_path: Path
) -> None:
    package, larger = make_package(), make_package("larger", scale=2)
    (tmp_path / "other.onnx").write_bytes(float_graph().SerializeToString())
    names = [package, larger, f"{tmp_path / 'other.onnx'},layout=rgb 0..1", package]
    found = compare([Contender.parse(str(name)) for name in names], photo, rounds=2)
    with impasto.load(package) as model:
        first = model(picture(40, 60))
    with impasto.load(tmp_path / "other.onnx", layout="rgb 0..1") as model:
        third = model(picture(40, 60))
    assert np.array_equal(found.standings[0].drawn, first)
    assert found.standings[1].psnr_db is None, "it has another size"
    assert found.standings[2].psnr_db == psnr(third, first)
    assert found.standings[3].psnr_db == np.inf
    assert found.standings[0].speed == (1, 1, 1)
    assert all(len(standing.latency.samples_ms) == 2 for standing in found.standings)


def test_speed_is_by_rounds(make_package: MakePackage, photo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In every round the machine is twice as slow as before, and the second model half as fast as the first."""
    calls = iter(range(1000))

    def slower_and_slower(draw: object, image: np.ndarray) -> float:
        turn = next(calls) // 3
        return 2.0 ** (turn // 2) * (1 + turn % 2)

    monkeypatch.setitem(in_turn.__globals__, "_milliseconds", slower_and_slower)
    contenders = [Contender.parse(str(make_package()))] * 2
    found = compare(contenders, photo, rounds=8)
    assert found.standings[1].speed == (0.5, 0.5, 0.5)
    assert found.standings[1].differs
    assert not found.standings[0].differs
    few = compare(contenders, photo, rounds=5).standings[1]
    assert few.speed == (0.5, 0.5, 0.5)
    assert not few.certain and not few.differs
    assert few.to_json()["speed"] == {"low": None, "median": 0.5, "high": None}


@pytest.mark.parametrize(("seconds", "rounds"), [(0.1, 15), (2.0, 10), (30.0, 6)])
def test_slow_models_draw_fewer_rounds_and_enough_for_an_interval(
    seconds: float, rounds: int, make_package: MakePackage, photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """seconds: what the first call of each takes together."""
    ticks = iter((0.0, seconds))
    monkeypatch.setitem(compare.__globals__, "time", SimpleNamespace(perf_counter=lambda: next(ticks)))
    found = compare([Contender.parse(str(make_package()))] * 2, photo)
    assert {len(standing.latency.samples_ms) for standing in found.standings} == {rounds}
    assert found.standings[0].certain


def test_rows_can_be_told_apart(make_package: MakePackage, photo: Path, tmp_path: Path) -> None:
    """By name, backend and precision; where those are alike, by what was asked for."""
    (tmp_path / "other").mkdir()
    one, namesake = make_package(), make_package("other/tiny")
    asked = [f"{model},backend=onnxruntime-cpu" for model in (one, namesake, namesake)] + [str(one)]
    found = compare([Contender.parse(text) for text in asked], photo, rounds=1)
    rows = [(name, each.runs_on) for name, each in zip(found.names, found.standings, strict=True)]
    assert len(set(rows)) == 4
    assert [name for name, _ in rows[:3]] == [asked[0], f"{asked[1]} (1)", f"{asked[2]} (2)"]


def test_the_line_in_the_readme_runs_as_printed(
    make_package: MakePackage, photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the lines before it, which make the package and its INT8 graph; that graph is another one here."""
    readme = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    (line,) = (line for line in readme.splitlines() if line.startswith("impasto compare sharp "))
    monkeypatch.chdir(tmp_path)
    make_package("sharp")
    onnx.save(float_graph(), "other.onnx")
    photo.rename("photo.jpg")
    words = [word.replace("int8", "fp32") for word in shlex.split(line, comments=True)[1:]]
    code, out, stderr = cli(*words, "--rounds", "1")
    assert code == 0, stderr
    assert "sharp" in out and "other" in out
    assert Path("sheet.png").exists()


def test_the_command_line(make_package: MakePackage, photo: Path, tmp_path: Path) -> None:
    package, larger = make_package(), make_package("larger", scale=2)
    code, stdout, stderr = cli(
        "compare", package, f"{package},backend=onnxruntime-cpu", larger, "--photo", photo, "--rounds", 1,
        "--size", "24x32", "--json", tmp_path / "c.json", "--sheet", tmp_path / "sheet.png",
    )  # fmt: skip
    assert code == 0, stderr
    assert "24 x 32" in stdout
    assert "onnxruntime-cpu fp32" in stdout
    assert "other size" in stdout
    assert "too few to tell" in stdout and "95 %" not in stdout
    told = json.loads((tmp_path / "c.json").read_text())
    assert (told["kind"], told["height"], told["width"]) == ("impasto.comparison", 24, 32)
    assert [entry["contender"] for entry in told["standings"]] == [
        str(package), f"{package},backend=onnxruntime-cpu", str(larger)
    ]  # fmt: skip
    assert [(entry["equal"], entry["psnr_db"]) for entry in told["standings"]][::2] == [(True, None), (False, None)]
    assert all(len(entry["latency"]["samples_ms"]) == 1 for entry in told["standings"])
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.width > 4 * 320


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("{package}", "--photo", "{photo}"), "a comparison wants two or more"),
        (("{package}", "{package},prec=int8", "--photo", "{photo}"), "has a prec, and may have backend, precision"),
        (("{package}", "{package},precision=int8", "--photo", "{photo}"), "holds no int8 model"),
        (("{package}", "{package},strength=much", "--photo", "{photo}"), "cannot read the strength 'much'"),
        (("{package}", "{package},style=waves", "--photo", "{photo}"), "unknown style 'waves'"),
        (("{package}", "{package}", "--photo", "{photo}x"), "does not exist"),
        (("{package}", "{package}", "--photo", "{photo}", "--sheet", "a.gif"), "cannot tell the picture format"),
        (("{package}", "{package}", "--photo", "{photo}", "--size", "3"), "cannot read the size '3'"),
    ],
)
def test_what_cannot_be_compared_is_one_line(
    make_package: MakePackage, photo: Path, arguments: tuple[str, ...], words: str
) -> None:
    package = make_package()
    code, _, stderr = cli("compare", *(argument.format(package=package, photo=photo) for argument in arguments))
    assert code == 1
    assert words in stderr.splitlines()[-1]


def test_rounds_are_at_least_one(make_package: MakePackage, photo: Path) -> None:
    with pytest.raises(OptionError, match="wanted at least 1"):
        compare([Contender.parse(str(make_package()))] * 2, photo, rounds=0)
