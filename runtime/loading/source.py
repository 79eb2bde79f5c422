"""From what a user wrote to the graph files and what is known of them."""

from __future__ import annotations

import difflib
import os
import reprlib
import shlex
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from impasto.errors import BackendError, ModelNotFound, OptionError, PackageError
from impasto.package import schema
from impasto.package.engine_record import EngineRecord
from impasto.package.manifest import MANIFEST, PRECISIONS, Manifest, PackageFile, read_manifest, verify
from impasto.package.spec import ModelSpec, Pixels

SEARCH_VARIABLE = "IMPASTO_MODELS"
"""Environment variable with folders of model packages, separated as in PATH."""


@dataclass(frozen=True)
class Source:
    """The files to load for one model."""

    path: Path
    """The package's folder, or the bare ONNX file."""
    graph: Path
    precision: str
    context: Path | None = None
    manifest: Manifest | None = None
    """None for a bare ONNX file."""
    sidecar: Sidecar | None = None
    """What a JSON file beside a bare ONNX file says of it."""
    engine: EngineRecord | None = None
    """What is known of the engine, where `graph` is one."""
    context_engine: EngineRecord | None = None
    """The same of `context`."""

    def described_spec(self) -> ModelSpec:
        """What the sidecar says of a bare graph; without a name there, that of the file."""
        return _described_spec(self.graph, self.sidecar.described if self.sidecar else {}, self.graph)

    def graphs(self) -> dict[str, Path]:
        """The paths of a package's `Manifest.graphs`. Raises PackageError where a hash is wrong, OptionError for what is no package."""
        if self.manifest is None:
            raise OptionError(f"{self.path} is a single graph; name the package folder that holds all its precisions")
        return {name: verify(self.path, file) for name, file in self.manifest.graphs().items()}


@dataclass(frozen=True)
class Sidecar:
    """`NAME.json` beside somebody's `NAME.onnx`: {"layout": "rgb 0..1", "multiple": 4, "task": "denoise", …}."""

    pixels: Pixels | None
    described: dict[str, Any]


def resolve(
    path_or_name: str | os.PathLike[str], precision: str = "auto", trust: bool = False, family: str | None = None
) -> Source:
    """Find a model: a path as it is, otherwise a name in $IMPASTO_MODELS, then among the models that ship.

    precision: "auto" (the package's FP32 model) or one of PRECISIONS. trust: skip the comparison of hashes. family: the
    kind of backend that is to run it, one of FAMILIES; None takes the first graph of the precision, whomever it was made for.
    Raises ModelNotFound, PackageError, OptionError, or BackendError for a file of a kind that nothing here runs.
    """
    if precision not in ("auto", *PRECISIONS):
        raise OptionError(f"unknown precision {precision!r}; choose one of auto, {', '.join(PRECISIONS)}")
    path = _locate(path_or_name)
    if path.is_dir():
        return _from_package(path, precision, trust, family)
    if path.suffix.lower() == ".plan":
        return _from_plan(path, precision, trust)
    if path.suffix.lower() != ".onnx":
        raise BackendError(
            f"{path} is no model that can be run: expected a package folder or an .onnx file (or a .plan of impasto build)"
            + (
                "; export the checkpoint first: impasto export " + shlex.quote(str(path))
                if path.suffix == ".safetensors"
                else ""
            )
        )
    return _from_graph(path, precision, trust)


def search_path() -> list[Path]:
    """The folders that names are looked up in, first to last."""
    given = [Path(folder) for folder in os.environ.get(SEARCH_VARIABLE, "").split(os.pathsep) if folder]
    return [*given, shipped_models()]


def shipped_models() -> Path:
    """The folder of the models that come with Impasto."""
    import impasto.models

    return Path(next(iter(impasto.models.__path__)))


def is_shipped(package: Path) -> bool:
    """Whether this package came with Impasto, however it is named: those stay as they are."""
    return package.resolve().parent == shipped_models().resolve()


def quantize_command(folder: Path, precision: str, family: str | None = None) -> str:
    """What to type so that a package gets graphs of a precision; what ships is left alone and a copy made."""
    shipped = is_shipped(folder)
    name = folder.resolve().name if shipped else shlex.quote(str(folder))
    words = ["impasto quantize", name, "--to", precision, "--calibrate PHOTOS"]
    if family and precision == "int8":  # one FP16 graph suits every family
        words += ["--for", family]
    return " ".join([*words, *(["-o COPY"] if shipped else [])])


def known_names() -> dict[str, Path]:
    """Every name that `load` knows, with the package that it means. Raises OptionError where $IMPASTO_MODELS names no folders."""
    found: dict[str, Path] = {}
    for folder in search_path():
        try:
            manifests = sorted(folder.glob(f"*/{MANIFEST}"))
        except OSError as error:
            raise OptionError(
                f"${SEARCH_VARIABLE} names {str(folder)!r:.200}, which cannot be searched: {error.strerror}; name folders of packages"
            ) from None
        for manifest in manifests:
            found.setdefault(manifest.parent.name, manifest.parent)
    return found


def _locate(path_or_name: str | os.PathLike[str]) -> Path:
    text = model_text(path_or_name)
    try:
        return _found(text)
    except OSError as error:  # too long a name, or a folder that may not be looked into
        raise ModelNotFound(f"{text:.200} cannot be looked up: {error.strerror}; check the path") from None


def model_text(path_or_name: str | os.PathLike[str]) -> str:
    """What names a model, as text. Raises OptionError for other types."""
    text = os.fspath(path_or_name) if isinstance(path_or_name, str | os.PathLike) else None
    if not isinstance(text, str) or not text:
        raise OptionError(
            f"{path_or_name!r:.100} names no model; give a model's name, a package folder or an .onnx file, as a str or a Path"
        )
    return text


def _found(text: str) -> Path:
    path = Path(text)
    if (path.is_file() and path.suffix.lower() in (".onnx", ".plan")) or (path / MANIFEST).is_file():
        return path
    known = known_names()
    if text in known:
        return known[text]
    if path.is_file():  # after the names: what else lies in the working folder hides no model
        return path
    if path.is_dir():
        raise ModelNotFound(
            f"{path} is a folder without a {MANIFEST}; make a package of a checkpoint with impasto export"
        )
    if path.suffix or len(path.parts) != 1:
        raise ModelNotFound(
            f"{path} does not exist; give a package folder, an .onnx file, or one of: {', '.join(known)}"
        )
    close = difflib.get_close_matches(text, known, 1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    raise ModelNotFound(
        f"no model is called {text!r}; {hint}known here: {', '.join(known) or 'none'}. "
        f"Other folders of packages are searched when ${SEARCH_VARIABLE} names them"
    )


def _from_package(folder: Path, precision: str, trust: bool, family: str | None) -> Source:
    manifest = read_manifest(folder)
    wanted = "fp32" if precision == "auto" else precision
    held = manifest.held("model", wanted)
    graph = manifest.find("model", wanted, family) or (held[0] if held and family is None else None)
    if graph is None and held:
        families = ", ".join(str(file.family) for file in held)
        raise PackageError(
            f"{folder} holds {wanted} models for {families}, none for {family}; "
            f"make one: {quantize_command(folder, wanted, family)}"
        )
    if graph is None:
        precisions = ", ".join(manifest.precisions()) or "none"
        make = f" or make it: {quantize_command(folder, wanted)}" if wanted != "fp32" else ""
        raise PackageError(
            f"{folder} holds no {wanted} model; it holds: {precisions}. Load it with precision='auto'{make}"
        )
    context = manifest.find("context")
    if (context is None) != (manifest.spec.thumbnail is None):
        raise PackageError(
            f"{folder / MANIFEST} names a thumbnail without a context graph or the reverse; export it again"
        )
    check = (lambda _, file: folder / file.name) if trust else verify
    return Source(
        path=folder,
        graph=check(folder, graph),
        precision=wanted,
        context=check(folder, context) if context else None,
        manifest=manifest,
    )


def _from_graph(path: Path, precision: str, trust: bool) -> Source:
    """An ONNX file by itself. One that lies in its package finds its context there, and knows its precision."""
    own = next((file for file in _listed(path) if file.name == path.name), None)
    context = next((file for file in _listed(path) if file.role == "context"), None)
    if own is not None and not trust:
        verify(path.parent, own)
    if own is None or own.role != "model":
        return Source(path, path, "fp32" if precision == "auto" else precision, sidecar=_read_sidecar(path))
    if precision not in ("auto", own.precision):
        raise PackageError(f"{path} is {own.precision}, not {precision}; load its package to choose: {path.parent}")
    beside = None if context is None else path.parent / context.name if trust else verify(path.parent, context)
    return Source(path, path, own.precision, beside, sidecar=_read_sidecar(path))


def _listed(graph: Path) -> tuple[PackageFile, ...]:
    """The files of the package that lies in the graph's folder; none where none does."""
    return read_manifest(graph.parent).files if (graph.parent / MANIFEST).is_file() else ()


def _from_plan(path: Path, precision: str, trust: bool) -> Source:
    """An engine by itself, with the record that `impasto build` left beside it and the engine of its context."""
    from .stored_engines import context_engine, read_stored, stored_in, with_engine

    if trust and not path.with_suffix(".json").exists():
        if precision != "auto":
            raise PackageError(
                f"{path} has no record, so nobody knows whether it is {precision}; leave the precision out"
            )
        return Source(path, path, "unknown")
    stored = read_stored(path)
    if precision not in ("auto", stored.record.precision):
        raise PackageError(
            f"{path} is {stored.record.precision}, not {precision}; leave the precision out, or load the model that it was built "
            f"from: {stored.record.spec['name']}"
        )
    context = None
    if stored.record.context_sha256:
        context = context_engine(stored, stored_in(path.parent))
        if context is None:
            raise PackageError(
                f"{path} needs the engine of its context graph beside it, and there is none; "
                f"build both again: impasto build {shlex.quote(stored.record.spec['name'])}"
            )
    return with_engine(Source(path, path, stored.record.precision), stored, context, trust)


def _read_sidecar(onnx: Path) -> Sidecar | None:
    path = onnx.with_suffix(".json")
    if not path.is_file():
        return None
    try:
        data = schema.read_json(path)
    except OSError as error:
        raise PackageError(f"cannot read {path}, which describes {onnx.name}: {error.strerror or error}") from None
    except schema.Malformed as error:
        raise PackageError(f"cannot read {path}, which describes {onnx.name}: {error}") from None
    if not isinstance(data, dict):
        raise PackageError(f'{path} holds {type(data).__name__}; expected an object such as {{"layout": "rgb 0..1"}}')
    layout = data.pop("layout", None)
    if "multiple" in data:
        data["size"] = {"multiple": data.pop("multiple")}
    spec = _described_spec(onnx, data, path)  # says what is wrong before anything is loaded
    known = set(spec.to_json())
    if unknown := set(data) - known:
        told = ", ".join(sorted(unknown)[:4])
        told = told if told.isprintable() and len(told) < schema.NAME_LENGTH else reprlib.repr(told)
        raise PackageError(f"{path}: unknown {told}; known: layout, multiple, {', '.join(sorted(known))}")
    return Sidecar(Pixels.parse(str(layout)) if layout is not None else None, data)


def _described_spec(onnx: Path, described: dict[str, Any], source: Path) -> ModelSpec:
    """A file's own name needs no check: it is a part of a path already, and may hold any bytes."""
    if "name" in described:
        return ModelSpec.from_json(described, str(source))
    return replace(ModelSpec.from_json({"name": "unnamed", **described}, str(source)), name=onnx.stem)
