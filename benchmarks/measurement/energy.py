"""What a picture costs in energy, by the sensors that the machine has itself: a Jetson's rails, a GPU's or a CPU's counter."""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from impasto.errors import BackendError, OptionError

IDLE_SECONDS = 2.0
"""Seconds for which the machine does nothing before, to measure its power then."""
_INTERVAL = 0.02
"""Seconds between two readings of a rail: often enough for a picture's ups and downs, and few enough to cost nothing themselves."""
_WHOLE = ("VDD_IN", "POM_5V_IN")
"""Rails through which all of a Jetson module's power comes."""


class Sensor(ABC):
    """Counts energy between `start` and `stop`."""

    def __init__(self, name: str) -> None:
        self.name = name

    @abstractmethod
    def start(self) -> None: ...

    @abstractmethod
    def stop(self, seconds: float) -> float:
        """Joules since `start`, which was so many seconds ago by the clock that counts."""


class Counter(Sensor):
    """Hardware that counts by itself. read: joules since some moment; they begin at 0 again after `wraps_at`, if that is not 0."""

    def __init__(self, name: str, read: Callable[[], float], wraps_at: float = 0.0) -> None:
        super().__init__(name)
        self._read, self._wraps_at = read, wraps_at

    def start(self) -> None:
        self._begun = self._read()

    def stop(self, seconds: float) -> float:
        spent = self._read() - self._begun
        return spent + self._wraps_at if spent < 0 else spent


class Rail(Sensor):
    """A supply whose power is read again and again, by a thread of its own, and added up by trapezoids. read: watts."""

    def __init__(self, name: str, read: Callable[[], float]) -> None:
        super().__init__(name)
        self._read = read

    def start(self) -> None:
        self._joules = 0.0
        self._first = self._last = time.perf_counter(), self._read()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._sample, name="impasto-energy", daemon=True)
        self._thread.start()

    def stop(self, seconds: float) -> float:
        self._stopped.set()
        self._thread.join()
        self._add()
        return self._joules / (self._last[0] - self._first[0]) * seconds  # its mean power, whatever readings took

    def _sample(self) -> None:
        while not self._stopped.wait(_INTERVAL):
            with suppress(OSError):  # a longer trapezoid then
                self._add()

    def _add(self) -> None:
        watts, moment = self._read(), time.perf_counter()
        self._joules += (moment - self._last[0]) * (watts + self._last[1]) / 2
        self._last = moment, watts


@dataclass(frozen=True)
class Energy:
    """What pictures took, one after the other, from NumPy to NumPy."""

    pictures: int
    seconds: float
    joules: dict[str, float]
    """Joules by sensor: all that it counted, also for what else the machine did."""
    idle_watts: dict[str, float]
    """Power by sensor, with the model loaded and nothing to do."""

    @property
    def main(self) -> str:
        """The sensor that sees most: a Jetson's whole module where there is such a rail, otherwise the one that counted most."""
        return next((name for name in _WHOLE if name in self.joules), max(self.joules, key=self.joules.__getitem__))

    def __str__(self) -> str:
        told = [self.main, *(name for name in self.joules if name != self.main)]
        return "; ".join(
            f"{name} {1000 * self.joules[name] / self.pictures:.3g} mJ a picture at {self.joules[name] / self.seconds:.3g} W "
            f"(idle {self.idle_watts[name]:.3g} W)"
            for name in told
        )

    def to_json(self) -> dict[str, Any]:
        """Joules and watts by sensor."""
        return {
            "pictures": self.pictures,
            "seconds": self.seconds,
            "joules_per_picture": {name: joules / self.pictures for name, joules in self.joules.items()},
            "watts": {name: joules / self.seconds for name, joules in self.joules.items()},
            "idle_watts": dict(self.idle_watts),
        }


def measure_energy(
    function: Callable[[], object],
    sensors: Sequence[Sensor],
    *,
    seconds: float = 5.0,
    idle_seconds: float = IDLE_SECONDS,
) -> Energy:
    """Do nothing for a while, then call the function for `seconds`, and see what the sensors counted. One call is one picture.

    Raises BackendError where a sensor can no longer be read.
    """
    try:
        with _Counting(sensors) as idle:
            time.sleep(idle_seconds)
        function()
        pictures = 0
        with _Counting(sensors) as busy:
            while not pictures or time.perf_counter() - busy.begun < seconds:
                function()
                pictures += 1
    except OSError as error:
        raise BackendError(
            f"an energy sensor that could be read before cannot be now: {error}; measure again"
        ) from None
    return Energy(
        pictures, busy.seconds, busy.joules, {name: joules / idle.seconds for name, joules in idle.joules.items()}
    )


class _Counting:
    """The sensors' joules over a block."""

    def __init__(self, sensors: Sequence[Sensor]) -> None:
        self._sensors = sensors
        self.joules: dict[str, float] = {}
        self.seconds = 0.0

    def __enter__(self) -> _Counting:
        with ExitStack() as started:  # where one fails, the others are stopped
            for sensor in self._sensors:
                self.joules[sensor.name] = 0.0
                sensor.start()
                started.callback(self._stop, sensor)
            self._started = started.pop_all()
        self.begun = time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds = time.perf_counter() - self.begun
        self._started.close()

    def _stop(self, sensor: Sensor) -> None:
        self.joules[sensor.name] = sensor.stop(self.seconds)


def find_sensors(system: Path = Path("/sys")) -> list[Sensor]:
    """All that can be read here. Raises OptionError where nothing can, with what stands in the way.

    A Jetson's INA3221 (https://docs.kernel.org/hwmon/ina3221.html: volts and amperes of up to three rails a chip), NVIDIA GPUs by NVML
    (nvmlDeviceGetTotalEnergyConsumption, from Volta on), and Intel's and AMD's CPU packages by RAPL
    (https://docs.kernel.org/power/powercap/powercap.html).
    """
    reasons: list[str] = []
    found = [*_rails(system, reasons), *_gpus(reasons), *_packages(system, reasons)]
    if not found:
        raise OptionError(
            f"nothing here counts energy: {'; '.join(reasons)}. Measure at the plug, or leave --energy out"
        )
    return found


def _rails(system: Path, reasons: list[str]) -> list[Sensor]:
    found: list[Sensor] = []
    for chip in sorted((system / "class" / "hwmon").glob("hwmon*")):
        with suppress(OSError):
            if (chip / "name").read_text().strip() != "ina3221":
                continue
            for channel in (1, 2, 3):
                found += _rail(chip, channel)
    if not found:
        reasons.append("there is no INA3221, as Jetsons have it")
    return found


def _rail(chip: Path, channel: int) -> list[Sensor]:
    """The rail, if one is connected there."""
    volts, amperes = chip / f"in{channel}_input", chip / f"curr{channel}_input"

    def watts() -> float:
        return int(volts.read_text()) * int(amperes.read_text()) / 1e6  # millivolts, milliamperes

    try:
        label = (chip / f"in{channel}_label").read_text().strip()
        watts()
    except (OSError, ValueError):
        return []
    return [] if label == "NC" else [Rail(label, watts)]


def _gpus(reasons: list[str]) -> list[Sensor]:
    try:
        import pynvml
    except ImportError:
        reasons.append("NVIDIA GPUs' counters need pip install nvidia-ml-py")
        return []
    try:
        pynvml.nvmlInit()
        return [_gpu(pynvml, index) for index in range(pynvml.nvmlDeviceGetCount())]
    except pynvml.NVMLError as error:
        reasons.append(f"NVML says: {error}")
        return []


def _gpu(pynvml: Any, index: int) -> Sensor:
    handle = pynvml.nvmlDeviceGetHandleByIndex(index)

    def joules() -> float:
        try:
            return float(pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)) / 1000
        except pynvml.NVMLError as error:
            raise BackendError(f"NVML no longer tells what GPU {index} took: {error}; measure again") from None

    pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)
    return Counter(f"GPU {index}", joules)


def _packages(system: Path, reasons: list[str]) -> list[Sensor]:
    zones = sorted((system / "class" / "powercap").glob("intel-rapl:*"))
    zones = [zone for zone in zones if zone.name.count(":") == 1]  # those with two are parts of these
    found: list[Sensor] = []
    reason = "there is no RAPL, as x86 CPUs have it"
    for zone in zones:
        counter = zone / "energy_uj"

        def joules(counter: Path = counter) -> float:
            return int(counter.read_text()) / 1e6

        try:
            joules()
            name, wraps_at = (zone / "name").read_text().strip(), int((zone / "max_energy_range_uj").read_text()) / 1e6
        except PermissionError:
            reason = f"only root may read {counter}: sudo chmod a+r {counter}"
        except (OSError, ValueError) as error:
            reason = f"{counter} cannot be read: {error}"
        else:
            found.append(Counter(f"CPU {name}", joules, wraps_at))
    if not found:
        reasons.append(reason)
    return found
