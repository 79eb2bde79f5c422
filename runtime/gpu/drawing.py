"""Draws pictures that are on the GPU and stay there."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any

import numpy as np

from impasto.errors import BackendError, KernelError, ShapeError
from impasto.kernels import cuda_driver, frames
from impasto.kernels.frames import VALUE_BYTES, Picture
from impasto.runtime.backends.base import Backend, DeviceFrames
from impasto.runtime.inference.context import ChosenStrength, ContextGraph, ContextSource
from impasto.runtime.inference.tile_plan import Size, TilePlan

from .arrays import GpuView, require_matrix, view
from .result import GpuArray

KEPT_SIZES = 4
"""Number of input sizes whose graph's memory is kept. The sizes used longest ago are dropped."""
_ALIGNMENT = 256
"""Addresses that an engine is given are multiples of this, in bytes, as `cudaMalloc`'s are."""


class GpuDrawing:
    """A model's way to draw pictures on the GPU. Not thread-safe."""

    def __init__(
        self,
        backend: Backend,
        context_source: ContextSource | None,
        graph: Callable[[str], Backend],
        plan: Callable[[int, int, str], TilePlan],
    ) -> None:
        """backend: the model's. graph: the graph that draws pictures of a dtype. plan: of a picture's height, width and dtype.

        Both functions raise for pictures that are not drawn on the GPU.

        Raises BackendError if the backend takes no pictures from a GPU.
        """
        self._backend = backend
        self._context_source = context_source
        self._graph = graph
        self._plan = plan
        self._device = backend.require_gpu()
        self._frames: OrderedDict[tuple[Backend, Size], DeviceFrames] = OrderedDict()
        self._room = self._thumbnail = 0
        self._room_bytes = 0
        with _translated(), self._backend.gpu_active():
            self._entry = cuda_driver.new_stream()

    def drawn(self, image: Any, stream: int | None, nv12: str | None) -> GpuArray:
        """The drawing of a picture, in new memory and of the picture's form. Raises ShapeError, OptionError, BackendError."""
        require_matrix(nv12)
        with _translated(), self._backend.gpu_active():
            source = view(image, "the picture", self._device, self._entry, nv12)
            with _released(source):
                picture = source.picture
                plan = self._plan(picture.height, picture.width, picture.dtype)
                height, width, _ = plan.result_shape(plan.size)
                rows = height * 3 // 2 if picture.matrix else height
                flat = picture.matrix or picture.channels == 1
                result = GpuArray((rows, width) if flat else (rows, width, 3), picture.dtype, self._device)
                target = view(result, "the result", self._device, self._entry, nv12)
                result.stream = self._draw(plan, source, target, [stream, source.named])
        return result

    def draw_into(self, image: Any, out: Any, stream: int | None, nv12: str | None) -> None:
        """Draw a picture into `out`, which is on the GPU too. Raises ShapeError, OptionError, BackendError."""
        require_matrix(nv12)
        with _translated(), self._backend.gpu_active():
            source = view(image, "the picture", self._device, self._entry, nv12)
            with _released(source):
                plan = self._plan(source.picture.height, source.picture.width, source.picture.dtype)
                target = view(out, "out", self._device, self._entry, nv12)
                with _released(target):
                    _check_target(target, source.picture, plan)
                    streams = [source.named, target.named]
                    self._draw(plan, source, target, [stream] if None in streams else [stream, *streams])

    def draw_from_host(self, image: np.ndarray, out: np.ndarray) -> None:
        """Draw a picture of the host's memory, which is copied to the GPU and back in its own dtype. out: C-contiguous.

        Raises ShapeError, BackendError.
        """
        with _translated(), self._backend.gpu_active():
            given, drawn = (GpuArray(each.shape, each.dtype.name, self._device) for each in (image, out))
            packed = np.ascontiguousarray(image)
            cuda_driver.copy_to_device(given.pointer, packed.ctypes.data, packed.nbytes, self._entry)
            given.stream = self._entry  # which the drawing waits for
            source, target = (view(each, "the picture", self._device, self._entry, None) for each in (given, drawn))
            picture = source.picture
            self._draw(self._plan(picture.height, picture.width, picture.dtype), source, target, [])
            cuda_driver.copy_to_host(out.ctypes.data, drawn.pointer, out.nbytes, self._entry)

    def close(self) -> None:
        """Wait for the GPU and free all memory."""
        for each in self._frames.values():
            each.close()
        self._frames.clear()
        with suppress(KernelError), self._backend.gpu_active():
            for pointer in filter(None, (self._room, self._thumbnail)):
                cuda_driver.free(pointer)
            cuda_driver.destroy_stream(self._entry)
        self._room = self._thumbnail = 0

    def _draw(self, plan: TilePlan, source: GpuView, target: GpuView, streams: list[int | None]) -> int | None:
        """Draw after the arrays' streams. The caller's `streams` wait for the drawing; without any, this call does.

        Returns one of the streams that wait, or None if the drawing is there.
        """
        backend = self._graph(source.picture.dtype)
        drawing = self._frames_for(backend, plan)
        waiting = list(dict.fromkeys(each for each in streams if each is not None))
        try:
            for running in {*waiting, *(each for each in (source.ready, target.ready) if each is not None)}:
                cuda_driver.wait_for(running, drawing.stream)
            self._run(backend, plan, drawing, source.picture, target.picture)
            for each in waiting:
                cuda_driver.wait_for(drawing.stream, each)
            if not waiting:
                drawing.wait()
        except BaseException:
            # The arrays may be freed as soon as this call ends, so no work on them may be left.
            with suppress(BackendError, KernelError):
                self._frames.pop((backend, plan.window), drawing).close()
            raise
        return waiting[0] if waiting else None

    def _run(self, backend: Backend, plan: TilePlan, drawing: DeviceFrames, source: Picture, target: Picture) -> None:
        backend.require_open()
        if isinstance(self._context_source, ChosenStrength) and self._context_source.value == 0:
            self._copy(source, target, drawing.stream)
            return
        extra = self._extra(backend, source, drawing.stream)
        if plan.tiled:
            self._run_tiles(plan, drawing, extra, source, target)
            return
        # Without a border the graph reads and writes the caller's memory. With one, it is reflected and cropped on the way.
        own = plan.padded or _overlap(source, target)
        read_here = not own and _is_packed(source)
        write_here = not own and _is_packed(target)
        window, result = _window(drawing, plan, source)
        if not read_here:
            frames.read_window(source, window, -plan.border, -plan.border, drawing.stream)
        drawing.begin(extra, source.pointer if read_here else 0, target.pointer if write_here else 0)
        if not write_here:
            edge = plan.border * plan.scale
            frames.write_part(_part(result, edge, edge, target.height, target.width), target, 0, 0, drawing.stream)

    def _run_tiles(
        self, plan: TilePlan, drawing: DeviceFrames, extra: tuple[np.ndarray, ...], source: Picture, target: Picture
    ) -> None:
        # A later tile reads pixels that an earlier one would have overwritten, and ends of tiles may lie within a pair of chroma.
        through_room = _overlap(source, target) or target.matrix is not None
        room = self._rgb_room(target) if through_room else target
        window, result = _window(drawing, plan, source)
        scale = plan.scale
        for row, column in plan.tiles:
            frames.read_window(source, window, row.start - plan.border, column.start - plan.border, drawing.stream)
            drawing.begin(extra)
            top, height = _kept(row.keep_from, row.keep_to, plan.border, plan.size[0])
            left, width = _kept(column.keep_from, column.keep_to, plan.border, plan.size[1])
            if height > 0 and width > 0:
                inside = (top - row.start) * scale, (left - column.start) * scale
                part = _part(result, *inside, height * scale, width * scale)
                at = (top - plan.border) * scale, (left - plan.border) * scale
                frames.write_part(part, room, *at, drawing.stream)
        if through_room:
            frames.write_part(room, target, 0, 0, drawing.stream)

    def _copy(self, source: Picture, target: Picture, stream: int) -> None:
        """The picture itself. NV12 goes through RGB, which rounds it; 16 bits and float32 go through float32, which is exact."""
        if source.matrix or source.dtype != "uint8":
            room = self._rgb_room(source)
            frames.read_window(source, room, 0, 0, stream)
            source = room
        frames.write_part(source, target, 0, 0, stream)

    def _extra(self, backend: Backend, source: Picture, stream: int) -> tuple[np.ndarray, ...]:
        """The graph's inputs after the picture. A thumbnail is made on the GPU, and copied to the host: it has a few KB."""
        chosen = self._context_source
        if chosen is None:
            return ()
        small = np.zeros((1, 1, 3), np.uint8)
        if isinstance(chosen, ContextGraph):
            small = np.empty((chosen.side, chosen.side, 3), np.uint8)
            self._thumbnail = self._thumbnail or cuda_driver.allocate(small.nbytes)
            frames.write_thumbnail(source, _rgb(self._thumbnail, *small.shape[:2], "uint8"), stream)
            cuda_driver.copy_to_host(small.ctypes.data, self._thumbnail, small.nbytes, stream)
        context = chosen.of_picture(small)  # a thumbnail's thumbnail is itself
        backend.inputs[1].check(context)
        return (context,)

    def _rgb_room(self, like: Picture) -> Picture:
        """Memory for a whole picture of this size, as a graph has it, valid until the next call."""
        room = _rgb(0, like.height, like.width, _graph_dtype(like))
        needed = room.nbytes
        if needed > self._room_bytes:
            if self._room:
                cuda_driver.free(self._room)  # waits for work on it
            self._room = self._room_bytes = 0
            self._room = cuda_driver.allocate(needed)
            self._room_bytes = needed
        return replace(room, pointer=self._room)

    def _frames_for(self, backend: Backend, plan: TilePlan) -> DeviceFrames:
        made = (backend, plan.window)
        found = self._frames.pop(made, None)
        if found is None:
            others = (tuple(size or 1 for size in spec.shape) for spec in backend.inputs[1:])
            shapes = ((1, *plan.window, 3), *others)
            found = backend.device_frames(shapes, (1, *plan.result_shape(plan.window)))
        self._frames[made] = found
        if len(self._frames) > KEPT_SIZES:
            self._frames.popitem(last=False)[1].close()
        return found


@contextmanager
def _translated() -> Iterator[None]:
    """Turn the driver's errors into BackendError."""
    try:
        yield
    except KernelError as error:
        raise BackendError(f"a picture on the GPU cannot be drawn: {error}") from error


@contextmanager
def _released(viewed: GpuView) -> Iterator[None]:
    try:
        yield
    finally:
        viewed.release()


def _check_target(target: GpuView, source: Picture, plan: TilePlan) -> None:
    height, width, _ = plan.result_shape(plan.size)
    picture = target.picture
    if picture.dtype != source.dtype or (picture.dtype != "uint8" and picture.channels != source.channels):
        raise ShapeError(f"out is {_form(picture)}, and the picture {_form(source)}; wanted both of one dtype and form")
    if (picture.height, picture.width) != (height, width):
        raise ShapeError(
            f"out is {_form(picture)} of {picture.height} x {picture.width} pixels; wanted {height} x {width} for this picture"
        )
    if not target.writable:
        raise ShapeError("out is read-only; wanted a writable array")


def _form(picture: Picture) -> str:
    """What an array is, for a message: "RGB", "NV12", "gray of uint16"."""
    if picture.dtype == "uint8":
        return "NV12" if picture.matrix else "RGB"
    return f"{'gray' if picture.channels == 1 else 'RGB'} of {picture.dtype}"


def _graph_dtype(picture: Picture) -> str:
    """What the graph takes that draws the picture: one with float ends draws all that is not uint8."""
    return "uint8" if picture.dtype == "uint8" else "float32"


def _window(drawing: DeviceFrames, plan: TilePlan, source: Picture) -> tuple[Picture, Picture]:
    """The graph's own input and output."""
    dtype = _graph_dtype(source)
    return (
        _rgb(drawing.window, *plan.window, dtype),
        _rgb(drawing.result, *plan.result_shape(plan.window)[:2], dtype),
    )


def _rgb(pointer: int, height: int, width: int, dtype: str) -> Picture:
    return Picture(pointer, width * 3 * VALUE_BYTES[dtype], height, width, None, dtype)


def _part(picture: Picture, top: int, left: int, height: int, width: int) -> Picture:
    """A rectangle of an RGB picture, on the same memory."""
    return replace(
        picture,
        pointer=picture.pointer + top * picture.row_bytes + left * picture.pixel_bytes,
        height=height,
        width=width,
    )


def _kept(start: int, stop: int, border: int, length: int) -> tuple[int, int]:
    """The positions of the padded picture that lie inside the picture: the first of these, and how many."""
    first, end = max(start, border), min(stop, border + length)
    return first, end - first


def _is_packed(picture: Picture) -> bool:
    """Whether a graph can read and write the picture where it lies."""
    as_the_graph = picture.matrix is None and picture.channels == 3 and picture.dtype == _graph_dtype(picture)
    return (
        as_the_graph and picture.row_bytes == picture.width * picture.pixel_bytes and picture.pointer % _ALIGNMENT == 0
    )


def _overlap(one: Picture, other: Picture) -> bool:
    return one.pointer < other.pointer + other.nbytes and other.pointer < one.pointer + one.nbytes
