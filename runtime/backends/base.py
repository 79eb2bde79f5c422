"""What every backend promises. The public methods check; the private ones trust."""

from __future__ import annotations

import platform
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np

from impasto.errors import BackendError, NoNumbers, ShapeError
from impasto.runtime.stoppable import Runner


def is_x86_64() -> bool:
    """Whether this machine's CPU is an x86-64."""
    return platform.machine().lower() in ("x86_64", "amd64")


@dataclass(frozen=True)
class TensorSpec:
    """One input or output of a graph."""

    name: str
    dtype: np.dtype
    shape: tuple[int | None, ...]
    """None where the size is free."""

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
    """What heights and widths an engine was built for, or a graph exported with."""

    ranges: tuple[tuple[tuple[int, int], tuple[int, int]], ...]
    """(smallest, largest) as (height, width) each, one for each optimization profile."""
    rebuild: str | None
    """The command that builds another engine, without its --size; None for a graph."""

    def whole(self, height: int, width: int) -> tuple[int, int] | None:
        """The smallest size that the engine takes and that holds height x width, or None where that is too large."""
        holding = (
            (max(height, low[0]), max(width, low[1]))
            for low, high in self.ranges
            if height <= high[0] and width <= high[1]
        )
        return min(holding, key=lambda size: size[0] * size[1], default=None)

    def window(self, height: int, width: int) -> tuple[int, int]:
        """The largest part of a picture of height x width that the engine takes, or a little more where it is too small."""
        windows = ((max(min(height, high[0]), low[0]), max(min(width, high[1]), low[1])) for low, high in self.ranges)
        return max(windows, key=lambda size: size[0] * size[1])

    def refusal(self, height: int, width: int, why: str) -> ShapeError:
        """The error for a picture of height x width that is too large to run in one piece and cannot be cut."""
        held = " or ".join(f"{high[0]} x {high[1]}" for _, high in self.ranges)
        what, remedy = (
            ("engine", f"build one for it: {self.rebuild} --size {height}x{width}")
            if self.rebuild
            else ("graph", "scale the picture down, or export the graph with free height and width")
        )
        return ShapeError(
            f"the picture is {height} x {width}, this {what} holds up to {held} with the border, and {why}; {remedy}"
        )


class Slot(ABC):
    """Room for one run beside others: while one slot computes, neighbours copy. One thread at a time."""

    images: list[np.ndarray]
    """Arrays to fill before `start`, one for each input of the graph."""
    result: np.ndarray
    """Holds the picture after `wait`."""

    @abstractmethod
    def start(self) -> None:
        """Begin a run on what `images` hold, and return at once. Raises BackendError."""

    @abstractmethod
    def wait(self) -> None:
        """Return when `result` is complete. Raises BackendError."""

    @abstractmethod
    def close(self) -> None:
        """Wait, and free what the slot holds."""


class InnerValues(ABC):
    """The floats that become a picture inside a graph."""

    @abstractmethod
    def check(self, inputs: Sequence[np.ndarray]) -> None:
        """Compute them once more. Raises NoNumbers where one is none, BackendError."""

    @abstractmethod
    def close(self) -> None: ...


def require_numbers(values: np.ndarray, *, infinite: bool = False) -> None:
    """Raises NoNumbers where a float array, of any shape, holds NaN or, unless `infinite` allows it, infinity."""
    if not values.size:
        return
    # Of anything and NaN the maximum is NaN, and is found ten times as fast as NaNs are.
    most = values.max()
    if np.isnan(most):
        raise NoNumbers(
            "the network gave values that are no numbers (NaN) for this picture, which would come out black; some networks divide "
            "by a picture's contrast, which one of a single colour does not have"
        )
    if not infinite and (np.isinf(most) or np.isinf(values.min())):
        raise NoNumbers(
            "the network gave infinite values for this picture, which would come out black or white; some networks divide by what "
            "is 0 in such a picture, or exceed what half precision holds"
        )


def _is_black(picture: np.ndarray) -> bool:
    """Whether all of it is 0; of nearly every picture that is not, a few values tell."""
    return not picture.reshape(-1)[::4099].any() and not picture.any()


class Backend(ABC):
    """One graph, loaded and ready to run on one device. Not thread-safe: one caller at a time.

    Runs can be left by Ctrl-C, as `stoppable` says.
    """

    name: str
    """As in `impasto.load(backend=…)`."""
    device: str
    """What it computes on, for people to read."""
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    """A picture model has one; a perceptual network has one for each of its layers."""
    metadata: dict[str, str]
    """Key-value pairs that the graph carries."""
    precision: str = "fp32"
    """The lowest one that the graph's own operators compute in, where the backend can tell: backends round INT8 and halves apart."""
    limits: SizeLimits | None = None
    """Where the picture's size is limited to what the graph was built for."""

    inner_values: InnerValues | None = None
    """Of a graph that gives uint8, to be looked at where that is nothing but black: a picture of NaN becomes so."""

    _open = True

    @cached_property
    def _runner(self) -> Runner:
        return Runner(self._stop)

    @property
    def output(self) -> TensorSpec:
        """The first output: a picture model's picture."""
        return self.outputs[0]

    def run(self, inputs: Sequence[np.ndarray], out: np.ndarray) -> None:
        """Run once. inputs: one array for each of `self.inputs`; out: filled. All C-contiguous, as the specs say.

        For graphs of one output. Raises ShapeError for arrays that do not fit, NoNumbers where the result holds NaN or infinity,
        BackendError where the vendor's library fails.
        """
        self._check_inputs(inputs)
        self.output.check(out)
        self._runner(lambda: self._run(inputs, out))
        if out.dtype.kind == "f":
            require_numbers(out)
        elif self.inner_values and _is_black(out):
            self.inner_values.check(inputs)

    def run_all(self, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Run once and give every output, in new arrays. Raises as `run`."""
        self._check_inputs(inputs)
        results = self._runner(lambda: self._run_all(inputs))
        for result in results:
            if result.dtype.kind == "f":
                require_numbers(result)
        return results

    def measure(self, inputs: Sequence[np.ndarray]) -> tuple[int, ...]:
        """The output's shape for these inputs, where the graph does not say; may cost a run. Raises BackendError."""
        for spec, array in zip(self.inputs, inputs, strict=True):
            spec.check(array)
        return self._runner(lambda: self._measure(inputs))

    def computation(self, inputs: Sequence[np.ndarray], out: np.ndarray) -> Callable[[], None]:
        """A function that repeats the graph's work of a run on these arrays, and no more. For benchmarks. It raises as `run`."""
        return partial(self.run, inputs, out)

    def slot(self, shapes: tuple[tuple[int, ...], ...]) -> Slot | None:
        """A new slot for inputs of these shapes, or None where the backend runs one picture at a time."""
        return None

    def close(self) -> None:
        """Free what the graph holds; a closed backend refuses to run. Closing twice does nothing."""
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
        """Ask the library to end a run that nobody waits for any more; called from another thread than that runs."""
