"""TensorRT's products and versions behind one face; the only module that imports them.

8.5 and 8.6 take precision from builder flags, TensorRT 10 from flags or from the graph, 11 and TensorRT-RTX from the graph
alone. Whatever differs is asked for with `hasattr`, never by comparing version numbers.
"""

from __future__ import annotations

import functools
import importlib
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from impasto.errors import BackendError, MissingDependency, OptionError, install

PRODUCTS = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}
"""Product -> the Python module that holds it."""

_INSTALL = {
    "tensorrt": "on a Jetson use JetPack's (python3 -m venv --system-site-packages), elsewhere: pip install tensorrt",
    "tensorrt-rtx": install("rtx"),
}
_KEPT_LINES = 8


_loading = threading.Lock()


def tensorrt(product: str = "auto") -> TensorRT:
    """The installed TensorRT. product: one of PRODUCTS, or "auto": TensorRT where it is installed, otherwise TensorRT-RTX.

    Raises OptionError for an unknown product and MissingDependency with the command that installs it.
    """
    if product not in (*PRODUCTS, "auto"):
        raise OptionError(f"unknown TensorRT product {product!r}; choose one of auto, {', '.join(PRODUCTS)}")
    reasons = []
    for name in PRODUCTS if product == "auto" else (product,):
        try:
            with _loading:  # threads that come first together get the same one, and with it the same log
                return _loaded(name)
        except (ImportError, OSError, RuntimeError) as error:  # a library that does not load comes as any of these
            if isinstance(error.__cause__, KeyboardInterrupt):  # Ctrl-C met the library's own initialization
                raise KeyboardInterrupt from None
            reasons.append(f"{name} does not load ({error}); {_INSTALL[name]}")
    raise MissingDependency("TensorRT is needed here: " + "; ".join(reasons))


@functools.cache
def _loaded(product: str) -> TensorRT:
    return TensorRT(importlib.import_module(PRODUCTS[product]), product)


@dataclass(frozen=True, eq=False)
class TensorRT:
    """One TensorRT module and what it can do."""

    module: Any
    product: str
    """One of PRODUCTS."""
    log: Log = field(init=False)
    """The process's one logger for this product: TensorRT keeps the first that it is given."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "log", Log(self.module))

    @property
    def version(self) -> str:
        return str(self.module.__version__)

    @property
    def strongly_typed(self) -> bool:
        """Whether a network's own types decide each layer's precision; otherwise builder flags do."""
        return hasattr(self.module.NetworkDefinitionCreationFlag, "STRONGLY_TYPED")

    @property
    def has_precision_flags(self) -> bool:
        return hasattr(self.module.BuilderFlag, "FP16")

    @property
    def chooses_targets(self) -> bool:
        """Whether engines can be built for GPUs that are not here."""
        return hasattr(self.module, "ComputeCapability")

    @property
    def profile_sharing(self) -> Any | None:
        """The builder's preview feature that lets execution contexts share an optimization profile, or None."""
        return getattr(getattr(self.module, "PreviewFeature", None), "PROFILE_SHARING_0806", None)

    @property
    def shares_profiles(self) -> bool:
        """Whether several execution contexts of one engine may use one optimization profile: from 10 on they may, in 8.6 if
        `profile_sharing` was asked for, in 8.5 never (developer guides of each, "Working with Dynamic Shapes")."""
        return self.strongly_typed or self.profile_sharing is not None

    @property
    def has_timing_cache(self) -> bool:
        # TensorRT-RTX keeps the names and does nothing behind them.
        return hasattr(self.module.IBuilderConfig, "create_timing_cache") and not self.chooses_targets

    @property
    def has_workspace_limit(self) -> bool:
        return not self.chooses_targets

    @property
    def has_tactic_sources(self) -> bool:
        # TensorRT-RTX keeps the names and builds the same engine whatever is chosen.
        return not self.chooses_targets

    @property
    def max_opset(self) -> int:
        """The newest ONNX opset that its parser reads."""
        return 20 if self.strongly_typed else 17

    def network_flags(self, *, typed: bool) -> int:
        """What `Builder.create_network` takes here for a network typed by its graph, or by builder flags."""
        flag = self.module.NetworkDefinitionCreationFlag
        name = "STRONGLY_TYPED" if typed and self.strongly_typed else "EXPLICIT_BATCH"
        # TensorRT 10 and later know explicit batches only, and some have no flag for it.
        return 1 << int(getattr(flag, name)) if hasattr(flag, name) else 0

    def targets(self) -> dict[str, Any]:
        """Compute capabilities that an engine can be built for without such a GPU: "sm86" -> the module's constant."""
        if not self.chooses_targets:
            return {}
        members = self.module.ComputeCapability.__members__
        return {name.lower(): value for name, value in members.items() if name.startswith("SM")}

    def numpy_dtype(self, dtype: Any) -> np.dtype:
        """NumPy's name for a tensor type. Raises BackendError for types that NumPy lacks."""
        known = {
            "FLOAT": "float32",
            "HALF": "float16",
            "UINT8": "uint8",
            "INT8": "int8",
            "INT32": "int32",
            "INT64": "int64",
        }
        if dtype.name not in known:
            raise BackendError(f"an engine's tensor is {dtype.name}; pictures go in and out as uint8")
        return np.dtype(known[dtype.name])

    def make(self, what: str, constructor: Callable[..., Any], *arguments: Any) -> Any:
        """What the vendor's constructor makes. what: for the message. Raises BackendError with TensorRT's own words.

        Where the library makes nothing, methods return None and classes raise TypeError ("factory function returned nullptr"). The
        reason is in the log alone: mostly a driver that is too old for this TensorRT, or a GPU without free memory.
        """
        self.log.forget()
        try:
            made = constructor(*arguments)
        except Exception as error:  # the bindings raise RuntimeError, TypeError or a vendor class
            raise BackendError(f"{self} makes no {what} here: {error}; {self.log.errors()}") from error
        if made is None:
            raise BackendError(f"{self} makes no {what} here: {self.log.errors()}")
        return made

    def create_runtime(self) -> Any:
        """A runtime. Raises BackendError."""
        return self.make("runtime", self.module.Runtime, self.log.vendor)

    def deserialize(self, runtime: Any, plan: bytes) -> Any:
        """The engine in these bytes. Raises BackendError with TensorRT's own words: some versions raise, some return None."""
        self.log.forget()
        try:
            engine = runtime.deserialize_cuda_engine(plan)
        except Exception as error:  # the bindings raise RuntimeError, TypeError or a vendor class
            raise BackendError(
                f"TensorRT {self.version} cannot read this engine: {error}; {self.log.errors()}"
            ) from error
        if engine is None:
            raise BackendError(f"TensorRT {self.version} cannot read this engine: {self.log.errors()}")
        return engine

    def __str__(self) -> str:
        return f"{'TensorRT-RTX' if self.product == 'tensorrt-rtx' else 'TensorRT'} {self.version}"


class Log:
    """What TensorRT says: its last errors and warnings, and every line while somebody records."""

    def __init__(self, module: Any) -> None:
        self._errors: deque[str] = deque(maxlen=_KEPT_LINES)
        self._warnings: deque[str] = deque(maxlen=_KEPT_LINES)
        self._recorded: list[str] | None = None
        collector = self

        class Vendor(module.ILogger):
            def __init__(self) -> None:
                super().__init__()  # pybind refuses objects whose base was not initialised

            def log(self, severity: Any, message: str) -> None:
                collector.receive(severity.name, message)

        self.vendor = Vendor()
        """What the vendor's constructors take."""

    def receive(self, severity: str, message: str) -> None:
        """Keep one line. severity: "INTERNAL_ERROR", "ERROR", "WARNING", "INFO" or "VERBOSE"."""
        if severity.endswith("ERROR"):
            self._errors.append(message.strip())
        elif severity.endswith("WARNING"):
            self._warnings.append(message.strip())
        recorded = self._recorded  # read once: a recording may end while a builder that cannot be stopped goes on
        if recorded is not None:
            recorded.append(message)

    @contextmanager
    def recording(self) -> Iterator[list[str]]:
        """Every line that is said inside the block, in order. One recording at a time."""
        lines: list[str] = []
        self._recorded = lines
        try:
            yield lines
        finally:
            self._recorded = None

    def forget(self) -> None:
        """Begin a new operation: earlier lines are not its own."""
        self._errors.clear()
        self._warnings.clear()

    def errors(self) -> str:
        """The errors since `forget`, as one sentence part; without any the warnings, as which some versions tell CUDA's errors."""
        return " | ".join(dict.fromkeys(self._errors or self._warnings)) or "it gave no reason"
