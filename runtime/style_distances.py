"""A picture's distances from one painting, layer by layer, by Gram matrices."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np

from impasto.errors import BackendError

from .backends import Backend


class StyleDistances(ABC):
    """A perceptual network and a painting's Gram matrices on one device."""

    @abstractmethod
    def of(self, picture: np.ndarray) -> list[float]:
        """For each layer mean((G − A)²) / mean(A²). picture: uint8 (1, H, W, 3), large enough for the network."""

    @abstractmethod
    def close(self) -> None:
        """Free what belongs to the comparison; the network is the meter's."""


class HostDistances(StyleDistances):
    """Feature maps come to the host, and BLAS multiplies them."""

    def __init__(self, backend: Backend, painting: np.ndarray) -> None:
        """painting: uint8 (1, H, W, 3), large enough for the network."""
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
    """1 / mean(A²), which makes a layer's distance independent of its magnitude. Raises BackendError for a target of zeros."""
    mean = float(np.square(target).mean(dtype=np.float64))
    if not mean > 0 or not np.isfinite(mean):
        raise BackendError(
            f"the painting's Gram matrix has the mean square {mean}; a layer of zeros or overflows says nothing of style: "
            "give another painting, or another network"
        )
    return 1 / mean
