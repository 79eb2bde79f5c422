"""What every installed backend draws with a package, before it is written: ONNX Runtime's is the picture that ONNX means."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np

import impasto
from impasto.errors import BackendError, ImpastoWarning, NoNumbers
from impasto.metrics import independent
from impasto.package.manifest import BackendCheck, Manifest
from impasto.package.spec import ModelSpec
from impasto.package.writer import NewFile, write_package
from impasto.runtime.loading.choosing import LEVELS_OF_PLAIN, agree, draws_no_numbers, largest_difference

_REFERENCE, _OTHERS = "onnxruntime-cpu", ("openvino",)
_COMPARED = (61, 83)
"""Height and width of the picture that all draw, where the graph takes any."""


def check_backends(manifest: Manifest, files: Sequence[NewFile]) -> dict[str, BackendCheck]:
    """Each installed backend's picture beside ONNX Runtime's; nothing where that is not installed.

    manifest, files: as `write_package` takes them. A backend that draws another picture is told in a warning. Raises BackendError where
    ONNX Runtime cannot draw.
    """
    if find_spec("onnxruntime") is None:
        return {}
    spec = manifest.spec
    image = independent(*_compared_size(spec))
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_package(folder, manifest, files)
        wanted = _drawn(folder, _REFERENCE, image)
        checks = {_REFERENCE: BackendCheck(True, 0)}
        for name in installed(_OTHERS):
            try:
                drawn = _drawn(folder, name, image)
            except BackendError as error:
                checks[name] = BackendCheck(False, None)
                _tell(spec, name, f"cannot draw it ({error})")
                continue
            checks[name] = BackendCheck(agree(drawn, wanted, "fp32"), largest_difference(drawn, wanted))
            if not checks[name].passed:
                _tell(spec, name, f"draws it up to {checks[name].max_difference} levels of 255 away from ONNX Runtime")
            elif (level := _hidden(folder, name, image.shape)) is not None:
                checks[name] = BackendCheck(False, None)
                _tell(spec, name, draws_no_numbers(level))
    return checks


def _hidden(folder: Path, backend: str, shape: tuple[int, ...]) -> int | None:
    """The level of a plain picture for which the network gives no numbers, where the backend draws something nevertheless."""
    for level in LEVELS_OF_PLAIN:
        plain = np.full(shape, level, np.uint8)
        if _refuses(folder, _REFERENCE, plain) and not _refuses(folder, backend, plain):
            return level
    return None


def _refuses(folder: Path, backend: str, image: np.ndarray) -> bool:
    try:
        _drawn(folder, backend, image)
    except NoNumbers:
        return True
    return False


def _compared_size(spec: ModelSpec) -> tuple[int, int]:
    """Height and width of a picture that the graph takes whole."""
    if spec.size.fixed is None:
        return _COMPARED
    height, width = (side - 2 * spec.border for side in spec.size.fixed)
    return height, width


def installed(backends: Sequence[str]) -> list[str]:
    """The backends whose library is installed."""
    return [name for name in backends if find_spec(name.split("-")[0]) is not None]


def _drawn(folder: Path, backend: str, image: np.ndarray) -> np.ndarray:
    with impasto.load(folder, backend=backend, trust=True) as model:
        drawn: np.ndarray = model(image)
    return drawn


def _tell(spec: ModelSpec, backend: str, what: str) -> None:
    warnings.warn(
        f"{backend} {what}, so backend='auto' does not choose it for {spec.name}", ImpastoWarning, stacklevel=4
    )
