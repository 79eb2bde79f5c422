"""What is known of an engine besides its bytes: where it may run, and what it computes in which precision."""

from __future__ import annotations

import reprlib
from dataclasses import asdict, dataclass, field
from typing import Any

from impasto.errors import PackageError

from . import schema
from .manifest import FLOAT, PRECISIONS
from .spec import ModelSpec

AMPERE_PLUS = "8.0+"
"""The compute capabilities of a hardware-compatible engine: 8.0 and whatever came after it."""

ROLES = ("model", "context", FLOAT)

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
    moved_bytes: int | None = None
    """Bytes of its inputs and outputs, without weights, where their sizes are fixed; None where nobody said."""


@dataclass(frozen=True)
class DlaUse:
    """What an engine does on a Jetson's deep learning accelerator (DLA)."""

    core: int
    """The accelerator's number, >= 0."""
    layers: int
    """How many of the network's layers run there."""
    gpu_layers: tuple[str, ...]
    """The others, each with its kind: "head (SHUFFLE)"."""

    def __str__(self) -> str:
        total = self.layers + len(self.gpu_layers)
        said = f"DLA core {self.core} computes {self.layers} of {total} layers"
        return f"{said}, the GPU these:" if self.gpu_layers else said


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
    product: str
    """Which of NVIDIA's products built it: "tensorrt" or "tensorrt-rtx"; "flavour" in the JSON."""
    version: str
    """TensorRT's exact version: others refuse the plan."""
    precision: str
    compute_capabilities: tuple[str, ...]
    """Such as "8.7"; the only ones that run it. Never empty; AMPERE_PLUS alone where it is hardware-compatible."""
    gpu: str | None
    """Name of the one GPU that the engine was tuned on; None where any of those capabilities will do."""
    source_sha256: str
    """SHA-256 of the ONNX file that it was built from."""
    profiles: tuple[dict[str, Range], ...]
    """One optimization profile each: input name -> smallest, best and largest shape. At least one, of at least one input."""
    plan_bytes: int = 0
    device_memory_bytes: int | None = None
    """Activation memory of one execution context; None where no GPU was there to ask."""
    layers: tuple[EngineLayer, ...] = ()
    options: dict[str, Any] = field(default_factory=dict)
    """What was asked of the builder."""
    spec: dict[str, Any] = field(default_factory=dict)
    """The ModelSpec as JSON, so that a plan in the cache can be loaded by itself."""
    role: str = "model"
    """One of ROLES: "model" (pictures of uint8), "context" (a thumbnail's scales and shifts), or "float" (pictures of float32, which
    those of 16 bits become)."""
    context_sha256: str | None = None
    """SHA-256 of the context graph that a model's engine needs beside it, which has an engine of its own."""
    precisions_by_target: dict[str, dict[str, int]] = field(default_factory=dict)
    """Where it was built for several kinds of GPU: compute capability -> how many layers compute in which precision.
    `layers` are then those of the first."""
    dla: DlaUse | None = None
    """Which DLA it uses, and for what; None where the GPU computes everything."""

    @property
    def ends(self) -> str:
        """What a picture's values are at the engine's ends."""
        return "float32, 0 to 1" if self.role == FLOAT else "uint8, 0 to 255"

    def precisions(self) -> dict[str, int]:
        """How many layers compute in which precision, most first."""
        return count_precisions(self.layers)

    def moved_bytes(self) -> int | None:
        """Bytes that all layers together read and write for one batch, without weights; None where a layer's are unknown."""
        moved = [layer.moved_bytes for layer in self.layers]
        return None if None in moved or not moved else sum(filter(None, moved))

    def traffic(self) -> str:
        """The layers, each of which is a kernel or a few, and what they move, in words."""
        moved = self.moved_bytes()
        said = "bytes unknown: they are read back of fixed sizes" if moved is None else f"{moved / 1e6:.1f} MB moved"
        return f"{len(self.layers)} kernels, {said}"

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary that `from_json` reads."""
        # Records of earlier versions call the product "flavour", and so do all records.
        return {"flavour" if name == "product" else name: value for name, value in asdict(self).items()}

    @classmethod
    def from_json(cls, data: Any, source: str) -> EngineRecord:
        """The reverse of `to_json`. Raises PackageError, naming `source`, for anything malformed."""
        if not isinstance(data, dict):
            raise PackageError(f"{source}: the engine's record is {type(data).__name__}, not an object; build it again")
        spec = ModelSpec.from_json(data.get("spec"), source)
        try:
            return cls(
                key=_take(data, "key", str),
                product=_take(data, "flavour", str),
                version=_take(data, "version", str),
                precision=_one_of(data, "precision", PRECISIONS),
                compute_capabilities=_texts(data, "compute_capabilities", least=1),
                gpu=_take(data, "gpu", str, None),
                source_sha256=_take(data, "source_sha256", str),
                profiles=tuple(_profile(profile) for profile in _filled(data, "profiles", list)),
                plan_bytes=_take(data, "plan_bytes", int, 0),
                device_memory_bytes=_take(data, "device_memory_bytes", int, None),
                layers=tuple(_layer(layer) for layer in _take(data, "layers", list, [])),
                options=_take(data, "options", dict, {}),
                spec=spec.to_json(),
                role=_one_of(data, "role", ROLES),
                context_sha256=_take(data, "context_sha256", str, None),
                precisions_by_target=_counts(_take(data, "precisions_by_target", dict, {})),
                dla=_dla(_take(data, "dla", dict, None)),
            )
        except ValueError as error:
            raise PackageError(
                f"{source}: the engine's record is malformed ({error}); build the engine again"
            ) from None


_LARGEST_SIDE = 1 << 31
_WORDS = {str: "some text", int: "a whole number", list: "a list", dict: "an object"}


def _take(data: dict[str, Any], key: str, kind: type, *default: Any) -> Any:
    """data[key], or the default, where one is given, for what is missing or null. Raises ValueError for another type."""
    value = data.get(key)
    if value is None and default:
        return default[0]
    if type(value) is not kind:
        raise ValueError(f"{key!r} is {reprlib.repr(value)}; expected {_WORDS[kind]}")
    return schema.text(value, key) if kind is str else value


def _filled(data: dict[str, Any], key: str, kind: type) -> Any:
    value = _take(data, key, kind)
    if not value:
        raise ValueError(f"{key!r} is empty")
    return value


def _one_of(data: dict[str, Any], key: str, known: tuple[str, ...]) -> str:
    return schema.one_of(data.get(key), key, known)


def _texts(data: dict[str, Any], key: str, least: int = 0) -> tuple[str, ...]:
    values = _take(data, key, list)
    if len(values) < least or not all(isinstance(value, str) for value in values):
        raise ValueError(f"{key!r} is {reprlib.repr(values)}; expected a list of texts")
    return tuple(values)


def _profile(profile: Any) -> dict[str, Range]:
    if not isinstance(profile, dict) or not profile:
        raise ValueError(f"a profile is {reprlib.repr(profile)}; expected input name -> three shapes")
    return {name: _range(name, shapes) for name, shapes in profile.items()}


def _range(name: str, shapes: Any) -> Range:
    three = isinstance(shapes, list) and len(shapes) == 3 and all(isinstance(shape, list) for shape in shapes)
    if (
        not three
        or len({len(shape) for shape in shapes}) > 1
        or any(type(n) is not int or abs(n) > _LARGEST_SIDE for shape in shapes for n in shape)
    ):
        raise ValueError(f"the shapes of {name!r} are {reprlib.repr(shapes)}; expected smallest, best and largest")
    low, best, high = (tuple(shape) for shape in shapes)
    return low, best, high


def _layer(layer: Any) -> EngineLayer:
    if not isinstance(layer, dict):
        raise ValueError(f"a layer is {reprlib.repr(layer)}; expected an object")
    words = [layer.get(key) for key in ("name", "kind", "precision")]
    if not all(isinstance(word, str) for word in words):  # the vendor's, of any length and with control characters
        raise ValueError(f"a layer is {reprlib.repr(layer)}; expected texts for name, kind and precision")
    name, kind, precision = map(str, words)
    moved = _take(layer, "moved_bytes", int, None)
    return EngineLayer(name, kind, precision, _texts(layer, "inputs"), _texts(layer, "outputs"), moved)


def _dla(use: dict[str, Any] | None) -> DlaUse | None:
    if use is None:
        return None
    core, layers = _take(use, "core", int), _take(use, "layers", int)
    if not 0 <= core < _LARGEST_SIDE:  # it is handed to TensorRT
        raise ValueError(f"the DLA core is {core}; expected 0 or more")
    return DlaUse(core, layers, _texts(use, "gpu_layers"))


def _counts(by_target: dict[str, Any]) -> dict[str, dict[str, int]]:
    for target, counts in by_target.items():
        if not isinstance(counts, dict) or any(type(count) is not int for count in counts.values()):
            raise ValueError(
                f"the layers for {target} are {reprlib.repr(counts)}; expected how many of which precision"
            )
    return by_target
