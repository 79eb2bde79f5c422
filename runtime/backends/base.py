"""The interface of every backend. Public methods check their arguments; private methods trust them."""

from __future__ import annotations

import platform
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np

from impasto.errors import BackendError, NoNumbers, ShapeError
from impasto.runtime.runner import Runner


def is_x86_64() -> bool:
    """Whether this machine's CPU is an x86-64."""
    return platform.machine().lower() in ("x86_64", "amd64")


@dataclass(frozen=True)
class TensorSpec:
    """One input or output of a graph."""

    name: str
    dtype: np.dtype
    shape: tuple[int | None, ...]
    """The size of each axis; None for an axis of any size."""

    def check(self, array: np.ndarray) -> None:
        """Raises ShapeError unless the array has this dtype, rank and fixed sizes, and is C-contiguous."""
        fits = len(array.shape) == len(self.shape) and all(
            want is None or want == got for want, got in zip(self.shape, array.shape, strict=True)
        )
        if array.dtype != self.dtype or not fits:
            raise ShapeError(f"{self.name}: got {array.dtype} {array.shape}, wanted {self}")
        if not array.flags.c_contiguous:
            raise ShapeError(f"{self.name}: the array is not C-contiguous; pass np.ascontiguousarray(array)")

    def __str__(self) -> str:
        sizes = ", ".join("?" if size is None else str(size) for size in self.shape)
        return f"{self.dtype} ({sizes})"


@dataclass(frozen=True)
class SizeLimits:
    """The heights and widths that an engine was built for, or a graph was exported with."""

    ranges: tuple[tuple[tuple[int, int], tuple[int, int]], ...]
    """For each optimization profile the smallest and the largest size, each (height, width) in pixels."""
    rebuild: str | None
    """The command that builds another engine, without --size; None for a graph."""

    def whole(self, height: int, width: int) -> tuple[int, int] | None:
        """The smallest size within the limits that holds height x width pixels; None if there is none."""
        holding = (
            (max(height, low[0]), max(width, low[1]))
            for low, high in self.ranges
            if height <= high[0] and width <= high[1]
        )
        return min(holding, key=lambda size: size[0] * size[1], default=None)

    def window(self, height: int, width: int) -> tuple[int, int]:
        """The largest size within the limits that is no larger than height x width, or the smallest size if all are larger."""
        windows = ((max(min(height, high[0]), low[0]), max(min(width, high[1]), low[1])) for low, high in self.ranges)
        return max(windows, key=lambda size: size[0] * size[1])

    def refusal(self, height: int, width: int, why: str) -> ShapeError:
        """The error for a picture that exceeds the limits and cannot be cut into tiles. why: the reason, a sentence part."""
        held = " or ".join(f"{high[0]} x {high[1]}" for _, high in self.ranges)
        what, remedy = (
            ("engine", f"build one for it: {self.rebuild} --size {height}x{width}")
            if self.rebuild
            else ("graph", "scale the picture down, or export the graph with free height and width")
        )
        return ShapeError(
            f"the picture is {height} x {width}, this {what} takes up to {held} with the border, and {why}; {remedy}"
        )


class Slot(ABC):
    """Memory for one run. Several slots run at once: while one computes, others copy. Not thread-safe."""

    images: list[np.ndarray]
    """The arrays to fill before `start`, one for each input of the graph."""
    result: np.ndarray
    """The array that holds the picture after `wait`."""

    @abstractmethod
    def start(self) -> None:
        """Begin a run on the content of `images`, and return at once. Raises BackendError."""

    @abstractmethod
    def wait(self) -> None:
        """Return when `result` is complete. Raises BackendError."""

    @abstractmethod
    def close(self) -> None:
        """Wait for the run, and free the slot's memory."""


class DeviceFrames(ABC):
    """A graph's memory on a GPU for pictures that are there already, of one size. Not thread-safe."""

    stream: int
    """Handle of the CUDA stream on which `window` is filled and `result` is read."""
    window: int
    """Device address of the graph's picture, (1, H, W, 3) of the graph's dtype."""
    result: int
    """Device address of the graph's result, (1, H x scale, W x scale, 3) of the graph's dtype."""

    @abstractmethod
    def begin(self, extra: Sequence[np.ndarray], source: int = 0, target: int = 0) -> None:
        """Begin a run after what the stream has been given. What it is given next comes after the run.

        extra: the inputs after the picture. source, target: device addresses to use in place of `window` and `result`; 0 for none.
        Raises BackendError.
        """

    @abstractmethod
    def wait(self) -> None:
        """Return when the stream's work is done. Raises BackendError."""

    @abstractmethod
    def close(self) -> None:
        """Wait for the run, and free the memory."""


class InnerValues(ABC):
    """The values inside a graph before they are clipped and rounded to a picture."""

    @abstractmethod
    def check(self, inputs: Sequence[np.ndarray]) -> None:
        """Compute the values once more. Raises NoNumbers if one is NaN or infinite, and BackendError."""

    @abstractmethod
    def close(self) -> None:
        """Free all memory."""


def require_numbers(values: np.ndarray, *, infinite: bool = False) -> None:
    """Raises NoNumbers if a float array of any shape holds NaN, or infinity unless `infinite` is True."""
    if not values.size:
        return
    # The maximum of values with NaN among them is NaN. Finding it takes a tenth of the time of np.isnan(values).any().
    most = values.max()
    if np.isnan(most):
        raise NoNumbers(
            "the network computed NaN for this picture, which would become black pixels; some networks divide by a picture's "
            "contrast, which is 0 for a picture of a single colour"
        )
    if not infinite and (np.isinf(most) or np.isinf(values.min())):
        raise NoNumbers(
            "the network computed infinite values for this picture, which would become black or white pixels; some networks divide "
            "by a value that is 0 for such a picture, or exceed the largest FP16 value"
        )


def _is_black(picture: np.ndarray) -> bool:
    """Whether all values are 0. A few values are looked at first: they settle it for nearly every picture."""
    return not picture.reshape(-1)[::4099].any() and not picture.any()


class Backend(ABC):
    """One graph, loaded and ready to run on one device. Not thread-safe.

    Ctrl-C and `runner.time_limit` can abandon a run.
    """

    name: str
    """One of `NAMES`, as in `impasto.load(backend=…)`."""
    device: str
    """The device's name, such as "CPU"."""
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    """A picture model has one output, a perceptual network has one for each style layer."""
    metadata: dict[str, str]
    """Key-value pairs of the ONNX file."""
    precision: str = "fp32"
    """The lowest precision in which the graph's operators compute, if the backend can tell.

    Backends round FP16 and INT8 differently, so results are compared less strictly then.
    """
    limits: SizeLimits | None = None
    """The picture sizes that the graph takes; None: any size."""

    inner_values: InnerValues | None = None
    """Checks a uint8 result that is all black, as a picture of NaN would be; None if the graph cannot be checked."""

    _open = True

    @cached_property
    def _runner(self) -> Runner:
        return Runner(self._stop)

    @property
    def output(self) -> TensorSpec:
        """The first output, which is a picture model's picture."""
        return self.outputs[0]

    def run(self, inputs: Sequence[np.ndarray], out: np.ndarray) -> None:
        """Run a graph of one output once. inputs: one array for each of `self.inputs`. out: gets the result.

        Arrays are C-contiguous, with dtypes and shapes of the specs. Raises ShapeError for other arrays, NoNumbers if the result holds
        NaN or infinity, and BackendError if the vendor's library fails.
        """
        self._check_inputs(inputs)
        self.output.check(out)
        self._runner(lambda: self._run(inputs, out))
        if out.dtype.kind == "f":
            require_numbers(out)
        elif self.inner_values and _is_black(out):
            self.inner_values.check(inputs)

    def run_all(self, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Run once. Returns every output in a new array. Raises what `run` raises."""
        self._check_inputs(inputs)
        results = self._runner(lambda: self._run_all(inputs))
        for result in results:
            if result.dtype.kind == "f":
                require_numbers(result)
        return results

    def measure(self, inputs: Sequence[np.ndarray]) -> tuple[int, ...]:
        """The output's shape for these inputs. It may take a run of the graph. Raises ShapeError, BackendError."""
        for spec, array in zip(self.inputs, inputs, strict=True):
            spec.check(array)
        return self._runner(lambda: self._measure(inputs))

    def computation(self, inputs: Sequence[np.ndarray], out: np.ndarray) -> Callable[[], None]:
        """A function that repeats the graph's work of one run, for benchmarks. It raises what `run` raises."""
        return partial(self.run, inputs, out)

    def slot(self, shapes: tuple[tuple[int, ...], ...]) -> Slot | None:
        """A new slot for inputs of these shapes; None if the backend runs one picture at a time."""
        return None

    def require_gpu(self) -> int:
        """The number of the CUDA device from which `device_frames` takes pictures. Raises BackendError if there is none."""
        raise BackendError(
            f"the picture is on a GPU, and {self.name} on {self.device} takes none from there; pass a NumPy array, or load "
            "the model with backend='tensorrt' or 'onnxruntime-cuda'"
        )

    def converts_depths(self) -> bool:
        """Whether kernels on the GPU of `require_gpu` convert the pictures of a graph with float ends from and to 16 bits."""
        return False

    def gpu_active(self) -> AbstractContextManager[None]:
        """A `with` block in which the primary CUDA context of the GPU of `require_gpu` is current. Blocks may nest."""
        raise NotImplementedError

    def device_frames(self, shapes: tuple[tuple[int, ...], ...], result: tuple[int, ...]) -> DeviceFrames:
        """New memory for inputs and a result of these shapes, on the GPU of `require_gpu`. The caller closes it.

        Raises ShapeError, BackendError.
        """
        raise NotImplementedError

    def close(self) -> None:
        """Free all memory. A closed backend raises BackendError when it is run. Closing twice does nothing."""
        if self._open:
            self._open = False
            self._close()
            if self.inner_values:
                self.inner_values.close()

    def _check_inputs(self, inputs: Sequence[np.ndarray]) -> None:
        self.require_open()
        if len(inputs) != len(self.inputs):
            raise ShapeError(f"got {len(inputs)} inputs, wanted {len(self.inputs)}")
        for spec, array in zip(self.inputs, inputs, strict=True):
            spec.check(array)

    def require_open(self) -> None:
        """Raises BackendError after `close`."""
        if not self._open:
            raise BackendError("this model is closed; load it again")

    @abstractmethod
    def _run(self, inputs: Sequence[np.ndarray], out: np.ndarray) -> None: ...

    def _run_all(self, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        out = np.empty(self._measure(inputs), self.output.dtype)
        self._run(inputs, out)
        return [out]

    @abstractmethod
    def _measure(self, inputs: Sequence[np.ndarray]) -> tuple[int, ...]: ...

    @abstractmethod
    def _close(self) -> None: ...

    def _stop(self) -> None:  # noqa: B027 (not every vendor's library can)
        """Ask the vendor's library to end an abandoned run. It is called from another thread than the run's."""
