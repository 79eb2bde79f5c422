"""What a finished engine really computes in: each layer's type and memory format, read back from TensorRT."""

from __future__ import annotations

import json
import math
import re
import warnings
from collections.abc import Iterable
from typing import Any

from impasto.errors import BackendError, ImpastoWarning, PrecisionMismatch
from impasto.package.engine_record import EngineLayer, Range
from impasto.runtime.backends.tensorrt.api import TensorRT

from .targets import Target

_TYPES = (
    # Unsigned first: "UINT8" contains "INT8".
    (re.compile(r"uint8|kuint8", re.IGNORECASE), "uint8"),
    # And "BFloat16" contains "Float16".
    (re.compile(r"bf16|bfloat16", re.IGNORECASE), "bf16"),
    (re.compile(r"fp16|half|float16", re.IGNORECASE), "fp16"),
    (re.compile(r"fp8", re.IGNORECASE), "fp8"),
    (re.compile(r"int8", re.IGNORECASE), "int8"),
    (re.compile(r"fp32|float", re.IGNORECASE), "fp32"),
    (re.compile(r"int32", re.IGNORECASE), "int32"),
    (re.compile(r"int64", re.IGNORECASE), "int64"),
    (re.compile(r"bool", re.IGNORECASE), "bool"),
)

_TACTICS = (
    (re.compile(r"i8i8|i8f32|i8i32|int8|imma", re.IGNORECASE), "int8"),
    (re.compile(r"f16f16|fp16|h16816|h1688|h884|hmma|hcudnn", re.IGNORECASE), "fp16"),
    (re.compile(r"f32f32|fp32|scudnn|sgemm|ffma", re.IGNORECASE), "fp32"),
)
"""What kernels are called: "sm80_xmma_fprop_implicit_gemm_interleaved_i8i8_i8i32_f32_…", "ampere_h16816gemm_…"."""

_ARITHMETIC = re.compile(r"conv|correlation|gemm|matmul|matrix|fullyconnected", re.IGNORECASE)
"""Kinds of layers whose type decides an engine's speed."""

LEAST_SHARE = 0.5
"""Least share of those that compute in the precision asked for. Graphs keep some layers in FP32 or FP16 on purpose."""

_LINE = re.compile(
    r"^Name: (?P<name>.+?), LayerType: (?P<kind>[^,]+), Inputs: \[(?P<inputs>.*?)\], (?:Constants|Outputs): \["
)
_OUTPUTS = re.compile(r", Outputs: \[(?P<outputs>.*?)\], (?:ParameterType|TacticName|StreamId)")
_TENSOR = re.compile(
    r"Dimensions: \[(?P<sides>[^\]]*)\],[^{}]*?Datatype: (?P<type>\w+), Format: (?P<format>[^}]*?)\s*(?:\}|$)"
)
_SIZES = {"fp32": 4, "int32": 4, "fp16": 2, "bf16": 2, "int8": 1, "uint8": 1, "fp8": 1, "bool": 1, "int64": 8}
"""Bytes of an element."""


def read_back(
    api: TensorRT, plan: bytes, lines: list[str], target: Target, profile: dict[str, Range]
) -> tuple[tuple[EngineLayer, ...], int | None]:
    """The layers of the finished engine, from its inspector where it can be loaded here, otherwise from the build's log.

    profile: the first one, at whose best shapes the engine is looked at.
    """
    if target.gpu is None:
        return from_log(lines), None
    try:
        engine = api.deserialize(api.create_runtime(), plan)
    except BackendError:  # built for a GPU that this product builds for and does not run on
        return from_log(lines), None
    text = _inspect(api, engine, profile)
    memory = int(
        engine.device_memory_size_v2 if hasattr(engine, "device_memory_size_v2") else engine.device_memory_size
    )
    return from_inspector(text), memory


def _inspect(api: TensorRT, engine: Any, profile: dict[str, Range]) -> str:
    """What the inspector says, in JSON; with an execution context at the profile's best shapes if it says too little without."""
    inspector = engine.create_engine_inspector()
    kind = api.module.LayerInformationFormat.JSON
    text = str(inspector.get_engine_information(kind))
    if not hides_formats(text):
        return text
    execution_context = engine.create_execution_context()
    if execution_context is None:  # no memory for one; the weights' types still tell
        return text
    for name, (_, best, _) in profile.items():
        execution_context.set_input_shape(name, best)
    inspector.execution_context = execution_context
    return str(inspector.get_engine_information(kind))


def hides_formats(text: str) -> bool:
    """Whether the engine inspector keeps types and formats to itself until it is given an execution context with shapes.

    TensorRT 8 to 10 do, for engines with free sizes (developer guide, "Engine Inspector").
    """
    return "due to dynamic shapes" in text


def from_inspector(text: str) -> tuple[EngineLayer, ...]:
    """Layers out of the engine inspector's JSON (TensorRT 8.5 and later, built with detailed profiling verbosity).

    Where tensors' types are hidden, a layer's precision is that of its weights, or what its kernel is called by.
    """
    layers = []
    # From 8.6 on, control characters stand between the names of a fused layer's ONNX nodes; strict JSON wants them escaped.
    for entry in json.loads(text, strict=False).get("Layers", []):
        if isinstance(entry, str):  # built without detailed verbosity: names alone
            layers.append(EngineLayer(entry, "unknown", "unknown"))
            continue
        inputs, outputs = (
            tuple(_tensor_text(tensor) for tensor in entry.get(side, ())) for side in ("Inputs", "Outputs")
        )
        kind = str(entry.get("ParameterType") or entry.get("LayerType", "unknown"))
        precision = _precision(inputs, outputs)
        if precision == "unknown":
            precision = _named(str(entry.get("Weights", {}).get("Type", "")), _TYPES)
        if precision == "unknown":
            precision = _named(str(entry.get("TacticName", "")), _TACTICS)
        tensors = [tensor for side in ("Inputs", "Outputs") for tensor in entry.get(side, ())]
        moved = _together(_bytes(_tensor_text(tensor), tensor.get("Dimensions", [-1])) for tensor in tensors)
        layers.append(EngineLayer(str(entry.get("Name", "")), kind, precision, inputs, outputs, moved))
    return tuple(layers)


def from_log(lines: Iterable[str]) -> tuple[EngineLayer, ...]:
    """Layers out of the builder's verbose log, which is all that TensorRT-RTX gives without a GPU."""
    layers = []
    for line in (part for message in lines for part in message.splitlines()):
        match = _LINE.match(line)
        if not match:
            continue
        found = _OUTPUTS.search(line)
        inputs = _tensors(match["inputs"])
        outputs = _tensors(found["outputs"]) if found else ()
        moved = _together(_logged_bytes(side) for side in (match["inputs"], found["outputs"] if found else ""))
        layers.append(EngineLayer(match["name"], match["kind"], _precision(inputs, outputs), inputs, outputs, moved))
    return tuple(layers)


def _logged_bytes(text: str) -> int | None:
    """Bytes of all tensors that the log names there; None where one is unknown."""
    found = _TENSOR.finditer(text)
    return _together(
        _bytes(match["type"], [int(side) for side in match["sides"].split(",") if side]) for match in found
    )


def _bytes(type_text: str, sides: Iterable[int]) -> int | None:
    """Bytes of one tensor; None where its type or a side is unknown."""
    size, sides = _SIZES.get(_named(type_text, _TYPES)), tuple(sides)
    return None if size is None or min(sides, default=1) < 0 else size * math.prod(sides)


def _together(parts: Iterable[int | None]) -> int | None:
    known = list(parts)
    return None if None in known else sum(filter(None, known))


def require_precision(layers: tuple[EngineLayer, ...], precision: str, where: str, expected: int) -> None:
    """Raises PrecisionMismatch unless the arithmetic runs in `precision`; `where` names the engine's target.

    expected: the convolutions and matrix products that the builder was given. Warns where it names none of them afterwards.
    """
    arithmetic = [layer for layer in layers if _ARITHMETIC.search(layer.kind)]
    if not arithmetic:
        if expected:  # all are in layers that hide what they fuse ("ForeignNode"), or the words of this version are new
            warnings.warn(
                f"the engine for {where} may not be {precision}: of {expected} convolutions and matrix products, TensorRT names none "
                f"among the engine's {len(layers)} layers, so their types could not be read back; compare its speed: impasto bench",
                ImpastoWarning,
                stacklevel=2,
            )
        return
    right = [layer for layer in arithmetic if layer.precision == precision]
    if len(right) >= LEAST_SHARE * len(arithmetic):
        return
    counts: dict[str, int] = {}
    for layer in arithmetic:
        counts[layer.precision] = counts.get(layer.precision, 0) + 1
    found = ", ".join(f"{count} in {name}" for name, count in counts.items())
    raise PrecisionMismatch(
        f"the engine for {where} is not {precision}: of {len(arithmetic)} convolutions and matrix products, TensorRT runs "
        f"{found}. This GPU or this graph has no {precision} there; build another, or look into the graph: impasto inspect"
    )


def warn_of_wide_int8(layers: tuple[EngineLayer, ...], where: str) -> None:
    """Warns where INT8 is not fused: convolutions that write FP32, which kernels of their own read and quantize again.

    TensorRT-RTX 1.7 builds so for every GPU: 39 kernels where FP16 has 24, and more bytes.
    """
    arithmetic = [layer for layer in layers if layer.precision == "int8" and _ARITHMETIC.search(layer.kind)]
    wide = [layer for layer in arithmetic if any(_named(text, _TYPES) == "fp32" for text in layer.outputs)]
    if len(wide) > len(arithmetic) / 2:
        warnings.warn(
            f"the engine for {where} does not fuse INT8: {len(wide)} of {len(arithmetic)} convolutions write FP32, which other kernels "
            "quantize again. FP16 may move fewer bytes; build both and compare them: impasto bench",
            ImpastoWarning,
            stacklevel=2,
        )


def _tensors(text: str) -> tuple[str, ...]:
    return tuple(f"{match['type']}, {match['format']}" for match in _TENSOR.finditer(text))


def _tensor_text(tensor: dict[str, Any]) -> str:
    words = (tensor.get("Datatype"), tensor.get("Format"), tensor.get("Format/Datatype"))
    return ", ".join(str(word) for word in words if word)


def _precision(inputs: tuple[str, ...], outputs: tuple[str, ...]) -> str:
    """The first input's type: what the arithmetic reads; the output's for a layer without inputs."""
    found = (_named(text, _TYPES) for text in (*inputs[:1], *outputs[:1]))
    return next((name for name in found if name != "unknown"), "unknown")


def _named(text: str, patterns: tuple[tuple[re.Pattern[str], str], ...]) -> str:
    return next((name for pattern, name in patterns if pattern.search(text)), "unknown")
