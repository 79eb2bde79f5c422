"""Anybody's ONNX file as a model package: then it is quantized, built, measured and run like our own networks.

Nothing is taken on trust. Which sizes the graph accepts, and how much it enlarges, is tried out; how tiles must overlap is
computed from its operators; and the package must draw what the file draws, or nothing is written.
"""

from __future__ import annotations

import json
import math
import os
import re
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto

from impasto._version import __version__
from impasto.errors import BackendError, ExportError, ImpastoWarning, NoNumbers, OptionError, PackageError, TookTooLong
from impasto.export.checks.against_torch import TOLERANCE, PictureCheck, compare, synthetic
from impasto.export.checks.backends import check_backends
from impasto.export.checks.engine import LEAST_PSNR
from impasto.export.graph.canonical import finished, is_canonical, is_modern, modernized, read_external, with_pixels
from impasto.export.graph.float_ends import float_files
from impasto.export.graph.helpers import attribute, constants, copy, element_types, graph_file, shape_of, spec_text
from impasto.export.graph.receptive_field import receptive_field
from impasto.export.graph.weight_storage import without_fp16_storage
from impasto.files import sha256
from impasto.package.manifest import MODEL, BackendCheck, Manifest, read_manifest
from impasto.package.spec import TASKS, ModelSpec, Pixels, SizeRule
from impasto.package.writer import check_name, check_target, write_package
from impasto.runtime.backends import Backend, open_graph
from impasto.runtime.backends.pixels import PixelAdapter
from impasto.runtime.loading.opening import SPEC_KEY, metadata_json, spec_in_metadata
from impasto.runtime.loading.source import Source, resolve
from impasto.runtime.runner import time_limit

_MULTIPLES = (1, 2, 4, 8, 16, 32, 64)
"""Numbers that sides may have to be multiples of, as strides by two make them."""
_BAKED = (64, 32, 48, 96, 128, 192, 224, 256, 384, 512)
"""Sides that exporters bake into a graph, in a reshape for one, and say that they are free."""
_LEAST_TRIED = 32
"""Sides tried first, in pixels: most graphs take them, and small pictures are drawn fast."""
_COMPARED = (61, 83)
"""Height and width of the picture that file and package both draw, rounded up to what the graph takes."""

_SECONDS, _PIXELS = 30.0, 256 * 256
"""How long a picture of at most so many pixels may take, and a larger one in proportion; most networks need less than one second."""


@dataclass(frozen=True)
class ImportedModel:
    """A package made of somebody's ONNX file."""

    folder: Path
    source: Path
    spec: ModelSpec
    check: PictureCheck
    """One picture drawn by the package and by the file itself, both in ONNX Runtime."""

    def __str__(self) -> str:
        spec = self.spec
        tiles = (
            "never cut into tiles (it looks at the whole picture, or has an operator whose reach is not known)"
            if spec.receptive_field is None
            else f"tiles overlap by {spec.receptive_field}"
        )
        return (
            f"wrote the package {self.folder}: ×{spec.scale}, {spec.size}, {tiles}; "
            f"it draws what {self.source.name} draws (largest difference {self.check.max_difference} of 255)"
        )


def import_onnx(
    graph_path: str | os.PathLike[str],
    folder: str | os.PathLike[str] | None = None,
    *,
    layout: str | None = None,
    name: str | None = None,
    task: str | None = None,
) -> ImportedModel:
    """Make a model package of an external ONNX file that takes one picture and gives one.

    Args:
        graph_path: float32 or float16 (N, 3, H, W) or (N, H, W, 3), of any opset that ONNX can convert; or canonical already.
        folder: where the package goes; by default a new one beside the file.
        layout: its pixels, as `impasto.load` takes it, such as "rgb 0..1"; by default what the sidecar says (`NAME.json` beside the
            file: layout, multiple, receptive_field, task, …, which are then believed).
        name: the model's; by default the sidecar's, the folder's, or the file's.
        task: one of `TASKS`; by default the sidecar's, or "upscale" where it enlarges.

    Returns:
        ImportedModel: the package's folder, its spec, and one picture drawn by package and file. FP16 graphs become FP32, what lower
        precisions are made of, and may differ by what halves round.

    Raises:
        ModelNotFound: where there is no such file.
        OptionError: for a layout, name, task or folder that does not fit.
        PackageError: for a wrong sidecar.
        ExportError: for a graph that cannot become a package; nothing is written then.
        OutputError: where the package cannot be written.

    Example:
        >>> from impasto.export import import_onnx
        >>> import_onnx(graph_path, folder / "mine", layout="rgb 0..1").spec.scale
        1
    """
    source = resolve(graph_path)
    if source.manifest is not None or source.graph_path.suffix.lower() != ".onnx" or source.engine:
        raise OptionError(f"{source.path} is no bare ONNX file; it needs no package made of it")
    if task is not None and task not in TASKS:
        raise OptionError(f"unknown task {task!r}; choose one of {', '.join(TASKS)}")
    read = read_external(source.graph_path)
    described = _described(read, source)
    by_itself = name or described.get("name") or _as_name(source.graph_path.stem)
    target = source.graph_path.parent / by_itself if folder is None else Path(folder)
    if folder is not None and not (name or described.get("name")):
        name = _as_name(target.resolve().name)
    name = check_name(name or by_itself)
    # Into the folder of a package that was made of another file, only who says --name.
    check_target(target, name if _is_made_of(target, source.graph_path) else by_itself, _files_of(source.graph_path))
    pixels = _pixels(read, layout, source)
    spec = ModelSpec.from_json({"name": name, **described, **({"task": task} if task else {})}, str(source.graph_path))
    spec = replace(spec, name=name)
    _require_possible(spec, source.graph_path)
    modern = read if not pixels and is_modern(read) else modernized(read)
    model = with_pixels(modern, pixels) if pixels else finished(modern)
    with tempfile.TemporaryDirectory() as temporary:
        trial = Path(temporary) / MODEL
        onnx.save(model, str(trial))
        with (
            closing(_open(trial)) as drawing,
            closing(_open(source.graph_path, pixels)) as original,
            _in_time(source.graph_path, drawing),
        ):
            spec = _completed(spec, described, drawing, model)
            check = _compared(spec, drawing, original)
            _tell_of_no_numbers(spec, original)
    in_halves = TensorProto.FLOAT16 in element_types(read).values()
    if check.max_difference > TOLERANCE and not (in_halves and check.psnr >= LEAST_PSNR["fp16"]):
        raise ExportError(
            f"the package would draw up to {check.max_difference} levels of 255 away from what {source.graph_path} draws; nothing was "
            "written. Please report the file"
        )
    model.metadata_props.add(key=SPEC_KEY, value=json.dumps(spec.to_json()))
    manifest = Manifest(spec, (), {"origin": _origin(source.graph_path, pixels)}, impasto=__version__)
    files = [graph_file(MODEL, model)]
    files += float_files(name, model, files[0], spec.size)
    backends = check_backends(manifest, files) | {"onnxruntime-cpu": BackendCheck(True, check.max_difference)}
    write_package(target, replace(manifest, backends=backends), files)
    return ImportedModel(target, source.graph_path, spec, check)


@contextmanager
def _in_time(path: Path, graph: Backend) -> Iterator[None]:
    """Let no drawing take much longer than pictures of this size do. Raises ExportError."""
    _, height, width, _ = graph.inputs[0].shape
    seconds = _SECONDS * max(1.0, (height or 1) * (width or 1) / _PIXELS)
    try:
        with time_limit(seconds):
            yield
    except TookTooLong as error:
        raise ExportError(f"{path}: {error}. Nothing was written") from None


def _described(model: onnx.ModelProto, source: Source) -> dict[str, Any]:
    """What the graph's own metadata says, where Impasto wrote it, and what a sidecar does. Raises PackageError."""
    own = spec_text(model)
    if own:
        spec_in_metadata(own, source.graph_path)  # says what is wrong; what it leaves out is found by trying
    return {
        **(metadata_json(own, source.graph_path) if own else {}),
        **(source.sidecar.described if source.sidecar else {}),
    }


def _require_possible(spec: ModelSpec, path: Path) -> None:
    """Raises OptionError for what a sidecar, or metadata, says and a package of one graph cannot be."""
    if spec.task not in TASKS:
        raise OptionError(
            f"{path} is said to have the unknown task {spec.task!r}; write one of {', '.join(TASKS)} into the sidecar, or say --task"
        )
    if spec.thumbnail is not None or spec.styles:
        raise OptionError(
            f"{path} is said to have a thumbnail or styles, which a context graph takes, and a package of one file has none; leave "
            "them out of the sidecar"
        )


def _files_of(graph: Path) -> list[Path]:
    """The graph, the sidecar, and the files of weights, as far as there are such."""
    stored = onnx.load(str(graph), load_external_data=False)
    weights = {
        entry.value for tensor in stored.graph.initializer for entry in tensor.external_data if entry.key == "location"
    }
    return [graph, graph.with_suffix(".json"), *(graph.parent / name for name in weights)]


def _pixels(model: onnx.ModelProto, layout: str | None, source: Source) -> Pixels | None:
    """How the graph's pixels lie; None for a canonical one. Raises OptionError where that is unknown, or told in vain."""
    if is_canonical(model):
        if layout is not None:
            raise OptionError(
                f"{source.graph_path} takes uint8 (N, H, W, 3) pictures as they are; leave the layout out"
            )
        return None
    if layout is not None:
        return Pixels.parse(layout)
    if source.sidecar and source.sidecar.pixels:
        return source.sidecar.pixels
    raise OptionError(
        f"{source.graph_path} does not say how pixels are laid out in it; say it: --layout 'rgb 0..1' ('bgr 0..255', 'rgb -1..1', …)"
    )


def _is_made_of(folder: Path, graph: Path) -> bool:
    """Whether the package in a folder was made of a file of this name."""
    try:
        origin = read_manifest(folder).recipe.get("origin")
    except PackageError:
        return False
    return isinstance(origin, dict) and origin.get("file") == graph.name


def _as_name(stem: str) -> str:
    """A file's name as a model may be called."""
    return re.sub(r"[^a-z0-9._-]+", "-", stem.lower()).strip("-._")[:64] or "model"


def _origin(path: Path, pixels: Pixels | None) -> dict[str, Any]:
    return {
        "file": path.name,
        "sha256": sha256(path),
        "layout": f"{pixels.order} {pixels.low:g}..{pixels.high:g}" if pixels else "canonical",
    }


def _open(path: Path, pixels: Pixels | None = None) -> Backend:
    """A graph in ONNX Runtime on the CPU, adapted where it takes planes of floats."""
    graph = open_graph(path, "onnxruntime-cpu", 0)
    canonical = graph.inputs[0].dtype == np.uint8 and graph.inputs[0].shape[3:] == (3,)
    return PixelAdapter(graph, pixels) if pixels and not canonical else graph


def _completed(spec: ModelSpec, described: dict[str, Any], graph: Backend, model: onnx.ModelProto) -> ModelSpec:
    """The spec, completed by trying and reading the graph; what a sidecar says of sizes and reach is believed.

    Raises ExportError where no size can be found that the graph takes.
    """
    _, height, width, _ = graph.inputs[0].shape
    if (height is None) != (width is None):
        raise ExportError(
            f"the graph fixes one side of its pictures and leaves the other free ({graph.inputs[0]}); export it again with "
            "both free, or both fixed"
        )
    if height and width:
        spec = replace(spec, size=replace(spec.size, fixed=(height, width)))
    elif "size" not in described:
        spec = replace(spec, size=_find_sizes(graph, model))
    scale = _scale(graph, *spec.size.padded(_LEAST_TRIED, _LEAST_TRIED))
    if scale is None:
        raise ExportError(_no_size(f"{_LEAST_TRIED} x {_LEAST_TRIED}, rounded up to {spec.size}"))
    spec = replace(spec, scale=scale, task="upscale" if scale > 1 and spec.task == "unknown" else spec.task)
    field = None if "receptive_field" in described else receptive_field(without_fp16_storage(model))
    if field is None:
        return spec
    multiple = math.lcm(spec.size.multiple, field.alignment)
    if spec.size.fixed and any(side % multiple for side in spec.size.fixed):
        return spec  # tiles of that size could not begin where the network's strides fall
    return replace(spec, size=replace(spec.size, multiple=multiple), receptive_field=field.radius)


def _find_sizes(graph: Backend, model: onnx.ModelProto) -> SizeRule:
    """The least multiple of which sides must be, and the least side; the one size of a graph that has that baked in.

    Raises ExportError where neither is found.
    """
    for multiple in _MULTIPLES:
        odd = -(-_LEAST_TRIED // multiple) | 1  # multiples of this one, and of no larger power of two
        sides = odd * multiple, (odd + 2) * multiple
        if _scale(graph, *sides) is not None:
            break
    else:
        taken = [side for side in _BAKED if _scale(graph, side, side) is not None]
        if len(taken) == 1:
            return SizeRule(fixed=(taken[0], taken[0]))
        works = f"; it works at {', '.join(f'{side} x {side}' for side in taken)}" if taken else ""
        raise ExportError(_no_size(f"multiples of {', '.join(map(str, _MULTIPLES))}") + works)
    least = multiple
    while least < sides[0] and not (_reflects_within(model, least) and _scale(graph, least, least)):
        least *= 2
    return SizeRule(multiple, minimum=min(least, sides[0]))


def _reflects_within(model: onnx.ModelProto, side: int) -> bool:
    """Whether no layer reflects more pixels than it has, in a picture of side x side: some ONNX Runtimes read other memory then."""
    fixed = copy(model)
    for dimension in fixed.graph.input[0].type.tensor_type.shape.dim[1:3]:
        dimension.dim_value = side
    inferred = onnx.shape_inference.infer_shapes(fixed, data_prop=True)
    known = constants(fixed.graph)
    for node in fixed.graph.node:
        if node.op_type == "Pad" and attribute(node, "mode", b"constant") == b"reflect":
            sizes, pads = shape_of(inferred.graph, node.input[0]), known.get(node.input[1])
            if (
                sizes is None
                or pads is None
                or any(int(pad) >= size for pad, size in zip(pads, sizes * 2, strict=True) if pad)
            ):
                return False
    return True


def _scale(graph: Backend, height: int, width: int) -> int | None:
    """How many times larger the drawn picture is; None where the graph does not take the size, or gives another form."""
    try:
        shape = graph.measure((np.zeros((1, height, width, 3), np.uint8),))
    except BackendError:
        return None
    scale = shape[1] // height
    return scale if scale and shape[1:] == (height * scale, width * scale, 3) else None


def _no_size(tried: str) -> str:
    return (
        f"the graph takes none of the sizes that were tried ({tried}), or does not enlarge them by one whole factor; if you know what "
        'it takes, say it in a sidecar: {"layout": "rgb 0..1", "multiple": 48}'
    )


def _tell_of_no_numbers(spec: ModelSpec, original: Backend) -> None:
    """Warn of a network that has no picture for one of a single colour, as those that divide by its contrast."""
    height, width = spec.size.padded(*_COMPARED)
    for name, level in (("black", 0), ("white", 255)):
        try:
            original.run_all((np.full((1, height, width, 3), level, np.uint8),))
        except NoNumbers:
            warnings.warn(
                f"{spec.name} gives values that are no numbers (NaN) for a {name} picture; such pictures will be refused",
                ImpastoWarning,
                stacklevel=3,
            )
            return


def _compared(spec: ModelSpec, drawing: Backend, original: Backend) -> PictureCheck:
    """One picture drawn by both graphs. Raises BackendError."""
    height, width = spec.size.padded(*_COMPARED)
    image = synthetic(height, width)
    drawn, wanted = (graph.run_all((image[None],))[0][0] for graph in (drawing, original))
    return compare(f"synthetic {height} x {width}", drawn, wanted)
