"""Finds the files of a model by path or name, and what is known of them."""

from __future__ import annotations

import contextlib
import difflib
import os
import shlex
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from impasto.errors import BackendError, EngineMismatch, ModelNotFound, OptionError, OutputError, PackageError
from impasto.files import sha256
from impasto.package.engine_record import EngineRecord
from impasto.package.manifest import FLOAT, MANIFEST, PRECISIONS, Manifest, PackageFile, read_manifest, verify
from impasto.package.spec import ModelSpec
from impasto.runtime.cache_folder import cache_folder

from .sidecar import Sidecar, described_spec, read_sidecar
from .stored_engines import (
    StoredEngine,
    best_fitting,
    context_engine,
    plan_to_load,
    read_stored,
    stored_in,
    stored_in_package,
)

SEARCH_VARIABLE = "IMPASTO_MODELS"
"""Environment variable that lists folders of model packages, separated as in PATH."""


@dataclass(frozen=True)
class Source:
    """The files to load for one model."""

    path: Path
    """The package's folder, the ONNX file or the engine."""
    graph_path: Path
    """The ONNX file of the picture graph, or its engine."""
    precision: str
    """The precision: "fp32", "fp16" or "int8"; "unknown" for an engine without a record."""
    context_path: Path | None = None
    """The ONNX file of the context graph, or its engine; None for a model without a context graph."""
    manifest: Manifest | None = None
    """The package's manifest; None for a single file."""
    sidecar: Sidecar | None = None
    """The content of the sidecar, a JSON file beside an external ONNX file."""
    engine: EngineRecord | None = None
    """The engine's record, if `graph_path` is an engine that has one."""
    context_engine: EngineRecord | None = None
    """The record of the engine at `context_path`, if that file is an engine."""
    float_engine: StoredEngine | str | None = None
    """The engine of the package's float graph, where the package's own graph is an engine on this machine.

    Its hash is compared when it is opened. A str says why none of those that were built fits. None: none was built."""
    trust: bool = False
    """Whether hashes are not compared."""

    @property
    def is_engine(self) -> bool:
        """Whether `graph_path` is a TensorRT engine."""
        return self.engine is not None or self.graph_path.suffix == ".plan"

    def described_spec(self) -> ModelSpec:
        """The spec of an external ONNX file: the sidecar's fields, and defaults for the others."""
        return described_spec(self.graph_path, self.sidecar.described if self.sidecar else {}, self.graph_path)

    def graphs(self) -> dict[str, Path]:
        """The paths of `Manifest.graphs`. Raises PackageError for a file with another hash, OptionError for a single file."""
        if self.manifest is None:
            raise OptionError(f"{self.path} is a single graph; name the package folder, which holds every precision")
        return {name: verify(self.path, file) for name, file in self.manifest.graphs().items()}


def resolve(
    path_or_name: str | os.PathLike[str],
    precision: str = "auto",
    trust: bool = False,
    target_backend: str | None = None,
) -> Source:
    """Find a model by path, or by name: first in the folders of $IMPASTO_MODELS, then among the models that ship.

    precision: "auto" (FP32) or one of PRECISIONS. trust: do not compare hashes. target_backend: the backend that will run the graph,
    one of the manifest's TARGET_BACKENDS; None takes the first graph of the precision, for whatever backend.
    Raises ModelNotFound, PackageError, OptionError, or BackendError for a file of another kind.
    """
    return ModelFiles(path_or_name, trust).source(precision, target_backend)


class ModelFiles:
    """The files of one model, for one load. Each is found, read and hashed at most once."""

    def __init__(self, path_or_name: str | os.PathLike[str], trust: bool = False) -> None:
        """trust: do not compare hashes. Files are looked up on first use."""
        self._named = path_or_name
        self._trust = trust
        self._verified: dict[Path, Path] = {}

    @cached_property
    def path(self) -> Path:
        """The package's folder or the single file. Raises ModelNotFound, OptionError."""
        return _locate(self._named)

    @cached_property
    def manifest(self) -> Manifest | None:
        """The package's manifest; None for a single file. Raises PackageError."""
        return read_manifest(self.path) if self.path.is_dir() else None

    def source(self, precision: str = "auto", target_backend: str | None = None) -> Source:
        """The files to load if no engine is chosen. Takes and raises the same as `resolve`."""
        check_precision(precision)
        if self.manifest:
            return self._from_package(self.manifest, precision, target_backend)
        if self.path.suffix.lower() == ".plan":
            return self._from_plan(precision)
        if self.path.suffix.lower() != ".onnx":
            advice = ""
            if self.path.suffix == ".safetensors":
                advice = f"; export the checkpoint first: impasto export {shlex.quote(str(self.path))}"
            raise BackendError(
                f"{self.path} is no model that can be run; expected a package folder, an .onnx file, or a .plan file of "
                f"impasto build{advice}"
            )
        return self._from_graph(precision)

    def engine_source(self, precision: str, device: int, *, required: bool = False) -> Source | None:
        """The engine that fits this machine: the named file, or an engine of the package or of the user's cache.

        device: the CUDA device's number. Returns None if no engine fits and `required` is False. If it is True, raises
        EngineMismatch with the command that builds one. Raises what `source` raises.
        """
        if Path(model_text(self._named)).suffix.lower() == ".plan":
            return self.source(precision)
        source = self.source()
        among = self._engines(source)
        built = [
            stored
            for stored in self._built_of(source, "model", among)
            if precision in ("auto", stored.record.precision)
        ]
        found = best_fitting(built, among, device)
        if isinstance(found, tuple):
            floats = best_fitting(self._built_of(source, FLOAT, among), among, device)
            return replace(
                self._with_engines(source, *found), float_engine=floats[0] if isinstance(floats, tuple) else floats
            )
        if not required:
            return None
        wanted = "fp16" if precision == "auto" else precision
        why = f"none of {len(built)} engines runs here ({found})" if found else f"no {wanted} engine has been built"
        raise EngineMismatch(
            f"{source.path}: {why}. Build one for this machine: "
            f"impasto build {shlex.quote(model_text(self._named))} --precision {wanted}"
        )

    def _verify(self, folder: Path, file: PackageFile) -> Path:
        """The file's path. Raises PackageError if its hash is not the manifest's, unless files are trusted."""
        path = folder / file.name
        if not self._trust and path not in self._verified:
            self._verified[path] = verify(folder, file)
        return path

    def _from_package(self, manifest: Manifest, precision: str, target_backend: str | None) -> Source:
        folder = self.path
        wanted = "fp32" if precision == "auto" else precision
        held = manifest.held("model", wanted)
        graph = manifest.find("model", wanted, target_backend)
        if graph is None and held and target_backend is None:
            graph = held[0]
        if graph is None and held:
            backends = ", ".join(str(file.target_backend) for file in held)
            raise PackageError(
                f"{folder} holds {wanted} models for {backends}, none for {target_backend}; "
                f"make one: {quantize_command(folder, wanted, target_backend)}"
            )
        if graph is None:
            precisions = ", ".join(manifest.precisions()) or "none"
            make = f" or make it: {quantize_command(folder, wanted)}" if wanted != "fp32" else ""
            raise PackageError(
                f"{folder} holds no {wanted} model; it holds: {precisions}. Load it with precision='auto'{make}"
            )
        context_graph = manifest.find("context")
        if (context_graph is None) != (manifest.spec.thumbnail is None):
            raise PackageError(
                f"{folder / MANIFEST} has a thumbnail without a context graph, or a context graph without a thumbnail; export it again"
            )
        context_path = self._verify(folder, context_graph) if context_graph else None
        graph_path = self._verify(folder, graph)
        return Source(folder, graph_path, wanted, context_path, manifest, trust=self._trust)

    def _from_graph(self, precision: str) -> Source:
        """The source of a single ONNX file. If it lies in its package, the manifest gives its precision and context graph."""
        path, folder = self.path, self.path.parent
        listed = read_manifest(folder).files if (folder / MANIFEST).is_file() else ()
        own = next((file for file in listed if file.name == path.name), None)
        context_graph = next((file for file in listed if file.role == "context"), None)
        if own is not None:
            self._verify(folder, own)
        if own is not None and own.role == FLOAT:
            raise PackageError(
                f"{path} draws pictures of 16 bits for its package, and has no graph of its own for others; load the package: {folder}"
            )
        if own is None or own.role != "model":
            return Source(path, path, "fp32" if precision == "auto" else precision, sidecar=read_sidecar(path))
        if precision not in ("auto", own.precision):
            raise PackageError(f"{path} is {own.precision}, not {precision}; load its package to choose: {folder}")
        context_path = self._verify(folder, context_graph) if context_graph else None
        return Source(path, path, own.precision, context_path, sidecar=read_sidecar(path))

    def _from_plan(self, precision: str) -> Source:
        """The source of a single engine, with its record and the engine of its context graph, which lie beside it."""
        path = self.path
        if self._trust and not path.with_suffix(".json").exists():
            if precision != "auto":
                raise PackageError(
                    f"{path} has no record, so its precision is unknown; leave precision={precision!r} out"
                )
            return Source(path, path, "unknown")
        stored = read_stored(path)
        if precision not in ("auto", stored.record.precision):
            raise PackageError(
                f"{path} is {stored.record.precision}, not {precision}; leave the precision out, or load the model that the engine was "
                f"built from: {stored.record.spec['name']}"
            )
        for_context = None
        if stored.record.context_sha256:
            for_context = context_engine(stored, stored_in(path.parent))
            if for_context is None:
                raise PackageError(
                    f"{path} needs the engine of its context graph beside it, and there is none there; "
                    f"build both again: impasto build {shlex.quote(stored.record.spec['name'])}"
                )
        return self._with_engines(Source(path, path, stored.record.precision), stored, for_context)

    def _with_engines(self, source: Source, stored: StoredEngine, for_context: StoredEngine | None) -> Source:
        """The source with engines in place of its graphs. Raises PackageError if a plan's hash is not the recorded one."""
        return replace(
            source,
            graph_path=plan_to_load(stored, self._trust),
            precision=stored.record.precision,
            engine=stored.record,
            context_path=None if for_context is None else plan_to_load(for_context, self._trust),
            context_engine=None if for_context is None else for_context.record,
        )

    def _engines(self, source: Source) -> list[StoredEngine]:
        """Every engine of the package and of the user's cache."""
        own = stored_in_package(source.path, source.manifest) if source.manifest else []
        with contextlib.suppress(OutputError):  # no cache folder, so no engines in it
            return [*own, *stored_in(cache_folder())]
        return own

    def _built_of(self, source: Source, role: str, among: list[StoredEngine]) -> list[StoredEngine]:
        """The engines that were built of this model's graphs of a role, "model" or FLOAT."""
        if not among:  # then no file need be hashed
            return []
        if source.manifest:
            hashes = {file.sha256 for file in source.manifest.files if file.role == role}
        else:
            hashes = {sha256(source.graph_path)}
        return [stored for stored in among if stored.record.role == role and stored.record.source_sha256 in hashes]


def search_path() -> list[Path]:
    """The folders in which names are looked up, first to last."""
    given = [Path(folder) for folder in os.environ.get(SEARCH_VARIABLE, "").split(os.pathsep) if folder]
    return [*given, shipped_models()]


def shipped_models() -> Path:
    """The folder of the models that come with Impasto."""
    import impasto.models

    return Path(next(iter(impasto.models.__path__)))


def check_precision(precision: str) -> None:
    """Raises OptionError unless it is "auto" or one of PRECISIONS."""
    if precision not in ("auto", *PRECISIONS):
        raise OptionError(f"unknown precision {precision!r}; choose one of auto, {', '.join(PRECISIONS)}")


def is_shipped(package: Path) -> bool:
    """Whether this package is one that ships with Impasto. Those are never changed. package: any path to it."""
    return package.resolve().parent == shipped_models().resolve()


def quantize_command(folder: Path, precision: str, target_backend: str | None = None) -> str:
    """The command that adds graphs of a precision to a package. For a model that ships, it makes a copy instead."""
    shipped = is_shipped(folder)
    name = folder.resolve().name if shipped else shlex.quote(str(folder))
    words = ["impasto quantize", name, "--to", precision, "--calibrate PHOTOS"]
    if target_backend and precision == "int8":  # one FP16 graph serves every backend
        words += ["--for", target_backend]
    return " ".join([*words, *(["-o COPY"] if shipped else [])])


def known_names() -> dict[str, Path]:
    """Every name that `load` knows, with its package. Raises OptionError if a folder of $IMPASTO_MODELS cannot be read."""
    found: dict[str, Path] = {}
    for folder in search_path():
        try:
            manifests = sorted(folder.glob(f"*/{MANIFEST}"))
        except OSError as error:
            raise OptionError(
                f"${SEARCH_VARIABLE} lists {str(folder)!r:.200}, which cannot be read: {error.strerror}; list folders of packages"
            ) from None
        for manifest in manifests:
            found.setdefault(manifest.parent.name, manifest.parent)
    return found


def _locate(path_or_name: str | os.PathLike[str]) -> Path:
    text = model_text(path_or_name)
    try:
        return _found(text)
    except OSError as error:  # the name is too long, or a folder may not be read
        raise ModelNotFound(f"{text:.200} cannot be looked up: {error.strerror}; check the path") from None


def model_text(path_or_name: str | os.PathLike[str]) -> str:
    """The path or name as a str. Raises OptionError for another type, or an empty name."""
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
    if path.is_file():  # only now: a file in the working folder does not hide a model of the same name
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
        f"Set ${SEARCH_VARIABLE} to search other folders of packages too"
    )
