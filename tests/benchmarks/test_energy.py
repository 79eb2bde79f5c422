"""Energy adds up to what the sensors' power and the time make, and a machine's sensors are found where its kernel has them."""

from __future__ import annotations

import json
import sys
import threading
import time
import types

import jsonschema
import pytest
from support.command_line import cli
from support.small_models import REPOSITORY

from impasto.benchmarks.measurement.energy import Counter, Energy, Rail, find_sensors, measure_energy
from impasto.errors import BackendError, OptionError


def rest(seconds=0.01):
    time.sleep(seconds)


def test_a_steady_supply_costs_its_watts_times_the_time():
    found = measure_energy(rest, [Rail("VDD_IN", lambda: 8.0)], seconds=0.3, idle_seconds=0.1)
    assert found.joules["VDD_IN"] == pytest.approx(8 * found.seconds)
    assert found.idle_watts["VDD_IN"] == pytest.approx(8)
    assert 1 <= found.pictures <= 31
    assert found.seconds >= 0.3


def test_a_supply_that_grows_is_added_up_by_trapezoids():
    """Watts that grow with the time are half their last value on average."""
    begun = time.perf_counter()
    rail = Rail("rail", lambda: time.perf_counter() - begun)
    rail.start()
    first = time.perf_counter() - begun
    rest(0.3)
    joules = rail.stop(2.0)
    last = time.perf_counter() - begun
    assert joules == pytest.approx(2 * (first + last) / 2, rel=0.05)


def test_a_reading_that_fails_leaves_no_gap():
    readings = iter([4.0, OSError(), OSError(), *[4.0] * 1000])

    def read():
        reading = next(readings)
        if isinstance(reading, OSError):
            raise reading
        return reading

    rail = Rail("rail", read)
    rail.start()
    rest(0.2)
    assert rail.stop(1.0) == pytest.approx(4)


@pytest.mark.parametrize("when", [0, 1])
def test_where_one_sensor_fails_the_others_stop(when):
    """At the start, and at the end."""
    readings = iter([1.0, 2.0][:when])

    def read():
        try:
            return next(readings)
        except StopIteration:
            raise OSError("gone") from None

    sensors = [Rail("rail", lambda: 5.0), Counter("CPU", read), Rail("other", lambda: 5.0)]
    with pytest.raises(BackendError, match="gone; measure again"):
        measure_energy(rest, sensors, seconds=0.05, idle_seconds=0.05)
    assert not [thread for thread in threading.enumerate() if thread.name == "impasto-energy"]


def test_a_counter_that_begins_again_at_zero():
    values = iter([90.0, 95.0, 98.0, 3.0])
    counter = Counter("CPU", lambda: next(values), wraps_at=100.0)
    for wanted in (5.0, 5.0):
        counter.start()
        assert counter.stop(1.0) == wanted


def test_what_is_told():
    found = Energy(10, 2.0, {"GPU 0": 30.0, "CPU package-0": 10.0}, {"GPU 0": 4.0, "CPU package-0": 1.0})
    assert str(found) == (
        "GPU 0 3e+03 mJ a picture at 15 W (idle 4 W); CPU package-0 1e+03 mJ a picture at 5 W (idle 1 W)"
    )
    assert found.to_json()["joules_per_picture"] == {"GPU 0": 3.0, "CPU package-0": 1.0}
    module = Energy(1, 1.0, {"VDD_SOC": 9.0, "VDD_IN": 8.0}, {"VDD_SOC": 1.0, "VDD_IN": 1.0})
    assert module.main == "VDD_IN", "the whole module, whatever noise says of its parts"


def test_a_sensor_that_vanishes_is_an_error_of_ours():
    def gone():
        raise OSError("No such device")

    with pytest.raises(BackendError, match="No such device; measure again"):
        measure_energy(rest, [Counter("CPU", gone)], seconds=0.05, idle_seconds=0.01)


def chip(system, number, rails, name="ina3221"):
    """A hwmon folder as Linux has it: rails are (label, millivolts, milliamperes) of channels 1, 2, 3."""
    folder = system / "class" / "hwmon" / f"hwmon{number}"
    folder.mkdir(parents=True)
    (folder / "name").write_text(f"{name}\n")
    for channel, (label, millivolts, milliamperes) in enumerate(rails, 1):
        (folder / f"in{channel}_label").write_text(f"{label}\n")
        (folder / f"in{channel}_input").write_text(f"{millivolts}\n")
        (folder / f"curr{channel}_input").write_text(f"{milliamperes}\n")
    return folder


def zone(system, name, content, microjoules, largest=10**12):
    folder = system / "class" / "powercap" / name
    folder.mkdir(parents=True)
    (folder / "name").write_text(f"{content}\n")
    (folder / "energy_uj").write_text(f"{microjoules}\n")
    (folder / "max_energy_range_uj").write_text(f"{largest}\n")
    return folder


@pytest.fixture
def no_gpu(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", None)


def test_a_jetsons_rails(tmp_path, no_gpu):
    orin = chip(tmp_path, 1, [("VDD_IN", 5000, 1500), ("VDD_CPU_GPU_CV", 5000, 400), ("NC", 0, 0)])
    chip(tmp_path, 0, [("fan", 5000, 100)], name="pwmfan")
    (chip(tmp_path, 2, [("VDD_SOC", 5000, 200)]) / "curr1_input").write_text("no number")
    sensors = find_sensors(tmp_path)
    assert [sensor.name for sensor in sensors] == ["VDD_IN", "VDD_CPU_GPU_CV"]
    found = measure_energy(rest, sensors, seconds=0.1, idle_seconds=0.05)
    assert found.idle_watts["VDD_IN"] == pytest.approx(7.5)
    assert found.joules["VDD_CPU_GPU_CV"] == pytest.approx(2 * found.seconds)
    (orin / "in1_input").unlink()
    with pytest.raises(BackendError, match="measure again"):
        measure_energy(rest, sensors, seconds=0.1, idle_seconds=0.05)


def test_a_cpus_packages_without_their_parts(tmp_path, no_gpu):
    package = zone(tmp_path, "intel-rapl:0", "package-0", 1_000_000, largest=3_000_000)
    zone(tmp_path, "intel-rapl:0:0", "core", 5)
    (sensor,) = find_sensors(tmp_path)
    assert sensor.name == "CPU package-0"
    sensor.start()
    (package / "energy_uj").write_text("500000")
    assert sensor.stop(1.0) == pytest.approx(2.5)


class NVMLError(Exception):
    pass


def nvml(**functions):
    module = types.ModuleType("pynvml")
    everything = {
        "NVMLError": NVMLError,
        "nvmlInit": lambda: None,
        "nvmlDeviceGetCount": lambda: 2,
        "nvmlDeviceGetHandleByIndex": lambda index: index,
        "nvmlDeviceGetTotalEnergyConsumption": lambda handle: 7_000 * (handle + 1),
    }
    vars(module).update(everything | functions)
    return module


def test_gpus_count_millijoules(tmp_path, monkeypatch):
    counted = {0: 1000, 1: 5000}
    monkeypatch.setitem(sys.modules, "pynvml", nvml(nvmlDeviceGetTotalEnergyConsumption=counted.__getitem__))
    sensors = find_sensors(tmp_path)
    assert [sensor.name for sensor in sensors] == ["GPU 0", "GPU 1"]
    for sensor in sensors:
        sensor.start()
    counted.update({0: 1500, 1: 9000})
    assert [sensor.stop(1.0) for sensor in sensors] == [0.5, 4.0]


def test_the_real_nvml_has_these_names():
    real = pytest.importorskip("pynvml", reason="pip install nvidia-ml-py")
    assert [name for name in vars(nvml()) if name.startswith(("nvml", "NVML")) and not hasattr(real, name)] == []


@pytest.mark.parametrize("when", ["nvmlInit", "nvmlDeviceGetTotalEnergyConsumption"])
def test_without_any_sensor_the_reasons_are_told(tmp_path, monkeypatch, when):
    def fails(*_):
        raise NVMLError("Not Supported")

    monkeypatch.setitem(sys.modules, "pynvml", nvml(**{when: fails}))
    with pytest.raises(OptionError, match=r"no INA3221.*NVML says: Not Supported.*no RAPL.*leave --energy out"):
        find_sensors(tmp_path)


def test_bench_counts_joules(make_package, tmp_path, monkeypatch):
    monkeypatch.setattr("impasto.benchmarks.measurement.report.find_sensors", lambda: [Rail("VDD_IN", lambda: 5.0)])
    monkeypatch.setattr(
        "impasto.benchmarks.measurement.report.measure_energy",
        lambda function, sensors: measure_energy(function, sensors, seconds=0.1, idle_seconds=0.05),
    )
    package, path = make_package(), tmp_path / "bench.json"
    code, stdout, stderr = cli("bench", package, "--size", "40x50", "--iterations", 3, "--energy", "--json", path)
    assert code == 0, stderr
    assert "40x50: VDD_IN" in stdout and "mJ a picture at 5 W (idle 5 W)" in stdout
    report = json.loads(path.read_text())
    jsonschema.validate(report, json.loads((REPOSITORY / "benchmarks" / "report.schema.json").read_text()))
    energy = report["results"][0]["energy"]
    assert energy["joules_per_picture"]["VDD_IN"] * energy["pictures"] == pytest.approx(5 * energy["seconds"])


def test_bench_without_sensors_is_one_line(make_package, tmp_path, monkeypatch):
    def none():
        raise OptionError("nothing here counts energy")

    monkeypatch.setattr("impasto.benchmarks.measurement.report.find_sensors", none)
    code, _, stderr = cli("bench", make_package(), "--energy", "--json", tmp_path / "bench.json")
    assert code == 1
    assert stderr.splitlines()[-1] == "error: nothing here counts energy"
    assert not (tmp_path / "bench.json").exists()
