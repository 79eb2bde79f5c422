"""The runtime's face: `load` gives a `Model`, a model takes a picture and gives a picture."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from impasto.errors import BackendError, OptionError, ShapeError

from .backends import Backend, Lane, SizeLimits, open_engine, open_graph
from .backends.pixels import PixelAdapter
from .context import PictureContext
from .engines import engine_source
from .frames import LanePool, overlapped
from .padding import reflect_into
from .resolve import Source, resolve
from .spec import ModelSpec, Pixels, SizeRule
from .tiling import Span, spans

SPEC_KEY = "impasto.spec"
"""The key of our ONNX metadata under which the exporter writes the ModelSpec as JSON."""

TILE = 1024
"""Side of a tile's window, in pixels. Larger windows gain nothing on the CPUs measured and cost memory."""

WHOLE_PIXELS = 1920 * 1280
"""A padded picture of at most this many pixels runs in one piece."""

KEPT_SIZES = 4
"""Work areas kept for the picture sizes used last."""


@dataclass(frozen=True)
class ModelInfo:
    """What was loaded, and what was chosen where the caller left the choice."""

    spec: ModelSpec
    backend: str
    device: str
    precision: str
    path: Path
    tiling: str

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

    def __str__(self) -> str:
        return f"{self.name} on {self.backend}, {self.device}, {self.precision}, from {self.path}"

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary."""
        return {
            "model": self.spec.to_json(),
            "backend": self.backend,
            "device": self.device,
            "precision": self.precision,
            "path": str(self.path),
            "tiling": self.tiling,
        }


def load(
    path_or_name: str | os.PathLike[str],
    *,
    backend: str = "auto",
    precision: str = "auto",
    device: int = 0,
    trust: bool = False,
    layout: str | None = None,
) -> Model:
    """Load a model package, an .onnx file, or a model by name; never builds, never downloads.

    path_or_name: a path, or a name looked up in $IMPASTO_MODELS and then among the models that ship.
    backend: "onnxruntime-cpu", "onnxruntime-cuda", or "auto"; a named one that cannot run here raises.
    precision: "fp32", "fp16", "int8" or "auto", among those the package holds.
    device: number of the CUDA device. trust: load files whose hash is not the manifest's.
    layout: for an ONNX file that Impasto did not write, what it takes and gives: "rgb 0..1", "bgr 0..255", "rgb -1..1".

    Raises ModelNotFound, PackageError, OptionError, MissingDependency or BackendError.
    """
    pixels = Pixels.parse(layout) if layout is not None else None
    source = engine_source(path_or_name, backend, precision, device, trust) or resolve(path_or_name, precision, trust)
    graph = _open(source, backend, device)
    try:
        graph, spec = _describe(graph, source, pixels)
        context = None
        if spec.thumbnail:
            if source.context is None:
                raise BackendError(f"{source.path} needs its context graph beside it; load the package folder instead")
            context = PictureContext(_open_context(source, source.context, backend, device), spec.thumbnail)
    except BaseException:
        graph.close()
        raise
    info = ModelInfo(spec, graph.name, graph.device, source.precision, source.path, _tiling_text(spec, graph.limits))
    return Model(graph, context, info)


class Model:
    """A loaded model. Threads may share one; their calls run one after the other.

    Use it as a context manager, or call `close`, to free what it holds at once.
    """

    def __init__(self, graph: Backend, context: PictureContext | None, info: ModelInfo) -> None:
        self.info = info
        self._graph = graph
        self._context = context
        self._lock = threading.Lock()
        self._areas: OrderedDict[tuple[int, int], _WorkArea] = OrderedDict()

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

        After the first picture of a size, no picture-sized array is allocated. Raises ShapeError and BackendError.
        """
        self._run_into(image, out, video=False)

    def stream(self, frames: Iterable[np.ndarray], *, depth: int = 2) -> Iterator[np.ndarray]:
        """Results of a sequence of frames, in order; computing overlaps with whatever the caller does between them.

        frames: uint8 (H, W, 3) each; sizes may change. depth: frames in flight, which bounds the memory (>= 1).
        A model with a context treats the sequence as a video: smoothed within a scene, afresh after a cut.
        """
        if depth < 1:
            raise OptionError(f"depth is {depth}; expected at least 1")
        return self._stream(iter(frames), depth)

    def output_shape(self, image: np.ndarray) -> tuple[int, int, int]:
        """The shape of the result for this picture."""
        return image.shape[0] * self.info.scale, image.shape[1] * self.info.scale, 3

    def computation(self, image: np.ndarray) -> Callable[[], None]:
        """A function that repeats only the graphs' work on this picture: no padding, cropping or thumbnail. For benchmarks.

        Not to be called while other threads use the model. Raises ShapeError.
        """
        self._check_image(image)
        context = self._context
        extra = (context.of_picture(image),) if context else ()
        out = np.empty(self.output_shape(image), np.uint8)
        area = _WorkArea(self.info.spec, self._graph.limits, image.shape[0], image.shape[1])
        area.run(self._graph, image, out, extra)

        def compute() -> None:
            if context:
                context.repeat()
            area.compute(self._graph, image, out, extra)

        return compute

    def close(self) -> None:
        """Free everything; the model refuses to run afterwards. Closing twice does nothing."""
        with self._lock:
            self._graph.close()
            if self._context:
                self._context.close()
            self._areas.clear()

    def __enter__(self) -> Model:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<impasto.Model {self.info}>"

    def _stream(self, frames: Iterator[np.ndarray], depth: int) -> Iterator[np.ndarray]:
        if self._context:
            self._context.forget_scene()
        pool = LanePool(self._open_lane)
        yield from overlapped(frames, depth, pool, self._fill_lane, self._crop_lane, self._frame)

    def _open_lane(self, frame: np.ndarray) -> Lane | None:
        self._check_image(frame)
        with self._lock:
            area = self._area(frame.shape[0], frame.shape[1])
            if area.tiled:
                return None
            others = (tuple(size or 1 for size in spec.shape) for spec in self._graph.inputs[1:])
            return self._graph.lane(((1, *area.padded_size, 3), *others))

    def _fill_lane(self, lane: Lane, frame: np.ndarray) -> None:
        area = _WorkArea(self.info.spec, self._graph.limits, frame.shape[0], frame.shape[1], buffers=False)
        area.pad_into(lane.images[0][0], frame)
        if self._context:
            with self._lock:
                lane.images[1][...] = self._context.of_frame(frame)

    def _crop_lane(self, lane: Lane, frame: np.ndarray) -> np.ndarray:
        area = _WorkArea(self.info.spec, self._graph.limits, frame.shape[0], frame.shape[1], buffers=False)
        return area.crop(lane.result[0]).copy()

    def _frame(self, frame: np.ndarray) -> np.ndarray:
        self._check_image(frame)
        out = np.empty(self.output_shape(frame), np.uint8)
        self._run_into(frame, out, video=True)
        return out

    def _run_into(self, image: np.ndarray, out: np.ndarray, video: bool) -> None:
        self._check_image(image)
        if out.dtype != np.uint8 or out.shape != self.output_shape(image) or not out.flags.c_contiguous:
            raise ShapeError(
                f"out is {out.dtype} {out.shape}; wanted C-contiguous uint8 {self.output_shape(image)} for this picture"
            )
        with self._lock:
            extra: tuple[np.ndarray, ...] = ()
            if self._context:
                extra = (self._context.of_frame(image) if video else self._context.of_picture(image),)
            self._area(image.shape[0], image.shape[1]).run(self._graph, image, out, extra)

    def _area(self, height: int, width: int) -> _WorkArea:
        area = self._areas.pop((height, width), None)
        if area is None:
            area = _WorkArea(self.info.spec, self._graph.limits, height, width)
        self._areas[height, width] = area
        if len(self._areas) > KEPT_SIZES:
            self._areas.popitem(last=False)
        return area

    def _check_image(self, image: np.ndarray) -> None:
        if not isinstance(image, np.ndarray):
            raise ShapeError(f"got {type(image).__name__}; wanted a NumPy array, uint8 (H, W, 3) RGB")
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
            hint = "; scale it to 0..255 and convert it with .astype(np.uint8)" if image.dtype != np.uint8 else ""
            raise ShapeError(f"got {image.dtype} {image.shape}; wanted uint8 (H, W, 3) RGB of at least 1 x 1{hint}")
        fixed = self.info.spec.size.fixed
        if fixed and (image.shape[0] > fixed[0] or image.shape[1] > fixed[1]):
            raise ShapeError(
                f"the picture is {image.shape[0]} x {image.shape[1]} and this graph takes {fixed[0]} x {fixed[1]} at the "
                "most; scale the picture down, or export the graph with dynamic height and width"
            )


class _WorkArea:
    """The buffers and the tiles for one picture size."""

    def __init__(
        self, spec: ModelSpec, limits: SizeLimits | None, height: int, width: int, buffers: bool = True
    ) -> None:
        """limits: the engine's, where it has some. buffers: whether to allocate; without, only `pad_into` and `crop` work,
        on memory of the caller's. Raises ShapeError for a picture that the engine neither holds nor can be cut for.
        """
        self._border = spec.border
        self._scale = spec.scale
        self._padded_size = spec.size.padded(height + 2 * spec.border, width + 2 * spec.border)
        self._crop = self._scaled(spec.border, spec.border, height, width)
        self._tiles: list[tuple[Span, Span]] = []
        self._window = self._padded_size
        if limits:
            self._fit(limits, spec, height, width)
        elif self._padded_size[0] * self._padded_size[1] > WHOLE_PIXELS and spec.receptive_field is not None:
            overlap = spec.size.round_up(spec.receptive_field)
            # A window that is mostly overlap would compute everything several times.
            side = spec.size.round_up(max(TILE, 4 * overlap))
            self._plan_tiles((min(side, self._padded_size[0]), min(side, self._padded_size[1])), overlap)
        self._direct = self._padded_size == (height, width)
        if not buffers:
            return
        if not self._direct:
            self._padded = np.empty((*self._padded_size, 3), np.uint8)
            self._result = np.empty(self._scaled_shape(self._padded_size), np.uint8)
        if self._tiles:
            self._tile = np.empty((*self._window, 3), np.uint8)
            self._tile_result = np.empty(self._scaled_shape(self._window), np.uint8)

    @property
    def padded_size(self) -> tuple[int, int]:
        return self._padded_size

    @property
    def tiled(self) -> bool:
        return bool(self._tiles)

    def pad_into(self, padded: np.ndarray, image: np.ndarray) -> None:
        """Write what the network sees of the picture: uint8 (*padded_size, 3)."""
        if self._direct:
            padded[...] = image
        else:
            reflect_into(padded, image, self._border, self._border)

    def crop(self, result: np.ndarray) -> np.ndarray:
        """The picture's own part of the network's result, as a view."""
        return result[self._crop]

    def run(self, graph: Backend, image: np.ndarray, out: np.ndarray, extra: tuple[np.ndarray, ...]) -> None:
        """Pad, compute, crop into `out`."""
        if self._direct:
            image = np.ascontiguousarray(image)
        else:
            reflect_into(self._padded, image, self._border, self._border)
        self.compute(graph, image, out, extra)
        if not self._direct:
            out[...] = self._result[self._crop]

    def compute(self, graph: Backend, image: np.ndarray, out: np.ndarray, extra: tuple[np.ndarray, ...]) -> None:
        """The graph's part: in one piece or in tiles, on the padded picture that `run` has left."""
        if not self._direct:
            image, out = self._padded, self._result
        self._run_pieces(graph, image, out, extra)

    def _run_pieces(self, graph: Backend, image: np.ndarray, out: np.ndarray, extra: tuple[np.ndarray, ...]) -> None:
        if not self._tiles:
            graph.run((image[None], *extra), out[None])
            return
        height, width = self._window
        for row, column in self._tiles:
            self._tile[...] = image[row.start : row.start + height, column.start : column.start + width]
            graph.run((self._tile[None], *extra), self._tile_result[None])
            kept = self._tile_result[
                self._scaled(row.keep_from - row.start, column.keep_from - column.start, *_kept(row, column))
            ]
            out[self._scaled(row.keep_from, column.keep_from, *_kept(row, column))] = kept

    def _fit(self, limits: SizeLimits, spec: ModelSpec, height: int, width: int) -> None:
        """Pad up to what the engine takes, or cut into windows of its largest size."""
        whole = limits.whole(*self._padded_size)
        if whole:
            self._padded_size = self._window = whole
            return
        if spec.receptive_field is None:
            raise limits.refusal(height, width, "this network cannot be cut into tiles")
        overlap = spec.size.round_up(spec.receptive_field)
        window = limits.window(*self._padded_size)
        padded = (max(self._padded_size[0], window[0]), max(self._padded_size[1], window[1]))
        # At least a quarter of a window must be new, or everything is computed again and again.
        if any(all_ > side and side < 2.5 * overlap for all_, side in zip(padded, window, strict=True)):
            raise limits.refusal(height, width, f"tiles of that size are mostly their overlap of {overlap}")
        self._padded_size = padded
        self._plan_tiles(window, overlap)

    def _plan_tiles(self, window: tuple[int, int], overlap: int) -> None:
        height, width = self._padded_size
        self._window = window
        self._tiles = [
            (row, column)
            for row in spans(height, self._window[0], overlap)
            for column in spans(width, self._window[1], overlap)
        ]

    def _scaled(self, top: int, left: int, height: int, width: int) -> tuple[slice, slice]:
        s = self._scale
        return slice(top * s, (top + height) * s), slice(left * s, (left + width) * s)

    def _scaled_shape(self, size: tuple[int, int]) -> tuple[int, int, int]:
        return size[0] * self._scale, size[1] * self._scale, 3


def _kept(row: Span, column: Span) -> tuple[int, int]:
    return row.keep_to - row.keep_from, column.keep_to - column.keep_from


def _open(source: Source, backend: str, device: int) -> Backend:
    if source.engine is None and source.graph.suffix != ".plan":
        return open_graph(source.graph, backend, device)
    return open_engine(source.graph, source.engine, backend, device, _rebuild(source))


def _open_context(source: Source, path: Path, backend: str, device: int) -> Backend:
    if source.context_engine is None:
        return open_graph(path, backend, device)
    return open_engine(path, source.context_engine, backend, device, _rebuild(source))


def _rebuild(source: Source) -> str:
    """The command that builds another engine, without its --size."""
    name = str(source.engine.spec.get("name", source.path)) if source.engine else str(source.path)
    return f"impasto build {source.path if source.manifest else name} --precision {source.precision}"


def _describe(graph: Backend, source: Source, pixels: Pixels | None) -> tuple[Backend, ModelSpec]:
    """The graph, adapted where a stranger made it, and its spec from the manifest, its own metadata or the sidecar."""
    canonical = graph.inputs[0].dtype == np.uint8 and graph.inputs[0].shape[3:] == (3,)
    if graph.limits and source.engine is None and source.graph.suffix == ".plan":
        return graph, _measured(graph, graph.limits, source.graph)
    if source.engine:
        return graph, ModelSpec.from_json(source.engine.spec, str(source.graph))
    if source.manifest:
        if not canonical:
            raise BackendError(f"{source.graph} takes {graph.inputs[0]}; a package's graph takes uint8 (?, ?, ?, 3)")
        return graph, source.manifest.spec
    if SPEC_KEY in graph.metadata:
        import json

        return graph, ModelSpec.from_json(json.loads(graph.metadata[SPEC_KEY]), str(source.graph))
    sidecar = source.sidecar
    if not canonical:
        pixels = pixels or (sidecar.pixels if sidecar else None)
        if pixels is None:
            raise BackendError(
                f"{source.graph} takes {graph.inputs[0]} and does not say how pixels are laid out in it; "
                f"load it with layout='rgb 0..1' ('bgr 0..255', 'rgb -1..1', …), or write that into "
                f'{source.graph.with_suffix(".json").name}: {{"layout": "rgb 0..1"}}'
            )
        graph = PixelAdapter(graph, pixels)
    described = sidecar.described if sidecar else {}
    spec = ModelSpec.from_json({"name": source.graph.stem, **described}, str(source.graph))
    return graph, _probe(graph, spec)


def _probe(graph: Backend, spec: ModelSpec) -> ModelSpec:
    """Complete a stranger's spec by one run on a small picture: fixed size, and output side / input side."""
    _, height, width, _ = graph.inputs[0].shape
    size = replace(spec.size, fixed=(height, width)) if height and width else spec.size
    height, width = size.padded(64, 64)
    shape = graph.measure((np.zeros((1, height, width, 3), np.uint8),))
    if shape[1] % height or shape[1] // height != shape[2] / width:
        raise BackendError(
            f"the graph turns {height} x {width} into {shape[1]} x {shape[2]}; expected one whole scale factor "
            '(if the graph needs sizes of a certain multiple, say so in a sidecar: {"multiple": 8})'
        )
    return replace(spec, size=size, scale=shape[1] // height)


def _measured(graph: Backend, limits: SizeLimits, path: Path) -> ModelSpec:
    """What can be known of a trusted engine without a record: its scale."""
    if len(graph.inputs) != 1 or graph.inputs[0].dtype != np.uint8 or graph.inputs[0].shape[3:] != (3,):
        raise BackendError(f"{path} takes {', '.join(map(str, graph.inputs))}; pictures are one uint8 (?, ?, ?, 3)")
    height, width = limits.ranges[0][0]
    shape = graph.measure((np.zeros((graph.inputs[0].shape[0] or 1, height, width, 3), np.uint8),))
    return ModelSpec(path.stem, scale=max(shape[1] // height, 1))


def _tiling_text(spec: ModelSpec, limits: SizeLimits | None) -> str:
    if spec.receptive_field is None:
        return "never: the network looks at the whole picture, or its receptive field is unknown"
    if limits:
        held = " or ".join(f"{high[0]} x {high[1]}" for _, high in limits.ranges)
        return f"pictures that with their border exceed {held}, in windows of that size overlapping by {spec.receptive_field}"
    return f"above {WHOLE_PIXELS:,} pixels, windows of {TILE} or more overlapping by {spec.receptive_field}"
