"""Loads gram.fatbin and launches its kernels through the CUDA driver, on raw device pointers and any stream.

Knows neither torch nor PyCUDA, so that both ways into the kernel share it: a caller brings a current context,
pointers that stay valid until the stream has passed the launch, and workspace. No nvcc, no compilation.
"""

from __future__ import annotations

import ctypes
import os
import struct
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from importlib import resources
from typing import Any

from impasto.errors import KernelError

from . import fat_binary
from .plan import LayerPlan, LayerShape, Plan, plan

MAX_LAYERS = 16
"""Layers of one launch; a kernel's parameters are at most 4 KiB on older drivers."""
SQUARE = 64
"""Channels and pixels of what one bulk copy brings; as in gram.cu."""
BARRIER_BYTES = 8 * 8
"""Shared memory behind the stages, for the barrier of each (MOST_STAGES of gram.cu), where bulk copies fill them."""
BY_WARPGROUPS = "_wgmma"
"""Ends the names of Hopper's own kernels."""
CHOICE = "IMPASTO_GRAM"
"""Environment variable: `wgmma` takes Hopper's own kernel wherever it can be taken."""
BY_WARPGROUPS_SINCE = (12, 1)
"""The first CUDA that launches kernels with more than 4 KiB of parameters, as those have."""
IMAGE_ERRORS = {200, 209, 218, 222}
"""CUDA_ERROR_INVALID_IMAGE, _NO_BINARY_FOR_GPU, _INVALID_PTX, _UNSUPPORTED_PTX_VERSION: what the driver says of a binary
that it cannot take."""
ELEMENT_BYTES = {"f16": 2, "bf16": 2, "tf32": 4, "f32": 4}
"""Bytes of an element by kernel flavour. tf32 and f32 both read float32: rounded, or to its full precision."""

THREADS = 256
"""Threads of a block; as in gram.cu."""
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
class Tiles:
    """Feature maps of 16-bit elements as bulk copies see them: an inner axis, an outer one, and images."""

    pointer: int
    flavour: str
    """f16 or bf16."""
    extents: tuple[int, int, int]
    """Elements along the inner axis, the outer axis, and images."""
    strides: tuple[int, int]
    """Bytes along the outer axis and from image to image. Multiples of 16."""


@dataclass(frozen=True)
class FeatureMap:
    """Where feature maps (or their gradients) lie on the device."""

    pointer: int
    shape: tuple[int, int, int, int]
    """N, C, H, W. All >= 1."""
    strides: tuple[int, int, int, int]
    """In elements."""

    @property
    def pixel_strides(self) -> tuple[int, int]:
        """Strides by image row and column, such that rows join on one line wherever they can."""
        _, _, H, W = self.shape
        row, column = self.strides[2:]
        if W == 1:
            return row, row
        return (row if H > 1 else W * column), column

    @property
    def is_line(self) -> bool:
        """Whether the pixels of a channel are evenly spaced."""
        row, column = self.pixel_strides
        return row == self.shape[3] * column

    @property
    def layout(self) -> str:
        """Which axis a kernel should run along: `nhwc` where channels are neighbours and pixels are not."""
        pixels_are_neighbours = self.is_line and self.pixel_strides[1] == 1
        return "nhwc" if self.strides[1] == 1 and self.shape[1] > 1 and not pixels_are_neighbours else "nchw"

    def has_vectors(self, layout: str, element_bytes: int) -> bool:
        """Whether every row along the inner axis starts on 16 bytes, as asynchronous copies need."""
        N, C, H, W = self.shape
        image, channel = self.strides[:2]
        pixel = self.pixel_strides[1]
        if layout == "nchw":
            inner, outer, rows = pixel, channel, C
        else:
            inner, outer, rows = channel, pixel, H * W
        aligned = self.pointer % 16 == 0
        aligned = aligned and (rows == 1 or outer * element_bytes % 16 == 0)
        aligned = aligned and (N == 1 or image * element_bytes % 16 == 0)
        return aligned and self.is_line and inner == 1

    def tiles(self, layout: str, flavour: str) -> Tiles | None:
        """What bulk copies need to know; None where they cannot bring these maps."""
        if flavour not in ("f16", "bf16") or not self.has_vectors(layout, 2):
            return None
        N, C, H, W = self.shape
        image, channel = self.strides[:2]
        (inner, outer), stride = ((H * W, C), channel) if layout == "nchw" else ((C, H * W), self.pixel_strides[1])
        # The stride of an axis of one element may be anything; a legal one takes its place.
        stride = stride if outer > 1 else -(-inner // 8) * 8
        image = image if N > 1 else stride * outer
        if stride < inner or image < stride * outer or 2 * image >= 2**40:
            return None
        return Tiles(self.pointer, flavour, (inner, outer, N), (2 * stride, 2 * image))


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


def forward(layers: Sequence[Layer], flavour: str, workspace: int, loss: int, stream: int) -> None:
    """Writes the Gram matrices and differences that are asked for, and the loss (float32) unless its pointer is 0.

    All layers have one layout. workspace: `workspace_bytes(layers, flavour)`, aligned to 16. Deterministic.
    """
    module = loaded()
    tiles = _bulk_copied(layers, flavour)
    name = _forward_kernel(layers, flavour, tiles)
    arrangement = _divided(layers, flavour, name)
    group = _group(layers, flavour, arrangement, workspace)
    group.loss = loss
    shared = dynamic_bytes(name, module.shared_bytes)
    maps = None if tiles is None else _maps(tiles)
    module.launch(name, arrangement.forward_blocks, THREADS, shared, group, stream, maps)
    module.launch("gram_finish", arrangement.finish_blocks, THREADS, 0, group, stream)


def backward(layers: Sequence[Layer], flavour: str, upstream: int, stream: int) -> None:
    """Writes each layer's gradient, times the float32 at `upstream` (0: times 1), from its difference and peak."""
    module = loaded()
    arrangement = _arrangement(layers, flavour)
    group = _group(layers, flavour, arrangement, 0)
    group.upstream = upstream
    name = f"gram_backward_{flavour}_{layers[0].features.layout}"
    module.launch(f"gram_pack_{flavour}", arrangement.pack_blocks, _PACK_THREADS, 0, group, stream)
    module.launch(name, arrangement.backward_blocks, THREADS, module.shared_bytes, group, stream)


def workspace_bytes(layers: Sequence[Layer], flavour: str) -> int:
    """Device memory that `forward` needs until the stream has passed it."""
    return _arrangement(layers, flavour).workspace_bytes


def loss_parts(layers: Sequence[Layer], flavour: str) -> tuple[int, tuple[int, ...]]:
    """Where `forward` leaves what it adds the loss up from: bytes into the workspace, and float32 values of each layer.

    The layers' values follow one another, and a layer's add up to its term wₗ · mean((Gₗ − Aₗ)²). Written where a loss is.
    """
    arrangement = _arrangement(layers, flavour)
    return arrangement.loss_part_offset, tuple(layer.shape.finish_blocks for layer in arrangement.layers)


def packed_bytes(shape: tuple[int, int, int, int], flavour: str) -> int:
    """Device memory for one layer's `packed`."""
    size = _layer_shape(shape, flavour)
    return size.N * size.C * size.packed_stride * size.element_bytes


def _layer_shape(shape: tuple[int, int, int, int], flavour: str) -> LayerShape:
    N, C, H, W = shape
    return LayerShape(N, C, H * W, ELEMENT_BYTES[flavour])


def _bulk_copied(layers: Sequence[Layer], flavour: str) -> list[Tiles] | None:
    """What bulk copies bring, if the module takes Hopper's own kernel and all layers allow it."""
    if not loaded().by_warpgroups:
        return None
    layout = layers[0].features.layout
    tiles = [layer.features.tiles(layout, flavour) for layer in layers if not layer.mask]
    brought = [each for each in tiles if each is not None]
    return brought if len(brought) == len(layers) else None


def _forward_kernel(layers: Sequence[Layer], flavour: str, tiles: list[Tiles] | None) -> str:
    name = f"gram_forward_{flavour}_{layers[0].features.layout}"
    return name if tiles is None else name + BY_WARPGROUPS


def _arrangement(layers: Sequence[Layer], flavour: str) -> Plan:
    return _divided(layers, flavour, _forward_kernel(layers, flavour, _bulk_copied(layers, flavour)))


def _divided(layers: Sequence[Layer], flavour: str, forward_kernel: str) -> Plan:
    shapes = tuple(_layer_shape(layer.features.shape, flavour) for layer in layers)
    return plan(shapes, loaded().resident_blocks(forward_kernel))


def _maps(tiles: Sequence[Tiles]) -> _Maps:
    maps = _Maps()
    for index, each in enumerate(tiles):
        maps.of_layer[index][:] = loaded().tensor_map(each)
    return maps


def _group(layers: Sequence[Layer], flavour: str, arrangement: Plan, workspace: int) -> _Group:
    group = _Group()
    for entry, layer, share in zip(group.layer, layers, arrangement.layers):  # noqa: B905 - the array has spare entries
        _fill(entry, layer, share, flavour, workspace)
    group.layers = len(layers)
    group.loss_part = workspace + arrangement.loss_part_offset
    group.ticket = workspace + arrangement.ticket_offset
    return group


def _fill(entry: _Layer, layer: Layer, share: LayerPlan, flavour: str, workspace: int) -> None:
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


def dynamic_shared_bytes(compute_capability_major: int) -> int:
    """What gram.cu's SHARED_BYTES is there: stages of two 16 KiB panels, as many as a block of the smallest chip holds."""
    return (2 if compute_capability_major < 8 else 3) * 2 * 16384


def dynamic_bytes(name: str, shared_bytes: int) -> int:
    """What a block of this forward or backward kernel is given of it."""
    return shared_bytes + BARRIER_BYTES if name.endswith(BY_WARPGROUPS) else shared_bytes


# ---- the driver ----


@lru_cache(maxsize=1)
def driver() -> Any:
    """The CUDA driver's library. Raises KernelError where there is none."""
    name = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
    try:
        return ctypes.CDLL(name)
    except OSError as error:
        raise KernelError(f"The CUDA driver ({name}) cannot be loaded: {error}. Install NVIDIA's driver.") from error


def call(name: str, *arguments: Any) -> None:
    """One call of the driver API. Raises KernelError with the driver's own words."""
    result = _result(name, *arguments)
    if result:
        raise KernelError(_failure(name, result))


def _result(name: str, *arguments: Any) -> int:
    """What a call returns, 0 for success. Raises KernelError where the driver has no such call."""
    function = getattr(driver(), name, None)
    if function is None:
        raise KernelError(
            f"The CUDA driver has no {name}: {known_cuda()}, and that is too old for what was asked. Update NVIDIA's driver."
        )
    return function(*arguments)


def _failure(name: str, result: int) -> str:
    words = ctypes.c_char_p()
    driver().cuGetErrorString(result, ctypes.byref(words))
    return f"{name} failed with error {result}: {(words.value or b'unknown').decode()}."


def cuda_version() -> tuple[int, int]:
    """The CUDA release that the driver knows, such as (11, 4) on JetPack 5."""
    version = ctypes.c_int()
    call("cuDriverGetVersion", ctypes.byref(version))
    return version.value // 1000, version.value % 1000 // 10


def known_cuda() -> str:
    """The driver's CUDA release in words, for messages."""
    return "it knows CUDA {}.{}".format(*cuda_version())


def make_context_current(device: int) -> None:
    """The primary context, which torch and PyCUDA share, in a thread that has not used CUDA yet."""
    context, handle = ctypes.c_void_p(), ctypes.c_int()
    call("cuCtxGetCurrent", ctypes.byref(context))
    if not context.value:
        call("cuDeviceGet", ctypes.byref(handle), device)
        call("cuDevicePrimaryCtxRetain", ctypes.byref(context), handle)
        call("cuCtxSetCurrent", context)


@dataclass
class Module:
    """The fatbin in one context."""

    handle: ctypes.c_void_p
    shared_bytes: int
    """Dynamic shared memory of a block of the forward and backward kernels."""
    processors: int
    """Multiprocessors of the context's device."""
    by_warpgroups: bool = False
    """Whether to take Hopper's own kernel where it can be taken."""
    functions: dict[str, ctypes.c_void_p] = field(default_factory=dict)
    residents: dict[str, int] = field(default_factory=dict)

    def function(self, name: str) -> ctypes.c_void_p:
        """The kernel, allowed all the dynamic shared memory that it asks for."""
        if name not in self.functions:
            function = ctypes.c_void_p()
            call("cuModuleGetFunction", ctypes.byref(function), self.handle, name.encode())
            if name.startswith(("gram_forward", "gram_backward")):
                maximum_dynamic_shared = 8  # CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
                call("cuFuncSetAttribute", function, maximum_dynamic_shared, dynamic_bytes(name, self.shared_bytes))
            self.functions[name] = function
        return self.functions[name]

    def resident_blocks(self, name: str) -> int:
        """Blocks of this kernel that the whole device runs at once."""
        if name not in self.residents:
            blocks = ctypes.c_int()
            arguments = (self.function(name), THREADS, ctypes.c_size_t(dynamic_bytes(name, self.shared_bytes)))
            call("cuOccupancyMaxActiveBlocksPerMultiprocessor", ctypes.byref(blocks), *arguments)
            if blocks.value == 0:
                raise KernelError(f"{name} needs {self.shared_bytes} bytes of shared memory; this GPU has less.")
            self.residents[name] = blocks.value * self.processors
        return self.residents[name]

    def launch(
        self,
        name: str,
        blocks: int,
        threads: int,
        shared_bytes: int,
        group: _Group,
        stream: int,
        maps: _Maps | None = None,
    ) -> None:
        """Puts one kernel on a stream of the current context."""
        given = [ctypes.addressof(parameter) for parameter in (group, maps) if parameter is not None]
        arguments = (ctypes.c_void_p * len(given))(*given)
        grid, block = (blocks, 1, 1), (threads, 1, 1)
        call(
            "cuLaunchKernel", self.function(name), *grid, *block, shared_bytes, ctypes.c_void_p(stream), arguments, None
        )

    def tensor_map(self, tiles: Tiles) -> bytes:
        """The driver's description of these maps, 128 bytes, as a kernel's parameter holds it."""
        return _tensor_map(tiles)


@lru_cache(maxsize=256)
def _tensor_map(tiles: Tiles) -> bytes:
    """CUDA driver API, cuTensorMapEncodeTiled: squares of 64 x 64, swizzled by 128 bytes, zero beyond the edges."""
    room = (ctypes.c_ubyte * 192)()
    start = -ctypes.addressof(room) % 64  # the driver wants it on 64 bytes
    data_type = {"f16": 6, "bf16": 9}[tiles.flavour]  # CU_TENSOR_MAP_DATA_TYPE_FLOAT16, _BFLOAT16
    plain, swizzle_128, promotion_256, zeros = 0, 3, 3, 0
    call(
        "cuTensorMapEncodeTiled",
        ctypes.c_void_p(ctypes.addressof(room) + start),
        data_type,
        ctypes.c_uint32(3),
        ctypes.c_void_p(tiles.pointer),
        (ctypes.c_uint64 * 3)(*tiles.extents),
        (ctypes.c_uint64 * 2)(*tiles.strides),
        (ctypes.c_uint32 * 3)(SQUARE, SQUARE, 1),
        (ctypes.c_uint32 * 3)(1, 1, 1),
        plain,
        swizzle_128,
        promotion_256,
        zeros,
    )
    return bytes(room[start : start + 128])


_modules: dict[int, Module] = {}


def loaded() -> Module:
    """The fatbin in the current context, loaded once per context. Raises KernelError."""
    context = ctypes.c_void_p()
    call("cuCtxGetCurrent", ctypes.byref(context))
    if not context.value:
        raise KernelError("No CUDA context is current in this thread; make one before launching.")
    if context.value not in _modules:
        _modules[context.value] = _load(fatbin())
    return _modules[context.value]


def fatbin() -> bytes:
    """The compiled kernels that ship with Impasto. Raises KernelError where they are missing."""
    file = resources.files(__package__) / "gram.fatbin"
    if not file.is_file():
        raise KernelError(f"{file} is missing: reinstall Impasto, or run `make kernels` in its repository.")
    return file.read_bytes()


def _load(data: bytes) -> Module:
    """data: a fatbin, or a cubin for this GPU, which tests and benchmarks put in its place."""
    handle, device, processors = ctypes.c_void_p(), ctypes.c_int(), ctypes.c_int()
    call("cuCtxGetDevice", ctypes.byref(device))
    multiprocessor_count = 16  # CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT
    call("cuDeviceGetAttribute", ctypes.byref(processors), multiprocessor_count, device)
    major, minor = ctypes.c_int(), ctypes.c_int()
    compute_capability_major, compute_capability_minor = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_*
    call("cuDeviceGetAttribute", ctypes.byref(major), compute_capability_major, device)
    call("cuDeviceGetAttribute", ctypes.byref(minor), compute_capability_minor, device)
    capability = major.value, minor.value
    by_warpgroups = chosen_by_hand(capability)
    if by_warpgroups and cuda_version() < BY_WARPGROUPS_SINCE:
        raise KernelError(
            f"{CHOICE}=wgmma needs a driver that knows CUDA 12.1, for parameters of more than 4 KiB; {known_cuda()}. "
            f"Update NVIDIA's driver, or unset {CHOICE}."
        )
    entry = _entry_for(data, capability) if fat_binary.is_container(data) else None
    # A driver is given its GPU's binary and no other: what it would make of younger ones, nobody has tried.
    result = _result("cuModuleLoadData", ctypes.byref(handle), data if entry is None else entry.alone())
    if result:
        advice = _advice(entry, capability) if entry is not None and result in IMAGE_ERRORS else ""
        raise KernelError(_failure("cuModuleLoadData", result) + advice)
    return Module(handle, dynamic_shared_bytes(major.value), processors.value, by_warpgroups)


def _entry_for(container: bytes, capability: tuple[int, int]) -> fat_binary.Entry:
    try:
        found = fat_binary.entries(container)
    except (ValueError, struct.error) as error:
        raise KernelError(f"gram.fatbin cannot be read: {error}. Reinstall Impasto.") from error
    entry = fat_binary.chosen(found, capability)
    if entry is None:
        has = ", ".join(f"sm_{each.architecture}" for each in found if each.kind == "cubin")
        raise KernelError(
            f"The Gram kernel has nothing for this GPU, of compute capability {capability[0]}.{capability[1]}: "
            f"it is compiled for {has} and what comes after. Compute on the CPU here."
        )
    return entry


def _advice(entry: fat_binary.Entry, capability: tuple[int, int]) -> str:
    """What was tried, and what can be done about it."""
    try:
        wanted, known = entry.cuda_major(), cuda_version()[0]
    except ValueError as error:
        return f" gram.fatbin is damaged: {error}. Reinstall Impasto."
    tried = (
        f" The Gram kernel's {entry}, for this GPU of compute capability {capability[0]}.{capability[1]}, "
        f"wants a driver that knows CUDA {wanted} or later; {known_cuda()}."
    )
    if known < wanted:
        return f"{tried} Update NVIDIA's driver (docs/kernels.md says which), or compute on the CPU."
    return f"{tried} So it should load: reinstall Impasto, and if that does not help, report this message."


def chosen_by_hand(compute_capability: tuple[int, int]) -> bool:
    """Whether the user asks for Hopper's own kernel, which is checked but not yet timed. Raises KernelError where there is none."""
    choice = os.environ.get(CHOICE, "")
    if choice not in ("", "mma", "wgmma"):
        raise KernelError(f"{CHOICE} is {choice!r}: set it to mma or wgmma, or leave it unset.")
    if choice == "wgmma" and compute_capability != (9, 0):
        has = ".".join(map(str, compute_capability))
        raise KernelError(
            f"{CHOICE}=wgmma needs a GPU of compute capability 9.0 (Hopper); this one has {has}. Unset it."
        )
    return choice == "wgmma"
