"""Compares an engine's record with this machine: TensorRT's product and version, and the GPU."""

from __future__ import annotations

from impasto.errors import EngineMismatch, ImpastoError
from impasto.package.engine_record import AMPERE_PLUS, EngineRecord
from impasto.runtime import cuda

from .api import TensorRT, tensorrt


def is_ampere_plus(device: cuda.Device) -> bool:
    """Whether this GPU builds and runs hardware-compatible engines.

    NVIDIA's header says that such an engine is "compatible with Ampere and newer GPUs", and is built on such a GPU only. GPUs newer
    than the TensorRT version run it as far as CUDA's forward compatibility goes. NVIDIA's guide says "not supported on NVIDIA DRIVE OS
    or JetPack"; GPUs of these are integrated.
    """
    return int(device.compute_capability.split(".")[0]) >= 8 and not device.integrated


def mismatch(record: EngineRecord, api: TensorRT, device: cuda.Device) -> str | None:
    """Why an engine cannot run with this TensorRT on this GPU, as a sentence part; None if it can."""
    here = {device.compute_capability, *([AMPERE_PLUS] if is_ampere_plus(device) else [])}
    if (
        (record.product, record.version) == (api.product, api.version)
        and here.intersection(record.compute_capabilities)
        and record.gpu in (None, device.name)
    ):
        return None
    capability = " or ".join(record.compute_capabilities)
    return (
        f"this engine was built by {record.product} {record.version} for {record.gpu or 'compute capability ' + capability}; "
        f"this machine has {api} and {device.name} (compute capability {device.compute_capability}"
        f"{', integrated' if device.integrated else ''})"
    )


def why_not_here(record: EngineRecord, device: int) -> str | None:
    """Why an engine cannot run on this machine, be it for a missing library; None if it can. device: number of the CUDA device."""
    try:
        return mismatch(record, tensorrt(record.product), cuda.device(device))
    except ImpastoError as error:
        return str(error)


def require_match(record: EngineRecord, api: TensorRT, device: cuda.Device, rebuild: str) -> None:
    """Raises EngineMismatch if an engine cannot run here. rebuild: the command that builds a fitting one, for the message."""
    reason = mismatch(record, api, device)
    if reason:
        raise EngineMismatch(f"{reason}. Build one for it: {rebuild}")
