"""ONNX Runtime Web's files: which ones, their hashes, from a CDN or from npm."""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path
from typing import Any

from impasto.errors import MissingDependency, OptionError

PACKAGE = "onnxruntime-web"
_CDN = "https://cdn.jsdelivr.net/npm/{package}@{version}/dist/{file}"
_KNOWN: dict[str, Any] = json.loads((Path(__file__).parent / "library.json").read_text(encoding="utf-8"))
VERSION: str = _KNOWN["version"]
FILES: dict[str, str] = _KNOWN["files"]
"""Each file's name and its hash, as browsers check it (Subresource Integrity)."""

_USED = {
    "wasm": ("ort.wasm.min.mjs", "ort-wasm-simd-threaded"),
    "webgpu": ("ort.webgpu.min.mjs", "ort-wasm-simd-threaded.asyncify"),
}
"""How it computes -> the module, and what its WebAssembly is called."""


def addresses(offline: bool) -> dict[str, dict[str, str]]:
    """For each way to compute, the addresses of entry, glue and binary, and the binary's hash. offline: beside the page."""
    return {
        way: {
            "entry": address(entry, offline),
            "glue": address(f"{binary}.mjs", offline),
            "binary": address(f"{binary}.wasm", offline),
            "integrity": FILES[f"{binary}.wasm"],
        }
        for way, (entry, binary) in _USED.items()
    }


def address(file: str, offline: bool) -> str:
    """Where a page finds a file."""
    return f"./ort/{file}" if offline else _CDN.format(package=PACKAGE, version=VERSION, file=file)


def fetch(target: Path, library: Path | None = None) -> None:
    """Copy the files into a folder, from an unpacked package, or from npm's registry by the npm client.

    library: the package's folder, or its `dist`. Raises MissingDependency without npm, OptionError for files that cannot be had or are
    not the ones whose hashes are known.
    """
    with tempfile.TemporaryDirectory() as folder:
        source = library or _downloaded(Path(folder))
        source = source / "dist" if (source / "dist").is_dir() else source
        target.mkdir(parents=True, exist_ok=True)
        for name, wanted in FILES.items():
            try:
                content = (source / name).read_bytes()
            except OSError as error:
                raise OptionError(
                    f"cannot read {source / name}: {error.strerror}; give the folder of {PACKAGE} {VERSION}"
                ) from None
            if integrity(content) != wanted:
                raise OptionError(f"{source / name} is not the file of {PACKAGE} {VERSION}; give that version's folder")
            (target / name).write_bytes(content)


def integrity(content: bytes) -> str:
    """The content's hash in the form of the integrity attribute of HTML."""
    return "sha384-" + base64.b64encode(hashlib.sha384(content).digest()).decode()


def _downloaded(folder: Path) -> Path:
    npm = shutil.which("npm")
    if npm is None:
        raise MissingDependency(
            f"npm is not installed, which fetches {PACKAGE}; install it, or give the unpacked package: --library FOLDER"
        )
    name = f"{PACKAGE}@{VERSION}"
    done = subprocess.run([npm, "pack", "--silent", name], cwd=folder, capture_output=True, text=True, check=False)
    archives = list(folder.glob("*.tgz"))
    if done.returncode or not archives:
        said = (done.stderr.strip().splitlines() or ["it gave nothing"])[-1]
        raise OptionError(f"npm cannot fetch {name}: {said}; give the unpacked package: --library FOLDER")
    with tarfile.open(archives[0]) as archive:
        for file in FILES:
            member = archive.extractfile(f"package/dist/{file}")
            assert member
            (folder / file).write_bytes(member.read())
    return folder
