"""From an ONNX graph to a TensorRT engine that is what it says: keyed, built once, read back, recorded."""

from __future__ import annotations

import contextlib
import shlex
import threading
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from impasto.errors import ExportError, ImpastoWarning, OptionError, OutputError, PackageError, first_line
from impasto.files import sha256, write_bytes
from impasto.package.engine_record import DlaUse, EngineLayer, EngineRecord, Range, count_precisions
from impasto.package.shared_weights import self_contained, verify_weights
from impasto.package.spec import ModelSpec
from impasto.progress import Progress, silent
from impasto.runtime.backends.tensorrt.api import TensorRT

from . import dla, fp32_layers
from .builder_thread import interruptible, monitor
from .cache import CacheEntry, EngineCache, engine_key
from .layer_report import read_back, require_precision, warn_of_wide_int8
from .options import BuildOptions, Sizes
from .targets import Target, capability, find_builder, find_target

_ARITHMETIC = ("CONVOLUTION", "DECONVOLUTION", "MATRIX_MULTIPLY", "FULLY_CONNECTED")
"""TensorRT's kinds of layers that are convolutions and matrix products."""


@dataclass(frozen=True)
class CompiledEngine:
    """What one run of TensorRT's builder gave."""

    plan: bytes
    layers: tuple[EngineLayer, ...]
    profiles: tuple[dict[str, Range], ...]
    device_memory_bytes: int | None
    """Activation memory of one execution context; None where no GPU was there to ask."""
    dla: DlaUse | None = None


class EngineBuilder:
    """Builds the engine of one ONNX graph: with one TensorRT, for one target, with one set of options.

    What decides each layer's precision is settled here once: the types in the graph (`typed`), or `precision_flags`, with
    those layers told FP32 that need it (`tells_fp32`).
    """

    def __init__(
        self,
        graph_path: Path,
        spec: ModelSpec,
        options: BuildOptions,
        *,
        graph_precision: str | None = None,
        api: TensorRT | None = None,
        target: Target | None = None,
        cache: EngineCache | None = None,
        device: int = 0,
    ) -> None:
        """graph_path: the ONNX file that bears the precision; a plain FP32 one will do where builder flags exist. spec: its size
        rule and border. graph_precision: what its package's manifest says; None reads it from the graph's types. api: what
        `find_builder` gives by default. target: what `find_target` gives by default.

        Raises MissingDependency, OptionError.
        """
        if options.precision == "auto":
            raise OptionError("an engine is built in one precision; choose fp32, fp16 or int8")
        self.graph_path = graph_path
        self.spec = spec
        self.options = options.with_default_sizes(spec)
        self.api = api or find_builder(self.options)
        self.target = target or find_target(self.api, self.options, device)
        self.cache = cache or EngineCache()
        self.device = device
        self._graph_precision = graph_precision

    @cached_property
    def typed(self) -> bool:
        """Whether the graph's own types decide each layer's precision. Raises ExportError for a graph that cannot be read."""
        if not self.api.strongly_typed or self.options.dla_core is not None:  # a DLA's precision comes from flags
            return False
        flags_could_make_it = self.api.has_precision_flags and self.options.precision == "fp16"
        return not flags_could_make_it or self.graph_precision == "fp16"

    @cached_property
    def graph_precision(self) -> str:
        """ "fp32", "fp16" or "int8": what the graph computes in. Raises ExportError."""
        if self._graph_precision is not None:
            return self._graph_precision
        try:
            from impasto.export.graph.precision import file_precision
        except ImportError:
            raise ExportError(
                f"reading which precision {self.graph_path} computes in needs onnx: pip install onnx; or name the package that "
                "it is of, whose manifest says so"
            ) from None
        return file_precision(self.graph_path)

    @cached_property
    def precision_flags(self) -> tuple[str, ...]:
        """The builder flags that allow less than FP32; none where the graph's own types decide."""
        if self.typed or not self.api.has_precision_flags:
            return ()
        # INT8 layers that have no fast kernel fall back to FP16 rather than to FP32.
        return {"fp16": ("FP16",), "int8": ("INT8", "FP16")}.get(self.options.precision, ())

    @property
    def fixed_picture(self) -> tuple[int, int, int] | None:
        """N, H and W of the only pictures that the engine takes, whose ends `picture_ends` fuses; None where sizes are free.

        None also where builder flags decide types: there nobody has measured that it pays.
        """
        sizes = {side for each in self.options.sizes for side in (each.low, each.best, each.high)}
        if not self.typed or len(sizes) > 1 or len(set(self.options.batch)) > 1:
            return None
        return (self.options.batch[0], *self.options.sizes[0].padded(self.spec).best)

    @property
    def tells_fp32(self) -> bool:
        """Whether layers must be told FP32, because flags would let the builder compute them in half."""
        return bool(self.precision_flags) and fp32_layers.can_be_told(self.api)

    def build(
        self,
        *,
        role: str = "model",
        context_sha256: str | None = None,
        progress: Progress = silent,
        waiting: Callable[[], None] | None = None,
        held: contextlib.ExitStack | None = None,
    ) -> tuple[CacheEntry, bool]:
        """The engine out of the cache, or built now. Returns it, and whether it was built.

        role, context_sha256: as in EngineRecord. waiting: called once where another process is building the same engine, which
        this one then loads. held: keeps the engine from being evicted until it is closed.
        Raises ExportError, PrecisionMismatch, OptionError, OutputError, KeyboardInterrupt.
        """
        key = engine_key(self.key_parts() | {"role": role, "context": context_sha256})
        with contextlib.ExitStack() as own:
            try:
                (held or own).enter_context(self.cache.locked(key, waiting))
            except OutputError:
                entry = self.cache.find(
                    key
                )  # where nothing can be locked, nothing is evicted, and what was built serves
                if entry is None:
                    raise
            else:
                entry = self.cache.find(key)
            if entry:
                return self.cache.described(entry, self.spec.to_json()), False
            record, plan = self._build_and_record(key, progress)
            return self.cache.put(replace(record, role=role, context_sha256=context_sha256), plan), True

    def key_parts(self) -> dict[str, Any]:
        """Everything that reaches the builder, as plain JSON values. Raises ExportError for a graph that is not in one file."""
        require_one_hash(self.graph_path)
        return {
            "graph": sha256(self.graph_path),
            "size": self.spec.to_json()["size"],
            "border": self.spec.border,
            "options": self.options.to_json(),
            "flavour": self.api.product,  # part of the key: another word would build every cached engine anew
            "version": self.api.version,
            "compute_capabilities": list(self.target.compute_capabilities),
            "gpu": self._only_gpu,
            "driver_major": self.target.driver_major,
            # Engines are kept under this word: another would build all of them anew.
            **({"islands": fp32_layers.can_be_found()} if self.tells_fp32 else {}),
            **({"picture_ends": fp32_layers.can_be_found()} if self.fixed_picture else {}),
        }

    @property
    def _only_gpu(self) -> str | None:
        """The one GPU that the engine is tuned on; None where any of its compute capabilities will do."""
        return None if self.options.hardware_compatible else self.target.gpu

    def _build_and_record(self, key: str, progress: Progress) -> tuple[EngineRecord, bytes]:
        by_target = self._layers_of_further_targets(progress)
        engine = self.compile(progress)
        if by_target:
            by_target[capability(_by_number(self.options.targets)[0])] = engine.layers
        in_order = {name: by_target[name] for name in self.target.compute_capabilities if by_target}
        record = EngineRecord(
            key=key,
            product=self.api.product,
            version=self.api.version,
            precision=self.options.precision,
            compute_capabilities=self.target.compute_capabilities,
            gpu=self._only_gpu,
            source_sha256=sha256(self.graph_path),
            profiles=engine.profiles,
            plan_bytes=len(engine.plan),
            device_memory_bytes=engine.device_memory_bytes,
            layers=next(iter(in_order.values()), engine.layers),
            options=self.options.to_json(),
            spec=self.spec.to_json(),
            precisions_by_target={name: count_precisions(found) for name, found in in_order.items()},
            dla=engine.dla,
        )
        return record, engine.plan

    def _layers_of_further_targets(self, progress: Progress) -> dict[str, tuple[EngineLayer, ...]]:
        """The layers for each target above the lowest, by compute capability, each built alone.

        The log of a build for several targets names the layers of the lowest alone (seen with TensorRT-RTX 1.7.1; a test holds
        it), so that one needs no build of its own. Raises PrecisionMismatch, naming the target.
        """
        found = {}
        for name in _by_number(self.options.targets)[1:]:
            options = replace(self.options, targets=(name,))
            alone = EngineBuilder(
                self.graph_path,
                self.spec,
                options,
                graph_precision=self._graph_precision,
                api=self.api,
                cache=self.cache,
                device=self.device,
            )
            found[capability(name)] = alone.compile(progress).layers
        return found

    def compile(self, progress: Progress = silent) -> CompiledEngine:
        """Run TensorRT's builder, on a thread of its own.

        Raises ExportError with TensorRT's own words, PrecisionMismatch, and KeyboardInterrupt after Ctrl-C.
        """
        stop = threading.Event()
        return interruptible(lambda: self._compile(progress, stop), stop)

    def _compile(self, progress: Progress, stop: threading.Event) -> CompiledEngine:
        """All that TensorRT does and says, on the builder's thread: a CUDA context is current in one thread."""
        api = self.api
        with self._active_gpu(), api.log.recording() as lines:
            builder = api.make("builder", api.module.Builder, api.log.vendor)
            network = api.make("network", builder.create_network, api.network_flags(typed=self.typed))
            content, needs_fp32 = prepared_graph(
                self.graph_path, api.max_opset, find_fp32=self.tells_fp32, picture=self.fixed_picture
            )
            self._parse(network, content)
            config = api.make("builder configuration", builder.create_builder_config)
            profiles = _add_profiles(builder, config, network, self.spec, self.options)
            self._configure(config)
            self._keep_fp32(network, config, needs_fp32)
            use = None
            if self.options.dla_core is not None:
                dla.use_core(api, builder, config, self.options.dla_core)
                use = dla.placement(network, config, self.options.dla_core)
            timing = self._load_timing(config)
            if hasattr(config, "progress_monitor"):
                config.progress_monitor = monitor(api, progress, stop)
            api.log.forget()
            serialized = _serialize(builder, network, config, stop)
            if serialized is None:
                raise ExportError(f"{api} cannot build {self.graph_path.name} for {self.target}: {api.log.errors()}")
            _keep_timing(config, timing)
            plan = bytes(serialized)
            layers, memory = read_back(api, plan, lines, self.target, profiles[0])
            # What a DLA computes is one layer afterwards, which names neither its convolutions nor their types.
            arithmetic = dla.arithmetic_on_gpu(use, _ARITHMETIC) if use else _arithmetic_layers(api, network)
        require_precision(layers, self.options.precision, self._reported_target, arithmetic)
        if self.options.precision == "int8":
            warn_of_wide_int8(layers, self._reported_target)
        return CompiledEngine(plan, layers, profiles, memory, use)

    @property
    def _reported_target(self) -> str:
        """The target whose layers the builder's log names: of several, the lowest."""
        lowest = _by_number(self.options.targets)[:1]
        return f"compute capability {capability(lowest[0])}" if lowest else str(self.target)

    @contextlib.contextmanager
    def _active_gpu(self) -> Iterator[None]:
        """Makes the GPU's CUDA context current, if a GPU takes part in the build."""
        if self.target.gpu is None:
            yield
            return
        from impasto.runtime import cuda

        with cuda.device(self.device).active():
            yield

    def _parse(self, network: Any, content: bytes) -> None:
        """Fill the network. content: as `prepared_graph` gives it. Raises ExportError with the parser's errors, one a line."""
        api = self.api
        parser = api.make("ONNX parser", api.module.OnnxParser, network, api.log.vendor)
        native = getattr(getattr(api.module, "OnnxParserFlag", None), "NATIVE_INSTANCENORM", None)
        if native is not None:
            parser.set_flag(native)
        if parser.parse(content):
            return
        reasons = [_parser_error(parser.get_error(index)) for index in range(parser.num_errors)]
        raise ExportError(f"{api} cannot read {self.graph_path}: " + "; ".join(dict.fromkeys(reasons)))

    def _configure(self, config: Any) -> None:
        """Hand over every option; `check_options` has refused those without effect."""
        api, options = self.api, self.options
        module = api.module
        config.profiling_verbosity = module.ProfilingVerbosity.DETAILED  # without it, nothing can be read back
        for name in self.precision_flags:
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
            if api.profile_sharing is not None:  # 8.6: the slots of a stream have execution contexts of one engine
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

    def _keep_fp32(self, network: Any, config: Any, needs_fp32: dict[str, bool]) -> None:
        """Tell FP32 to the layers that need it, and warn where none of them was found."""
        if any(needs_fp32.values()) and not fp32_layers.keep(self.api, network, config, needs_fp32):
            warnings.warn(
                f"{self.graph_path.name} has layers that need FP32, and none of them was found in what {self.api} read; it may "
                "compute any in half. Compare the engine with the model: impasto check",
                ImpastoWarning,
                stacklevel=2,
            )

    def _load_timing(self, config: Any) -> Path | None:
        """Give the builder what it measured before on this GPU; where to keep it afterwards, or None without such a cache."""
        api, target = self.api, self.target
        if not api.has_timing_cache:
            return None
        path = self.cache.timing_path(f"{api.product}-{api.version}-{target}-driver{target.driver_major}")
        kept = path.read_bytes() if path.is_file() else b""
        for content in (kept, b""):
            measured = config.create_timing_cache(content)  # None where it is damaged, or of another version
            # A Jetson in another power mode is another device by its multiprocessors, and still has its name.
            if measured is not None and config.set_timing_cache(measured, ignore_mismatch=False):
                break
        return path


def _by_number(targets: tuple[str, ...]) -> list[str]:
    """Targets such as "sm86", the lowest compute capability first."""
    return sorted(targets, key=lambda name: int(name[2:]))


def require_one_hash(graph_path: Path) -> None:
    """Raises ExportError where weights lie beside the graph and it does not give their hash: an engine knows its source by one."""
    try:
        import onnx
        from onnx.external_data_helper import uses_external_data
    except ImportError:  # then TensorRT gets the graph's bytes alone, and refuses them
        return
    try:
        content = onnx.load(str(graph_path), load_external_data=False).graph
    except Exception:  # `prepared_graph` says so
        return
    constants = (value.t for node in content.node for value in node.attribute if value.HasField("t"))
    if any(uses_external_data(tensor) for tensor in content.initializer):
        try:
            verify_weights(graph_path)
        except PackageError as error:
            raise ExportError(str(error)) from None
    if any(uses_external_data(tensor) for tensor in constants):
        raise ExportError(
            f"{graph_path} keeps weights in other files, and an engine of it would not notice when they change; "
            f"put everything into one package: impasto export {shlex.quote(str(graph_path))} -o FOLDER"
        )


def prepared_graph(
    graph_path: Path, max_opset: int, *, find_fp32: bool = False, picture: tuple[int, int, int] | None = None
) -> tuple[bytes, dict[str, bool]]:
    """The graph's bytes as this parser wants them, and its `fp32_node_tensors` where they are asked for.

    picture: N, H and W where all pictures have them; the graph's ends are fused then.

    As they are on a device that has no onnx library, where nobody can tell which layers need FP32 either: that is warned of.
    """
    try:
        import onnx
    except ImportError:
        if find_fp32:
            warnings.warn(
                f"{graph_path.name}: without the onnx library nobody can say which layers need FP32, and TensorRT may compute any "
                "of them in half: pip install onnx",
                ImpastoWarning,
                stacklevel=2,
            )
        return self_contained(graph_path), {}
    from impasto.export.graph.qdq_lint import require_parsable

    from .parser_graph import prepare
    from .picture_ends import fuse_picture_ends

    try:
        model = onnx.load(str(graph_path))
        onnx.checker.check_model(model)
    except Exception as error:  # protobuf's DecodeError and the checker's error have no public base that onnx promises
        raise ExportError(f"{graph_path} is no ONNX file that can be read: {first_line(error)}") from None
    require_parsable(model, str(graph_path))
    prepared = prepare(model, max_opset)
    if picture is not None:
        prepared = fuse_picture_ends(prepared, picture)
    return prepared.SerializeToString(), fp32_layers.fp32_node_tensors(model, prepared) if find_fp32 else {}


def _parser_error(error: Any) -> str:
    first = str(error.desc()).strip().splitlines()
    return f"{first[0] if first else 'unknown error'} (node {error.node()})"


def _add_profiles(
    builder: Any, config: Any, network: Any, spec: ModelSpec, options: BuildOptions
) -> tuple[dict[str, Range], ...]:
    """One optimization profile for each of the sizes asked for, and a fixed shape for inputs that have but one.

    Raises OptionError where the graph's own sizes differ.
    """
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
    _fix_shapes(network, found)
    return tuple(found)


def _fix_shapes(network: Any, profiles: list[dict[str, Range]]) -> None:
    """Make inputs fixed that every profile gives one and the same shape: the builder then knows each kernel's size, and what
    it cannot do with free sizes (uint8 pictures, on TensorRT 8.5) is not asked of it."""
    for index in range(network.num_inputs):
        tensor = network.get_input(index)
        shapes = {shape for ranges in profiles for shape in ranges[tensor.name]}
        if len(shapes) == 1:
            (tensor.shape,) = shapes


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


def _arithmetic_layers(api: TensorRT, network: Any) -> int:
    """How many convolutions and matrix products the parsed network has."""
    kinds = [getattr(api.module.LayerType, name) for name in _ARITHMETIC if hasattr(api.module.LayerType, name)]
    return sum(network.get_layer(index).type in kinds for index in range(network.num_layers))


def _serialize(builder: Any, network: Any, config: Any, stop: threading.Event) -> Any:
    if stop.is_set():  # while the graph was read; some builders cannot be stopped once they have begun
        raise KeyboardInterrupt
    try:
        return builder.build_serialized_network(network, config)
    except Exception as error:  # the bindings raise RuntimeError, TypeError or a vendor class
        raise ExportError(f"TensorRT's builder failed: {error}") from error


def _keep_timing(config: Any, path: Path | None) -> None:
    """Write what the builder measured; where that fails the next build takes longer, and nothing else is lost."""
    measured = config.get_timing_cache() if path is not None else None
    if path is not None and measured is not None:
        with contextlib.suppress(OutputError):
            write_bytes(path, bytes(measured.serialize()))
