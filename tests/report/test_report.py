"""Reports without a browser: what they hold, that they are self-contained, and what is said where one cannot be made."""

from __future__ import annotations

import base64
import io
import json
import math
import re
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.command_line import cli
from support.small_models import picture

from impasto.report.charts import bars, curves, figure, scatter, spread
from impasto.report.page import Report, Section, Words
from impasto.report.pictures import GAIN, difference_map, group


def decoded(data: str) -> np.ndarray:
    assert data.startswith("data:image/webp;base64,")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data.split(",")[1]))).convert("RGB"))


def pictures_of(page: Path) -> dict[str, np.ndarray]:
    """By their names, as the page holds them."""
    found = re.findall(r'<img src="(data:[^"]*)"[^>]*data-name="([^"]*)"', page.read_text(encoding="utf-8"))
    return {name: decoded(data) for data, name in found}


def addresses(page: str) -> list[str]:
    """What a browser would ask for."""
    found: list[str] = []

    class Reader(HTMLParser):
        def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
            found.extend(
                value or "" for name, value in attributes if name in ("src", "href", "srcset", "data", "poster")
            )

    Reader().feed(page)
    return found


@pytest.fixture
def photos(tmp_path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(3):
        Image.fromarray(picture(48, 64, number)).save(folder / f"{number}.png")
    return folder


def test_a_page_asks_for_nothing_and_shows_what_files_say_as_text():
    hostile = "</script><script src=//example.org></script><img src=http://example.org>"
    report = Report(hostile, hostile, (Section(hostile, (Words(hostile),)),), {"processor": hostile})
    page = report.to_html()
    assert "example.org" in page and "<script src" not in page and "<img src=http" not in page
    assert all(address.startswith("data:") for address in addresses(page))
    assert "default-src 'none'" in page


def test_pictures_are_kept_to_the_bit():
    photo = picture(20, 30)
    (view,) = group("title", [("photo", photo)]).views
    assert np.array_equal(decoded(view.data), photo)


def test_a_map_is_the_difference_times_gain():
    one, other = np.full((2, 2, 3), 100, np.uint8), np.full((2, 2, 3), 103, np.uint8)
    other[0, 0] = 255
    seen = difference_map(one, other)
    assert (seen[1, 1] == 3 * GAIN).all() and (seen[0, 0] == 255).all()
    assert np.array_equal(seen, difference_map(other, one))


def test_pictures_of_a_group_have_one_size():
    small, large = picture(8, 10), picture(16, 20)
    made = group("x2", [("small", small), ("large", large)], against=1)
    assert [view.picture.shape for view in made.views] == [(16, 20, 3)] * 3
    assert np.array_equal(made.views[0].picture[::2, ::2], small)


def test_a_picture_too_large_for_a_page_is_scaled_and_said():
    made = group("large", [("photo", np.zeros((1024, 4096, 3), np.uint8))])
    assert (made.height, made.width) == (512, 2048)
    assert "2048 × 512 of 4096 × 1024" in made.caption


def test_percentiles_lie_where_the_samples_say():
    samples = np.arange(1.0, 101.0)
    drawn = spread("x", samples)
    assert (drawn.median, drawn.count, drawn.beyond) == ("50.5", 100, "")
    assert math.isclose(drawn.marks[0], 50, abs_tol=1e-9)
    assert math.isclose(drawn.marks[1], 100 * (np.percentile(samples, 90) - 1) / 99, abs_tol=1e-9)


def test_one_outlier_does_not_press_the_others_together():
    drawn = spread("x", [*np.linspace(10, 11, 50), 900])
    assert "1 beyond, up to 900" in drawn.beyond
    assert len(drawn.bars) > 20


@pytest.mark.parametrize("samples", [[5.0], [5.0, 5.0, 5.0], [0.0, 0.0]])
def test_equal_samples_are_drawn(samples):
    drawn = spread("x", samples)
    assert drawn.bars and all(0 <= mark <= 100 for mark in drawn.marks)


def test_the_front_holds_what_no_other_beats():
    points = [("slow and good", 10, 50.0), ("fast and bad", 1, 20.0), ("beaten", 9, 19.0), ("equal", 12, math.inf)]
    found = {point.name: point for point in scatter("latency, ms", "PSNR, dB", points).points}
    assert (found["slow and good"].y_text, found["equal"].y_text) == ("50.0 dB", "equal")
    assert [name for name, point in found.items() if point.best] == ["slow and good", "fast and bad", "equal"]
    assert found["equal"].y > found["slow and good"].y > found["fast and bad"].y
    assert all(0 <= value <= 100 for point in found.values() for value in (point.x, point.y))


def test_points_of_one_height_are_drawn():
    assert all(0 <= point.y <= 100 for point in scatter("ms", "dB", [("a", 1, math.inf), ("b", 2, math.inf)]).points)


def test_bars_are_as_long_as_their_values():
    drawn = bars("x", [("a", 2.0, "2"), ("b", 1.0, "1"), ("none", 0.0, "0")])
    lengths = [row.length for row in drawn.rows]
    assert math.isclose(lengths[0], 2 * lengths[1]) and lengths[2] == 0


def test_curves_share_a_scale():
    drawn = curves("steps", "loss", [("a", [0, 10], [0.0, 1.0]), ("b", [0, 10], [0.0, 2.0])])
    assert drawn.curves[0].path == "M0.00 100.00 L100.00 50.00"
    assert drawn.curves[1].path == "M0.00 100.00 L100.00 0.00"


@pytest.mark.parametrize(
    "value, text",
    [(0, "0"), (1234.5, "1,234"), (12.345, "12.3"), (0.01234, "0.0123"), (math.inf, "∞"), (math.nan, "–")],
)
def test_figures_have_three_digits(value, text):
    assert figure(value) == text


def test_compare_holds_the_pictures_it_drew(make_package, tmp_path, monkeypatch):
    import impasto

    monkeypatch.setattr(sys, "argv", ["impasto", "compare", "a b"])
    package, photo, made = make_package(), tmp_path / "photo.png", tmp_path / "page.html"
    Image.fromarray(picture(48, 64)).save(photo)
    cli(
        "compare",
        f"{package},backend=openvino",
        f"{package},backend=onnxruntime-cpu",
        "--photo",
        photo,
        "--rounds",
        2,
        "--html",
        made,
    )
    page = made.read_text(encoding="utf-8")
    assert "impasto compare &#39;a b&#39;" in page
    held = pictures_of(made)
    assert np.array_equal(held["the photo"], picture(48, 64))
    with impasto.load(package, backend="openvino") as model:
        assert np.array_equal(held["tiny, openvino fp32"], model(picture(48, 64)))


def test_run_holds_files_before_and_after(make_package, photos, tmp_path):
    (photos / "broken.png").write_text("no picture")
    made = tmp_path / "page.html"
    code, _, _ = cli("run", make_package(), photos, "-o", tmp_path / "out", "--html", made)
    assert code == 1
    page = made.read_text(encoding="utf-8")
    assert page.count('<div class="pictures"') == 3
    assert "broken.png" in page.split("Not drawn")[1]
    drawn = np.asarray(Image.open(tmp_path / "out" / "2.png"))
    assert np.array_equal(pictures_of(made)["after"], drawn)


def test_bench_holds_distribution_memory_and_batches(make_package, tmp_path):
    made, data = tmp_path / "page.html", tmp_path / "data.json"
    package = make_package(thumbnail=8)
    code, _, stderr = cli(
        "bench", package, "-s", "32x48", "--iterations", 5, "--batch", 2, "--html", made, "--json", data
    )
    assert code == 0, stderr
    found = json.loads(data.read_text())["results"][0]
    assert found["peak_memory_bytes"] > 10_000_000 and len(found["batches"]["2"]["samples_ms"]) == 5
    page = made.read_text(encoding="utf-8")
    assert "48 × 32, batch 2" in page and "peak resident memory" in page and "Energy" not in page
    assert "a batch of 0" in _refused(package)


def _refused(package: Path) -> str:
    from impasto.benchmarks import BenchmarkOptions, benchmark
    from impasto.errors import OptionError

    with pytest.raises(OptionError) as refused:
        benchmark(package, ["8x8"], options=BenchmarkOptions(batches=(0,)))
    return str(refused.value)


def test_eval_holds_damaged_restored_and_true_pictures(make_package, photos, tmp_path):
    made = tmp_path / "page.html"
    code, _, stderr = cli("eval", make_package(), "--photos", photos, "--degrade", "noise:10-50", "--html", made)
    assert code == 0, stderr
    held = pictures_of(made)
    assert np.array_equal(held["the true picture"], picture(48, 64, 2))
    assert {"damaged by noise:30-30", "tiny", "difference ×8: tiny − the true picture"} <= set(held)


def test_quantize_holds_what_each_graph_draws(make_package, photos, tmp_path):
    package, made = make_package(), tmp_path / "page.html"
    for number in range(6):
        Image.fromarray(picture(96, 128, number)).save(photos / f"{number}.png")
    code, _, stderr = cli(
        "quantize", package, "--to", "int8", "--for", "onnxruntime", "--calibrate", photos, "--degrade", "none", "--budget", "psnr=20",
        "--sensitivity", "--html", made,
    )  # fmt: skip
    assert code == 0, stderr
    held, page = pictures_of(made), made.read_text(encoding="utf-8")
    assert {"fp32", "int8 onnxruntime", "difference ×8: int8 onnxruntime − fp32", "the photo"} == set(held)
    assert "int8 for onnxruntime: RMS difference in levels of 255" in page and "none had to be excluded" in page


def test_what_is_missing_is_said_before_any_work(make_package, tmp_path, monkeypatch):
    from impasto.report import page

    page._template.cache_clear()
    monkeypatch.setitem(sys.modules, "jinja2", None)
    code, _, stderr = cli("bench", make_package(), "--html", tmp_path / "page.html")
    page._template.cache_clear()
    assert code == 1 and "jinja2: pip install" in stderr and "[cli]" in stderr
    assert cli("bench", make_package("other"), "--html", tmp_path / "none" / "page.html")[0] == 1
