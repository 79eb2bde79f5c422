"""Which TensorRT builds, and for which GPUs."""

from __future__ import annotations

from dataclasses import dataclass

from impasto.errors import ImpastoError, OptionError
from impasto.package.engine_record import AMPERE_PLUS
from impasto.runtime.backends.tensorrt.api import TensorRT, tensorrt
from impasto.runtime.backends.tensorrt.compatibility import is_ampere_plus

from .dla import check_core
from .options import BuildOptions


@dataclass(frozen=True)
class Target:
    """The GPU, or the kinds of GPU, that an engine is for."""

    compute_capabilities: tuple[str, ...]
    gpu: str | None
    """The name of the GPU in this machine; None for kinds of GPU that need not be here."""
    driver_major: int | None

    def __str__(self) -> str:
        return self.gpu or "compute capability " + ", ".join(self.compute_capabilities)


def find_builder(options: BuildOptions, product: str = "auto") -> TensorRT:
    """The TensorRT that builds with these options. Raises MissingDependency, OptionError for what it cannot do."""
    api = tensorrt("tensorrt-rtx" if options.targets and product == "auto" else product)
    check_options(api, options)
    return api


def check_options(api: TensorRT, options: BuildOptions) -> None:
    """Raises OptionError for what this TensorRT cannot do: an option that has no effect would be a lie."""
    if options.targets and not api.chooses_targets:
        raise OptionError(f"--target needs TensorRT-RTX; {api} builds for the GPU in this machine only")
    check_core(api, options.dla_core)
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


def capability(target: str) -> str:
    """The compute capability of a target: "8.6" of "sm86"."""
    return f"{target[2:-1]}.{target[-1]}"


def find_target(api: TensorRT, options: BuildOptions, device: int) -> Target:
    """The named compute capabilities, or the GPU in this machine. Raises OptionError where there is neither."""
    if options.targets:
        return Target(tuple(sorted(map(capability, options.targets))), None, None)
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
