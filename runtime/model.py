"""`load` opens a model, and a `Model` turns pictures into pictures."""

from __future__ import annotations

import os
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, TypeVar, overload

import numpy as np

from impasto.errors import ImpastoWarning, OptionError, ShapeError
from impasto.locks import ReentrantLock
from impasto.package.spec import ModelSpec, Pixels, SizeRule
from impasto.runtime.gpu.protocols import is_gpu_array
from impasto.runtime.host_copies import copied
from impasto.runtime.inference.colour_transfer import keep_colours
from impasto.runtime.inference.context import ChosenStrength, ContextGraph, ContextSource, Scene
from impasto.runtime.inference.depths import check_picture, check_values, from_rgb, is_bytes_rgb, to_rgb
from impasto.runtime.inference.settings import check_keep_colors, style_shares
from impasto.runtime.inference.settings import working_size as size_in_use
from impasto.runtime.inference.streaming import SlotPool, overlapped
from impasto.runtime.inference.tile_buffers import TileBuffers, pad_into
from impasto.runtime.inference.tile_plan import Size, TilePlan, plan_tiles, size_limits, tiling_text
from impasto.runtime.inference.working_size import Scaling, drawn_size
from impasto.runtime.loading.choosing import open_model
from impasto.runtime.loading.float_graph import FloatGraph
from impasto.styles import PHOTO, Wanted, mixture

if TYPE_CHECKING:
    from impasto.runtime.gpu.drawing import GpuDrawing

from .backends import Backend, Slot

Buffers = TypeVar("Buffers", TileBuffers, Scaling)

_BYTES = np.dtype(np.uint8)

Planner = Callable[[int, int], TilePlan]
"""Takes a picture's height and width, in pixels."""

Kept = tuple[int, int, np.dtype]
"""What buffers are kept for: height and width, in pixels, and the dtype of the graph's pictures."""

KEPT_SIZES = 4
"""Number of picture sizes whose buffers are kept. The sizes used longest ago are dropped."""
KEPT_BYTES = 1 << 28
"""Largest sum of kept buffers, in bytes. The buffers of the last size are always kept; a large picture's take hundreds of MB."""
KEPT_PLANS = 64
"""Number of picture sizes whose tile plan is kept."""


@dataclass(frozen=True)
class ModelInfo:
    """What `load` opened: the model, and the backend, device, precision and file that it chose. `Model.info` holds it.

    Example:
        >>> import impasto
        >>> with impasto.load("denoise", backend="onnxruntime-cpu") as model:
        ...     info = model.info
        >>> info.name, info.task, info.scale, info.strengths
        ('denoise', 'denoise', 1, (0.0, 2.0))
        >>> info.backend, info.device, info.precision
        ('onnxruntime-cpu', 'CPU', 'fp32')
        >>> info.to_json()["model"]["border"]
        8
    """

    spec: ModelSpec
    """The model's properties, from its package or its ONNX file."""
    backend: str
    """The backend's name: "tensorrt", "openvino", "onnxruntime-cuda" or "onnxruntime-cpu"."""
    device: str
    """The device's name, such as "CPU"."""
    precision: str
    """The precision: "fp32", "fp16" or "int8"; "unknown" for an engine without a record."""
    path: Path
    """The package's folder, the ONNX file or the engine."""
    tiling: str
    """Which pictures are cut into tiles, in words."""
    working_size: int | None = None
    """The working size in use, in pixels of the longest side; None draws every picture at its own size.

    A larger picture is scaled down to it, drawn, and the drawing enlarged.
    """
    depths: tuple[str, ...] = ("uint8",)
    """Names of the dtypes of pictures that the model takes: "uint8" alone, or "uint8", "uint16" and "float32". A single engine that was
    built with float ends takes the last two."""
    note: str | None = None
    """Why `backend="auto"` took another backend than its first choice; None if it took its first choice."""

    @property
    def name(self) -> str:
        """The model's name."""
        return self.spec.name

    @property
    def task(self) -> str:
        """What the model does: "stylize", "denoise", "deblur", "upscale", "inpaint", "dejpeg", …"""
        return self.spec.task

    @property
    def scale(self) -> int:
        """Side of the result divided by side of the picture, >= 1."""
        return self.spec.scale

    @property
    def size_rule(self) -> SizeRule:
        """Which heights and widths the graph takes. The runtime pads pictures, so `Model` takes any size."""
        return self.spec.size

    @property
    def strengths(self) -> tuple[float, float] | None:
        """The smallest and the largest value of `Model.strength`; None if the network has no strength."""
        if self.spec.strength:
            return 0.0, self.spec.strength
        return (0.0, 1.0) if PHOTO in self.spec.styles else None

    def __str__(self) -> str:
        size = f", working size {self.working_size}" if self.working_size else ""
        return f"{self.name} on {self.backend}, {self.device}, {self.precision}, from {self.path}{size}"

    def to_json(self) -> dict[str, Any]:
        """The fields as a dictionary that `json.dumps` takes."""
        return {
            "model": self.spec.to_json(),
            "backend": self.backend,
            "device": self.device,
            "precision": self.precision,
            "path": str(self.path),
            "tiling": self.tiling,
            "working_size": self.working_size,
            "strengths": list(self.strengths) if self.strengths else None,
            "depths": list(self.depths),
            "note": self.note,
        }


def load(
    path_or_name: str | os.PathLike[str],
    *,
    backend: str = "auto",
    precision: str = "auto",
    device: int = 0,
    trust: bool = False,
    layout: str | None = None,
    working_size: int | Literal["auto"] | None = "auto",
    check_values: bool | None = None,
    **former: bool,
) -> Model:
    """Load a model package, an ONNX file, an engine, or a model by name. Loading never builds and never downloads.

    Args:
        path_or_name: the path of a package folder, an .onnx file or a .plan file; or a name. Names are looked up in the folders of
            $IMPASTO_MODELS, then among the models that ship with Impasto.
        backend: "tensorrt", "openvino", "onnxruntime-cuda", "onnxruntime-cpu" or "auto". "auto" takes an engine that fits this GPU,
            then OpenVINO on x86-64, then ONNX Runtime on the CPU. It skips a backend that is not installed or draws this model
            wrong. If it skips its first choice, `ModelInfo.note` and a warning say why.
        precision: "fp32", "fp16", "int8" or "auto", among those that the package holds. "auto" is "fp32" for graphs; among engines
            it prefers "fp16".
        device: number of the CUDA device, >= 0.
        trust: load files although their hash is not the one in the manifest or the engine's record.
        layout: channel order and range of an external ONNX file's pixels, at input and output: "rgb 0..1", "bgr 0..255",
            "rgb -1..1". None reads it from the file or its sidecar.
        working_size: in pixels of the longest side, >= 32. A larger picture is scaled down to it, drawn, and the drawing enlarged,
            so that a stylizer's strokes grow with the picture. "auto" is the model's own; None draws every picture at its own size.
        check_values: True checks every run for NaN and infinity. None follows $IMPASTO_CHECK_VALUES (0 or 1). False, and 0 or no value
            of that variable, check every run of a network that Impasto did not train, on a CPU; of other networks they check a run
            only if its result is all black. Float results are always checked, except those that a GPU rounds to 16 bits.
        former: `keep_colors`, which is now set as `Model.keep_colors`. It still works here, with a warning.

    Returns:
        Model: ready to run. Close it, or use it in a `with` block.

    Raises:
        ModelNotFound: if there is no such file, package or name.
        OptionError: for a value outside of the above, and for an option that this model does not take.
        PackageError: if a package, sidecar or record is damaged, altered, or lacks the precision.
        MissingDependency: if no installed library runs the model.
        BackendError: if the backend cannot run here, or cannot load the graph.
        EngineMismatch: a BackendError; if no engine fits this machine. Its message holds the command that builds one.

    Example:
        >>> import numpy as np
        >>> import impasto
        >>> photo = np.full((48, 64, 3), 128, np.uint8)
        >>> with impasto.load("great-wave") as model:
        ...     painted = model(photo)
        >>> painted.dtype, painted.shape
        (dtype('uint8'), (48, 64, 3))
    """
    keep_colors = _former_keep_colors(former)
    pixels = Pixels.parse(layout) if layout is not None else None
    opened, note = open_model(path_or_name, backend, precision, device, trust, pixels, check_values)
    source, runner, spec = opened.source, opened.backend, opened.spec
    try:
        context_source: ContextSource | None = ChosenStrength() if spec.strength else None
        if spec.thumbnail and opened.context_graph:
            context_source = ContextGraph(opened.context_graph, spec.thumbnail, mixture(spec.styles))
        tiling = tiling_text(spec, size_limits(spec, runner))
        size = size_in_use(spec, working_size)
        floats = FloatGraph(opened, device, check_values)
        info = ModelInfo(
            spec, runner.name, runner.device, source.precision, source.path, tiling, size, floats.depths, note
        )
        model = Model(runner, context_source, info, floats)
        model.keep_colors = keep_colors
    except BaseException:
        opened.close()
        raise
    if former:
        warnings.warn(
            "impasto.load no longer takes keep_colors; set model.keep_colors after loading",
            DeprecationWarning,
            stacklevel=2,
        )
    if note:
        warnings.warn(note, ImpastoWarning, stacklevel=2)
    return model


class Model:
    """A loaded model, made by `load`: it takes pictures and gives pictures.

    Use it in a `with` block, or call `close`, to free its memory at once. Threads may share a model; their calls run one after the
    other.

    Example:
        >>> import numpy as np
        >>> import impasto
        >>> with impasto.load("denoise") as model:
        ...     print(model.info.name, model.info.strengths)
        ...     model.strength = 0.5
        ...     print(model(np.full((48, 64, 3), 128, np.uint8)).shape)
        denoise (0.0, 2.0)
        (48, 64, 3)
    """

    info: ModelInfo
    """What was loaded."""

    def __init__(
        self, backend: Backend, context_source: ContextSource | None, info: ModelInfo, floats: FloatGraph
    ) -> None:
        """Get a model from `load`."""
        self.info = info
        self._style: Wanted = None
        self._strength = 1.0
        self._backend = backend
        self._floats = floats
        self._context_source = context_source
        self._lock = ReentrantLock()
        self._keep_colors = False
        self._plan = _planner(info.spec, backend)
        self._float_plan: Planner | None = None
        self._buffers: OrderedDict[Kept, TileBuffers] = OrderedDict()
        self._scalings: OrderedDict[Kept, Scaling] = OrderedDict()
        self._gpu_drawing: GpuDrawing | None = None

    @overload
    def __call__(self, image: np.ndarray, *, stream: None = None, nv12: None = None) -> np.ndarray: ...

    @overload
    def __call__(self, image: Any, *, stream: int | None = None, nv12: str | None = None) -> Any: ...

    def __call__(self, image: Any, *, stream: int | None = None, nv12: str | None = None) -> Any:
        """Draw one picture.

        A picture on a GPU stays there: an array with `__dlpack__` or `__cuda_array_interface__` (torch, CuPy, PyNvVideoCodec) gives a
        `GpuArray`, which has both, if the backend is "tensorrt" or "onnxruntime-cuda". docs/guides/gpu-frames.md says more.

        Args:
            image: (H, W, 3) RGB, or (H, W) gray, of any size from 1 x 1. uint8, 0 to 255; uint16, 0 to 65535; or float32, 0 to 1. What
                a level means is the same in all: sRGB's curve, from black to white. On a GPU the same, but no gray of uint8; and uint8
                (H x 3/2, W), NV12, with even H and W.
            stream: of a picture on a GPU, the handle of the CUDA stream that the caller works on. The drawing begins after that
                stream's work, the stream waits for it, and this call returns at once. None returns when the drawing is there,
                unless the array names its stream.
            nv12: of a picture on a GPU, "bt601" or "bt709": the colour matrix of NV12 surfaces, limited range. None takes RGB alone.

        Returns:
            np.ndarray: a new array of the picture's dtype, (H x scale, W x scale, 3) RGB, or (H x scale, W x scale) for gray. For a
            picture on a GPU a `GpuArray` of the picture's form.

            Of uint16 and float32 pictures nothing is rounded to 8 bits on the way; a stylizer's context alone comes from a thumbnail of
            8 bits. They are drawn by the FP32 graph with float ends. Gray is drawn as RGB, and the result is the channels' mean.

        Raises:
            ShapeError: for anything but such an array, a float32 value outside of 0..1, a depth that the model does not take
                (`info.depths`), or a size that an engine was not built for.
            OptionError: for an unknown `nv12`, or `stream` or `nv12` with a NumPy array.
            NoNumbers: a BackendError; if the network computes NaN for this picture.
            BackendError: if the backend fails, or the model is closed.

        Example:
            >>> import numpy as np
            >>> import impasto
            >>> with impasto.load("upscale-x2") as model:
            ...     model(np.full((30, 40, 3), 128, np.uint8)).shape
            (60, 80, 3)
            >>> with impasto.load("denoise") as model:
            ...     model(np.full((30, 40), 40_000, np.uint16)).dtype
            dtype('uint16')
        """
        if is_gpu_array(image):
            with self._lock:
                return self._on_gpu().drawn(image, stream, nv12)
        _require_no_gpu_options(stream, nv12)
        out = np.empty(self.output_shape(image), image.dtype)
        self.run_into(image, out)
        return out

    def run_into(self, image: Any, out: Any, *, stream: int | None = None, nv12: str | None = None) -> None:
        """Draw one picture into an existing array.

        After the first picture of a size, no picture-sized array is allocated for uint8 RGB, unless `out` shares memory with `image`.

        Args:
            image: a picture, as `__call__` takes it.
            out: of the picture's dtype, (H x scale, W x scale, 3), or (H x scale, W x scale) for gray; C-contiguous and writable. It
                may be `image` itself if scale is 1. On the GPU where `image` is; RGB or NV12, whichever `image` is.
            stream: as for `__call__`.
            nv12: as for `__call__`; of `image`, `out`, or both.

        Raises:
            ShapeError: if either array does not fit.
            OptionError: as for `__call__`.
            BackendError: if the backend fails, the network computes NaN, or the model is closed.

        Example:
            >>> import numpy as np
            >>> import impasto
            >>> photo = np.full((30, 40, 3), 128, np.uint8)
            >>> with impasto.load("upscale-x2") as model:
            ...     out = np.empty(model.output_shape(photo), np.uint8)
            ...     model.run_into(photo, out)
        """
        if is_gpu_array(image):
            with self._lock:
                self._on_gpu().draw_into(image, out, stream, nv12)
            return
        _require_no_gpu_options(stream, nv12)
        self._run_into(image, out)

    def stream(self, frames: Iterable[np.ndarray], *, depth: int = 2) -> Iterator[np.ndarray]:
        """Draw a sequence of frames. On a GPU, copies and computing overlap, and both overlap with the caller's own work.

        A model whose context comes from a thumbnail treats the frames as one video: contexts are smoothed within a scene, and
        begin again after a scene cut. Several streams of one model may run at once.

        Args:
            frames: pictures, as `__call__` takes them. Sizes and dtypes may differ. A frame's array may not change before its result is
                there.
            depth: largest number of frames in work at once, >= 1. It bounds the memory.

        Returns:
            Iterator[np.ndarray]: a new array for each frame, as `__call__` gives it, in the order of the frames.

        Raises:
            OptionError: if `depth` is not a whole number of at least 1.
            ShapeError: if `frames` is no iterable; while iterating, for a frame that `__call__` would refuse.
            BackendError: while iterating, if the backend fails, or the model is closed.

        Example:
            >>> import numpy as np
            >>> import impasto
            >>> frames = (np.full((48, 64, 3), level, np.uint8) for level in (50, 100, 150))
            >>> with impasto.load("great-wave") as model:
            ...     for painted in model.stream(frames):
            ...         print(painted.shape)
            (48, 64, 3)
            (48, 64, 3)
            (48, 64, 3)
        """
        if not isinstance(depth, int | np.integer) or depth < 1:
            raise OptionError(f"depth is {depth!r}; expected a whole number of at least 1")
        if not isinstance(frames, Iterable) or isinstance(frames, str | bytes):
            raise ShapeError(
                f"frames is {type(frames).__name__}; wanted an iterable of NumPy arrays, uint8 (H, W, 3) RGB"
            )
        return self._stream(iter(frames), depth)

    def set_style(self, style: Wanted = None, *, strength: float = 1.0) -> None:
        """Choose what a network of several styles paints. The choice holds from the next picture on, also in a running stream.

        Args:
            style: one of `info.spec.styles`; or a share, >= 0, for each of several styles; or None for the first. Shares need not
                sum to 1.
            strength: as the property `strength`.

        Raises:
            OptionError: for a style or strength that the network has not learnt.

        Example:
            >>> import impasto
            >>> with impasto.load("four-styles") as model:
            ...     model.set_style("starry-night", strength=0.7)
            ...     model.set_style({"great-wave": 0.5, "ejiri": 0.5})
        """
        shares = style_shares(self.info.spec, self.info.path, style, strength)
        if shares is not None and isinstance(self._context_source, ContextGraph):
            self._context_source.mixture = shares
        if isinstance(self._context_source, ChosenStrength):
            self._context_source.value = float(strength)
        self._style, self._strength = style, float(strength)

    @property
    def strength(self) -> float:
        """How much the network changes, within `info.strengths`. 0 gives the picture back (a stylizer: nearly), 1 is the full effect.

        Some restorers take up to 2, which removes more noise than they judge right. It may be set between pictures and while a
        stream runs.

        Raises:
            OptionError: when it is set to a value that the network does not take.

        Example:
            >>> import impasto
            >>> with impasto.load("denoise") as model:
            ...     model.strength = 1.5
            ...     model.strength
            1.5
        """
        return self._strength

    @strength.setter
    def strength(self, value: float) -> None:
        self.set_style(self._style, strength=value)

    @property
    def keep_colors(self) -> bool:
        """Whether drawings keep the photo's colours: the drawing's luminance (BT.601 Y) with the photo's chroma. For stylizers.

        It may be set between pictures and while a stream runs.

        Raises:
            OptionError: when it is set to True and the model is no stylizer.

        Example:
            >>> import impasto
            >>> with impasto.load("great-wave") as model:
            ...     model.keep_colors = True
        """
        return self._keep_colors

    @keep_colors.setter
    def keep_colors(self, wanted: bool) -> None:
        check_keep_colors(self.info.spec, wanted)
        self._keep_colors = bool(wanted)

    def output_shape(self, image: np.ndarray) -> tuple[int, ...]:
        """The shape of the result for a picture.

        Args:
            image: a picture, as `__call__` takes it.

        Returns:
            tuple[int, ...]: (H x scale, W x scale, 3), or (H x scale, W x scale) for gray.

        Raises:
            ShapeError: for anything but such an array.

        Example:
            >>> import numpy as np
            >>> import impasto
            >>> with impasto.load("upscale-x2") as model:
            ...     model.output_shape(np.zeros((30, 40, 3), np.uint8))
            (60, 80, 3)
        """
        self._check_image(image)
        return image.shape[0] * self.info.scale, image.shape[1] * self.info.scale, *image.shape[2:]

    def computation(self, image: np.ndarray, *, batch: int = 1) -> Callable[[], None]:
        """A function that repeats the graphs' work for one picture, for benchmarks.

        It leaves out padding, cutting into tiles, the thumbnail, and conversions of pixels. Other threads may not use the model
        meanwhile.

        Args:
            image: a picture, as `__call__` takes it.
            batch: how many copies of the picture one run of the graph takes, >= 1. An engine takes what it was built for.

        Returns:
            Callable[[], None]: call it as often as wanted.

        Raises:
            ShapeError: for anything but such an array, or a batch that the graph does not take.
            BackendError: if the backend fails, or the model is closed.

        Example:
            >>> import numpy as np
            >>> import impasto
            >>> with impasto.load("great-wave") as model:
            ...     compute = model.computation(np.full((64, 64, 3), 128, np.uint8))
            ...     compute()
        """
        self._check_image(image)
        image = to_rgb(image)
        backend = self._backend_for(image.dtype)
        scaling = self._scaling(image)
        image = np.ascontiguousarray(scaling.shrink(image) if scaling else image)
        source = self._context_source
        extra = (source.of_picture(image),) if source else ()
        out = np.empty(self.output_shape(image), image.dtype)
        buffers = TileBuffers(self._plan_for(image.shape[0], image.shape[1], image.dtype), image.dtype)
        buffers.run(backend, image, out, extra)
        drawing = buffers.computation(backend, image, out, extra, batch=batch)

        def compute() -> None:
            if source:
                for _ in range(batch):
                    source.repeat()
            drawing()

        return compute

    def close(self) -> None:
        """Free all memory. A closed model raises BackendError when it is run. Closing twice does nothing.

        Example:
            >>> import impasto
            >>> model = impasto.load("great-wave")
            >>> model.close()
        """
        with self._lock:
            if self._gpu_drawing:
                self._gpu_drawing.close()
                self._gpu_drawing = None
            self._backend.close()
            self._floats.close()
            if self._context_source:
                self._context_source.close()
            self._forget_sizes()

    def __enter__(self) -> Model:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<impasto.Model {self.info}>"

    def _stream(self, frames: Iterator[np.ndarray], depth: int) -> Iterator[np.ndarray]:
        scene = Scene()
        pool = SlotPool(self._open_slot)
        yield from overlapped(
            frames, depth, pool, partial(self._fill_slot, scene), self._crop_slot, partial(self._frame, scene)
        )

    def _open_slot(self, frame: np.ndarray) -> Slot | None:
        """A new slot for frames of this size; None if they are no RGB of uint8, are cut into tiles, or the backend has no slots."""
        self._check_image(frame)
        if not is_bytes_rgb(frame):
            return None
        with self._lock:
            plan = self._plan(*self._drawn_size(frame))
            if plan.tiled:
                return None
            others = (tuple(size or 1 for size in spec.shape) for spec in self._backend.inputs[1:])
            return self._backend.slot(((1, *plan.padded_size, 3), *others))

    def _fill_slot(self, scene: Scene, slot: Slot, frame: np.ndarray) -> None:
        """Write the frame, scaled and padded, and its context into the slot."""
        plan = self._plan(*self._drawn_size(frame))
        with self._lock:
            self._backend.require_open()
            scaling = self._scaling(frame)
            given = scaling.shrink(frame) if scaling else frame
            if self._context_source:
                slot.images[1][...] = self._context_source.of_frame(given, scene)
            if scaling:  # its buffers may change as soon as the lock is released
                pad_into(slot.images[0][0], given, plan)
        if not scaling:
            pad_into(slot.images[0][0], frame, plan)

    def _crop_slot(self, slot: Slot, frame: np.ndarray) -> np.ndarray:
        """The frame's result, cropped and scaled, in a new array."""
        drawn = slot.result[0][self._plan(*self._drawn_size(frame)).crop]
        with self._lock:
            scaling = self._scaling(frame)
            if scaling:
                scaling.drawn[...] = drawn
                out = np.empty_like(frame, order="C")
                scaling.enlarge(out)
        if not scaling:
            out = copied(drawn)
        if self._keep_colors:
            keep_colours(frame, out)
        return out

    def _frame(self, scene: Scene, frame: np.ndarray) -> np.ndarray:
        """The result of a frame that fits into no slot."""
        out = np.empty(self.output_shape(frame), frame.dtype)
        self._run_into(frame, out, scene)
        return out

    def _run_into(self, image: np.ndarray, out: np.ndarray, scene: Scene | None = None) -> None:
        """Check the arrays, and draw the picture into `out`. scene: for a frame, its video's; None for a single picture."""
        self._check_image(image)
        check_values(image)
        wanted = f"wanted writable, C-contiguous {image.dtype} {self.output_shape(image)} for this picture"
        if not isinstance(out, np.ndarray):
            raise ShapeError(f"out is a {type(out).__name__}; {wanted}")
        if out.dtype != image.dtype or out.shape != self.output_shape(image) or not out.flags.c_contiguous:
            raise ShapeError(f"out is {out.dtype} {out.shape}; {wanted}")
        if not out.flags.writeable:
            raise ShapeError(f"out is read-only; {wanted}")
        if np.may_share_memory(image, out):  # a tile would be read where another tile has been written
            image = image.copy()
        with self._lock:
            if is_bytes_rgb(image):
                self._draw_scaled(image, out, scene)
                return
            self._backend.require_open()
            if self._changes_nothing():  # exact, also for gray, whose channels' mean is rounded
                out[...] = image
                return
            if self._converts_on_gpu(image, scene):
                self._on_gpu().draw_from_host(image, out)
                return
            rgb = to_rgb(image)
            drawn = np.empty((*out.shape[:2], 3), rgb.dtype)
            self._draw_scaled(rgb, drawn, scene)
            from_rgb(drawn, out)

    def _draw_scaled(self, image: np.ndarray, out: np.ndarray, scene: Scene | None) -> None:
        """Draw the picture at the working size. image, out: (H, W, 3), both uint8, or both float32 from 0 to 1."""
        scaling = self._scaling(image)
        if scaling:
            self._draw(scaling.shrink(image), scaling.drawn, scene)
            scaling.enlarge(out)
        else:
            self._draw(image, out, scene)
        if self._keep_colors:
            keep_colours(image, out)

    def _changes_nothing(self) -> bool:
        """Whether the strength is a restorer's 0."""
        return isinstance(self._context_source, ChosenStrength) and self._context_source.value == 0

    def _draw(self, image: np.ndarray, out: np.ndarray, scene: Scene | None) -> None:
        """Draw the picture at its own size. Arrays as `_draw_scaled` takes them."""
        self._backend.require_open()
        if self._changes_nothing():
            out[...] = image  # exact, also if the backend computes in fewer bits than its input has
            return
        extra: tuple[np.ndarray, ...] = ()
        if self._context_source:
            extra = (self._context_source.of_frame(image, scene) if scene else self._context_source.of_picture(image),)
        self._buffers_for(image).run(self._backend_for(image.dtype), image, out, extra)

    def _backend_for(self, dtype: np.dtype | str) -> Backend:
        """The graph that draws pictures of this dtype. Raises ShapeError where there is none for more than 8 bits."""
        return self._backend if dtype == _BYTES else self._floats.opened()

    def _converts_on_gpu(self, image: np.ndarray, scene: Scene | None) -> bool:
        """Whether a picture of 16 bits goes to the GPU in 2 bytes a value, and is converted there."""
        if image.dtype != np.uint16 or self._keep_colors or self._scaling(image):
            return False
        if scene and isinstance(self._context_source, ContextGraph):  # contexts of a video are smoothed on the host
            return False
        return self._backend_for(image.dtype).converts_depths()

    def _on_gpu(self) -> GpuDrawing:
        """What draws pictures that are on a GPU. The caller holds the lock. Raises BackendError."""
        from impasto.runtime.gpu.drawing import GpuDrawing  # pictures on the CPU need nothing of it

        self._backend.require_open()
        if self._gpu_drawing is None:
            self._gpu_drawing = GpuDrawing(self._backend, self._context_source, self._backend_for, self._gpu_plan)
        return self._gpu_drawing

    def _gpu_plan(self, height: int, width: int, dtype: str) -> TilePlan:
        """The plan for a picture on a GPU. Raises OptionError and ShapeError for what is done on the CPU alone, or not at all."""
        if dtype not in self._floats.depths:
            wanted = " or ".join(self._floats.depths)
            raise ShapeError(f"the picture on the GPU is {dtype}; wanted {wanted}; {self._floats.refusal}")
        if self._keep_colors:
            raise OptionError("keep_colors works on NumPy arrays alone, and the picture is on a GPU; set it to False")
        if drawn_size(height, width, self.info.working_size) != (height, width):
            raise ShapeError(
                f"the picture on the GPU is {height} x {width}, above the working size of {self.info.working_size}, and only "
                "NumPy arrays are scaled to it; scale it down, or load the model with working_size=None"
            )
        return self._plan_for(height, width, dtype)

    def _buffers_for(self, image: np.ndarray) -> TileBuffers:
        made = (image.shape[0], image.shape[1], image.dtype)
        return _kept(self._buffers, made, lambda: TileBuffers(self._plan_for(*made), image.dtype))

    def _plan_for(self, height: int, width: int, dtype: np.dtype | str) -> TilePlan:
        """How a picture is padded and cut: an engine with float ends may have been built for other sizes than that for uint8."""
        if dtype == _BYTES:
            return self._plan(height, width)
        if self._float_plan is None:
            self._float_plan = _planner(self.info.spec, self._floats.opened())
        return self._float_plan(height, width)

    def _forget_sizes(self) -> None:
        self._plan = _planner(self.info.spec, self._backend)
        self._float_plan = None
        self._buffers.clear()
        self._scalings.clear()

    def _scaling(self, image: np.ndarray) -> Scaling | None:
        """The scaling to the working size and back; None for a picture that is not above it. The caller holds the lock."""
        longest = self.info.working_size
        height, width = image.shape[:2]
        if longest is None or self._drawn_size(image) == (height, width):
            return None
        made = (height, width, image.dtype)
        return _kept(self._scalings, made, lambda: Scaling(height, width, longest, image.dtype))

    def _drawn_size(self, image: np.ndarray) -> Size:
        """Height and width at which the network draws the picture."""
        return drawn_size(image.shape[0], image.shape[1], self.info.working_size)

    def _check_image(self, image: np.ndarray) -> None:
        """Raises ShapeError for what the model does not take. The values of float32 pictures are checked where they are drawn."""
        check_picture(image)
        if image.dtype.name not in self._floats.depths:
            wanted = " or ".join(self._floats.depths)
            raise ShapeError(f"got {image.dtype} {image.shape}, wanted {wanted}; {self._floats.refusal}")


def _planner(spec: ModelSpec, backend: Backend) -> Planner:
    """`plan_tiles` for this graph's or engine's sizes, which remembers its last plans."""
    return lru_cache(KEPT_PLANS)(partial(plan_tiles, spec, size_limits(spec, backend)))


def _kept(held: OrderedDict[Kept, Buffers], made: Kept, make: Callable[[], Buffers]) -> Buffers:
    """The buffers held for this size and dtype, or new ones. Those used longest ago are dropped beyond KEPT_SIZES and KEPT_BYTES."""
    found = held.pop(made, None) or make()
    held[made] = found
    while len(held) > KEPT_SIZES or (len(held) > 1 and sum(each.nbytes for each in held.values()) > KEPT_BYTES):
        held.popitem(last=False)
    return found


def _require_no_gpu_options(stream: int | None, nv12: str | None) -> None:
    """Raises OptionError for an option that only pictures on a GPU take."""
    for name, value in (("stream", stream), ("nv12", nv12)):
        if value is not None:
            raise OptionError(f"{name} is {value!r}, and the picture is no array on a GPU; leave {name} out")


def _former_keep_colors(former: dict[str, bool]) -> bool:
    """The value of the former keyword `keep_colors`. Raises TypeError for every other keyword."""
    for name in former:
        if name != "keep_colors":
            raise TypeError(f"load() got an unexpected keyword argument {name!r}")
    return former.get("keep_colors", False)
