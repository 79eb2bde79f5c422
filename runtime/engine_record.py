"""What is known of an engine besides its bytes: where it may run, and what it computes in which precision."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import Any

from impasto.errors import PackageError

Range = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]
"""A tensor's smallest, best and largest shape."""


@dataclass(frozen=True)
class EngineLayer:
    """One layer of a finished engine."""

    name: str
    kind: str
    """The vendor's word: "correlation", "CaskConvolution", "kgen", …"""
    precision: str
    """"fp32", "fp16", "int8", or what else the vendor calls it: the type that its arithmetic reads."""
    inputs: tuple[str, ...] = ()
    """Type and memory format of each input, as the vendor words them."""
    outputs: tuple[str, ...] = ()


def count_precisions(layers: tuple[EngineLayer, ...]) -> dict[str, int]:
    """How many of the layers compute in which precision, most first."""
    counts: dict[str, int] = {}
    for layer in layers:
        counts[layer.precision] = counts.get(layer.precision, 0) + 1
    return dict(sorted(counts.items(), key=lambda item: -item[1]))


@dataclass(frozen=True)
class EngineRecord:
    """Stored beside every engine: in a package's manifest, or in a JSON file of the cache."""

    key: str
    """Hash of everything that reached the builder; the plan's file name."""
    flavour: str
    """"tensorrt" or "tensorrt-rtx"."""
    version: str
    """TensorRT's exact version: others refuse the plan."""
    precision: str
    compute_capabilities: tuple[str, ...]
    """Such as "8.7"; the only ones that run it."""
    gpu: str | None
    """Name of the one GPU that the engine was tuned on; None where any of those capabilities will do."""
    source_sha256: str
    """Of the ONNX file that it was built from."""
    profiles: tuple[dict[str, Range], ...]
    """One optimization profile each: input name -> smallest, best and largest shape."""
    plan_bytes: int = 0
    device_memory_bytes: int | None = None
    """Activation memory of one execution context; None where no GPU was there to ask."""
    layers: tuple[EngineLayer, ...] = ()
    options: dict[str, Any] = field(default_factory=dict)
    """What was asked of the builder."""
    spec: dict[str, Any] = field(default_factory=dict)
    """The ModelSpec as JSON, so that a plan in the cache can be loaded by itself."""
    role: str = "model"
    """"model" (pictures), or "context" (a thumbnail's scales and shifts)."""
    context_sha256: str | None = None
    """Of the context graph that a model's engine needs beside it, which has an engine of its own."""
    precisions_by_target: dict[str, dict[str, int]] = field(default_factory=dict)
    """Where it was built for several kinds of GPU: compute capability -> how many layers compute in which precision.
    `layers` are then those of the first."""

    def precisions(self) -> dict[str, int]:
        """How many layers compute in which precision, most first."""
        return count_precisions(self.layers)

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary that `from_json` reads."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Any, source: str) -> EngineRecord:
        """The reverse of `to_json`. Raises PackageError, naming `source`, for anything malformed."""
        try:
            known = {field.name for field in fields(cls)}
            values = {key: value for key, value in data.items() if key in known}
            values["compute_capabilities"] = tuple(values["compute_capabilities"])
            values["profiles"] = tuple(
                {name: tuple(tuple(int(n) for n in shape) for shape in shapes) for name, shapes in profile.items()}
                for profile in values["profiles"]
            )
            values["layers"] = tuple(
                EngineLayer(**{**layer, "inputs": tuple(layer["inputs"]), "outputs": tuple(layer["outputs"])})
                for layer in values.get("layers", ())
            )
            return cls(**values)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise PackageError(
                f"{source}: the engine's record is malformed ({error}); build the engine again"
            ) from None
