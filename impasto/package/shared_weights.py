"""Weights that two graphs of a package share: kept in the FP32 graph's file, and named by the other as ONNX's external data.

Most weights were rounded to halves before they were judged, so the FP32 graph stores halves, and the FP16 graph would store the same
bytes again. It says where they lie instead: file, offset and length, which every ONNX reader understands. So that such a graph
still has one hash that changes with every weight, its metadata holds the other file's SHA-256 under `WEIGHTS_KEY`.
"""

from __future__ import annotations

import hashlib
import reprlib
import shlex
from pathlib import Path

from impasto.errors import PackageError

from . import schema
from .onnx_bytes import metadata, weight_files, with_weights

WEIGHTS_KEY = "impasto.weights"
"""The metadata key of the SHA-256, as 64 hexadecimal digits, of the one file that holds this graph's weights."""


def verify_weights(graph_path: Path) -> None:
    """Compare what holds a graph's weights with what the graph says of it. A graph that holds its weights itself passes.

    Raises PackageError where the weights lie in a file that is missing, is not the one that was meant, or whose hash the graph does
    not give. Bytes that are no ONNX file pass: what loads them says so.
    """
    _model_and_weights(graph_path)


def self_contained(graph_path: Path, *, trust: bool = False) -> bytes:
    """The graph's bytes with all weights inside. trust: take the files that hold them as they are.

    Raises PackageError as `verify_weights` does, and OSError.
    """
    model, files = _model_and_weights(graph_path, trust)
    try:
        return with_weights(model, files) if files else model
    except (KeyError, ValueError) as error:
        raise PackageError(f"the weights of {graph_path} cannot be read ({error}); export the model again") from None


def _model_and_weights(graph_path: Path, trust: bool = False) -> tuple[bytes, dict[str, bytes]]:
    model = graph_path.read_bytes()
    try:
        names, pinned = weight_files(model), metadata(model).get(WEIGHTS_KEY)
    except (KeyError, ValueError):
        return model, {}
    return model, {name: _weights(graph_path, name, pinned, trust) for name in names}


def _weights(graph_path: Path, name: str, pinned: str | None, trust: bool) -> bytes:
    """The content of the file beside the graph. Raises PackageError."""
    if (pinned is None and not trust) or not _is_name(name):
        raise PackageError(
            f"{graph_path} keeps weights in {reprlib.repr(name)} and does not say that file's SHA-256, so nobody could tell whether "
            f"they changed; put everything into one package: impasto export {shlex.quote(str(graph_path))} -o FOLDER"
        )
    path = graph_path.parent / name
    try:
        content = path.read_bytes()
    except OSError as error:
        raise PackageError(
            f"cannot read {path}, which holds the weights of {graph_path.name}: {error.strerror or error}; keep the package's files "
            "together, or quantize the model again"
        ) from None
    if not trust and hashlib.sha256(content).hexdigest() != pinned:
        raise PackageError(
            f"{path} has changed since {graph_path.name}, whose weights it holds, was made; quantize the model again"
        )
    return content


def _is_name(text: str) -> bool:
    """Whether it names a file in the same folder."""
    try:
        schema.name(text, "location")
    except schema.Malformed:
        return False
    return True
