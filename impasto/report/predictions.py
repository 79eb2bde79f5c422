"""The page of `impasto bench --predict`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from .charts import Bars, bars, figure
from .page import Figure, Grid, Report, Section

if TYPE_CHECKING:
    from impasto.benchmarks.prediction.roofline import Prediction, SizePrediction

SHOWN = 12
"""Layers of each size and precision."""


def prediction_report(found: Prediction, machine: Mapping[str, Any], command: str = "") -> Report:
    """What a device is likely to take, what it cannot beat, the layers that dominate, memory, and the figures behind it."""
    small = [size for size in found.sizes if (size.height, size.width) == (found.sizes[0].height, found.sizes[0].width)]
    first = min(small, key=lambda size: size.likely_ms)
    sections = (
        Section("Latency", (_table(found),), _LATENCY),
        Section("Where the time goes", tuple(_layers(size) for size in small), _LAYERS),
        Section("Memory", (_memory(found),), _MEMORY),
        Section("The device", (_figures(found),), f"{_FIGURES} Compared with: {found.device.checked}."),
    )
    return Report(
        f"{found.model} on {found.device.name}: a prediction",
        f"from the graph and the device's figures, for {found.backend}; nothing was run",
        sections,
        machine,
        (
            Figure(
                f"{figure(first.likely_ms)} ms",
                f"likely, {first.precision}, a picture of {_size(first)}: the graph alone",
            ),
            Figure(f"{figure(first.bound_ms)} ms", "it cannot be faster than this"),
            Figure(f"{figure(1000 / first.end_to_end_ms)}", "pictures a second, likely, one after the other"),
            Figure(_megabytes(first.memory_bytes), f"of {found.device.figures['memory_gb'].value:g} GB of memory"),
        ),
        command,
    )


_LATENCY = (
    "“At least” is the roofline: arithmetic at the device's highest rate, or bytes through its memory, whichever takes longer. "
    "“Likely” takes the shares of both that networks get, and adds what it costs to begin a layer. “Assumed”: the "
    "package holds no graph of the precision, so that all its convolutions are taken to be in it."
)
_LAYERS = (
    "The longest layers by their likely time. Red ones wait for memory: a lower precision helps them, faster arithmetic "
    "does not. Layers are fused as TensorRT fuses them."
)
_MEMORY = "Weights, the tensors that live at once, and the pictures. Libraries take more: CUDA and TensorRT some hundred megabytes."
_FIGURES = "Rates are without sparsity."


_NAMES = {
    "fp32_tflops": "FP32, TFLOPS",
    "bf16_tflops": "BF16, TFLOPS",
    "fp16_tflops": "FP16, TFLOPS",
    "int8_tops": "INT8, TOPS",
    "memory_gb_s": "memory, GB/s",
    "memory_gb": "memory, GB",
    "cache_mb": "cache, MB",
    "bus_gb_s": "bus, GB/s",
}


def _size(size: SizePrediction) -> str:
    return f"{size.width}\N{NO-BREAK SPACE}×\N{NO-BREAK SPACE}{size.height}"


def _table(found: Prediction) -> Grid:
    rows = tuple(
        (
            _size(size),
            size.precision + (", assumed" if size.assumed else ""),
            *map(figure, (size.bound_ms, size.likely_ms, size.end_to_end_ms, 1000 / size.end_to_end_ms)),
        )
        for size in found.sizes
    )
    headings = ("size", "precision", "at least ms", "likely ms", "picture to picture ms", "pictures/s")
    return Grid(headings, rows, words=2)


def _layers(size: SizePrediction) -> Bars:
    longest = size.dominant[:SHOWN]
    whole = sum(time.likely_ms for time in size.layers)
    rows = [
        (
            time.layer.name,
            time.likely_ms,
            f"{figure(time.likely_ms)} ms, {100 * time.likely_ms / whole:.0f} %",
        )
        for time in longest
    ]
    caption = f"{_size(size)}, {size.precision}: {len(longest)} of {len(size.layers)} layers"
    if size.windows > 1:
        caption += f", in one of {size.windows} windows"
    return bars(caption, rows, [time.limit == "memory" for time in longest], "waits for memory")


def _memory(found: Prediction) -> Bars:
    rows = [
        (f"{_size(size)}, {size.precision}", float(size.memory_bytes), _megabytes(size.memory_bytes))
        for size in found.sizes
    ]
    return bars("weights, tensors and pictures", rows)


def _figures(found: Prediction) -> Grid:
    rows = tuple(
        (_NAMES.get(name, name), f"{each.value:g}", "; ".join(filter(None, (each.how, each.source))))
        for name, each in found.device.figures.items()
    )
    return Grid(("figure", "value", "where it comes from"), rows, words=3)


def _megabytes(count: int) -> str:
    return f"{count / 1e6:,.0f} MB"
