"""What a package, an ONNX graph or a checkpoint holds, without running it."""

from __future__ import annotations

import json
import math
import reprlib
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from impasto.errors import CheckpointError, MissingDependency, PackageError, first_line, install
from impasto.files import sha256
from impasto.package import schema
from impasto.package.engine_record import EngineLayer, EngineRecord
from impasto.package.manifest import MANIFEST, read_manifest
from impasto.package.spec import ModelSpec
from impasto.runtime.backends.tensorrt.compatibility import why_not_here
from impasto.runtime.loading.source import resolve
from impasto.runtime.loading.stored_engines import read_stored


@dataclass(frozen=True)
class FileState:
    """One file of a package, compared with its manifest."""

    name: str
    role: str
    precision: str
    bytes: int
    sha256: str
    intact: bool


@dataclass(frozen=True)
class Inspection:
    """What was found: rows to show, and files with their state."""

    title: str
    rows: tuple[tuple[str, str], ...]
    files: tuple[FileState, ...] = ()
    layers: tuple[EngineLayer, ...] = ()
    """Layers of an engine. Empty for an ONNX graph."""

    def require_intact(self) -> None:
        """Raises PackageError where a file is not what the manifest describes."""
        if altered := [file.name for file in self.files if not file.intact]:
            raise PackageError(
                f"{', '.join(altered)}: altered or missing since they were written; export or build again"
            )

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary."""
        return {"title": self.title, **dict(self.rows), "files": [asdict(file) for file in self.files]} | (
            {"layers": [asdict(layer) for layer in self.layers]} if self.layers else {}
        )


def inspect_path(path_or_name: str) -> Inspection:
    """Look into a package (by path or name), an .onnx file, a .safetensors checkpoint or a .plan engine.

    Raises ModelNotFound, PackageError, CheckpointError, or MissingDependency for an ONNX file without the onnx library.
    """
    path = Path(path_or_name)
    if path.suffix == ".safetensors" and path.is_file():
        return _checkpoint(path)
    if path.suffix == ".plan" and path.is_file():
        return _engine(path)
    source = resolve(path_or_name, trust=True)
    return _package(source.path) if source.manifest else _graph(source.path)


def _package(folder: Path) -> Inspection:
    manifest = read_manifest(folder)
    states = []
    for file in manifest.files:
        path = folder / file.name
        exists = path.is_file()
        intact = exists and sha256(path) == file.sha256
        size = path.stat().st_size if exists else 0
        states.append(FileState(file.name, file.role, file.precision, size, file.sha256, intact))
    rows = [*_spec_rows(manifest.spec), ("written by", f"Impasto {manifest.impasto}")]
    rows += [(f"quality: {key}", _short(value)) for key, value in manifest.quality.items()]
    rows += [(f"recipe: {key}", _short(value)) for key, value in manifest.recipe.items()]
    graph = manifest.find("model")
    if graph and (folder / graph.name).is_file():
        rows += _graph_rows(folder / graph.name)
    return Inspection(f"package {folder} ({MANIFEST})", tuple(rows), tuple(states))


def _graph(path: Path) -> Inspection:
    return Inspection(f"graph {path}", tuple(_graph_rows(path)))


def _engine(path: Path) -> Inspection:
    """An engine, by its record alone: only TensorRT can tell, on a machine that it fits, whether the bytes are an engine."""
    stored = read_stored(path)
    record = stored.record
    digest = sha256(path)
    kinds = ", ".join(f"{count} {name}" for name, count in record.precisions().items())
    reason = why_not_here(record, 0)
    memory = record.device_memory_bytes
    rows = [
        ("model", f"{record.spec.get('name', 'unknown')} ({record.role})"),
        *([("pictures", record.ends)] if record.role != "context" else []),
        ("precision", record.precision),
        ("layers by precision", kinds),
        ("kernels", record.traffic()),
        *((f"… on {capability}", str(counts)) for capability, counts in record.precisions_by_target.items()),
        ("built by", f"{record.product} {record.version}"),
        ("built for", record.gpu or "every GPU of these compute capabilities"),
        ("compute capability", ", ".join(record.compute_capabilities)),
        *_profile_rows(record),
        ("plan", f"{record.plan_bytes:,} bytes"),
        ("activation memory", "unknown: no GPU was there to ask" if memory is None else f"{memory:,} bytes"),
        ("source", f"SHA-256 {record.source_sha256[:12]}…"),
        ("options", _short({key: value for key, value in record.options.items() if value not in (None, [], False)})),
        ("runs here", "yes" if reason is None else f"no: {reason}"),
    ]
    state = FileState(path.name, "engine", record.precision, path.stat().st_size, digest, digest == stored.sha256)
    return Inspection(f"engine {path}", tuple(rows), (state,), record.layers)


def _profile_rows(record: EngineRecord) -> list[tuple[str, str]]:
    return [
        (
            f"input {name}, profile {index}",
            " to ".join(str(shape) for shape in dict.fromkeys((low, high))) + f", best {best}",
        )
        for index, ranges in enumerate(record.profiles)
        for name, (low, best, high) in ranges.items()
    ]


def _checkpoint(path: Path) -> Inspection:
    """Read the header alone: 8 bytes of length, then JSON (the safetensors format)."""
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if not 2 <= length <= min(path.stat().st_size - 8, schema.MAX_BYTES):
                raise schema.Malformed("its header is cut off")
            header = schema.mapping(schema.parse_json(file.read(length)), "the header")
        metadata = schema.mapping(header.pop("__metadata__", None), "__metadata__")
        own = schema.mapping(schema.parse_json(metadata.get("impasto") or "{}"), "impasto")
        recipe = schema.mapping(own.pop("recipe", None), "recipe")
        types = Counter(schema.text(tensor["dtype"], "dtype") for tensor in header.values())
        parameters = sum(_elements(tensor["shape"]) for tensor in header.values())
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path} is no safetensors file that can be read: {error}") from None
    rows = [("tensors", f"{len(header)} ({', '.join(types)})"), ("parameters", f"{parameters:,}")]
    rows += [(key, _short(value)) for key, value in own.items()]
    rows += [(f"recipe: {key}", _short(value)) for key, value in recipe.items()]
    return Inspection(f"checkpoint {path}", tuple(rows))


def _elements(shape: Any) -> int:
    if not isinstance(shape, list) or len(shape) > 64:
        raise schema.Malformed(f"a tensor's shape is {reprlib.repr(shape)}; expected a list of sides")
    return math.prod(schema.whole(side, "shape", 0, schema.MAX_NUMBER) for side in shape)


def _spec_rows(spec: ModelSpec) -> list[tuple[str, str]]:
    return [
        ("name", spec.name),
        ("task", spec.task),
        ("scale", f"×{spec.scale}"),
        ("sizes", f"{spec.size} (the runtime pads and crops)"),
        ("reflected border", f"{spec.border} pixels"),
        (
            "receptive field",
            "unknown or whole picture" if spec.receptive_field is None else f"radius {spec.receptive_field}",
        ),
        ("context", f"from a {spec.thumbnail} x {spec.thumbnail} thumbnail" if spec.thumbnail else "none"),
        *([("strength", f"0 to {spec.strength:g}")] if spec.strength else []),
        *([("working size", f"{spec.working_size} pixels")] if spec.working_size else []),
    ]


def _graph_rows(path: Path) -> list[tuple[str, str]]:
    try:
        import onnx
    except ImportError:
        raise MissingDependency(f"looking into ONNX files needs onnx: {install('export')}") from None
    from impasto.export.graph.helpers import tensor_text

    try:
        model = onnx.load(str(path), load_external_data=False)
    except Exception as error:  # protobuf's DecodeError has no public base that onnx promises
        raise PackageError(f"{path} is no ONNX file that can be read: {first_line(error)}") from None
    graph = model.graph
    operators = Counter(node.op_type for node in graph.node)
    parameters = sum(int(np.prod(tensor.dims)) for tensor in graph.initializer)
    return [
        *((f"input {value.name}", tensor_text(value)) for value in graph.input),
        *((f"output {value.name}", tensor_text(value)) for value in graph.output),
        ("opset", ", ".join(f"{entry.domain or 'ai.onnx'} {entry.version}" for entry in model.opset_import)),
        ("parameters", f"{parameters:,}"),
        ("operators", ", ".join(f"{count} {name}" for name, count in operators.most_common())),
    ]


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 300 else text[:297] + "…"
