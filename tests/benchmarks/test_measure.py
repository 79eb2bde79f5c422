"""The figures are what statistics says they are."""

from __future__ import annotations

import statistics
import time

import pytest

from impasto.benchmarks import Latency, measure
from impasto.benchmarks.measurement.report import _processor
from impasto.errors import OptionError
from impasto.export.tensorrt.options import Sizes
from impasto.images.sizes import parse_size


def test_figures_agree_with_the_standard_library():
    samples = (3.0, 1.0, 4.0, 1.5, 9.0, 2.6)
    latency = Latency(samples)
    assert latency.median_ms == statistics.median(samples)
    assert latency.mean_ms == pytest.approx(statistics.mean(samples))
    assert latency.standard_deviation_ms == pytest.approx(statistics.stdev(samples))
    assert latency.percentile_ms(90) == pytest.approx(statistics.quantiles(samples, n=10, method="inclusive")[-1])
    assert latency.images_per_second == pytest.approx(1000 / 2.8)
    assert Latency((5.0,)).standard_deviation_ms == 0


def test_warm_up_is_not_timed():
    calls = []

    def work() -> None:
        calls.append(None)
        time.sleep(0.05 if len(calls) <= 2 else 0.001)

    latency = measure(work, iterations=5, warmup=2)
    assert len(calls) == 7
    assert len(latency.samples_ms) == 5
    assert 1 <= latency.median_ms < 40


def test_a_slow_function_is_measured_three_times_at_least():
    assert len(measure(lambda: time.sleep(0.02), iterations=50, warmup=0, seconds=0.01).samples_ms) == 3


@pytest.mark.parametrize("options", [{"iterations": 0}, {"warmup": -1}, {"seconds": 0}])
def test_nonsense_is_refused(options):
    with pytest.raises(OptionError):
        measure(lambda: None, **options)


def test_sizes():
    assert parse_size("1080p") == (1080, 1920)
    assert parse_size("480x640") == (480, 640)
    assert parse_size("4K") == parse_size("2160p") == (2160, 3840)
    assert Sizes.parse("256x256:1080p:4k").high == (2160, 3840), "build knows what bench does"
    for wrong in ("0x3", "x", "big", "12", "-1x4"):
        with pytest.raises(OptionError, match="HEIGHTxWIDTH"):
            parse_size(wrong)


def test_a_machine_is_called_by_its_board_or_its_cpu(tmp_path):
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nmodel name\t: A CPU\n")
    assert _processor(tmp_path) == "A CPU"
    (tmp_path / "device-tree").mkdir()
    (tmp_path / "device-tree" / "model").write_bytes(b"NVIDIA Jetson Orin Nano Developer Kit\0")
    assert _processor(tmp_path) == "NVIDIA Jetson Orin Nano Developer Kit"
