"""Gives an external graph uint8 pictures as input and output."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from impasto.errors import BackendError, NoNumbers
from impasto.package.spec import Pixels

from .base import Backend, TensorSpec

MULTIPLE_HINT = 'if the graph needs sides of a certain multiple, write that into a sidecar: {"multiple": 8}'
"""Advice for a graph that takes one size and refuses another."""

_UINT8 = np.dtype(np.uint8)


class PixelAdapter(Backend):
    """Converts pixels in NumPy before and after another backend. A canonical graph does this itself, and needs no adapter."""

    def __init__(self, inner: Backend, pixels: Pixels) -> None:
        """inner: a graph with one input, float or uint8, (N, 3, H, W) or (N, H, W, 3), and one output of either form.

        Raises BackendError for a graph of another form.
        """
        if len(inner.inputs) != 1 or len(inner.inputs[0].shape) != 4:
            found = ", ".join(f"{spec.name} {spec}" for spec in inner.inputs)
            raise BackendError(f"the graph takes {found}; a picture model takes one (N, 3, H, W) tensor")
        self._inner = inner
        self._pixels = pixels
        shape = inner.inputs[0].shape
        self._channels_last = shape[3] == 3 and shape[1] != 3
        self._gives_channels_last = _are_last(inner.output.shape, self._channels_last)
        self._worked: tuple[int, int] | None = None
        if not self._channels_last and shape[1] not in (3, None):
            raise BackendError(f"the graph takes {inner.inputs[0]}; a picture model takes 3 channels")
        batch, *sides = shape if self._channels_last else (shape[0], shape[2], shape[3], 3)
        self.name, self.device, self.metadata = inner.name, inner.device, inner.metadata
        self.precision = inner.precision
        self.inputs = (TensorSpec(inner.inputs[0].name, _UINT8, (batch, *sides)),)
        self.outputs = (TensorSpec(inner.output.name, _UINT8, (batch, *_sides(inner.output.shape), 3)),)

    def computation(self, inputs: Sequence[np.ndarray], out: np.ndarray) -> Callable[[], None]:
        return self._inner.computation((self._encode(inputs[0]),), self._room(out))

    def require_gpu(self) -> int:
        raise BackendError(
            "the picture is on a GPU, and this graph's pixels are converted on the CPU; pass a NumPy array, or make a package "
            "of the graph, which converts them itself: impasto export"
        )

    def _run(self, inputs: Sequence[np.ndarray], out: np.ndarray) -> None:
        result = self._room(out)
        try:
            self._inner.run((self._encode(inputs[0]),), result)
        except NoNumbers:
            raise
        except BackendError as error:
            raise BackendError(f"{error} ({self._hint(inputs[0])})") from error
        out[...] = self._pixels.decode(result.transpose(0, 3, 1, 2) if self._gives_channels_last else result)

    def _room(self, out: np.ndarray) -> np.ndarray:
        """An empty array for the graph's output. out: of the same picture, uint8 (N, H, W, 3)."""
        batch, height, width, _ = out.shape
        return np.empty(out.shape if self._gives_channels_last else (batch, 3, height, width), self._inner.output.dtype)

    def _measure(self, inputs: Sequence[np.ndarray]) -> tuple[int, ...]:
        shape = self._inner.measure((self._encode(inputs[0]),))
        if len(shape) == 4:
            self._gives_channels_last = _are_last(shape, self._gives_channels_last)
        if len(shape) != 4 or shape[3 if self._gives_channels_last else 1] != 3:
            raise BackendError(f"the graph gives {shape}; a picture model gives 3 channels")
        self._worked = (inputs[0].shape[1], inputs[0].shape[2])
        return shape if self._gives_channels_last else (shape[0], shape[2], shape[3], 3)

    def _hint(self, image: np.ndarray) -> str:
        """Advice about a picture's size, for an error message."""
        if self._worked in (None, image.shape[1:3]):
            return MULTIPLE_HINT
        height, width = self._worked
        return (
            f"the graph works at {height} x {width}; {MULTIPLE_HINT}; if it works at no other size, "
            f'{{"size": {{"fixed": [{height}, {width}]}}}}'
        )

    def _encode(self, image: np.ndarray) -> np.ndarray:
        planes = self._pixels.encode(image, self._inner.inputs[0].dtype)
        return np.ascontiguousarray(planes.transpose(0, 2, 3, 1)) if self._channels_last else planes

    def _stop(self) -> None:
        self._inner._stop()

    def _close(self) -> None:
        self._inner.close()


def _sides(shape: Sequence[int | None]) -> tuple[int | None, int | None]:
    """The height and width in a picture's shape; (None, None) if the shape does not tell which axis has the channels."""
    if len(shape) != 4 or (shape[1] == 3) == (shape[3] == 3):
        return None, None
    return (shape[1], shape[2]) if shape[3] == 3 else (shape[2], shape[3])


def _are_last(shape: Sequence[int | None], otherwise: bool) -> bool:
    """Whether the channels are a picture's last axis. otherwise: the answer if the shape does not tell."""
    if len(shape) != 4 or (shape[1] == 3) == (shape[3] == 3):
        return otherwise
    return shape[3] == 3
