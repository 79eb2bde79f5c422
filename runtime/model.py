"""The runtime's face: `load` gives a `Model`, a model takes a picture and gives a picture."""

from __future__ import annotations

import os
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache, partial
from numbers import Real
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, TypeVar

import numpy as np

from impasto.errors import ImpastoWarning, OptionError, ShapeError
from impasto.images.sizes import LEAST_WORKING_SIZE
from impasto.locks import ReentrantLock
from impasto.package.spec import RESTORERS, ModelSpec, Pixels, SizeRule
from impasto.runtime.host_copies import copied
from impasto.runtime.inference.colour_transfer import keep_colours
from impasto.runtime.inference.context import AskedStrength, Context, PictureContext, Scene
from impasto.runtime.inference.streaming import SlotPool, overlapped
from impasto.runtime.inference.tile_buffers import TileBuffers, pad_into
from impasto.runtime.inference.tile_plan import Size, plan_tiles, size_limits, tiling_text
from impasto.runtime.inference.working_size import Scaling, drawn_size
from impasto.runtime.loading.choosing import open_model
from impasto.styles import PHOTO, Wanted, mixture

from .backends import Backend, Slot

Buffers = TypeVar("Buffers", TileBuffers, Scaling)

KEPT_SIZES = 4
"""Picture sizes whose buffers are kept: those used last."""
KEPT_BYTES = 1 << 28
"""Most bytes of buffers that are kept, beyond those of the size used last: a large picture's take hundreds of megabytes."""
KEPT_PLANS = 64
"""Picture sizes whose plan is kept."""


@dataclass(frozen=True)
class ModelInfo:
    """What was loaded, and what was chosen where the caller left the choice."""

    spec: ModelSpec
    backend: str
    device: str
    precision: str
    path: Path
    tiling: str
    working_size: int | None = None
    """In force: pixels of the longest side above which a picture is drawn smaller, and the drawing enlarged; None: never."""
    note: str | None = None
    """Why it is not the preferred backend that runs it, where "auto" took another."""

    @property
    def name(self) -> str:
        return self.spec.name

    @property
    def task(self) -> str:
        return self.spec.task

    @property
    def scale(self) -> int:
        return self.spec.scale

    @property
    def size_rule(self) -> SizeRule:
        return self.spec.size

    @property
    def strengths(self) -> tuple[float, float] | None:
        """The least and the largest strength that `Model.strength` takes; None where the network has no choice."""
        if self.spec.strength:
            return 0.0, self.spec.strength
        return (0.0, 1.0) if PHOTO in self.spec.styles else None

    def __str__(self) -> str:
        size = f", working size {self.working_size}" if self.working_size else ""
        return f"{self.name} on {self.backend}, {self.device}, {self.precision}, from {self.path}{size}"

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary."""
        return {
            "model": self.spec.to_json(),
            "backend": self.backend,
            "device": self.device,
            "precision": self.precision,
            "path": str(self.path),
            "tiling": self.tiling,
            "working_size": self.working_size,
            "strengths": list(self.strengths) if self.strengths else None,
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
    keep_colors: bool = False,
    check_values: bool | None = None,
) -> Model:
    """Load a model package, an .onnx file, or a model by name; never builds, never downloads.

    path_or_name: a path, or a name looked up in $IMPASTO_MODELS and then among the models that ship.
    backend: "tensorrt", "openvino", "onnxruntime-cuda", "onnxruntime-cpu", or "auto"; a named one that cannot run here raises.
    "auto" takes an engine that fits this GPU, else OpenVINO on x86-64, else ONNX Runtime on the CPU, among what is installed and
    draws the model right. Where that is not the first of them, `info.note` says why, and a warning does.
    precision: "fp32", "fp16", "int8" or "auto", among those the package holds.
    device: number of the CUDA device. trust: load files whose hash is not the manifest's.
    layout: for an ONNX file that Impasto did not write, what it takes and gives: "rgb 0..1", "bgr 0..255", "rgb -1..1".
    working_size: a picture whose longest side has more pixels is drawn at that size, and the drawing enlarged, so that a stylizer's
    strokes grow with the picture; "auto" takes what the model was made for, None draws every picture at its own size.
    keep_colors: as the property of that name.
    check_values: look for NaN in every run; None does as $IMPASTO_CHECK_VALUES says (0 or 1), and otherwise looks at every run of
    networks that Impasto did not train, on a CPU, and of the others where a result is nothing but black.

    Raises ModelNotFound, PackageError, OptionError, MissingDependency or BackendError.
    """
    pixels = Pixels.parse(layout) if layout is not None else None
    opened, note = open_model(path_or_name, backend, precision, device, trust, pixels, check_values)
    source, runner, spec = opened.source, opened.backend, opened.spec
    try:
        context: Context | None = AskedStrength() if spec.strength else None
        if spec.thumbnail and opened.context:
            context = PictureContext(opened.context, spec.thumbnail, mixture(spec.styles))
        tiling = tiling_text(spec, size_limits(spec, runner))
        size = _working_size(spec, working_size)
        info = ModelInfo(spec, runner.name, runner.device, source.precision, source.path, tiling, size, note)
        model = Model(runner, context, info)
        model.keep_colors = keep_colors
    except BaseException:
        opened.close()
        raise
    if note:
        warnings.warn(note, ImpastoWarning, stacklevel=2)
    return model


class Model:
    """A loaded model. Threads may share one; their calls run one after the other.

    Use it as a context manager, or call `close`, to free what it holds at once.
    """

    def __init__(self, backend: Backend, context: Context | None, info: ModelInfo) -> None:
        self.info = info
        self._style: Wanted = None
        self._strength = 1.0
        self._backend = backend
        self._limits = size_limits(info.spec, backend)
        self._context = context
        self._lock = ReentrantLock()
        self._keep_colors = False
        self._plan = lru_cache(KEPT_PLANS)(partial(plan_tiles, info.spec, self._limits))
        self._buffers: OrderedDict[Size, TileBuffers] = OrderedDict()
        self._scalings: OrderedDict[Size, Scaling] = OrderedDict()

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """image: uint8 (H, W, 3) RGB, any size from 1 x 1. Returns uint8 (H x scale, W x scale, 3), yours to keep.

        Raises ShapeError for anything else, and BackendError.
        """
        self._check_image(image)
        out = np.empty(self.output_shape(image), np.uint8)
        self.run_into(image, out)
        return out

    def run_into(self, image: np.ndarray, out: np.ndarray) -> None:
        """The same into an array of yours: uint8 (H x scale, W x scale, 3), C-contiguous.

        After the first picture of a size, no picture-sized array is allocated, unless `out` shares memory with the picture.
        Raises ShapeError and BackendError.
        """
        self._run_into(image, out)

    def stream(self, frames: Iterable[np.ndarray], *, depth: int = 2) -> Iterator[np.ndarray]:
        """Results of a sequence of frames, in order; computing overlaps with whatever the caller does between them.

        frames: uint8 (H, W, 3) each, an array of its own that does not change until its result is there; sizes may change.
        depth: frames in flight, which bounds the memory (>= 1). Several streams may run at once.
        A model with a context treats the sequence as a video: smoothed within a scene, afresh after a cut.
        """
        if not isinstance(depth, int | np.integer) or depth < 1:
            raise OptionError(f"depth is {depth!r}; expected a whole number of at least 1")
        if not isinstance(frames, Iterable) or isinstance(frames, str | bytes):
            raise ShapeError(
                f"frames is {type(frames).__name__}; wanted something that gives NumPy arrays, uint8 (H, W, 3) RGB"
            )
        return self._stream(iter(frames), depth)

    def set_style(self, style: Wanted = None, *, strength: float = 1.0) -> None:
        """Choose what a network of several styles paints from now on, also in a stream that runs.

        style: one of `info.spec.styles`, shares of several ({"starry-night": 0.5, "great-wave": 0.5}), or None for the first.
        strength: as the property of that name. Takes no time. Raises OptionError for what the network has not learnt.
        """
        spec = self.info.spec
        if spec.strength or spec.task in RESTORERS:
            mixture((), style)  # says that there is no such style
            _check_strength(self.info, strength)
        else:
            shares = mixture(spec.styles, style, strength)
            if isinstance(self._context, PictureContext):
                self._context.mixture = shares
        if isinstance(self._context, AskedStrength):
            self._context.value = float(strength)
        self._style, self._strength = style, float(strength)

    @property
    def strength(self) -> float:
        """How much the network does, within `info.strengths`: 0 leaves the picture as it is (a stylizer: nearly), 1 is its own
        judgement, and more takes more for noise. May be set between pictures and while a stream runs; takes no time.

        Setting raises OptionError for what the network cannot do.
        """
        return self._strength

    @strength.setter
    def strength(self, value: float) -> None:
        self.set_style(self._style, strength=value)

    @property
    def keep_colors(self) -> bool:
        """Whether a drawing's strokes come in the photo's colours: the drawing's luminance (BT.601 Y), the photo's chroma.

        May be set between pictures and while a stream runs. Setting raises OptionError for a model that is no stylizer.
        """
        return self._keep_colors

    @keep_colors.setter
    def keep_colors(self, wanted: bool) -> None:
        if wanted and not self.info.spec.may_draw_smaller:
            raise OptionError(
                f"the photo's colours are kept under a stylizer's strokes, and {self.info.name} is a network for {self.info.task}; "
                "leave keep_colors out (--keep-colors at the command line)"
            )
        self._keep_colors = bool(wanted)

    def output_shape(self, image: np.ndarray) -> tuple[int, int, int]:
        """The shape of the result for this picture. Raises ShapeError."""
        self._check_image(image)
        return image.shape[0] * self.info.scale, image.shape[1] * self.info.scale, 3

    def computation(self, image: np.ndarray, *, batch: int = 1) -> Callable[[], None]:
        """A function that repeats only the graphs' work on this picture: no padding, cutting, conversion of pixels or thumbnail. For
        benchmarks.

        batch: how many copies of the picture the graphs take at once, as far as they can.
        Not to be called while other threads use the model. Raises ShapeError.
        """
        self._check_image(image)
        scaling = self._scaling(image)
        image = np.ascontiguousarray(scaling.shrink(image) if scaling else image)
        context = self._context
        extra = (context.of_picture(image),) if context else ()
        out = np.empty(self.output_shape(image), np.uint8)
        buffers = TileBuffers(self._plan(*image.shape[:2]))
        buffers.run(self._backend, image, out, extra)
        drawing = buffers.computation(self._backend, image, out, extra, batch=batch)

        def compute() -> None:
            if context:
                for _ in range(batch):
                    context.repeat()
            drawing()

        return compute

    def close(self) -> None:
        """Free everything; the model refuses to run afterwards. Closing twice does nothing."""
        with self._lock:
            self._backend.close()
            if self._context:
                self._context.close()
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
        self._check_image(frame)
        with self._lock:
            plan = self._plan(*self._drawn_size(frame))
            if plan.tiled:
                return None
            others = (tuple(size or 1 for size in spec.shape) for spec in self._backend.inputs[1:])
            return self._backend.slot(((1, *plan.padded_size, 3), *others))

    def _fill_slot(self, scene: Scene, slot: Slot, frame: np.ndarray) -> None:
        plan = self._plan(*self._drawn_size(frame))
        with self._lock:
            self._backend.require_open()
            scaling = self._scaling(frame)
            given = scaling.shrink(frame) if scaling else frame
            if self._context:
                slot.images[1][...] = self._context.of_frame(given, scene)
            if scaling:  # whose buffers are the next one's who takes the lock
                pad_into(slot.images[0][0], given, plan)
        if not scaling:
            pad_into(slot.images[0][0], frame, plan)

    def _crop_slot(self, slot: Slot, frame: np.ndarray) -> np.ndarray:
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
        self._check_image(frame)
        out = np.empty(self.output_shape(frame), np.uint8)
        self._run_into(frame, out, scene)
        return out

    def _run_into(self, image: np.ndarray, out: np.ndarray, scene: Scene | None = None) -> None:
        """scene: the video's whose next frame the picture is."""
        self._check_image(image)
        wanted = f"wanted writable, C-contiguous uint8 {self.output_shape(image)} for this picture"
        if not isinstance(out, np.ndarray):
            raise ShapeError(f"out is a {type(out).__name__}; {wanted}")
        if out.dtype != np.uint8 or out.shape != self.output_shape(image) or not out.flags.c_contiguous:
            raise ShapeError(f"out is {out.dtype} {out.shape}; {wanted}")
        if not out.flags.writeable:
            raise ShapeError(f"out is read-only; {wanted}")
        if np.may_share_memory(image, out):  # tiles would be read from what others have drawn
            image = image.copy()
        with self._lock:
            scaling = self._scaling(image)
            if scaling:
                self._draw(scaling.shrink(image), scaling.drawn, scene)
                scaling.enlarge(out)
            else:
                self._draw(image, out, scene)
            if self._keep_colors:
                keep_colours(image, out)

    def _draw(self, image: np.ndarray, out: np.ndarray, scene: Scene | None) -> None:
        """At the picture's own size."""
        self._backend.require_open()
        if isinstance(self._context, AskedStrength) and self._context.value == 0:
            out[...] = image  # to the bit, also where a backend computes in fewer bits than it was given
            return
        extra: tuple[np.ndarray, ...] = ()
        if self._context:
            extra = (self._context.of_frame(image, scene) if scene else self._context.of_picture(image),)
        self._buffers_for(image).run(self._backend, image, out, extra)

    def _buffers_for(self, image: np.ndarray) -> TileBuffers:
        height, width = image.shape[:2]
        return _kept(self._buffers, (height, width), lambda: TileBuffers(self._plan(height, width)))

    def _forget_sizes(self) -> None:
        self._plan.cache_clear()
        self._buffers.clear()
        self._scalings.clear()

    def _scaling(self, image: np.ndarray) -> Scaling | None:
        """To the working size and back, for pictures above it; to be used while the lock is held."""
        longest = self.info.working_size
        height, width = image.shape[:2]
        if longest is None or self._drawn_size(image) == (height, width):
            return None
        return _kept(self._scalings, (height, width), lambda: Scaling(height, width, longest))

    def _drawn_size(self, image: np.ndarray) -> Size:
        """Height and width at which the network draws the picture."""
        return drawn_size(image.shape[0], image.shape[1], self.info.working_size)

    def _check_image(self, image: np.ndarray) -> None:
        if not isinstance(image, np.ndarray):
            raise ShapeError(f"got {type(image).__name__}; wanted a NumPy array, uint8 (H, W, 3) RGB{_remedy(image)}")
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
            hint = "; scale it to 0..255 and convert it with .astype(np.uint8)" if image.dtype != np.uint8 else ""
            raise ShapeError(f"got {image.dtype} {image.shape}; wanted uint8 (H, W, 3) RGB of at least 1 x 1{hint}")


def _kept(held: OrderedDict[Size, Buffers], size: Size, make: Callable[[], Buffers]) -> Buffers:
    """What is held for the size, or new; what was used longest ago goes where it gets too much."""
    found = held.pop(size, None) or make()
    held[size] = found
    while len(held) > KEPT_SIZES or (len(held) > 1 and sum(each.nbytes for each in held.values()) > KEPT_BYTES):
        held.popitem(last=False)
    return found


def _working_size(spec: ModelSpec, wanted: int | Literal["auto"] | None) -> int | None:
    """What `load` was asked for, checked."""
    if wanted is None or wanted == "auto":
        return spec.working_size if wanted else None
    if isinstance(wanted, bool) or not isinstance(wanted, int | np.integer) or wanted < LEAST_WORKING_SIZE:
        raise OptionError(
            f"working_size is {wanted!r}; wanted 'auto', None for every picture's own size, or pixels from {LEAST_WORKING_SIZE} on"
        )
    if not spec.may_draw_smaller:
        raise OptionError(
            f"a working size is for a stylizer's strokes, and {spec.name} is a network for {spec.task}, which would lose what the "
            "picture has of detail; leave it out"
        )
    return int(wanted)


def _check_strength(info: ModelInfo, strength: float) -> None:
    """Raises OptionError for a strength that a restorer cannot be asked for."""
    most = info.spec.strength
    if not isinstance(strength, Real) or (most and not 0 <= strength <= most):
        raise OptionError(
            f"strength is {strength!r}; wanted a number from 0 (the picture itself) to {most or 1:g}, where 1 is the network's own "
            "judgement"
        )
    if not most and strength != 1:
        way = (
            "nothing that enlarges does"
            if info.scale > 1
            else f"give it one: impasto export {info.path} --with-strength"
        )
        raise OptionError(f"strength {strength:g} cannot be asked of {info.name}, which takes none; {way}")


def _remedy(image: object) -> str:
    """What makes an array of what was given in place of one, where that is known."""
    if isinstance(image, str | bytes | os.PathLike):
        return (
            "; a model takes pictures, not files: read it first, as with Pillow's "
            'np.asarray(Image.open(path).convert("RGB")), or let impasto run do it'
        )
    if type(image).__module__.split(".")[0] == "PIL":
        return '; pass np.asarray(image.convert("RGB"))'
    if type(image).__module__.split(".")[0] == "torch":
        return "; pass tensor.numpy(), of uint8 values 0..255 and channels last"
    return ""
