"""Predictions: laws of the roofline, what each device's figures say, and how far they are from what was measured."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from support.command_line import cli
from support.small_models import REPOSITORY

from impasto.benchmarks.prediction import device_named, known_devices, predict
from impasto.benchmarks.prediction.against import errors
from impasto.benchmarks.prediction.devices import FILE, HERE, this_cpu
from impasto.errors import OptionError

WANTED = ("orin-nano", "orin-nx-16", "agx-orin", "thor", "rtx-3060", "rtx-4090", "l4", "h100", HERE)


@pytest.mark.parametrize("key", WANTED)
def test_every_device_predicts_and_no_bound_is_above_what_is_likely(key):
    found = predict("great-wave", key, ["256x256"])
    assert found.sizes[0].precision == "fp32"
    for size in found.sizes:
        assert 0 < size.bound_ms < size.likely_ms < size.end_to_end_ms
        assert all(time.bound_ms <= time.likely_ms for time in size.layers)
        assert 0 < size.memory_bytes < 1e9 * found.device.figures["memory_gb"].value


def test_each_figure_names_its_source():
    data = json.loads(FILE.read_text())
    for device in data.values():
        assert all(figure["source"] and figure["value"] > 0 for figure in device["figures"].values())
        assert device["checked"]


def test_larger_pictures_and_slower_devices_take_longer():
    small, large = predict("denoise", "orin-nano", ["256x256", "512x512"], precision="fp16").sizes
    assert large.likely_ms > 2 * small.likely_ms
    nano, orin, h100 = (predict("denoise", key, precision="fp16").sizes[0] for key in ("orin-nano", "agx-orin", "h100"))
    assert nano.likely_ms > orin.likely_ms > h100.likely_ms and nano.bound_ms > orin.bound_ms > h100.bound_ms


def test_a_picture_that_is_cut_takes_as_many_runs_as_the_runtime_makes():
    (size,) = predict("denoise", "orin-nano", ["2160p"], precision="fp16").sizes
    assert size.windows > 1 and size.likely_ms == pytest.approx(size.windows * sum(t.likely_ms for t in size.layers))
    one = size.windows * max(time.layer.written_bytes for time in size.layers)
    assert size.memory_bytes < one  # windows run one after the other


def test_a_graph_of_the_package_is_counted_as_it_is(make_package):
    package = make_package()
    assert [size.assumed for size in predict(package, "h100").sizes] == [False, True, True]


def test_devices_of_the_users_own(tmp_path):
    path = tmp_path / "board.json"
    path.write_text(json.dumps({"figures": {"fp32_tflops": 1, "fp16_tflops": 2, "memory_gb_s": 50, "memory_gb": 4}}))
    found = predict("denoise", str(path))
    assert (found.device.name, [size.precision for size in found.sizes]) == ("board", ["fp32", "fp16"])


@pytest.mark.parametrize(
    "content, told",
    [
        ("{", "does not describe a device"),
        ('{"figures": {}}', "figures lack fp32_tflops"),
        ('{"figures": {"speed": 3}}', "figures have 'speed'"),
        ('{"figures": {"fp32_tflops": "fast", "memory_gb_s": 1, "memory_gb": 1}}', "expected a number above 0"),
    ],
)
def test_a_file_that_describes_no_device_is_one_line(tmp_path, content, told):
    path = tmp_path / "board.json"
    path.write_text(content)
    with pytest.raises(OptionError, match=told):
        device_named(str(path))


def test_what_a_device_cannot_do_is_said():
    with pytest.raises(OptionError, match=r"choose one of orin-nano, .*h100.*cpu"):
        predict("denoise", "nano")
    with pytest.raises(OptionError, match="no figure for 'fp16'"):
        predict("denoise", "epyc-avx2", precision="fp16")
    with pytest.raises(OptionError, match="choose one of auto, openvino, onnxruntime"):
        predict("denoise", "epyc-avx2", backend="tensorrt")
    with pytest.raises(OptionError, match="leave --energy"):
        _raise(cli("bench", "denoise", "--predict", "h100", "--batch", 2))


def _raise(result: tuple[int, str, str]) -> None:
    code, _, stderr = result
    assert code == 1
    raise OptionError(stderr)


def test_this_cpu_is_described_by_the_system(tmp_path):
    proc, devices = tmp_path / "proc", tmp_path / "cpu0"
    (devices / "cpufreq").mkdir(parents=True)
    (devices / "cache" / "index3").mkdir(parents=True)
    proc.mkdir()
    (proc / "cpuinfo").write_text("flags\t: fpu avx2 avx512f amx_int8\ncpu MHz\t\t: 2000.0\n")
    (devices / "cpufreq" / "cpuinfo_max_freq").write_text("3000000\n")
    (devices / "cache" / "index3" / "size").write_text("32768K\n")
    found = this_cpu(proc, devices)
    assert found.figures["cache_mb"].value == 32
    assert found.rate("int8") == 32 * found.rate("fp32")
    cores = found.rate("fp32") / (64 * 3.0e9)
    assert cores == pytest.approx(round(cores)) and cores >= 1
    assert this_cpu(tmp_path / "nothing", tmp_path).rate("fp32") > 0  # not even a system that tells nothing stops it


LARGEST_FACTOR = {"epyc-avx2": 1.2, "xeon-amx": 1.4, "h100": 1.8}
"""How many times too slow or too fast a prediction may be for each machine that was measured (docs/results/prediction.md)."""
MEDIAN_ERROR = {"epyc-avx2": 0.10, "xeon-amx": 0.10, "h100": 0.20}


def test_predictions_are_as_near_to_every_measurement_as_documented():
    found = errors(REPOSITORY / "benchmarks" / "results")
    assert {one.device for one in found.compared} == set(LARGEST_FACTOR)
    assert len(found.compared) >= 32
    for device, most in LARGEST_FACTOR.items():
        compared = found.of(device)
        assert max(one.factor for one in compared) <= most
        assert float(np.median([abs(one.error) for one in compared])) <= MEDIAN_ERROR[device]
    assert all(one.bound_ms <= one.measured.milliseconds for one in found.compared)


def test_no_latency_under_the_results_is_passed_over_in_silence():
    folder = REPOSITORY / "benchmarks" / "results"
    found = errors(folder)
    told = {one.measured.file for one in found.compared} | {line.split(":")[0] for line in found.left_out}
    timed = {
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*.json")
        if any(
            word in path.read_text()
            for word in ("median_ms", "microseconds", "frames_per_second", "seconds_per_megapixel")
        )
    }
    assert timed <= told


def test_a_folder_without_latencies_is_said(tmp_path):
    with pytest.raises(OptionError, match="no measured latency"):
        errors(tmp_path)


def test_the_verb_says_that_it_predicts_and_writes_json_and_a_page(make_package, tmp_path):
    data, page = tmp_path / "data.json", tmp_path / "page.html"
    code, stdout, stderr = cli(
        "bench",
        make_package(),
        "--predict",
        "orin-nano",
        "-s",
        "64x64",
        "-s",
        "128x128",
        "--json",
        data,
        "--html",
        page,
    )
    assert code == 0, stderr
    assert "Predicted" in stdout and "nothing was run" in stdout and "(assumed)" in stdout
    found = json.loads(data.read_text())
    assert found["kind"] == "impasto.prediction" and len(found["predictions"]) == 6
    assert found["device"]["figures"]["memory_gb_s"]["source"].startswith("https://")
    held = page.read_text(encoding="utf-8")
    assert "a prediction</h1>" in held and "Where the time goes" in held and "at least ms" in held


def test_names_of_devices_are_short_and_known():
    assert set(WANTED) <= set(known_devices())
    assert all(Path(key).name == key for key in known_devices())
