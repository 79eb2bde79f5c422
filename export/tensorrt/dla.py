"""The deep learning accelerator (DLA) of a Jetson: which core an engine uses, and which layers the GPU computes all the same."""

from __future__ import annotations

from typing import Any

from impasto.errors import ExportError, OptionError
from impasto.package.engine_record import DlaUse
from impasto.runtime.backends.tensorrt.api import TensorRT


def check_core(api: TensorRT, core: int | None) -> None:
    """Raises OptionError for a TensorRT that builds nothing for a DLA."""
    if core is None or api.builds_for_dla:
        return
    if api.chooses_targets:
        raise OptionError(
            f"--dla is for TensorRT on a Jetson, and {api} is for desktop GPUs, which have no DLA; leave --dla out"
        )
    raise OptionError(
        f"--dla needs TensorRT 8 or 10, of JetPack 6 or older: the flags that give a DLA FP16 and INT8 are gone in {api}, and 11.0 to "
        "11.3 have no DLA at all; leave --dla out"
    )


def use_core(api: TensorRT, builder: Any, config: Any, core: int) -> None:
    """Let the builder put every layer on this core that can run there, and the others on the GPU. Raises OptionError."""
    cores = int(builder.num_DLA_cores)
    if not cores:
        raise OptionError(
            f"{api} finds no DLA here: Jetson AGX Orin and Orin NX have some, Orin Nano, Thor and desktop GPUs have none; "
            "leave --dla out"
        )
    if core >= cores:
        raise OptionError(f"DLA core {core} does not exist: this device has {cores}, counted from 0")
    config.default_device_type = api.module.DeviceType.DLA
    config.DLA_core = core
    config.set_flag(api.module.BuilderFlag.GPU_FALLBACK)


def placement(network: Any, config: Any, core: int) -> DlaUse:
    """Where TensorRT puts the layers of the network, by what it says of each. Raises ExportError if none is on the DLA."""
    layers = [network.get_layer(index) for index in range(network.num_layers)]
    on_gpu = tuple(f"{layer.name} ({layer.type.name})" for layer in layers if not config.can_run_on_DLA(layer))
    if len(on_gpu) == len(layers):
        raise ExportError(
            f"none of the network's {len(layers)} layers can run on a DLA (of INT8 graphs with quantization nodes none may); "
            "leave --dla out, or build --precision fp16"
        )
    return DlaUse(core, len(layers) - len(on_gpu), on_gpu)


def arithmetic_on_gpu(use: DlaUse, kinds: tuple[str, ...]) -> int:
    """How many layers of these kinds the GPU computes."""
    return sum(text.endswith(tuple(f"({kind})" for kind in kinds)) for text in use.gpu_layers)
