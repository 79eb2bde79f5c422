"""Engines of a whole model: its picture graph and, where it has one, its context graph; kept in the package or the cache."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import impasto
from impasto.errors import ExportError, OptionError, PackageError, first_line, install
from impasto.files import sha256
from impasto.package.engine_record import EngineRecord
from impasto.package.manifest import FLOAT, MANIFEST, read_manifest, verify
from impasto.package.spec import ModelSpec, SizeRule
from impasto.package.writer import NewFile, change_package
from impasto.progress import Progress, silent
from impasto.runtime.backends.tensorrt.api import TensorRT
from impasto.runtime.backends.tensorrt.compatibility import why_not_here
from impasto.runtime.loading.source import Source, is_shipped, quantize_command, resolve
from impasto.runtime.loading.stored_engines import ENGINES

from .builder import EngineBuilder
from .cache import CacheEntry, EngineCache
from .options import BuildOptions, Sizes, only_size
from .targets import find_builder

STORES = ("auto", "package", "cache")

_UINT8 = 2  # TensorProto.UINT8


@dataclass(frozen=True)
class BuildResult:
    """What `build_engine` made or found."""

    plan: Path
    record: EngineRecord
    built: bool
    """False where the same engine lay in the cache already."""
    context: Path | None
    """The engine of the context graph, where the model has one."""
    source: Path
    """The package or ONNX file that it was built from."""
    why_not_here: str | None
    """Why it cannot run on this machine; None where it can."""
    why_precision: str | None = None
    """Why it has its precision; None where that was asked for."""
    float_engine: Path | None = None
    """The engine of the graph with float ends, where it was asked for."""

    def __str__(self) -> str:
        record = self.record
        where = record.gpu or "compute capability " + ", ".join(record.compute_capabilities)
        counts = ", ".join(f"{count} {name}" for name, count in record.precisions().items())
        done = "built" if self.built else "found, built before"
        size = f"{record.plan_bytes / 1e6:.1f} MB"
        return f"{done}: {self.plan} ({size}, {record.precision}, for {where}; layers: {counts}; {record.traffic()})"

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary."""
        return {
            "plan": str(self.plan),
            "built": self.built,
            "context": str(self.context) if self.context else None,
            "float_engine": str(self.float_engine) if self.float_engine else None,
            "source": str(self.source),
            "why_not_here": self.why_not_here,
            "record": self.record.to_json(),
        }


def build_engine(
    model: str | os.PathLike[str],
    options: BuildOptions | None = None,
    *,
    store: str = "auto",
    product: str = "auto",
    device: int = 0,
    cache: EngineCache | None = None,
    progress: Progress = silent,
    waiting: Callable[[], None] | None = None,
) -> BuildResult:
    """Build the engines of a model, or find them in the cache.

    Args:
        model: a package by path or name, or an ONNX file that takes uint8 (N, H, W, 3) pictures.
        options: precision, sizes and what else the builder is told. Precision "auto" is FP16 where it can be had, else FP32. With
            `with_float`, the package's graph with float ends gets an engine of the same sizes too, always in FP32.
        store: "package" writes the engines into its `engines/` folder and manifest, "cache" leaves them in the user's cache, "auto"
            takes the package unless it came with Impasto or cannot be written.
        product: "tensorrt", "tensorrt-rtx", or "auto", which takes the one that is installed.
        device: the GPU's number.
        cache: by default the user's, `$IMPASTO_CACHE`.
        progress: called on the builder's thread with the name of its phase, the steps of it that are done, and their number.
        waiting: called once where another process is building the same engine.

    Returns:
        BuildResult: the engine's file, its record with the types of all layers, and whether it can run here.

    Raises:
        OptionError: for options that this TensorRT does not have, sizes that the graph does not take, or `with_float` for a model
            without a graph with float ends.
        MissingDependency: without TensorRT.
        PackageError, ModelNotFound: for a model that cannot be found, or holds no graph of the precision.
        ExportError: where TensorRT cannot read or build the graph, in its own words.
        PrecisionMismatch: where the engine computes in another precision than was asked for.
        OutputError: where it cannot be written.

    Example:
        >>> from impasto.export import BuildOptions, Sizes, build_engine
        >>> options = BuildOptions("fp32", (Sizes.parse("64x64"),), targets=("sm86",))
        >>> build_engine(package, options).record.compute_capabilities
        ('8.6',)
    """
    if store not in STORES:
        raise OptionError(f"unknown place {store!r} for engines; choose one of {', '.join(STORES)}")
    source = resolve(model)
    if source.engine:
        raise OptionError(
            f"{source.path} is an engine already; name the package or the ONNX file to build another from"
        )
    if store == "package" and source.manifest is None:
        raise OptionError(f"{source.path} is no package; its engines go to the cache (store='cache')")
    options, why = _with_precision(model, options or BuildOptions("auto"), product)
    api = find_builder(options, product)
    spec = source.manifest.spec if source.manifest else spec_of_graph(source)
    _require_sizes(spec, options, source.path)
    graph_path, precision = find_graph(source, options.precision, api)
    own = EngineBuilder(graph_path, spec, options, graph_precision=precision, api=api, cache=cache, device=device)
    # The context graph's is last, since every size has the same one: who builds another waits for it, and should not wait for ours.
    builders = {"model": own, FLOAT: _float_builder(source, own), "context": _context_builder(source, own)}
    needed = sha256(source.context_path) if source.context_path and builders["context"] else None
    with ExitStack() as held:  # other builders may evict none before all are copied
        found = {
            role: builder.build(
                role=role,
                context_sha256=None if role == "context" else needed,
                progress=silent if role == "context" else progress,
                waiting=waiting,
                held=held,
            )
            for role, builder in builders.items()
            if builder
        }
        plans = [entry.plan for entry, _ in found.values()]
        if store == "package" or (store == "auto" and _takes_engines(source)):
            plans = add_to_package(source.path, [entry for entry, _ in found.values()])
    entry, built = found["model"]
    at = dict(zip(found, plans, strict=True))
    reason = why_not_here(entry.record, device)
    return BuildResult(at["model"], entry.record, built, at.get("context"), source.path, reason, why, at.get(FLOAT))


def _with_precision(
    model: str | os.PathLike[str], options: BuildOptions, product: str
) -> tuple[BuildOptions, str | None]:
    """The options with a precision in place of "auto", and why it was chosen."""
    if options.precision != "auto":
        return options, None
    precision, why = best_precision(model, options, product)
    return replace(options, precision=precision), why


def _require_sizes(spec: ModelSpec, options: BuildOptions, path: Path) -> None:
    """Raises OptionError where a graph of one size is to become an engine of another: it would not be what was asked for."""
    only = only_size(spec)
    if only and any(sizes != only for sizes in options.sizes):
        height, width = only.best
        larger = "; larger pictures are cut into tiles of that size" if spec.receptive_field is not None else ""
        raise OptionError(
            f"{path} was exported for pictures of {height} x {width} alone{larger}: say --size {height}x{width}, or export it "
            "with free height and width"
        )


def find_graph(source: Source, precision: str, api: TensorRT) -> tuple[Path, str | None]:
    """The ONNX file to build from: the one that bears the precision, or the FP32 one where builder flags make it FP16.

    Returns it and the precision that its package gives it; None for a bare file, which says it by its types.
    Raises PackageError with the command that makes a missing one.
    """
    if source.manifest is None:
        return source.graph_path, None
    held = source.manifest.find("model", precision, "tensorrt")
    if held:
        return verify(source.path, held), held.precision
    if precision == "fp16" and api.has_precision_flags:
        return source.graph_path, source.precision
    raise PackageError(
        f"{source.path} holds no {precision} graph, which {api} needs; make one: "
        f"{quantize_command(source.path, precision, 'tensorrt')}; or build --precision fp32"
    )


def best_precision(model: str | os.PathLike[str], options: BuildOptions, product: str = "auto") -> tuple[str, str]:
    """What to build where nobody said a precision, and why, as half a sentence: FP16 where it can be had, else FP32.

    Only the product and the targets of `options` count. Raises what `resolve` and `find_builder` raise.
    """
    source, api = resolve(model), find_builder(options, product)
    if source.manifest is None and (found := _bare_precision(source)) != "fp32":
        return found, "the graph is in that precision"
    if source.manifest and source.manifest.find("model", "fp16", "tensorrt"):
        return "fp16", "the package holds such a graph"
    if api.has_precision_flags:
        return "fp16", f"{api} makes it of the FP32 graph"
    if source.manifest is None:
        return "fp32", f"{api} builds what the graph says"
    make = quantize_command(source.path, "fp16")
    return "fp32", f"the package holds no FP16 graph, which {api} needs to build one; make it: {make}"


def _bare_precision(source: Source) -> str:
    """The precision of a graph that is named by itself: what its package says, or else its types."""
    if source.precision != "fp32":
        return source.precision
    try:
        from impasto.export.graph.precision import file_precision
    except ImportError:  # `spec_of_graph` says what is missing
        return source.precision
    return file_precision(source.graph_path)


def add_to_package(folder: Path, entries: list[CacheEntry]) -> list[Path]:
    """Copy engines with their records into the package and its manifest. Returns the plans' new paths. Raises OutputError."""
    with change_package(folder) as change:
        manifest = read_manifest(folder)
        added = {}
        for entry in entries:
            kind = "float engine" if entry.record.role == FLOAT else "engine"
            for path, role in ((entry.plan, kind), (entry.plan.with_suffix(".json"), "engine record")):
                name = f"{ENGINES}/{path.name}"
                added[name] = change.add(NewFile(name, role, path, entry.record.precision))
        kept = [file for file in manifest.files if file.name not in added]
        change.manifest = replace(manifest, files=(*kept, *added.values()))
    return [folder / ENGINES / entry.plan.name for entry in entries]


def discard(plan: Path, cache: EngineCache | None = None) -> None:
    """Take an engine that does not draw what it should out of its package and the cache. Raises OutputError."""
    (cache or EngineCache()).discard(plan.stem)
    folder = plan.parent.parent
    if plan.parent.name != ENGINES or not (folder / MANIFEST).is_file():
        return
    names = {f"{ENGINES}/{plan.stem}{suffix}" for suffix in (".plan", ".json")}
    with change_package(folder) as change:
        manifest = read_manifest(folder)
        change.manifest = replace(manifest, files=tuple(file for file in manifest.files if file.name not in names))
        change.removed = sorted(names)


def _takes_engines(source: Source) -> bool:
    """Whether this is a package of the user's own: those that came with Impasto stay as they are."""
    return source.manifest is not None and not is_shipped(source.path) and os.access(source.path, os.W_OK)


def _context_builder(source: Source, builder: EngineBuilder) -> EngineBuilder | None:
    """Builds the context graph's engine: always FP32, since it is small, runs once a picture and steers everything."""
    spec = builder.spec
    if source.context_path is None or spec.thumbnail is None:
        return None
    side = (spec.thumbnail, spec.thumbnail)
    return EngineBuilder(
        source.context_path,
        ModelSpec(f"{spec.name}-context", size=SizeRule(fixed=side)),
        replace(builder.options, precision="fp32", sizes=(Sizes(side, side, side),), dla_core=None),
        graph_precision="fp32",
        api=builder.api,
        target=builder.target,
        cache=builder.cache,
        device=builder.device,
    )


def _float_builder(source: Source, builder: EngineBuilder) -> EngineBuilder | None:
    """Builds the engine of the graph with float ends, where it is wanted: always FP32.

    With operands of 11 bits, as FP16 and TF32 have, a photo would come out up to 10 (denoise) or 30 (deblur) levels of 65,535 away.
    Raises OptionError where the model has no such graph, and PackageError where it is not the manifest's.
    """
    options = builder.options
    if not options.with_float:
        return None
    if source.manifest is None:
        graph = shlex.quote(str(source.path))
        raise OptionError(
            f"{source.path} is a single graph for 8 bits, and an engine with float ends is built of a package: impasto export {graph} "
            "-o FOLDER"
        )
    held = source.manifest.find(FLOAT)
    if held is None:
        name = source.path.resolve().name if is_shipped(source.path) else shlex.quote(str(source.path))
        raise OptionError(f"{source.path} has no graph with float ends; add it: impasto export {name} --with-float")
    return EngineBuilder(
        verify(source.path, held),
        builder.spec,
        replace(options, precision="fp32", dla_core=None, with_float=False),
        graph_precision="fp32",
        api=builder.api,
        target=builder.target,
        cache=builder.cache,
        device=builder.device,
    )


def spec_of_graph(source: Source) -> ModelSpec:
    """What a bare ONNX file says of itself, or where it says nothing, what the runtime finds by drawing with it.

    Raises ExportError where it takes no uint8 pictures, PackageError where what it says is malformed, and what `load` raises.
    """
    try:
        import onnx
    except ImportError:
        raise ExportError(
            f"{source.path} is a bare graph, and looking into it needs onnx: {install('export')}; "
            "a package needs nothing"
        ) from None
    from impasto.export.graph.helpers import spec_text
    from impasto.runtime.loading.opening import spec_in_metadata

    try:
        model = onnx.load(str(source.graph_path), load_external_data=False)
    except Exception as error:  # protobuf's DecodeError has no public base that onnx promises
        raise ExportError(f"{source.graph_path} is no ONNX file that can be read: {first_line(error)}") from None
    weights = {tensor.name for tensor in model.graph.initializer}  # older files list them among the inputs
    inputs = [value for value in model.graph.input if value.name not in weights]
    _require_canonical(inputs, source.graph_path)
    own = spec_text(model)
    if own:
        return spec_in_metadata(own, source.graph_path)
    _require_pictures(inputs, list(model.graph.output), source.graph_path)
    with impasto.load(source.path, backend="onnxruntime-cpu") as drawing:
        return drawing.info.spec


def _require_canonical(inputs: list[Any], path: Path) -> None:
    """Raises ExportError unless the first input is a canonical picture."""
    if not inputs:
        raise ExportError(f"{path} has no input, so it draws nothing; is the file empty, or cut off?")
    if _kind(inputs[0]) != (_UINT8, 4, 3):
        quoted = shlex.quote(str(path))
        raise ExportError(
            f"{path}: the input {inputs[0].name} is no uint8 (N, H, W, 3) picture; engines and other precisions take "
            f"only such. Make a package of it: impasto export {quoted} --layout 'rgb 0..1' (or what its pixels are)"
        )
    batch = inputs[0].type.tensor_type.shape.dim[0].dim_value
    if batch > 1:
        raise ExportError(
            f"{path}: the input {inputs[0].name} holds {batch} pictures at once, and Impasto draws one at a time; export it with a "
            "batch of 1, or a free one"
        )


def _require_pictures(inputs: list[Any], outputs: list[Any], path: Path) -> None:
    """Raises ExportError unless one picture becomes one picture: only that can be tried."""
    if len(inputs) == 1 and [_kind(output)[:2] for output in outputs] == [(_UINT8, 4)]:
        return
    taken, given = (", ".join(value.name for value in values) for values in (inputs, outputs))
    raise ExportError(
        f"{path} turns {taken} into {given} and does not say what that is; wanted one uint8 picture in and one out, or the package "
        "that this graph is of"
    )


def _kind(value: Any) -> tuple[int, int, int]:
    """Element type, rank, and last size, 0 where that is free or there is none."""
    tensor = value.type.tensor_type
    sides = tensor.shape.dim
    return tensor.elem_type, len(sides), sides[-1].dim_value if sides else 0
