"""The model package: a folder with `manifest.json`, the graphs it names, and a SHA-256 of each."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from impasto.errors import PackageError
from impasto.files import sha256
from impasto.public_names import renamed

from . import schema
from .shared_weights import verify_weights
from .spec import ModelSpec

SCHEMA = 1
"""Version of the manifest. A reader refuses newer ones; a change that old readers would misread raises it."""

MANIFEST = "manifest.json"
MODEL, CONTEXT, CHECKPOINT = "model.onnx", "context.onnx", "checkpoint.safetensors"
"""What a package calls its FP32 graphs, and the checkpoint where it holds one."""
FLOAT, FLOAT_MODEL = "float", "model.float.onnx"
"""The role and the name of the FP32 picture graph with float ends, which draws pictures of 16 bits a channel."""
LOCK = ".lock"
"""The lock file. Whoever changes a package holds it, since exports, quantizations and builds may end at once."""
PRECISIONS = ("fp32", "fp16", "int8")
TARGET_BACKENDS = ("onnxruntime", "openvino", "tensorrt")
"""Each wants INT8 placed differently in a graph. A package lists their files in this order: readers that know no target
backends take the first, and ONNX Runtime is all that runs graphs there, so the schema's number need not rise."""
FAMILIES = TARGET_BACKENDS
"""The old name of TARGET_BACKENDS."""


@renamed(family="target_backend")
@dataclass(frozen=True)
class PackageFile:
    """One file of a package."""

    name: str
    """Path inside the package, with forward slashes, never leaving it."""
    role: str
    """"model" (the picture path), "float" (the picture path with float ends), "context" (thumbnail to scales and shifts), "checkpoint",
    "engine", "float engine" (of the graph with float ends) or "engine record"."""
    sha256: str
    precision: str = "fp32"
    target_backend: str | None = None
    """One of TARGET_BACKENDS where the file was made for that one; None where it suits all."""

    def to_json(self) -> dict[str, Any]:
        target = {"family": self.target_backend} if self.target_backend else {}
        return {"role": self.role, "precision": self.precision, **target, "sha256": self.sha256}


@dataclass(frozen=True)
class BackendCheck:
    """What a backend drew at export, beside ONNX Runtime with the file that the package was made of."""

    passed: bool
    """Whether it draws the model right; one that does not is not chosen."""
    max_difference: int | None
    """The largest difference in levels of 255; None where the backend cannot load or draw the graph."""

    def to_json(self) -> dict[str, Any]:
        return {"passed": self.passed, "max_difference": self.max_difference}


@dataclass(frozen=True)
class Manifest:
    """What a package says of itself."""

    spec: ModelSpec
    files: tuple[PackageFile, ...]
    recipe: dict[str, Any] = field(default_factory=dict)
    """How it was trained: command, seed, data, steps, losses."""
    quality: dict[str, Any] = field(default_factory=dict)
    """Measured quality: figures with their units and the command that measured them."""
    network: dict[str, Any] = field(default_factory=dict)
    """What training builds the network with, where the graphs hold its weights as it was trained: architecture and config."""
    impasto: str = ""
    """The version of Impasto that wrote it."""
    backends: dict[str, BackendCheck] = field(default_factory=dict)
    """What was compared at export, by the backend's name; nothing of those that were not installed there."""

    def find(self, role: str, precision: str = "fp32", target_backend: str | None = None) -> PackageFile | None:
        """The file with this role and precision that was made for `target_backend`; otherwise the one that suits all; or None.

        ONNX Runtime computes every graph as it is written, so it gets another backend's where it has none of its own.
        """
        held = {file.target_backend: file for file in reversed(self.held(role, precision))}
        others = ("openvino", "tensorrt") if target_backend == "onnxruntime" else ()
        return next((held[wanted] for wanted in (target_backend, None, *others) if wanted in held), None)

    def held(self, role: str, precision: str) -> tuple[PackageFile, ...]:
        """Every file with this role and precision, whatever its target backend."""
        return tuple(file for file in self.files if (file.role, file.precision) == (role, precision))

    def precisions(self) -> tuple[str, ...]:
        """The precisions that the package holds a model for."""
        return tuple(p for p in PRECISIONS if self.held("model", p))

    def graphs(self) -> dict[str, PackageFile]:
        """Every graph of the picture path by precision and, where it has one, target backend, such as "int8 openvino"; FP32 first."""
        found = [file for precision in PRECISIONS for file in self.held("model", precision)]
        return {f"{file.precision} {file.target_backend or ''}".strip(): file for file in found}

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary that `from_json` reads."""
        return {
            "schema": SCHEMA,
            "impasto": self.impasto,
            "model": self.spec.to_json(),
            "files": {file.name: file.to_json() for file in self.files},
            **({"backends": {name: check.to_json() for name, check in self.backends.items()}} if self.backends else {}),
            "network": self.network,
            "quality": self.quality,
            "recipe": self.recipe,
        }

    @classmethod
    def from_json(cls, data: Any, source: str) -> Manifest:
        """The reverse of `to_json`. Raises PackageError for anything malformed or newer than this reader."""
        if not isinstance(data, dict) or type(data.get("schema")) is not int:
            raise PackageError(f"{source} is not a model manifest: it has no schema number")
        if data["schema"] > SCHEMA:
            raise PackageError(
                f"{source} has manifest schema {data['schema']}; this Impasto reads up to {SCHEMA}. Upgrade Impasto"
            )
        files = data.get("files")
        if not isinstance(files, dict) or not files:
            raise PackageError(f"{source} lists no files; export the model again")
        spec = ModelSpec.from_json(data.get("model"), source)
        try:
            return cls(
                spec=spec,
                files=tuple(_file(name, entry) for name, entry in files.items()),
                recipe=schema.mapping(data.get("recipe"), "recipe"),
                quality=schema.mapping(data.get("quality"), "quality"),
                network=schema.mapping(data.get("network"), "network"),
                impasto=schema.text(data.get("impasto") or "unknown", "impasto"),
                backends=_backends(data.get("backends")),
            )
        except schema.Malformed as error:
            raise PackageError(f"{source}: {error}") from None


def read_manifest(package: Path) -> Manifest:
    """The manifest of the package in this folder. Raises PackageError where it is missing or malformed."""
    path = package / MANIFEST
    try:
        data = schema.read_json(path)
    except FileNotFoundError:
        raise PackageError(
            f"{package} is no model package: it has no {MANIFEST}; make one with impasto export"
        ) from None
    except OSError as error:
        raise PackageError(f"cannot read {path}: {error.strerror or error}; check the file and its folder") from None
    except schema.Malformed as error:
        raise PackageError(f"cannot read {path}: {error}; export the model again") from None
    return Manifest.from_json(data, str(path))


def verify(package: Path, file: PackageFile) -> Path:
    """The file's path, after its hash has been compared with the manifest's, and that of the file that holds its weights.

    Raises PackageError.
    """
    path = package / file.name
    if not path.is_file():
        raise PackageError(f"{package} lacks {file.name}, which its manifest lists; export the model again")
    found = sha256(path)
    if found != file.sha256:
        raise PackageError(
            f"{path} is not the file that its manifest describes (SHA-256 {found[:12]}…, expected {file.sha256[:12]}…); "
            "export the model again, or load it in a program with trust=True if you changed it yourself"
        )
    if path.suffix == ".onnx":
        verify_weights(path)
    return path


def _file(name: str, entry: Any) -> PackageFile:
    """Raises schema.Malformed."""
    schema.inner_path(name)
    if not isinstance(entry, dict):
        raise schema.Malformed(f"the entry of {name} is not an object")
    target = entry.get("family")
    return PackageFile(
        name,
        role=schema.text(entry.get("role") or "unknown", f"role of {name}"),
        sha256=schema.digest(entry.get("sha256"), name),
        precision=schema.one_of(entry.get("precision", "fp32"), f"precision of {name}", PRECISIONS),
        target_backend=None if target is None else schema.one_of(target, f"family of {name}", TARGET_BACKENDS),
    )


def _backends(entries: Any) -> dict[str, BackendCheck]:
    """Raises schema.Malformed."""
    checks = {}
    for name, entry in schema.mapping(entries, "backends").items():
        known = schema.mapping(entry, f"the entry of {schema.text(name, 'a backend')}")
        passed, most = known.get("passed"), known.get("max_difference")
        if type(passed) is not bool:
            raise schema.Malformed(f"passed of {name} is {passed!r:.80}; expected true or false")
        checks[name] = BackendCheck(
            passed, None if most is None else schema.whole(most, f"max_difference of {name}", 0, 255)
        )
    return checks
