"""A roofline: no layer is faster than its arithmetic at the device's highest rate, or than its bytes through the memory.

Williams, Waterman, Patterson: "Roofline: an insightful visual performance model for multicore architectures", 2009. The likely time
takes shares of both (`devices.Likely`) and adds what it costs to begin a layer.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import onnx

from impasto.errors import OptionError
from impasto.export.graph.helpers import read_graph, spec_text
from impasto.export.graph.layers import Assumed, Layer, layers_of, peak_bytes
from impasto.images.sizes import parse_size
from impasto.package.manifest import PRECISIONS
from impasto.package.spec import ModelSpec
from impasto.runtime.backends import SizeLimits
from impasto.runtime.inference.tile_plan import plan_tiles
from impasto.runtime.loading.opening import spec_in_metadata
from impasto.runtime.loading.source import Source, resolve

from .devices import Device, Likely, device_named, likely_of

SCHEMA = 1


@dataclass(frozen=True)
class LayerTime:
    """A layer on the device."""

    layer: Layer
    bound_ms: float
    likely_ms: float
    limit: str
    """What its likely time is spent on: "arithmetic", "memory" or "launch"."""

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary."""
        told = {key: value for key, value in asdict(self.layer).items() if key not in ("nodes", "output", "inputs")}
        return {**told, "bound_ms": self.bound_ms, "likely_ms": self.likely_ms, "limit": self.limit}


@dataclass(frozen=True)
class SizePrediction:
    """One picture of one size in one precision."""

    height: int
    width: int
    precision: str
    assumed: bool
    """Whether the package holds no graph of the precision, so that all its convolutions are taken to be in it."""
    windows: int
    """Runs of the graph: more than one where the picture is cut into tiles."""
    layers: tuple[LayerTime, ...]
    """Layers of one run."""
    around_ms: float
    """Likely: the context graph, and the picture's way to the device and back."""
    memory_bytes: int
    """Weights, the tensors that live at once, and the pictures; not what libraries take."""

    @property
    def bound_ms(self) -> float:
        """The graph alone cannot be faster."""
        return self.windows * sum(time.bound_ms for time in self.layers)

    @property
    def likely_ms(self) -> float:
        """The graph alone."""
        return self.windows * sum(time.likely_ms for time in self.layers)

    @property
    def end_to_end_ms(self) -> float:
        """Likely, from picture to picture."""
        return self.likely_ms + self.around_ms

    @property
    def dominant(self) -> tuple[LayerTime, ...]:
        """The layers by their likely time, longest first."""
        return tuple(sorted(self.layers, key=lambda time: time.likely_ms, reverse=True))

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary."""
        return {
            "height": self.height,
            "width": self.width,
            "precision": self.precision,
            "assumed": self.assumed,
            "windows": self.windows,
            "bound_ms": self.bound_ms,
            "likely_ms": self.likely_ms,
            "end_to_end_ms": self.end_to_end_ms,
            "memory_bytes": self.memory_bytes,
            "layers": [time.to_json() for time in self.layers],
        }


@dataclass(frozen=True)
class Prediction:
    """What a model is likely to take on a device. Nothing was run."""

    model: str
    device: Device
    backend: str
    sizes: tuple[SizePrediction, ...]

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary."""
        return {
            "schema": SCHEMA,
            "kind": "impasto.prediction",
            "model": self.model,
            "device": self.device.to_json(),
            "backend": self.backend,
            "predictions": [size.to_json() for size in self.sizes],
        }


def predict(
    model: str | os.PathLike[str],
    device: str | Device,
    sizes: Sequence[str] = ("512x512",),
    *,
    precision: str = "auto",
    backend: str = "auto",
) -> Prediction:
    """Predict a model's latency on a device from its graph and the device's figures; neither is needed here to run.

    Args:
        model: a name, a package or an .onnx file.
        device: one of `known_devices`, a .json file, or a Device.
        sizes: "HEIGHTxWIDTH" or a name of `impasto.images.sizes`.
        precision: "auto" for each that the device computes in, or one of them.
        backend: "auto" for the one that the device is known by, or as `impasto.load` takes it.

    Returns:
        A prediction for each size and precision.

    Raises:
        OptionError: for an unknown device, or what it cannot do.
        ModelNotFound, PackageError: as `impasto.load` raises them.
        ExportError: for a graph whose work cannot be told.

    Example:
        >>> from impasto.benchmarks.prediction import predict
        >>> found = predict("denoise", "orin-nano", ["720p"], precision="fp16")
        >>> found.sizes[0].bound_ms < found.sizes[0].likely_ms
        True
    """
    shapes = [parse_size(size) for size in sizes]
    on = device_named(device) if isinstance(device, str) else device
    chosen, likely = likely_of(on, backend)
    wanted = _precisions(precision, on)
    found = []
    name = ""
    for each in wanted:
        work = read_work(model, each, chosen, likely)
        name = work.spec.name
        found += [predict_size(work, on, likely, height, width) for height, width in shapes]
    return Prediction(name, on, chosen, tuple(found))


@dataclass(frozen=True)
class Work:
    """A graph, and the precision that it is counted in."""

    graph: onnx.ModelProto
    context: onnx.ModelProto | None
    spec: ModelSpec
    precision: str
    assumed: Assumed | None


def read_work(model: str | os.PathLike[str], precision: str, backend: str, likely: Likely) -> Work:
    """The package's graph of the precision, or its FP32 graph with the precision assumed.

    backend: a target backend. Raises OptionError for an engine, and what `resolve` raises.
    """
    source = resolve(model)
    if source.is_engine:
        raise OptionError(
            f"{source.path} is an engine; a prediction is made of the graph: name its package or .onnx file"
        )
    assumed: Assumed | None = Assumed(precision, (), likely.beside_int8)
    if source.manifest and source.manifest.find("model", precision, backend):
        source, assumed = resolve(model, precision, target_backend=backend), None
    elif precision == "fp32":
        assumed = None
    graph = read_graph(source.graph_path)
    context = read_graph(source.context_path) if source.context_path else None
    return Work(graph, context, _spec(source, graph), precision, assumed)


def predict_size(work: Work, device: Device, likely: Likely, height: int, width: int) -> SizePrediction:
    """One picture, of which the runtime makes a padded one, or several windows."""
    fixed = work.spec.size.fixed or _fixed(work.graph)
    plan = plan_tiles(work.spec, SizeLimits(((fixed, fixed),), None) if fixed else None, height, width)
    layers = layers_of(work.graph, *plan.window, assumed=work.assumed)
    windows = max(len(plan.tiles), 1)
    # Bytes of the padded picture, and of what is drawn of it.
    pictures = 3 * plan.padded_size[0] * plan.padded_size[1] * (1 + work.spec.scale**2)
    return SizePrediction(
        height,
        width,
        work.precision,
        work.assumed is not None,
        windows,
        tuple(times(layers, device, likely)),
        _around_ms(work, device, likely, pictures),
        peak_bytes(layers) + pictures,
    )


def times(layers: Sequence[Layer], device: Device, likely: Likely) -> list[LayerTime]:
    """What each layer takes. Raises OptionError for a precision that the device has no rate for."""
    cache = device.figures["cache_mb"].value * 1e6 if "cache_mb" in device.figures else 0.0
    bandwidth = device.bytes_per_second()
    computed = {layer.output for layer in layers}
    found = []
    for layer in layers:
        arithmetic = 0.0
        if layer.macs:
            if layer.precision not in device.precisions:
                raise OptionError(
                    f"{device.name} has no figure for {layer.precision}; choose one of auto, {', '.join(device.precisions)}"
                )
            arithmetic = 2 * layer.macs / device.rate(layer.precision)
        # What fits the cache may never leave it: a bound must not count it.
        outside = layer.weight_bytes if layer.weight_bytes > cache else 0
        outside += layer.read_bytes if layer.read_bytes > cache or not computed.issuperset(layer.inputs) else 0
        outside += layer.written_bytes if layer.written_bytes > cache else 0
        bound = max(arithmetic, outside / bandwidth)
        work = arithmetic / likely.shares.get(layer.precision, 1.0)
        moves = layer.bytes / (bandwidth * likely.memory)
        launch = likely.launch_us / 1e6
        limit = "launch" if launch > max(work, moves) else "arithmetic" if work > moves else "memory"
        found.append(LayerTime(layer, 1000 * bound, 1000 * (max(work, moves) + launch), limit))
    return found


def _precisions(precision: str, device: Device) -> tuple[str, ...]:
    """Raises OptionError."""
    known = tuple(name for name in device.precisions if name in PRECISIONS)
    if precision == "auto":
        return known
    if precision not in known:
        raise OptionError(f"{device.name} has no figure for {precision!r:.40}; choose one of auto, {', '.join(known)}")
    return (precision,)


def _around_ms(work: Work, device: Device, likely: Likely, pictures: int) -> float:
    context = 0.0
    if work.context is not None and work.spec.thumbnail:
        layers = layers_of(work.context, work.spec.thumbnail, work.spec.thumbnail)
        context = sum(time.likely_ms for time in times(layers, device, likely))
    bus = device.figures.get("bus_gb_s")
    # Without a bus the picture is still read and written once more, into its padded place and out of it.
    copies = pictures / (bus.value * 1e9) if bus else 2 * pictures / (device.bytes_per_second() * likely.memory)
    return context + 1000 * copies


def _spec(source: Source, graph: onnx.ModelProto) -> ModelSpec:
    if source.manifest:
        return source.manifest.spec
    text = spec_text(graph)
    return spec_in_metadata(text, source.graph_path) if text else source.described_spec()


def _fixed(graph: onnx.ModelProto) -> tuple[int, int] | None:
    """Height and width of the only pictures that an external graph takes."""
    dimensions = [dimension.dim_value for dimension in graph.graph.input[0].type.tensor_type.shape.dim]
    if len(dimensions) != 4:
        return None
    height, width = dimensions[1:3] if dimensions[3] == 3 and dimensions[1] != 3 else dimensions[2:4]
    return (height, width) if height and width else None
