"""From an ONNX graph to a TensorRT engine that is what it says: keyed, built once, read back, recorded."""

from __future__ import annotations

import contextlib
import shlex
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from impasto.errors import BackendError, ExportError, ImpastoError, ImpastoWarning, OptionError, OutputError, first_line
from impasto.files import sha256, write_bytes
from impasto.package.engine_record import AMPERE_PLUS, EngineLayer, EngineRecord, Range, count_precisions
from impasto.package.spec import ModelSpec
from impasto.runtime.backends.tensorrt.api import TensorRT, tensorrt
from impasto.runtime.loading.stored_engines import is_ampere_plus

from . import fp32_layers as engine_islands
from . import layer_report as engine_layers
from .cache import CacheEntry, EngineCache, engine_key
from .options import BuildOptions, Sizes

Progress = Callable[[str, float], None]
"""Called on the builder's thread, with the name of its phase and the share of that which is done, 0 to 1."""

Compiled = tuple[bytes, tuple[EngineLayer, ...], tuple[dict[str, Range], ...], int | None]
"""The plan, its layers, its profiles and the activation memory where a GPU could say it."""

_THREAD = "impasto-build"
_PATIENCE_S = 10.0
"""How long Ctrl-C waits for the builder's next step."""

_Result = TypeVar("_Result")


@dataclass(frozen=True)
class Target:
    """The GPU, or the kinds of GPU, that an engine is for."""

    compute_capabilities: tuple[str, ...]
    gpu: str | None
    """The name of the GPU in this machine; None for kinds of GPU that need not be here."""
    driver_major: int | None

    def __str__(self) -> str:
        return self.gpu or "compute capability " + ", ".join(self.compute_capabilities)


def build_engine(
    graph: Path,
    spec: ModelSpec,
    options: BuildOptions,
    *,
    cache: EngineCache | None = None,
    flavour: str = "auto",
    device: int = 0,
    progress: Progress | None = None,
    waiting: Callable[[], None] | None = None,
    role: str = "model",
    context_sha256: str | None = None,
    held: contextlib.ExitStack | None = None,
) -> tuple[CacheEntry, bool]:
    """The engine for these options out of the cache, or built now. Returns it, and whether it was built.

    graph: the ONNX file that bears the precision; a plain FP32 one will do where builder flags exist. spec: its size rule
    and border. waiting: called once where another process is building the same engine, which this one then loads.
    role, context_sha256: as in EngineRecord. held: keeps the engine from being evicted until it is closed.
    Raises MissingDependency, OptionError, ExportError, PrecisionMismatch, OutputError, KeyboardInterrupt.
    """
    options = options.settled(spec)
    api = find_builder(options, flavour)
    target = find_target(api, options, device)
    cache = cache or EngineCache()
    key = engine_key(key_parts(api, target, graph, spec, options) | {"role": role, "context": context_sha256})
    with contextlib.ExitStack() as own:
        try:
            (held or own).enter_context(cache.locked(key, waiting))
        except OutputError:
            entry = cache.find(key)  # where nothing can be locked, nothing is evicted, and what was built serves
            if entry is None:
                raise
        else:
            entry = cache.find(key)
        if entry:
            return cache.described(entry, spec.to_json()), False
        by_target = _check_each_target(api, graph, spec, options, cache, device, progress)
        plan, layers, profiles, memory = compile_graph(api, target, graph, spec, options, cache, device, progress)
        record = EngineRecord(
            key=key,
            flavour=api.flavour,
            version=api.version,
            precision=options.precision,
            compute_capabilities=target.compute_capabilities,
            gpu=None if options.hardware_compatible else target.gpu,
            source_sha256=sha256(graph),
            profiles=profiles,
            plan_bytes=len(plan),
            device_memory_bytes=memory,
            layers=next(iter(by_target.values())) if by_target else layers,
            options=options.to_json(),
            spec=spec.to_json(),
            role=role,
            context_sha256=context_sha256,
            precisions_by_target={name: count_precisions(found) for name, found in by_target.items()},
        )
        return cache.put(record, plan), True


def find_builder(options: BuildOptions, flavour: str = "auto") -> TensorRT:
    """The TensorRT that builds with these options. Raises MissingDependency, OptionError for what it cannot do."""
    api = tensorrt("tensorrt-rtx" if options.targets and flavour == "auto" else flavour)
    check_options(api, options)
    return api


def _check_each_target(
    api: TensorRT,
    graph: Path,
    spec: ModelSpec,
    options: BuildOptions,
    cache: EngineCache,
    device: int,
    progress: Progress | None,
) -> dict[str, tuple[EngineLayer, ...]]:
    """The layers for each of several targets, each built alone: a plan for several logs the layers of one of them only.

    Empty for a single target. Raises PrecisionMismatch, naming the target.
    """
    if len(options.targets) < 2:
        return {}
    found = {}
    for name in sorted(options.targets):
        alone = replace(options, targets=(name,))
        target = find_target(api, alone, device)
        found[target.compute_capabilities[0]] = compile_graph(api, target, graph, spec, alone, cache, device, progress)[
            1
        ]
    return found


def check_options(api: TensorRT, options: BuildOptions) -> None:
    """Raises OptionError for what this TensorRT cannot do: an option that has no effect would be a lie."""
    if options.targets and not api.chooses_targets:
        raise OptionError(f"--target needs TensorRT-RTX; {api} builds for the GPU in this machine only")
    unknown = set(options.targets) - set(api.targets())
    if unknown:
        raise OptionError(f"{api} has no target {', '.join(sorted(unknown))}; it has {', '.join(api.targets())}")
    if options.workspace_bytes is not None and not api.has_workspace_limit:
        raise OptionError(f"{api} takes no workspace limit; leave it out")
    if options.optimization_level is not None and not hasattr(api.module.IBuilderConfig, "builder_optimization_level"):
        raise OptionError(f"{api} has no optimization levels (they came with 8.6); leave the level out")
    if options.hardware_compatible and api.chooses_targets:
        raise OptionError(f"{api} has no hardware-compatible engines; name the kinds of GPU with --target instead")
    if options.hardware_compatible and not hasattr(api.module, "HardwareCompatibilityLevel"):
        raise OptionError(f"{api} builds no hardware-compatible engines (they came with 8.6); leave the option out")
    if options.tactic_sources is not None and not api.has_tactic_sources:
        raise OptionError(f"{api} takes no tactic sources; leave them out")
    for name in options.tactic_sources or ():
        if not hasattr(api.module.TacticSource, name.upper()):
            raise OptionError(f"{api} has no tactic source {name}; leave it out")


def find_target(api: TensorRT, options: BuildOptions, device: int) -> Target:
    """The named compute capabilities, or the GPU in this machine. Raises OptionError where there is neither."""
    if options.targets:
        return Target(tuple(sorted(f"{name[2:-1]}.{name[-1]}" for name in options.targets)), None, None)
    from impasto.runtime import cuda

    try:
        here = cuda.device(device)
    except ImpastoError as error:
        few = ",".join(list(api.targets())[:2])
        hint = f"name targets such as --target {few}" if api.chooses_targets else "build on the device"
        raise OptionError(f"{api} needs to know the GPU, and none is usable here ({error}); {hint}") from None
    if not options.hardware_compatible:
        return Target((here.compute_capability,), here.name, here.driver_major)
    if not is_ampere_plus(here):
        raise OptionError(
            f"hardware-compatible engines are for GPUs of compute capability 8.0 or later that are not integrated; this is "
            f"{here.name}, {here.compute_capability}: leave the option out"
        )
    return Target((AMPERE_PLUS,), here.name, here.driver_major)


def key_parts(api: TensorRT, target: Target, graph: Path, spec: ModelSpec, options: BuildOptions) -> dict[str, Any]:
    """Everything that reaches the builder, as plain JSON values. Raises ExportError for a graph that is not in one file."""
    _require_one_file(graph)
    return {
        "graph": sha256(graph),
        "size": spec.to_json()["size"],
        "border": spec.border,
        "options": options.to_json(),
        "flavour": api.flavour,
        "version": api.version,
        "compute_capabilities": list(target.compute_capabilities),
        "gpu": None if options.hardware_compatible else target.gpu,
        "driver_major": target.driver_major,
        **({"islands": engine_islands.can_be_found()} if _keeps_islands(api, graph, options) else {}),
    }


def _require_one_file(graph: Path) -> None:
    """Raises ExportError where weights lie beside the graph: keys, manifests and `load` know an engine's source by one hash."""
    try:
        import onnx
        from onnx.external_data_helper import uses_external_data
    except ImportError:  # then TensorRT gets the graph's bytes alone, and refuses them
        return
    try:
        content = onnx.load(str(graph), load_external_data=False).graph
    except Exception:  # `_prepared` says so
        return
    constants = (value.t for node in content.node for value in node.attribute if value.HasField("t"))
    if any(uses_external_data(tensor) for tensor in (*content.initializer, *constants)):
        raise ExportError(
            f"{graph} keeps weights in other files, and an engine of it would not notice when they change; "
            f"put everything into one package: impasto export {shlex.quote(str(graph))} -o FOLDER"
        )


def compile_graph(
    api: TensorRT,
    target: Target,
    graph: Path,
    spec: ModelSpec,
    options: BuildOptions,
    cache: EngineCache,
    device: int,
    progress: Progress | None = None,
) -> Compiled:
    """Run the builder. Raises ExportError with TensorRT's own words, PrecisionMismatch, and KeyboardInterrupt after Ctrl-C."""
    stop = threading.Event()
    return _interruptible(lambda: _compile(api, target, graph, spec, options, cache, device, progress, stop), stop)


def _compile(
    api: TensorRT,
    target: Target,
    graph: Path,
    spec: ModelSpec,
    options: BuildOptions,
    cache: EngineCache,
    device: int,
    progress: Progress | None,
    stop: threading.Event,
) -> Compiled:
    """All that TensorRT does and says, on the builder's thread: contexts of GPUs are current in one thread at a time."""
    with _active(target, device), api.log.recording() as lines:
        builder = api.make("builder", api.module.Builder, api.log.vendor)
        typed = _is_typed(api, graph, options)
        network = api.make("network", builder.create_network, api.network_flags(typed=typed))
        content, islands = _prepared(graph, api.max_opset, islands=_keeps_islands(api, graph, options))
        _parse(api, network, graph, content)
        config = api.make("builder configuration", builder.create_builder_config)
        profiles = _add_profiles(builder, config, network, spec, options)
        _configure(api, config, options, typed)
        if any(islands.values()) and not engine_islands.keep(api, network, config, islands):
            warnings.warn(
                f"{graph.name} has layers that need FP32, and none of them was found in what {api} read; it may compute any in "
                "half. Compare the engine with the model: impasto check",
                ImpastoWarning,
                stacklevel=2,
            )
        timing = _load_timing(api, config, cache, target)
        if hasattr(config, "progress_monitor"):
            config.progress_monitor = _monitor(api, progress, stop)
        api.log.forget()
        serialized = _serialize(builder, network, config, stop)
        if serialized is None:
            raise ExportError(f"{api} cannot build {graph.name} for {target}: {api.log.errors()}")
        _keep_timing(config, timing)
        plan = bytes(serialized)
        layers, memory = _read_back(api, plan, lines, target, profiles[0])
        arithmetic = _arithmetic_layers(api, network)
    engine_layers.require_precision(layers, options.precision, str(target), arithmetic)
    return plan, layers, profiles, memory


def _arithmetic_layers(api: TensorRT, network: Any) -> int:
    """How many convolutions and matrix products the parsed network has."""
    names = ("CONVOLUTION", "DECONVOLUTION", "MATRIX_MULTIPLY", "FULLY_CONNECTED")
    kinds = [getattr(api.module.LayerType, name) for name in names if hasattr(api.module.LayerType, name)]
    return sum(network.get_layer(index).type in kinds for index in range(network.num_layers))


def _serialize(builder: Any, network: Any, config: Any, stop: threading.Event) -> Any:
    if stop.is_set():  # while the graph was read; some builders cannot be stopped once they have begun
        raise KeyboardInterrupt
    try:
        return builder.build_serialized_network(network, config)
    except Exception as error:  # the bindings raise RuntimeError, TypeError or a vendor class
        raise ExportError(f"TensorRT's builder failed: {error}") from error


def _is_typed(api: TensorRT, graph: Path, options: BuildOptions) -> bool:
    """Whether the graph's own types decide each layer's precision."""
    return api.strongly_typed and not _wants_flags(api, graph, options)


def _wants_flags(api: TensorRT, graph: Path, options: BuildOptions) -> bool:
    """Whether precision must come from builder flags, because the graph does not bear it and the version allows that."""
    return api.has_precision_flags and options.precision == "fp16" and not _bears(graph, options.precision)


def _bears(graph: Path, precision: str) -> bool:
    # `export/quantization/search.py` names its files so; a stranger's file is taken as plain.
    return f".{precision}" in graph.name


def _precision_flags(api: TensorRT, options: BuildOptions, typed: bool) -> tuple[str, ...]:
    """The builder flags that allow less than FP32; none where the graph's own types decide."""
    if typed or not api.has_precision_flags:
        return ()
    # INT8 layers that have no fast kernel fall back to FP16 rather than to FP32.
    return {"fp16": ("FP16",), "int8": ("INT8", "FP16")}.get(options.precision, ())


def _keeps_islands(api: TensorRT, graph: Path, options: BuildOptions) -> bool:
    """Whether layers must be told float32, because flags would let the builder compute them in half."""
    flags = _precision_flags(api, options, _is_typed(api, graph, options))
    return bool(flags) and engine_islands.can_be_told(api)


def _parse(api: TensorRT, network: Any, graph: Path, content: bytes) -> None:
    """Fill the network. content: as `_prepared` gives it. Raises ExportError with the parser's errors, one a line."""
    parser = api.make("ONNX parser", api.module.OnnxParser, network, api.log.vendor)
    native = getattr(getattr(api.module, "OnnxParserFlag", None), "NATIVE_INSTANCENORM", None)
    if native is not None:
        parser.set_flag(native)
    if parser.parse(content):
        return
    reasons = [_parser_error(parser.get_error(index)) for index in range(parser.num_errors)]
    raise ExportError(f"{api} cannot read {graph}: " + "; ".join(dict.fromkeys(reasons)))


def _prepared(graph: Path, max_opset: int, *, islands: bool = False) -> tuple[bytes, dict[str, bool]]:
    """The graph's bytes as this parser wants them, and its `island_tensors` where they are asked for.

    As they are on a device that has no onnx library, where nobody can tell islands either: that is warned of.
    """
    try:
        import onnx
    except ImportError:
        if islands:
            warnings.warn(
                f"{graph.name}: without the onnx library nobody can say which layers need FP32, and TensorRT may compute any "
                "of them in half: pip install onnx",
                ImpastoWarning,
                stacklevel=2,
            )
        return graph.read_bytes(), {}
    from impasto.export.graph.qdq_lint import require_parsable

    from .parser_graph import prepare

    try:
        model = onnx.load(str(graph))
        onnx.checker.check_model(model)
    except Exception as error:  # protobuf's DecodeError and the checker's error have no public base that onnx promises
        raise ExportError(f"{graph} is no ONNX file that can be read: {first_line(error)}") from None
    require_parsable(model, str(graph))
    prepared = prepare(model, max_opset)
    return prepared.SerializeToString(), engine_islands.island_tensors(model, prepared) if islands else {}


def _parser_error(error: Any) -> str:
    first = str(error.desc()).strip().splitlines()
    return f"{first[0] if first else 'unknown error'} (node {error.node()})"


def _add_profiles(
    builder: Any, config: Any, network: Any, spec: ModelSpec, options: BuildOptions
) -> tuple[dict[str, Range], ...]:
    """One optimization profile for each of the sizes asked for. Raises OptionError where the graph's own sizes differ."""
    found = []
    for sizes in options.sizes:
        profile = builder.create_optimization_profile()
        ranges: dict[str, Range] = {}
        for index in range(network.num_inputs):
            tensor = network.get_input(index)
            ranges[tensor.name] = _range(
                tuple(tensor.shape), sizes.padded(spec), options.batch, tensor.name, spec.border
            )
            profile.set_shape(tensor.name, *ranges[tensor.name])
        if config.add_optimization_profile(profile) < 0:
            raise OptionError(
                f"TensorRT refuses the sizes {ranges}; smallest <= best <= largest must hold for every input"
            )
        found.append(ranges)
    return tuple(found)


def _range(shape: tuple[int, ...], sizes: Sizes, batch: tuple[int, int, int], name: str, border: int) -> Range:
    """Fill an input's free sizes: the batch first, then height and width where there are some (N, H, W, C)."""
    shapes = []
    for count, (height, width) in zip(batch, (sizes.low, sizes.best, sizes.high), strict=True):
        wanted = (count, height, width)[: 3 if len(shape) == 4 else 1]
        filled = (*wanted, *shape[len(wanted) :])
        fixed = tuple(want if size < 0 else size for size, want in zip(shape, filled, strict=True))
        if any(size < 0 for size in fixed):
            raise ExportError(
                f"the graph's input {name} has shape {shape}; only its batch, height and width may be free"
            )
        if len(shape) == 4 and fixed != filled:
            raise _not_asked(name, shape, fixed, filled, border)
        shapes.append(fixed)
    return shapes[0], shapes[1], shapes[2]


def _not_asked(
    name: str, shape: tuple[int, ...], fixed: tuple[int, ...], asked: tuple[int, ...], border: int
) -> OptionError:
    """The error for a picture whose batch, height or width is the graph's own, and another than was asked for."""
    held = f"the graph's input {name} is {' x '.join('?' if size < 0 else str(size) for size in shape)}"
    size = f"--size {fixed[1] - 2 * border}x{fixed[2] - 2 * border}" if fixed[1:] != asked[1:] else ""
    batch = f"--batch {fixed[0]}" if fixed[0] != asked[0] else ""
    return OptionError(
        f"{held}, and {' x '.join(map(str, asked))} was asked for; say {size or batch}, or export it with that free"
    )


def _configure(api: TensorRT, config: Any, options: BuildOptions, typed: bool) -> None:
    """Hand over every option; `check_options` has refused those without effect."""
    module = api.module
    config.profiling_verbosity = module.ProfilingVerbosity.DETAILED  # without it, nothing can be read back
    for name in _precision_flags(api, options, typed):
        config.set_flag(getattr(module.BuilderFlag, name))
    if hasattr(module.BuilderFlag, "REQUIRE_USER_ALLOCATION"):
        # Otherwise TensorRT-RTX may allocate while it runs, for large pictures: then no frame can be recorded as a graph.
        config.set_flag(module.BuilderFlag.REQUIRE_USER_ALLOCATION)
    if options.precision == "fp32":
        config.clear_flag(module.BuilderFlag.TF32)  # 10 bits of mantissa are not FP32
    preview = getattr(getattr(module, "PreviewFeature", None), "FASTER_DYNAMIC_SHAPES_0805", None)
    if preview is not None and options.has_free_sizes:
        # Only the compiler inside TensorRT 8.5 ("Myelin") casts uint8, and without this it is not made for free sizes.
        config.set_preview_feature(preview, True)
        if api.profile_sharing is not None:  # 8.6: a stream's slots are contexts of one engine
            config.set_preview_feature(api.profile_sharing, True)
    if options.workspace_bytes is not None:
        config.set_memory_pool_limit(module.MemoryPoolType.WORKSPACE, options.workspace_bytes)
    if options.optimization_level is not None:
        config.builder_optimization_level = options.optimization_level
    if options.hardware_compatible:
        config.hardware_compatibility_level = module.HardwareCompatibilityLevel.AMPERE_PLUS
    if options.tactic_sources is not None:
        sources = (getattr(module.TacticSource, name.upper()) for name in options.tactic_sources)
        config.set_tactic_sources(sum(1 << int(source) for source in sources))
    if options.targets:
        known = api.targets()
        config.num_compute_capabilities = len(options.targets)
        for index, name in enumerate(sorted(options.targets)):
            config.set_compute_capability(known[name], index)


def _load_timing(api: TensorRT, config: Any, cache: EngineCache, target: Target) -> Path | None:
    """Give the builder what it measured before on this GPU; where to keep it afterwards, or None without such a cache."""
    if not api.has_timing_cache:
        return None
    path = cache.timing_path(f"{api.flavour}-{api.version}-{target}-driver{target.driver_major}")
    kept = path.read_bytes() if path.is_file() else b""
    for content in (kept, b""):
        measured = config.create_timing_cache(content)  # None where it is damaged, or of another version
        # A Jetson in another power mode is another device by its multiprocessors, and still has its name.
        if measured is not None and config.set_timing_cache(measured, ignore_mismatch=False):
            break
    return path


def _keep_timing(config: Any, path: Path | None) -> None:
    """Write what the builder measured; where that fails the next build takes longer, and nothing else is lost."""
    measured = config.get_timing_cache() if path is not None else None
    if path is not None and measured is not None:
        with contextlib.suppress(OutputError):
            write_bytes(path, bytes(measured.serialize()))


def _monitor(api: TensorRT, progress: Progress | None, stop: threading.Event) -> Any:
    """The vendor's progress monitor over ours; the builder asks it after every step whether to go on."""

    class Monitor(api.module.IProgressMonitor):  # type: ignore[name-defined]
        def __init__(self) -> None:
            super().__init__()
            self._steps: dict[str, int] = {}

        def phase_start(self, phase: str, parent: str | None, steps: int) -> None:
            self._steps[phase] = steps
            self._tell(phase, 0.0)

        def step_complete(self, phase: str, step: int) -> bool:
            self._tell(phase, (step + 1) / max(self._steps.get(phase, 1), 1))
            return not stop.is_set()

        def phase_finish(self, phase: str) -> None:
            self._tell(phase, 1.0)

        def _tell(self, phase: str, share: float) -> None:
            if progress is not None and not stop.is_set():
                progress(phase, min(share, 1.0))

    return Monitor()


def _interruptible(work: Callable[[], _Result], stop: threading.Event) -> _Result:
    """Run `work` on a thread of its own, so that Ctrl-C reaches Python at once, and not one of TensorRT's calls of our log or
    progress monitor: TensorRT swallows what those raise. Python raises KeyboardInterrupt in the main thread only.

    With a progress monitor the builder stops at its next step. Without one (8.x) it cannot be stopped: it goes on by itself, what it
    builds is dropped, and a process that ends waits for it (`is_building`).
    """
    results: list[_Result] = []
    failures: list[BaseException] = []

    def run() -> None:
        try:
            results.append(work())
        except BaseException as error:
            failures.append(error)

    def wait(seconds: float) -> None:
        # Neither `join` nor an event: a join that Ctrl-C interrupts takes the thread for ended (bpo-45274, up to Python 3.12),
        # and an event that it interrupts may keep its lock.
        end = time.monotonic() + seconds
        while not results and not failures and time.monotonic() < end:
            time.sleep(0.02)

    try:
        threading.Thread(target=run, name=_THREAD).start()
        wait(float("inf"))
    except KeyboardInterrupt:
        stop.set()
        wait(_PATIENCE_S)
        raise
    if failures:
        raise failures[0]
    return results[0]


def is_building() -> bool:
    """Whether a builder still runs because Ctrl-C could not stop it; Python's own end waits for it."""
    return any(thread.name == _THREAD for thread in threading.enumerate())


def _read_back(
    api: TensorRT, plan: bytes, lines: list[str], target: Target, profile: dict[str, Range]
) -> tuple[tuple[EngineLayer, ...], int | None]:
    """The layers of the finished engine, from its inspector where it can be loaded here, otherwise from the build's log.

    profile: the first one, at whose best shapes the engine is looked at.
    """
    if target.gpu is None:
        return engine_layers.from_log(lines), None
    try:
        engine = api.deserialize(api.create_runtime(), plan)
    except BackendError:  # built for a GPU that this flavour builds for and does not run on
        return engine_layers.from_log(lines), None
    text = _inspect(api, engine, profile)
    memory = int(
        engine.device_memory_size_v2 if hasattr(engine, "device_memory_size_v2") else engine.device_memory_size
    )
    return engine_layers.from_inspector(text), memory


def _inspect(api: TensorRT, engine: Any, profile: dict[str, Range]) -> str:
    """What the inspector says, in JSON; with an execution context at the profile's best shapes if it says too little without."""
    inspector = engine.create_engine_inspector()
    kind = api.module.LayerInformationFormat.JSON
    text = str(inspector.get_engine_information(kind))
    if not engine_layers.hides_formats(text):
        return text
    context = engine.create_execution_context()
    if context is None:  # no memory for one; the weights' types still tell
        return text
    for name, (_, best, _) in profile.items():
        context.set_input_shape(name, best)
    inspector.execution_context = context
    return str(inspector.get_engine_information(kind))


@contextlib.contextmanager
def _active(target: Target, device: int) -> Iterator[None]:
    """The GPU's context, where one takes part in the build."""
    if target.gpu is None:
        yield
        return
    from impasto.runtime import cuda

    with cuda.device(device).active():
        yield
