"""`export_triton`: a model as a repository of Triton models, an ensemble of which takes pictures and gives pictures."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from impasto.errors import ExportError, OptionError, OutputError
from impasto.export.graph.helpers import read_graph
from impasto.files import make_folder, write_bytes, write_text
from impasto.package.spec import PERCEPTUAL, ModelSpec
from impasto.runtime.loading.source import Source, resolve
from impasto.styles import Wanted, mixture

from . import ends
from .config import Tensor, Value, Word, pbtxt

KINDS = ("auto", "cpu", "gpu")
BACKENDS = ("onnxruntime", "python")
_MOST = 2**31 - 1
"""Triton's numbers have 32 bits."""
_WARM_SIDE = 256
"""Side in pixels of the picture, without its border, that a model draws before the server is ready."""


@dataclass(frozen=True)
class TritonOptions:
    """How a server runs the model."""

    precision: str = "auto"
    """Precision of the picture graph: "fp32", "fp16" or "int8"; "auto" is FP32."""
    backend: Literal["onnxruntime", "python"] = "onnxruntime"
    """Triton's backend for ONNX graphs. "python" is for servers without "onnxruntime": ONNX Runtime in Triton's Python backend."""
    kind: Literal["auto", "cpu", "gpu"] = "auto"
    """Where instances run; "auto": on every GPU, or on the CPU where there is none."""
    instances: int = 1
    """Instances of each model, on each GPU or on the CPU."""
    batch: int = 8
    """Pictures of one size that the server may draw together. An engine takes 1."""
    delay_us: int = 2000
    """Microseconds that a picture may wait for others."""
    style: Wanted = None
    strength: float = 1.0
    """Style and strength are as in `Model.set_style`. They are fixed in a repository."""

    def __post_init__(self) -> None:
        """Raises OptionError."""
        if self.backend not in BACKENDS or self.kind not in KINDS:
            raise OptionError(
                f"got backend {self.backend!r} and kind {self.kind!r}; choose of {', '.join(BACKENDS)} and {', '.join(KINDS)}"
            )
        got = f"got {self.instances} instances, batches of {self.batch} and {self.delay_us} µs"
        if self.instances < 1 or self.batch < 1 or self.delay_us < 0:
            raise OptionError(f"{got}; give 1, 1 and 0 or more")
        if max(self.instances, self.batch, self.delay_us) > _MOST:
            raise OptionError(f"{got}; Triton takes at most {_MOST:,} of each")


@dataclass(frozen=True)
class TritonRepository:
    """What was written."""

    path: Path
    model: str
    """The ensemble: takes image, uint8 (N, H, W, 3) RGB, gives picture, uint8 (N, H x scale, W x scale, 3)."""
    models: tuple[str, ...]
    """Folders in the repository, the ensemble's last."""
    notes: tuple[str, ...] = ()
    """What the repository does otherwise than the runtime."""

    def __str__(self) -> str:
        return f"{self.path}: {self.model}, an ensemble of {', '.join(self.models[:-1])}"


@dataclass(frozen=True)
class _Entry:
    """One model of the repository."""

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    graph: bytes
    """ONNX, or a TensorRT plan."""
    is_plan: bool = False
    warm: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """Inputs' dims for the request before the server is ready; empty for none."""


def export_triton(
    model: str | os.PathLike[str], repository: str | os.PathLike[str], options: TritonOptions | None = None
) -> TritonRepository:
    """Write a model into a Triton model repository.

    The ensemble has the model's name. Its parts: NAME_begin adds the border and takes the thumbnail, NAME_context computes the
    context, NAME_graph draws, NAME_end crops. The server draws what `Model` draws with `working_size=None`, but it does not cut large
    pictures into tiles.

    Args:
        model: a name, a package, an ONNX file that Impasto wrote, or a .plan with its record.
        repository: the folder, which is made if it is missing.
        options: how the server runs the model.

    Returns:
        TritonRepository: the folder, and the models that were written into it.

    Raises:
        ModelNotFound, PackageError: for a model that cannot be found or read.
        OptionError: for a style or strength that the network has not learnt.
        ExportError: for a graph that does not take and give canonical pictures.
        OutputError: where the repository holds a model of one of these names.

    Example:
        >>> from impasto.export import export_triton
        >>> written = export_triton(package, folder / "repository")
        >>> (written.path / written.model / "config.pbtxt").is_file()
        True
    """
    options = options or TritonOptions()
    source = resolve(model, options.precision)
    if source.engine and source.engine.role != "model":
        raise OptionError(
            f"{source.path} takes no pictures of 8 bits, which the server draws; name the package that it was built from"
        )
    spec = _spec(source)
    entries = _entries(source, spec, options)
    batch = 0 if any(entry.is_plan for entry in entries.values()) else options.batch
    texts = {name: _config(name, entry, options, batch) for name, entry in entries.items()}
    texts[spec.name] = _ensemble(spec.name, entries, batch)
    _write(Path(repository), entries, texts, options)
    return TritonRepository(Path(repository), spec.name, tuple(texts), tuple(_notes(spec)))


def _spec(source: Source) -> ModelSpec:
    """Raises ExportError where nothing says what the model is."""
    if source.manifest:
        spec = source.manifest.spec
    elif source.engine and source.engine.spec:
        spec = ModelSpec.from_json(source.engine.spec, str(source.path))
    else:
        raise ExportError(
            f"{source.path} does not say its border and sizes; make a package of it first: impasto export {source.path}"
        )
    if spec.task == PERCEPTUAL:
        raise ExportError(f"{source.path} measures style and draws nothing; name a stylizer or a restorer")
    return spec


def _entries(source: Source, spec: ModelSpec, options: TritonOptions) -> dict[str, _Entry]:
    """The ensemble's parts, in the order in which they run."""
    name, free = spec.name, (-1, -1, 3)
    image, picture = Tensor("image", "uint8", free), Tensor("picture", "uint8", free)
    strength = _strength(spec, options)
    given = [Tensor("padded", "uint8", free)]
    if spec.thumbnail:
        given.append(Tensor("thumbnail", "uint8", (spec.thumbnail, spec.thumbnail, 3)))
    if strength is not None:
        given.append(Tensor("context", "float32", (1,)))
    parts = {f"{name}_begin": _Entry((image,), tuple(given), ends.begin(spec, strength).SerializeToString())}
    context = None if strength is None else given[-1]
    if spec.thumbnail:
        parts[f"{name}_context"], length = _context(source, spec, given[1])
        context = Tensor("context", "float32", (length,))
    if spec.styles:
        shares = mixture(spec.styles, options.style, options.strength)
        contexts = Tensor("contexts", "float32", (len(spec.styles), length))
        mixed = Tensor("context", "float32", (length,))
        parts[f"{name}_mix"] = _Entry((contexts,), (mixed,), ends.mix(shares, length).SerializeToString())
    parts[f"{name}_graph"] = _drawing(source, spec, (image, *([context] if context else [])), picture)
    drawn = Tensor("drawn", "uint8", free)
    parts[f"{name}_end"] = _Entry((drawn, image), (picture,), ends.end(spec).SerializeToString())
    return parts


def _strength(spec: ModelSpec, options: TritonOptions) -> float | None:
    """The strength that is fixed in the repository; None for a network without one. Raises OptionError for what it has not learnt."""
    if not spec.strength:
        mixture(spec.styles, options.style, options.strength)
        return None
    if options.style or not 0 <= options.strength <= spec.strength:
        got = f"the style {options.style!r}" if options.style else f"strength {options.strength:g}"
        raise OptionError(f"got {got}; {spec.name} takes no style, and a strength from 0 to {spec.strength:g}")
    return options.strength


def _context(source: Source, spec: ModelSpec, thumbnail: Tensor) -> tuple[_Entry, int]:
    """The context graph, and the length of a context."""
    assert source.context_path is not None
    plan = source.context_engine is not None
    content = source.context_path.read_bytes() if plan else read_graph(source.context_path).SerializeToString()
    length = _context_length(source)
    dims = (len(spec.styles), length) if spec.styles else (length,)
    warm = {"thumbnail": thumbnail.dims}
    return _Entry((thumbnail,), (Tensor("context", "float32", dims),), content, plan, warm), length


def _context_length(source: Source) -> int:
    """Length of the context that the picture graph or its engine takes."""
    if source.engine:
        return source.engine.profiles[0]["context"][1][-1]
    takes = {port.name: port for port in read_graph(source.graph_path).graph.input}["context"]
    return int(takes.type.tensor_type.shape.dim[-1].dim_value)


def _drawing(source: Source, spec: ModelSpec, inputs: tuple[Tensor, ...], picture: Tensor) -> _Entry:
    """The picture graph or its engine. Raises ExportError for a graph that is not canonical."""
    side = spec.size.padded(*[_WARM_SIDE + 2 * spec.border] * 2)
    if source.engine:
        content, best = source.graph_path.read_bytes(), source.engine.profiles[0]["image"][1]
        side = (best[1], best[2])
    else:
        graph = read_graph(source.graph_path)
        content, names = graph.SerializeToString(), [port.name for port in (*graph.graph.input, *graph.graph.output)]
        if names != [*(tensor.name for tensor in inputs), picture.name]:
            raise ExportError(
                f"{source.graph_path} has {', '.join(names)} at its ends, and no canonical picture's; export the model again"
            )
    warm = {tensor.name: (*side, 3) if tensor.name == "image" else tensor.dims for tensor in inputs}
    return _Entry(inputs, (picture,), content, source.engine is not None, warm)


def _config(name: str, entry: _Entry, options: TritonOptions, batch: int) -> str:
    """The config.pbtxt of a part. batch: 0 where an engine is among the parts, which takes one picture at a time."""
    python = options.backend == "python" and not entry.is_plan
    fields: dict[str, Value] = {"name": name}
    if python:
        fields["backend"] = "python"
    else:
        fields["platform"] = "tensorrt_plan" if entry.is_plan else "onnxruntime_onnx"
    fields |= _ports(entry.inputs, entry.outputs, batch)
    fields["instance_group"] = [{"count": options.instances, "kind": Word(f"KIND_{options.kind.upper()}")}]
    if batch:
        fields["dynamic_batching"] = {"max_queue_delay_microseconds": options.delay_us if entry.warm else 0}
    if entry.warm:
        types = {tensor.name: tensor.to_pbtxt(True)["data_type"] for tensor in entry.inputs}
        inputs: list[Value] = [
            {
                "key": key,
                "value": {
                    "data_type": types[key],
                    "dims": list(dims) if batch else [1, *dims],
                    "zero_data": True,
                },
            }
            for key, dims in entry.warm.items()
        ]
        fields["model_warmup"] = [{"name": "one picture", "batch_size": 1, "inputs": inputs}]
    return pbtxt(fields)


def _ports(inputs: tuple[Tensor, ...], outputs: tuple[Tensor, ...], batch: int) -> dict[str, Value]:
    return {
        "max_batch_size": batch,
        "input": [tensor.to_pbtxt(batch > 0) for tensor in inputs],
        "output": [tensor.to_pbtxt(batch > 0) for tensor in outputs],
    }


_RENAMED = {("graph", "image"): "padded", ("graph", "picture"): "drawn"}
"""(Part, its tensor) -> the ensemble's tensor, where they are called otherwise; for several styles there is one more."""


def _ensemble(name: str, entries: Mapping[str, _Entry], batch: int) -> str:
    """The config.pbtxt of the whole."""
    renamed = dict(_RENAMED)
    if f"{name}_mix" in entries:
        renamed["context", "context"] = "contexts"
    steps: list[Value] = []
    for part, entry in entries.items():
        role = part.removeprefix(f"{name}_")
        maps: dict[str, Value] = {
            kind: [{"key": tensor.name, "value": renamed.get((role, tensor.name), tensor.name)} for tensor in tensors]
            for kind, tensors in (("input_map", entry.inputs), ("output_map", entry.outputs))
        }
        steps.append({"model_name": part, "model_version": -1, **maps})
    first, last = (list(entries.values())[place] for place in (0, -1))
    fields: dict[str, Value] = {"name": name, "platform": "ensemble", **_ports(first.inputs, last.outputs, batch)}
    return pbtxt({**fields, "ensemble_scheduling": {"step": steps}})


def _write(repository: Path, entries: Mapping[str, _Entry], texts: Mapping[str, str], options: TritonOptions) -> None:
    """Each model's folder appears whole, the ensemble's last. Raises OutputError."""
    make_folder(repository)
    if there := [name for name in texts if (repository / name).exists()]:
        raise OutputError(f"{repository / there[0]} is there already; remove it, or name another repository")
    for name, text in texts.items():
        with tempfile.TemporaryDirectory(prefix=".", dir=repository) as folder:
            made = Path(folder, name)
            version = make_folder(made / "1")
            if name in entries:
                entry = entries[name]
                write_bytes(version / ("model.plan" if entry.is_plan else "model.onnx"), entry.graph)
                if options.backend == "python" and not entry.is_plan:
                    write_bytes(version / "model.py", Path(__file__).with_name("python_backend.py").read_bytes())
            write_text(made / "config.pbtxt", text)
            made.rename(repository / name)


def _notes(spec: ModelSpec) -> Iterator[str]:
    """What the repository does otherwise than the runtime."""
    if spec.working_size:
        yield (
            f"pictures are drawn at their own size, as --working-size full does; scale those above {spec.working_size} pixels first"
        )
    if spec.receptive_field is not None:
        yield "large pictures are not cut into tiles, so they take memory as they grow; limit them before the server"
