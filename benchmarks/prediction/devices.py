"""What a device can do at most, by public figures, and which share of that networks like ours are likely to get."""

from __future__ import annotations

import json
import os
import platform
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from impasto.errors import OptionError
from impasto.package import schema
from impasto.runtime.backends import target_backend
from impasto.runtime.cpu import usable_cores

FILE = Path(__file__).parent / "devices.json"
HERE = "cpu"
"""The name of this machine's CPU."""

_RATES = {"fp32": "fp32_tflops", "bf16": "bf16_tflops", "fp16": "fp16_tflops", "int8": "int8_tops"}
_OTHERS = ("memory_gb_s", "memory_gb", "cache_mb", "bus_gb_s")
_SHARES = {"fp32": 0.6, "bf16": 0.35, "fp16": 0.35, "int8": 0.35, "memory": 0.65, "launch_us": 6.0}
"""For a device of the user's that says nothing else."""


@dataclass(frozen=True)
class Figure:
    """A public figure."""

    value: float
    source: str
    """Where it was read: an address, or a file of this repository."""
    how: str = ""
    """What was made of what stands there."""
    opened: bool = True
    """False where the address is the vendor's, and could not be opened where this was written."""


@dataclass(frozen=True)
class Likely:
    """What one backend is likely to get of the device."""

    shares: Mapping[str, float]
    """Share of the highest rate, by precision."""
    memory: float
    """Share of the memory's bandwidth."""
    launch_us: float
    """For each layer, besides its work."""
    beside_int8: str
    """The precision of what INT8 graphs leave out."""


@dataclass(frozen=True)
class Device:
    """A device and its figures."""

    key: str
    """What it is asked for by."""
    name: str
    figures: Mapping[str, Figure]
    """Rates in 10^12 operations a second, without sparsity ("fp16_tflops", "int8_tops", …), "memory_gb_s", "memory_gb", "cache_mb" and,
    where pictures cross a bus, "bus_gb_s"."""
    backends: Mapping[str, Likely]
    """By target backend; the first is what a prediction is for where nobody chooses."""
    checked: str
    """What its predictions have been compared with."""
    processors: tuple[str, ...] = ()
    """What machines call it in results."""

    @property
    def precisions(self) -> tuple[str, ...]:
        """Those that it has a rate for."""
        return tuple(name for name, key in _RATES.items() if key in self.figures)

    def rate(self, precision: str) -> float:
        """Operations a second at most; a multiply-accumulate is two. precision: one of `precisions`."""
        return self.figures[_RATES[precision]].value * 1e12

    def bytes_per_second(self) -> float:
        """From and to its memory at most."""
        return self.figures["memory_gb_s"].value * 1e9

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary."""
        return {
            "key": self.key,
            "name": self.name,
            "checked": self.checked,
            "figures": {
                name: {"value": figure.value, "source": figure.source, **({"how": figure.how} if figure.how else {})}
                for name, figure in self.figures.items()
            },
        }


@cache
def known_devices() -> dict[str, Device]:
    """Every device of `devices.json` by its key, and this machine's CPU as HERE."""
    data = json.loads(FILE.read_text(encoding="utf-8"))
    return {key: _device(key, entry) for key, entry in data.items()} | {HERE: this_cpu()}


def device_named(name: str) -> Device:
    """A device of `known_devices`, or one that a JSON file describes in the same form.

    Raises OptionError, with the devices that there are.
    """
    known = known_devices()
    if name in known:
        return known[name]
    path = Path(name)
    if path.suffix.lower() != ".json":
        raise OptionError(
            f"no device is called {name!r}; choose one of {', '.join(known)}, or write its figures into a .json file "
            "(docs/guides/predict.md)"
        )
    try:
        return _device(path.stem, schema.mapping(schema.read_json(path), str(path)))
    except OSError as error:
        raise OptionError(f"cannot read the device in {path}: {error.strerror or error}") from None
    except schema.Malformed as error:
        raise OptionError(f"{path} does not describe a device: {error}") from None


def _device(key: str, entry: Mapping[str, Any]) -> Device:
    """Raises schema.Malformed."""
    figures = {name: _figure(name, value) for name, value in schema.mapping(entry.get("figures"), "figures").items()}
    unknown = sorted(set(figures) - {*_RATES.values(), *_OTHERS})
    if unknown:
        known = ", ".join((*_RATES.values(), *_OTHERS))
        raise schema.Malformed(f"figures have {reprlib.repr(unknown[0])}; known: {known}")
    missing = [name for name in ("fp32_tflops", "memory_gb_s", "memory_gb") if name not in figures]
    if missing:
        raise schema.Malformed(f"figures lack {', '.join(missing)}")
    likely = schema.mapping(entry.get("likely"), "likely") or {"tensorrt": {}}
    return Device(
        key,
        schema.text(entry.get("name") or key, "name"),
        figures,
        {backend: _likely(schema.mapping(shares, backend)) for backend, shares in likely.items()},
        schema.text(entry.get("checked") or "nothing", "checked"),
        tuple(entry.get("processors", ())),
    )


def _figure(name: str, value: Any) -> Figure:
    told = value if isinstance(value, dict) else {"value": value}
    number = _number(told.get("value"), name)
    return Figure(
        number,
        schema.text(told.get("source") or "the user's file", f"source of {name}"),
        schema.text(told.get("how") or "as it stands", f"how of {name}") if told.get("how") else "",
        bool(told.get("opened", True)),
    )


def _likely(entry: Mapping[str, Any]) -> Likely:
    given = {name: _number(entry.get(name, usual), name) for name, usual in _SHARES.items()}
    beside = schema.one_of(entry.get("beside_int8", "fp32"), "beside_int8", tuple(_RATES))
    return Likely({name: given[name] for name in _RATES}, given["memory"], given["launch_us"], beside)


def _number(value: Any, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e9:
        raise schema.Malformed(f"{name} is {reprlib.repr(value)}; expected a number above 0")
    return float(value)


def likely_of(device: Device, backend: str) -> tuple[str, Likely]:
    """The target backend that a prediction is for, and its shares. backend: "auto", or as `impasto.load` has it. Raises OptionError."""
    chosen = next(iter(device.backends)) if backend == "auto" else target_backend(backend)
    if chosen not in device.backends:
        raise OptionError(
            f"nothing is known of {backend} on {device.name}; choose one of auto, {', '.join(device.backends)}"
        )
    return chosen, device.backends[chosen]


# What one core does in a cycle, multiply and add counted as two, with two units of each width:
# https://www.microway.com/knowledge-center-articles/detailed-specifications-of-the-amd-epyc-milan-cpus/ (AVX2),
# https://en.wikipedia.org/wiki/Advanced_Matrix_Extensions (AMX); Arm's NEON has 128 bits, of which most server cores have two units.
_PER_CYCLE = (
    ("amx_int8", {"fp32": 64, "bf16": 1024, "int8": 2048}, "xeon-amx"),
    ("avx512_vnni", {"fp32": 64, "int8": 256}, "xeon-amx"),
    ("avx512f", {"fp32": 64, "int8": 128}, "epyc-avx2"),
    ("avx_vnni", {"fp32": 32, "int8": 128}, "epyc-avx2"),
    ("avx2", {"fp32": 32, "int8": 64}, "epyc-avx2"),
    ("asimddp", {"fp32": 16, "int8": 128}, "epyc-avx2"),
    ("asimd", {"fp32": 16, "int8": 32}, "epyc-avx2"),
    ("", {"fp32": 8, "int8": 16}, "epyc-avx2"),
)
"""By the best feature that a CPU has, with the measured CPU whose shares it is given."""
_BOOST = 1.4
"""A clock that is no maximum is taken to be this much below it."""
_CORE_GB_S = 7.5
"""What one core of the measured CPUs moved."""


def this_cpu(proc: Path = Path("/proc"), devices: Path = Path("/sys/devices/system/cpu/cpu0")) -> Device:
    """This machine's CPU, as far as the system describes it."""
    text = _read(proc / "cpuinfo")
    features = set(text.replace("\t", " ").split())
    feature, per_cycle, like = next(row for row in _PER_CYCLE if row[0] in features or not row[0])
    cores = usable_cores()
    clock, clock_source = _clock(text, devices)
    how = f"{cores} cores x {{}} operations ({feature or 'no vectors known'}) x {clock:.2f} GHz"
    figures = {
        _RATES[precision]: Figure(cores * count * clock / 1000, clock_source, how.format(count))
        for precision, count in per_cycle.items()
    }
    figures["memory_gb_s"] = Figure(
        307.2, str(FILE.name), "no system says it: that of a server with eight channels of DDR5-4800"
    )
    figures["memory_gb"] = Figure(_memory_gb(), "the system")
    figures["cache_mb"] = Figure(_cache_mb(devices), str(devices / "cache"))
    measured = json.loads(FILE.read_text(encoding="utf-8"))[like]["likely"]
    own = {"memory": min(0.8, cores * _CORE_GB_S / 307.2), "beside_int8": "bf16" if "bf16" in per_cycle else "fp32"}
    return Device(
        HERE,
        f"this CPU ({platform.machine()}, {cores} cores)",
        figures,
        {backend: _likely({**shares, **own}) for backend, shares in measured.items()},
        f"nothing; its shares are those of {like}",
    )


def _clock(cpuinfo: str, devices: Path) -> tuple[float, str]:
    """In GHz at most, and where that stands."""
    highest = devices / "cpufreq" / "cpuinfo_max_freq"
    if text := _read(highest).strip():
        return int(text) / 1e6, str(highest)
    now = [float(line.split(":")[1]) for line in cpuinfo.splitlines() if line.startswith("cpu MHz")]
    if now:
        return _BOOST * max(now) / 1000, f"/proc/cpuinfo, x {_BOOST} for a boost that it does not tell"
    return 2.5, "nothing says it: taken to be 2.5 GHz"


def _cache_mb(devices: Path) -> float:
    sizes = [_read(path).strip() for path in sorted((devices / "cache").glob("index*/size"))]
    return max([int(size[:-1]) / 1024 for size in sizes if size.endswith("K")], default=1.0)


def _memory_gb() -> float:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    except (ValueError, OSError, AttributeError):
        return 8.0


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
