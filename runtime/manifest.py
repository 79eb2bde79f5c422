"""The model package: a folder with `manifest.json`, the graphs it names, and a SHA-256 of each."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from impasto.errors import PackageError
from impasto.files import sha256

from .spec import ModelSpec

SCHEMA = 1
"""Version of the manifest. A reader refuses newer ones; a change that old readers would misread raises it."""

MANIFEST = "manifest.json"
LOCK = ".lock"
"""Who changes a package holds this file of it: exports, quantizations and builds may end at once."""
PRECISIONS = ("fp32", "fp16", "int8")
FAMILIES = ("onnxruntime", "openvino", "tensorrt")
"""Kinds of backends that want INT8 placed differently in a graph. A package lists their files in this order: readers older
than families take the first, and ONNX Runtime is all that runs graphs there, so the schema's number need not rise."""


@dataclass(frozen=True)
class PackageFile:
    """One file of a package."""

    name: str
    """Path inside the package, with forward slashes, never leaving it."""
    role: str
    """"model" (the picture path), "context" (thumbnail to scales and shifts), "checkpoint" or "engine"."""
    sha256: str
    precision: str = "fp32"
    family: str | None = None
    """One of FAMILIES where the file was made for those backends; None where it suits all."""

    def to_json(self) -> dict[str, Any]:
        family = {"family": self.family} if self.family else {}
        return {"role": self.role, "precision": self.precision, **family, "sha256": self.sha256}


@dataclass(frozen=True)
class BackendCheck:
    """What a backend drew at export, beside ONNX Runtime with the file that the package was made of."""

    passed: bool
    """Whether it draws the model right; one that does not is not chosen."""
    max_difference: int | None
    """In levels of 255; None where it cannot load or draw the graph."""

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

    def find(self, role: str, precision: str = "fp32", family: str | None = None) -> PackageFile | None:
        """The file with this role and precision that was made for `family`; otherwise the one that suits all; or None."""
        held = {file.family: file for file in reversed(self.held(role, precision))}
        return held.get(family, held.get(None))

    def held(self, role: str, precision: str) -> tuple[PackageFile, ...]:
        """Every file with this role and precision, whatever its family."""
        return tuple(file for file in self.files if (file.role, file.precision) == (role, precision))

    def precisions(self) -> tuple[str, ...]:
        """The precisions that the package holds a model for."""
        return tuple(p for p in PRECISIONS if self.held("model", p))

    def graphs(self) -> dict[str, PackageFile]:
        """Every graph of the picture path by precision and, where it has one, family, such as "int8 openvino"; FP32 first."""
        found = [file for precision in PRECISIONS for file in self.held("model", precision)]
        return {f"{file.precision} {file.family or ''}".strip(): file for file in found}

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
        return cls(
            spec=ModelSpec.from_json(data.get("model"), source),
            files=tuple(_file(name, entry, source) for name, entry in files.items()),
            recipe=data.get("recipe") or {},
            quality=data.get("quality") or {},
            network=data.get("network") or {},
            impasto=str(data.get("impasto", "")),
            backends=_backends(data.get("backends") or {}, source),
        )


def read_manifest(package: Path) -> Manifest:
    """The manifest of the package in this folder. Raises PackageError where it is missing or malformed."""
    path = package / MANIFEST
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise PackageError(
            f"{package} is no model package: it has no {MANIFEST}; make one with impasto export"
        ) from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise PackageError(f"cannot read {path}: {error}; export the model again") from None
    return Manifest.from_json(data, str(path))


def write_manifest(path: Path, manifest: Manifest) -> None:
    """As `read_manifest` reads it. Raises ValueError for a number that JSON has not, such as NaN."""
    path.write_text(json.dumps(manifest.to_json(), indent=1, allow_nan=False) + "\n", encoding="utf-8")


def verify(package: Path, file: PackageFile) -> Path:
    """The file's path, after its hash has been compared with the manifest's. Raises PackageError."""
    path = package / file.name
    if not path.is_file():
        raise PackageError(f"{package} lacks {file.name}, which its manifest lists; export the model again")
    found = sha256(path)
    if found != file.sha256:
        raise PackageError(
            f"{path} is not the file that its manifest describes (SHA-256 {found[:12]}…, expected {file.sha256[:12]}…); "
            "export the model again, or load it in a program with trust=True if you changed it yourself"
        )
    return path


def _file(name: str, entry: Any, source: str) -> PackageFile:
    inside = PurePosixPath(name)
    if inside.is_absolute() or ".." in inside.parts or "\\" in name:
        raise PackageError(f"{source} names the file {name!r}, which is outside of the package")
    if not isinstance(entry, dict):
        raise PackageError(f"{source}: the entry of {name} is not an object")
    digest, precision = entry.get("sha256"), entry.get("precision", "fp32")
    if not isinstance(digest, str) or len(digest) != 64:
        raise PackageError(f"{source}: {name} has no SHA-256 (got {digest!r})")
    if precision not in PRECISIONS:
        raise PackageError(f"{source}: {name} has precision {precision!r}; expected one of {', '.join(PRECISIONS)}")
    family = entry.get("family")
    if family is not None and family not in FAMILIES:
        raise PackageError(f"{source}: {name} is for the family {family!r}; expected one of {', '.join(FAMILIES)}")
    return PackageFile(name, str(entry.get("role", "")), digest, precision, family)


def _backends(entries: Any, source: str) -> dict[str, BackendCheck]:
    if not isinstance(entries, dict):
        raise PackageError(f'{source}: "backends" is {type(entries).__name__}; expected an object')
    checks = {}
    for name, entry in entries.items():
        passed, most = (entry.get("passed"), entry.get("max_difference")) if isinstance(entry, dict) else (None, None)
        if type(passed) is not bool or (most is not None and not (type(most) is int and 0 <= most <= 255)):
            raise PackageError(
                f'{source}: a backend\'s entry is {entry!r:.80}; expected {{"passed": true, "max_difference": 0}}'
            )
        checks[name] = BackendCheck(passed, most)
    return checks
