"""Opens a model's files in a backend, and reads or measures the model's spec."""

from __future__ import annotations

import contextlib
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from impasto.errors import BackendError, OptionError, PackageError
from impasto.package import schema
from impasto.package.engine_record import EngineRecord
from impasto.package.manifest import FLOAT
from impasto.package.onnx_bytes import metadata
from impasto.package.spec import ModelSpec, Pixels, SizeRule
from impasto.runtime.backends import Backend, open_engine, open_graph
from impasto.runtime.backends.base import SizeLimits
from impasto.runtime.backends.pixels import MULTIPLE_HINT, PixelAdapter

from .sidecar import Sidecar
from .source import Source

_COMMON_SIDES = (128, 224, 256, 384, 512)
"""Sides that networks are often exported with. They are tried if 64 fails: some graphs work at one side only, and call it free."""

SPEC_KEY = "impasto.spec"
"""The key of an ONNX file's metadata under which our exporter writes the ModelSpec as JSON."""


def open_source(source: Source, backend: str, device: int, *, features: bool = False) -> Backend:
    """Open the picture graph or its engine. features: for a perceptual network, which has several outputs.

    Raises what the backends raise.
    """
    if not source.is_engine:
        return open_graph(source.graph_path, backend, device, features=features)
    return open_engine(source.graph_path, source.engine, backend, device, rebuild_command(source), features=features)


def open_context_graph(source: Source, path: Path, backend: str, device: int) -> Backend:
    """Open the context graph or its engine. path: of the file. Raises what the backends raise."""
    if source.context_engine is None:
        return open_graph(path, backend, device)
    return open_engine(path, source.context_engine, backend, device, rebuild_command(source))


def rebuild_command(source: Source) -> str:
    """The command that builds another engine, without --size."""
    if source.engine is None and source.manifest is None:
        return "impasto build MODEL, where MODEL is the model that the engine was built from"
    name = str(source.engine.spec.get("name", source.path)) if source.engine else str(source.path)
    command = (
        f"impasto build {shlex.quote(str(source.path) if source.manifest else name)} --precision {source.precision}"
    )
    return f"{command} --with-float" if source.engine and source.engine.role == FLOAT else command


def describe(loaded: Backend, source: Source, pixels: Pixels | None) -> tuple[Backend, ModelSpec]:
    """The backend, with pixel conversion if the graph needs it, and the model's spec.

    The spec comes from the manifest, the engine's record, the graph's metadata or the sidecar; what they do not say is measured.
    pixels: the layout that the caller asked for. Raises OptionError if the graph has a known layout, PackageError and BackendError.
    """
    if not loaded.inputs:
        raise BackendError(
            f"{source.graph_path} has no input, so it is no picture model (an empty file?); export it again"
        )
    canonical = loaded.inputs[0].dtype == np.uint8 and loaded.inputs[0].shape[3:] == (3,)
    if pixels and (canonical or loaded.limits or source.manifest or SPEC_KEY in loaded.metadata):
        raise OptionError(
            f"{source.path} has a layout of its own, {loaded.inputs[0]} RGB; leave layout out (--layout at the command line)"
        )
    if loaded.limits and source.engine is None and source.graph_path.suffix == ".plan":
        return loaded, _measured(loaded, loaded.limits, source.graph_path)
    if source.engine and not source.manifest:
        return loaded, _recorded(source.engine, source.sidecar, source.graph_path)
    if source.manifest:
        if not canonical:
            raise BackendError(
                f"{source.graph_path} takes {loaded.inputs[0]}; a package's graph takes uint8 (?, ?, ?, 3)"
            )
        return loaded, source.manifest.spec
    if SPEC_KEY in loaded.metadata:
        return loaded, spec_in_metadata(loaded.metadata[SPEC_KEY], source.graph_path)
    sidecar = source.sidecar
    if not canonical:
        pixels = pixels or (sidecar.pixels if sidecar else None)
        if pixels is None:
            raise BackendError(
                f"{source.graph_path} takes {loaded.inputs[0]}, and its pixel layout is unknown; "
                f"load it with layout='rgb 0..1' ('bgr 0..255', 'rgb -1..1', …; --layout at the command line), or write that into "
                f'{source.graph_path.with_suffix(".json").name}: {{"layout": "rgb 0..1"}}'
            )
        loaded = PixelAdapter(loaded, pixels)
    return loaded, _probe(loaded, source.described_spec())


def known_spec(source: Source) -> ModelSpec:
    """The model's spec as far as its files tell, without a backend; what `describe` would measure is missing. Raises PackageError."""
    if source.engine and not source.manifest:
        return _recorded(source.engine, source.sidecar, source.graph_path)
    if source.manifest:
        return source.manifest.spec
    with contextlib.suppress(ValueError):  # of what is no ONNX file, which a backend tells
        held = metadata(source.graph_path.read_bytes())
        if SPEC_KEY in held:
            return spec_in_metadata(held[SPEC_KEY], source.graph_path)
    return source.described_spec()


def _recorded(engine: EngineRecord, sidecar: Sidecar | None, path: Path) -> ModelSpec:
    """The spec of the engine's record, with the sidecar's fields in place: the sidecar may have been corrected since the build."""
    described = sidecar.described if sidecar else {}
    size = {**engine.spec["size"], **(described.get("size") or {})}
    return ModelSpec.from_json({**engine.spec, **described, "size": size}, str(path))


def spec_in_metadata(text: str, graph_path: Path) -> ModelSpec:
    """The spec in a graph's metadata. text: the value of SPEC_KEY. Raises PackageError if it is no spec."""
    return ModelSpec.from_json(metadata_json(text, graph_path), str(graph_path))


def metadata_json(text: str, graph_path: Path) -> Any:
    """The JSON value in a graph's metadata, without defaults for absent fields. Raises PackageError if it is no JSON."""
    try:
        return schema.parse_json(text)
    except schema.Malformed as error:
        raise PackageError(
            f"{graph_path}: its metadata {SPEC_KEY!r} cannot be read: {error}; export the model again"
        ) from None


def _probe(loaded: Backend, spec: ModelSpec) -> ModelSpec:
    """Complete an external graph's spec with its fixed size and its scale, by one run on a small picture."""
    batch, height, width, _ = loaded.inputs[0].shape
    if len(loaded.inputs) != 1 or batch not in (None, 1):
        taken = " and ".join(map(str, loaded.inputs))
        raise BackendError(f"the graph takes {taken}; a picture model takes one input with N = 1 or free")
    size = replace(spec.size, fixed=(height, width)) if height and width else spec.size
    height, width = size.padded(64, 64)
    try:
        shape = _measured_shape(loaded, height, width)
    except BackendError as error:
        side = next((side for side in _COMMON_SIDES if size == SizeRule() and _takes(loaded, side)), None)
        if side is None:
            raise
        raise BackendError(
            f"{error}; the graph works at {side} x {side}. If it works at no other size, write this into a sidecar: "
            f'{{"size": {{"fixed": [{side}, {side}]}}}}; {MULTIPLE_HINT}'
        ) from None
    if len(shape) != 4:
        raise BackendError(f"the graph gives {shape} for a picture; a picture model gives (N, H, W, C)")
    if shape[1] % height or shape[1] // height != shape[2] / width:
        raise BackendError(
            f"the graph turns {height} x {width} into {shape[1]} x {shape[2]}; expected one whole scale factor ({MULTIPLE_HINT})"
        )
    if None not in loaded.output.shape[1:3] and not size.fixed:
        size = replace(size, fixed=(height, width))  # its output has one size, so its input has one too
    return replace(spec, size=size, scale=shape[1] // height)


def _takes(loaded: Backend, side: int) -> bool:
    try:
        _measured_shape(loaded, side, side)
    except BackendError:
        return False
    return True


def _measured_shape(loaded: Backend, height: int, width: int) -> tuple[int, ...]:
    return loaded.measure((np.zeros((1, height, width, 3), np.uint8),))


def _measured(loaded: Backend, limits: SizeLimits, path: Path) -> ModelSpec:
    """The spec of a trusted engine without a record: its file's name and its measured scale."""
    if len(loaded.inputs) != 1 or loaded.inputs[0].dtype != np.uint8 or loaded.inputs[0].shape[3:] != (3,):
        raise BackendError(
            f"{path} takes {', '.join(map(str, loaded.inputs))}; a picture model takes one input, uint8 (?, ?, ?, 3)"
        )
    height, width = limits.ranges[0][0]
    shape = loaded.measure((np.zeros((loaded.inputs[0].shape[0] or 1, height, width, 3), np.uint8),))
    return ModelSpec(path.stem, scale=max(shape[1] // height, 1))
