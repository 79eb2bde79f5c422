"""Launches of the kernels of gram.cu on raw device pointers and any stream.

torch's operators and the runtime both launch through this module, so it imports neither torch nor PyCUDA. The caller brings a
current CUDA context, workspace, and pointers that stay valid until the stream has passed the launch.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass

from . import module
from .feature_map import ELEMENT_BYTES, BulkTensor, FeatureMap
from .module import THREADS, WGMMA
from .plan import LayerPlan, LayerShape, Plan, plan

MAX_LAYERS = 16
"""Layers of one launch; a kernel's parameters are at most 4 KiB on older drivers."""
_PACK_THREADS = 128


class _Layer(ctypes.Structure):
    """`Layer` of gram.cu, field by field."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("features", "gradient", "mask", "area", "target", "partial")),
        *((name, ctypes.c_void_p) for name in ("gram", "difference", "peak", "packed")),
        ("feature_stride", ctypes.c_longlong * 4),
        ("gradient_stride", ctypes.c_longlong * 4),
        ("target_stride", ctypes.c_longlong),
        *((name, ctypes.c_float) for name in ("loss_scale", "gradient_scale")),
        *((name, ctypes.c_int) for name in ("N", "C", "width", "pixels", "packed_stride")),
        *((name, ctypes.c_int) for name in ("feature_vectors", "gradient_vectors", "accumulate")),
        *((name, ctypes.c_int) for name in ("tile", "gangs", "chunks")),
        *((name, ctypes.c_int) for name in ("first_forward", "first_finish", "first_pack", "first_backward")),
    )


class _Group(ctypes.Structure):
    """`Group` of gram.cu, field by field."""

    _fields_ = (
        ("layer", _Layer * MAX_LAYERS),
        *((name, ctypes.c_void_p) for name in ("loss_part", "ticket", "loss", "upstream")),
        *((name, ctypes.c_int) for name in ("layers", "reserved")),
    )


class _Maps(ctypes.Structure):
    """`TensorMaps` of gram.cu: the driver's description of each layer's feature maps."""

    _fields_ = (("of_layer", (ctypes.c_ubyte * 128) * MAX_LAYERS),)


@dataclass(frozen=True)
class Layer:
    """One layer of a launch. Pointers are device addresses, 0 for none."""

    features: FeatureMap
    mask: int = 0
    """float32 (N, H, W), contiguous."""
    area: int = 0
    """float32 (N,): the mask's sum per image. Goes with `mask`."""
    target: int = 0
    """float32 (C, C) or (N, C, C), contiguous."""
    target_per_image: bool = False
    weight: float = 1.0
    gram: int = 0
    """float32 (N, C, C) to write, if wanted."""
    difference: int = 0
    """float32 (N, C, C): G - A, written by `forward`, read by `backward`."""
    peak: int = 0
    """uint32 (N,): bits of the largest |G - A|. Goes with `difference`."""
    packed: int = 0
    """`packed_bytes` of workspace for `backward`, aligned to 16."""
    gradient: FeatureMap | None = None
    accumulate: bool = False
    """Add to the gradient instead of writing it."""
    gradient_scale: float | None = None
    """What (G - A) F is multiplied by, over the area; of the style loss unless given."""


def forward(layers: Sequence[Layer], dtype: str, workspace: int, loss: int, stream: int) -> None:
    """Write the Gram matrices and differences that are asked for, and the loss (float32) unless its pointer is 0.

    All layers have one layout. dtype: a key of `ELEMENT_BYTES`. workspace: `workspace_bytes(layers, dtype)`, aligned to 16.
    Deterministic. Raises KernelError.
    """
    kernels = module.loaded()
    tensors = _bulk_tensors(layers, dtype)
    name = _forward_kernel(layers, dtype, tensors)
    launch_plan = _plan_for(layers, dtype, name)
    group = _group(layers, launch_plan, workspace)
    group.loss = loss
    shared = module.block_shared_bytes(name, kernels.shared_bytes)
    parameters = [group] if tensors is None else [group, _maps(tensors)]
    kernels.launch(name, launch_plan.forward_blocks, THREADS, shared, parameters, stream)
    kernels.launch("gram_finish", launch_plan.finish_blocks, THREADS, 0, [group], stream)


def backward(layers: Sequence[Layer], dtype: str, upstream: int, stream: int) -> None:
    """Write each layer's gradient from its difference and peak, times the float32 at `upstream` (0: times 1).

    Raises KernelError.
    """
    kernels = module.loaded()
    launch_plan = _plan(layers, dtype)
    group = _group(layers, launch_plan, 0)
    group.upstream = upstream
    name = f"gram_backward_{dtype}_{layers[0].features.layout}"
    kernels.launch(f"gram_pack_{dtype}", launch_plan.pack_blocks, _PACK_THREADS, 0, [group], stream)
    kernels.launch(name, launch_plan.backward_blocks, THREADS, kernels.shared_bytes, [group], stream)


def workspace_bytes(layers: Sequence[Layer], dtype: str) -> int:
    """Device memory that `forward` needs until the stream has passed it. Raises KernelError."""
    return _plan(layers, dtype).workspace_bytes


def loss_parts(layers: Sequence[Layer], dtype: str) -> tuple[int, tuple[int, ...]]:
    """Where `forward` writes the parts of the loss: their offset into the workspace in bytes, and each layer's number of them.

    Parts are float32, one layer's behind another's; a layer's parts add up to its term wₗ · mean((Gₗ − Aₗ)²). They are written
    where a loss is.
    """
    launch_plan = _plan(layers, dtype)
    return launch_plan.loss_part_offset, tuple(layer.shape.finish_blocks for layer in launch_plan.layers)


def packed_bytes(shape: tuple[int, int, int, int], dtype: str) -> int:
    """Device memory for one layer's `packed`. shape: N, C, H, W of its features."""
    size = _layer_shape(shape, dtype)
    return size.N * size.C * size.packed_stride * size.element_bytes


def _layer_shape(shape: tuple[int, int, int, int], dtype: str) -> LayerShape:
    N, C, H, W = shape
    return LayerShape(N, C, H * W, ELEMENT_BYTES[dtype])


def _bulk_tensors(layers: Sequence[Layer], dtype: str) -> list[BulkTensor] | None:
    """What bulk copies read, if Hopper's own kernel is selected and can take all layers."""
    if not module.loaded().use_wgmma:
        return None
    layout = layers[0].features.layout
    tensors = [layer.features.bulk_tensor(layout, dtype) for layer in layers if not layer.mask]
    readable = [tensor for tensor in tensors if tensor is not None]
    return readable if len(readable) == len(layers) else None


def _forward_kernel(layers: Sequence[Layer], dtype: str, tensors: list[BulkTensor] | None) -> str:
    name = f"gram_forward_{dtype}_{layers[0].features.layout}"
    return name if tensors is None else name + WGMMA


def _plan(layers: Sequence[Layer], dtype: str) -> Plan:
    return _plan_for(layers, dtype, _forward_kernel(layers, dtype, _bulk_tensors(layers, dtype)))


def _plan_for(layers: Sequence[Layer], dtype: str, forward_kernel: str) -> Plan:
    shapes = tuple(_layer_shape(layer.features.shape, dtype) for layer in layers)
    return plan(shapes, module.loaded().resident_blocks(forward_kernel))


def _maps(tensors: Sequence[BulkTensor]) -> _Maps:
    maps = _Maps()
    for index, tensor in enumerate(tensors):
        maps.of_layer[index][:] = module.loaded().tensor_map(tensor)
    return maps


def _group(layers: Sequence[Layer], launch_plan: Plan, workspace: int) -> _Group:
    group = _Group()
    for entry, layer, share in zip(group.layer, layers, launch_plan.layers):  # noqa: B905 - the array has spare entries
        _fill(entry, layer, share, workspace)
    group.layers = len(layers)
    group.loss_part = workspace + launch_plan.loss_part_offset
    group.ticket = workspace + launch_plan.ticket_offset
    return group


def _fill(entry: _Layer, layer: Layer, share: LayerPlan, workspace: int) -> None:
    shape, features, gradient = share.shape, layer.features, layer.gradient
    for name in ("mask", "area", "target", "gram", "difference", "peak", "packed"):
        setattr(entry, name, getattr(layer, name))
    entry.features = features.pointer
    entry.feature_stride[:] = (*features.strides[:2], *features.pixel_strides)
    entry.feature_vectors = features.has_vectors(features.layout, shape.element_bytes)
    if gradient is not None:
        entry.gradient = gradient.pointer
        entry.gradient_stride[:] = (*gradient.strides[:2], *gradient.pixel_strides)
        entry.gradient_vectors = gradient.has_vectors(features.layout, shape.element_bytes)
    entry.accumulate = layer.accumulate
    entry.partial = workspace + share.partial_offset
    entry.target_stride = shape.C**2 if layer.target_per_image else 0
    entry.loss_scale = layer.weight / (shape.N * shape.C**2)
    scale = 4 * layer.weight / (shape.N * shape.C**3) if layer.gradient_scale is None else layer.gradient_scale
    entry.gradient_scale = scale
    entry.N, entry.C, entry.width, entry.pixels = shape.N, shape.C, features.shape[3], shape.pixels
    entry.packed_stride = shape.packed_stride
    entry.tile, entry.gangs, entry.chunks = shape.tile, share.gangs, shape.chunks
    for name in ("first_forward", "first_finish", "first_pack", "first_backward"):
        setattr(entry, name, getattr(share, name))
