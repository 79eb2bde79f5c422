"""One interface to TensorRT's products and versions. This is the only module that imports them.

TensorRT 8.5 and 8.6 take precision from builder flags, 10 from flags or from the graph, 11 and TensorRT-RTX from the graph alone.
`hasattr` finds out what a version can do; version numbers are never compared.
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
"""The Python module of each product."""

_INSTALL = {
    "tensorrt": "on a Jetson use JetPack's (python3 -m venv --system-site-packages), elsewhere: pip install tensorrt",
    "tensorrt-rtx": install("rtx"),
}
_KEPT_LINES = 8
"""Number of TensorRT's last errors, and of its last warnings, that are kept for messages."""

_loading = threading.Lock()


def tensorrt(product: str = "auto") -> TensorRT:
    """The installed TensorRT. product: one of PRODUCTS, or "auto": TensorRT if it is installed, otherwise TensorRT-RTX.

    Raises OptionError for an unknown product and MissingDependency with the command that installs it.
    """
    if product not in (*PRODUCTS, "auto"):
        raise OptionError(f"unknown TensorRT product {product!r}; choose one of auto, {', '.join(PRODUCTS)}")
    reasons = []
    for name in PRODUCTS if product == "auto" else (product,):
        try:
            with _loading:  # two threads may not make two objects, each with a log of its own
                return _loaded(name)
        except (ImportError, OSError, RuntimeError) as error:  # a library that does not load raises any of these
            if isinstance(error.__cause__, KeyboardInterrupt):  # Ctrl-C during the library's initialization
                raise KeyboardInterrupt from None
            reasons.append(f"{name} does not load ({error}); {_INSTALL[name]}")
    raise MissingDependency("TensorRT is needed here: " + "; ".join(reasons))


@functools.cache
def _loaded(product: str) -> TensorRT:
    return TensorRT(importlib.import_module(PRODUCTS[product]), product)


@dataclass(frozen=True, eq=False)
class TensorRT:
    """One product's TensorRT module, and what it can do."""

    module: Any
    product: str
    """One of PRODUCTS."""
    log: Log = field(init=False)
    """The process's only logger for this product: TensorRT keeps the first logger that it is given."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "log", Log(self.module))

    @property
    def version(self) -> str:
        """TensorRT's version, such as "10.13.3"."""
        return str(self.module.__version__)

    @property
    def strongly_typed(self) -> bool:
        """Whether the graph's types can decide each layer's precision. Otherwise builder flags decide."""
        return hasattr(self.module.NetworkDefinitionCreationFlag, "STRONGLY_TYPED")

    @property
    def has_precision_flags(self) -> bool:
        """Whether builder flags can decide precision."""
        return hasattr(self.module.BuilderFlag, "FP16")

    @property
    def builds_for_dla(self) -> bool:
        """Whether the builder has the options for a Jetson's DLA, and the flags that such an engine's precision comes from.

        TensorRT 11 and TensorRT-RTX have the options' names, and not the flags.
        """
        return self.has_precision_flags and hasattr(self.module.IBuilderConfig, "DLA_core")

    @property
    def chooses_targets(self) -> bool:
        """Whether engines can be built for GPUs that this machine does not have."""
        return hasattr(self.module, "ComputeCapability")

    @property
    def profile_sharing(self) -> Any | None:
        """The preview feature of the builder that lets execution contexts share an optimization profile; None if there is none."""
        return getattr(getattr(self.module, "PreviewFeature", None), "PROFILE_SHARING_0806", None)

    @property
    def shares_profiles(self) -> bool:
        """Whether several execution contexts of one engine may use one optimization profile.

        From TensorRT 10 on they may; in 8.6 they may if the engine was built with `profile_sharing`; in 8.5 they may not (developer
        guides, "Working with Dynamic Shapes").
        """
        return self.strongly_typed or self.profile_sharing is not None

    @property
    def has_timing_cache(self) -> bool:
        """Whether a timing cache makes builds faster."""
        # TensorRT-RTX has the functions, and they do nothing.
        return hasattr(self.module.IBuilderConfig, "create_timing_cache") and not self.chooses_targets

    @property
    def has_workspace_limit(self) -> bool:
        """Whether the builder's workspace memory can be limited."""
        return not self.chooses_targets

    @property
    def has_tactic_sources(self) -> bool:
        """Whether tactic sources can be chosen."""
        # TensorRT-RTX has the functions, and builds the same engine for every choice.
        return not self.chooses_targets

    @property
    def max_opset(self) -> int:
        """The newest ONNX opset that the parser reads."""
        return 20 if self.strongly_typed else 17

    def network_flags(self, *, typed: bool) -> int:
        """The flags for `Builder.create_network`. typed: whether the graph's types decide precision."""
        flag = self.module.NetworkDefinitionCreationFlag
        name = "STRONGLY_TYPED" if typed and self.strongly_typed else "EXPLICIT_BATCH"
        # TensorRT 10 and later know explicit batches only, and some versions have no flag for them.
        return 1 << int(getattr(flag, name)) if hasattr(flag, name) else 0

    def targets(self) -> dict[str, Any]:
        """The compute capabilities that engines can be built for without such a GPU, such as "sm86", with the module's constants."""
        if not self.chooses_targets:
            return {}
        members = self.module.ComputeCapability.__members__
        return {name.lower(): value for name, value in members.items() if name.startswith("SM")}

    def numpy_dtype(self, dtype: Any) -> np.dtype:
        """The NumPy dtype of a tensor type. Raises BackendError for a type that NumPy lacks."""
        known = {
            "FLOAT": "float32",
            "HALF": "float16",
            "UINT8": "uint8",
            "INT8": "int8",
            "INT32": "int32",
            "INT64": "int64",
        }
        if dtype.name not in known:
            raise BackendError(
                f"an engine's tensor is {dtype.name}, which NumPy lacks; build an engine with uint8 pictures"
            )
        return np.dtype(known[dtype.name])

    def make(self, what: str, constructor: Callable[..., Any], *arguments: Any) -> Any:
        """Call one of TensorRT's constructors. what: the object's name, for messages. Raises BackendError with TensorRT's errors.

        A failing method returns None, and a failing class raises TypeError ("factory function returned nullptr"). Only the log has the
        reason. Mostly the driver is too old for this TensorRT, or the GPU has no free memory.
        """
        self.log.forget()
        try:
            made = constructor(*arguments)
        except Exception as error:  # the bindings raise RuntimeError, TypeError or a vendor class
            raise BackendError(f"{self} failed to create the {what}: {error}; {self.log.errors()}") from error
        if made is None:
            raise BackendError(f"{self} failed to create the {what}: {self.log.errors()}")
        return made

    def create_runtime(self, dla_core: int | None = None) -> Any:
        """A TensorRT runtime. dla_core: the core that its engines use, if they use one. Raises BackendError."""
        runtime = self.make("runtime", self.module.Runtime, self.log.vendor)
        if dla_core is not None:
            runtime.DLA_core = dla_core
        return runtime

    def deserialize(self, runtime: Any, plan: bytes) -> Any:
        """The engine in these bytes. Raises BackendError with TensorRT's errors: some versions raise, others return None."""
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
    """Collects TensorRT's log: its last errors and warnings, and every line during a recording."""

    def __init__(self, module: Any) -> None:
        self._errors: deque[str] = deque(maxlen=_KEPT_LINES)
        self._warnings: deque[str] = deque(maxlen=_KEPT_LINES)
        self._recorded: list[str] | None = None
        collector = self

        class Vendor(module.ILogger):
            def __init__(self) -> None:
                super().__init__()  # pybind refuses an object whose base is not initialised

            def log(self, severity: Any, message: str) -> None:
                collector.receive(severity.name, message)

        self.vendor = Vendor()
        """The ILogger for TensorRT's constructors."""

    def receive(self, severity: str, message: str) -> None:
        """Take one line of the log. severity: "INTERNAL_ERROR", "ERROR", "WARNING", "INFO" or "VERBOSE"."""
        if severity.endswith("ERROR"):
            self._errors.append(message.strip())
        elif severity.endswith("WARNING"):
            self._warnings.append(message.strip())
        recorded = self._recorded  # read once: a recording may end while an abandoned builder still logs
        if recorded is not None:
            recorded.append(message)

    @contextmanager
    def recording(self) -> Iterator[list[str]]:
        """A list that gets every line logged inside the block, in order. Only one recording may run at a time."""
        lines: list[str] = []
        self._recorded = lines
        try:
            yield lines
        finally:
            self._recorded = None

    def forget(self) -> None:
        """Drop the kept lines, before a new operation."""
        self._errors.clear()
        self._warnings.clear()

    def errors(self) -> str:
        """The errors since `forget`, as a sentence part. Without errors, the warnings: some versions report CUDA errors as warnings."""
        return " | ".join(dict.fromkeys(self._errors or self._warnings)) or "it gave no reason"
