"""Style distances of a picture from one painting, layer by layer, by Gram matrices."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np

from impasto.errors import BackendError

from .backends import Backend


class StyleDistances(ABC):
    """Compares pictures with one painting's Gram matrices, on one device."""

    @abstractmethod
    def of(self, picture: np.ndarray) -> list[float]:
        """mean((G − A)²) / mean(A²) of each layer. picture: uint8 (1, H, W, 3), at least the network's smallest size."""

    @abstractmethod
    def close(self) -> None:
        """Free the painting's matrices and the buffers. The network stays open: it belongs to the meter."""


class HostDistances(StyleDistances):
    """Computes Gram matrices on the host: the backend gives feature maps as arrays, and NumPy's BLAS multiplies them."""

    def __init__(self, backend: Backend, painting: np.ndarray) -> None:
        """painting: uint8 (1, H, W, 3), at least the network's smallest size. Raises BackendError."""
        self._backend = backend
        self._targets = self._grams(painting)
        self._scales = [relative_scale(target) for target in self._targets]

    def of(self, picture: np.ndarray) -> list[float]:
        grams = self._grams(picture)
        return [
            scale * float(np.square(G - A).mean(dtype=np.float64))
            for G, A, scale in zip(grams, self._targets, self._scales, strict=True)
        ]

    def close(self) -> None:
        self._targets = []

    def _grams(self, picture: np.ndarray) -> list[np.ndarray]:
        return [gram(features[0]) for features in self._backend.run_all((picture,))]


def gram(features: np.ndarray) -> np.ndarray:
    """G = F Fᵀ / (C H W), Gatys et al. 2016, equation 3. features: (C, H, W). Returns float32 (C, C)."""
    pixels = features.reshape(features.shape[0], -1).astype(np.float32, copy=False)
    product: np.ndarray = pixels @ pixels.T
    product /= pixels.size
    return product


def relative_scale(target: np.ndarray) -> float:
    """1 / mean(A²), which makes a layer's distance independent of its magnitude. target: float32 (C, C).

    Raises BackendError if the mean is 0, infinite or NaN.
    """
    mean = float(np.square(target).mean(dtype=np.float64))
    if not mean > 0 or not np.isfinite(mean):
        raise BackendError(
            f"the painting's Gram matrix has a mean square of {mean}; style cannot be measured by such a layer; "
            "use another painting or another network"
        )
    return 1 / mean
