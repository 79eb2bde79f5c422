"""The pictures that precision is found and judged on: some to calibrate, others that are held out to judge by."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from impasto import images
from impasto.errors import MissingDependency, OptionError, PictureError, install
from impasto.package.spec import ModelSpec
from impasto.runtime.backends import open_graph
from impasto.runtime.inference.context import ChosenStrength, ContextGraph, ContextSource
from impasto.runtime.inference.padding import reflect_into
from impasto.styles import mixture, painted

Feed = dict[str, np.ndarray]
"""A graph's inputs for one picture, by name."""

MOST = 32
"""Pictures used of a folder, spread evenly over its names."""
LEAST = 4
"""Fewer say nothing about pictures in general."""
HELD_OUT = 4
"""Every one of so many is kept to judge by."""
WHOLE = 6
"""Held-out pictures drawn whole at the end."""
STRENGTHS = 5
"""Number of strengths of a damage, from a fifth of the worst to the worst, in turn. It has no divisor in common with HELD_OUT, so that
the pictures to judge by go through all of them."""
CROP = 256
"""Side of the pieces that ranges are calibrated and layers compared on."""
LARGEST = 1280
"""Side of the middle part that stands for a larger picture."""
LEAST_SIDE = 11
"""The least side of a drawing that can be judged, in pixels: that of SSIM's window."""
MARGIN = 384
"""Around LARGEST, what of a larger picture is damaged: that takes minutes where photos come from a camera, and no damage reaches
further."""
AS_THEY_ARE = "none"
"""Written in place of a damage: the pictures are what the model will be given."""
_TRAINED_ON = {"denoise": "noise:0-55"}
"""Damage that models of a task were trained on, where their recipe does not say it."""


@dataclass(frozen=True)
class JudgedPicture:
    """A picture as a graph takes it, and where the picture lies in what the graph gives."""

    feed: Feed
    inside: tuple[slice, slice]
    truth: np.ndarray | None
    """What a restorer should give: uint8 (H, W, 3) of the picture that was damaged; None where nobody knows."""
    style: str | None
    """The one it is drawn in, by a network of several."""


@dataclass(frozen=True)
class Pictures:
    """What `read_pictures` found."""

    calibration: tuple[Feed, ...]
    """Pieces of most of the pictures."""
    judged: tuple[JudgedPicture, ...]
    """Pieces of the held-out ones."""
    whole: tuple[JudgedPicture, ...]
    """Held-out ones as a whole."""
    extremes: tuple[JudgedPicture, ...]
    """Black, white, single colours, a checkerboard and noise of one level."""
    used: int
    skipped: tuple[str, ...]
    """Why files of the folder were left out, one line each."""
    damage: str
    """What was done to them first, as `impasto.training.degrade.parse` reads it, or AS_THEY_ARE."""

    @property
    def truth(self) -> bool:
        """Whether it is known what the model should make of them."""
        return all(picture.truth is not None for picture in self.whole)


def read_pictures(
    folder: str | os.PathLike[str],
    spec: ModelSpec,
    inputs: Sequence[str],
    context: Path | None,
    *,
    damage: str | None = None,
    recipe: dict[str, Any] | None = None,
) -> Pictures:
    """Read and cut the pictures of a folder for a model.

    inputs: the graph's, in their order. context: the context graph, where the model has one. damage: what a restorer undoes, such
    as "noise:0-55"; by default what its recipe says. Files that cannot be read are skipped, and those too small to judge by. One
    picture after the other, so that never two of a camera's are in memory.
    Raises PictureError for fewer than LEAST pictures, OptionError, MissingDependency for a damage without torch.
    """
    damage = damage or _damage_of(spec, recipe or {})
    spoil = _spoiler(damage, spec)
    files = images.list_folder(folder)
    pieces: list[JudgedPicture] = []
    whole: list[JudgedPicture] = []
    skipped = []
    with _Feeds(spec, inputs, context) as feeds:
        for number, file in enumerate(_spread(files, MOST)):
            try:
                picture = spoil(images.read(file).rgb, number)
                _require_judgeable(file, picture, spec)
            except PictureError as error:
                skipped.append(str(error))
                continue
            index = len(pieces)
            pieces.append(feeds.piece(picture, index))
            if _is_held_out(index) and len(whole) < WHOLE:
                whole.append(feeds.whole(picture, index))
        if len(pieces) < LEAST:
            raise PictureError(
                f"{folder} has {len(pieces)} pictures that can be used ({len(skipped)} skipped); calibration wants at least {LEAST}, "
                f"better {MOST}" + (f". The first that was skipped: {skipped[0]}" if skipped else "")
            )
        extremes = [feeds.piece(_Picture(rgb, None), index) for index, rgb in enumerate(extreme_pictures(CROP // 4))]
    calibration = [piece.feed for index, piece in enumerate(pieces) if not _is_held_out(index)]
    if spec.strength > 1:  # which moves what layers hold
        calibration += [feed | {inputs[1]: np.full((1, 1), spec.strength, np.float32)} for feed in calibration]
    return Pictures(
        calibration=tuple(calibration),
        judged=tuple(piece for index, piece in enumerate(pieces) if _is_held_out(index)),
        whole=tuple(whole),
        extremes=tuple(extremes),
        used=len(pieces),
        skipped=tuple(skipped),
        damage=damage,
    )


def _is_held_out(index: int) -> bool:
    return index % HELD_OUT == HELD_OUT - 1


def _require_judgeable(file: Path, picture: _Picture, spec: ModelSpec) -> None:
    """Raises PictureError for one whose drawing has no SSIM; it says nothing about pictures in general either."""
    if min(picture.given.shape[:2]) * spec.scale < LEAST_SIDE:
        height, width = picture.given.shape[:2]
        raise PictureError(
            f"{file}: {height} x {width} pixels are too few to judge by, {LEAST_SIDE} x {LEAST_SIDE} is the least"
        )


def extreme_pictures(side: int) -> list[np.ndarray]:
    """Black, white, three single colours, a checkerboard of single pixels, and noise of one level: uint8 (side, side, 3)."""
    colours = ((0, 0, 0), (255, 255, 255), (255, 0, 0), (0, 255, 0), (0, 0, 255))
    plain = [np.full((side, side, 3), colour, np.uint8) for colour in colours]
    board = np.indices((side, side)).sum(0) % 2 * np.uint8(255)
    noise = 128 + np.random.default_rng(0).integers(-1, 2, (side, side, 3))
    return [*plain, np.repeat(board[..., None], 3, 2).astype(np.uint8), noise.astype(np.uint8)]


@dataclass(frozen=True)
class _Picture:
    """uint8 (H, W, 3): what a model is given, and (H x scale, W x scale, 3) what it should make of it, where that is known."""

    given: np.ndarray
    truth: np.ndarray | None

    def cut(self, scale: int, top: int, left: int, height: int, width: int) -> _Picture:
        """The part of this rectangle that lies inside of `given`, with the same place of the truth."""
        rows, columns = slice(top, top + height), slice(left, left + width)
        given = np.ascontiguousarray(self.given[rows, columns])
        if self.truth is None:
            return _Picture(given, None)
        bottom, right = top + given.shape[0], left + given.shape[1]
        truth = self.truth[top * scale : bottom * scale, left * scale : right * scale]
        return _Picture(given, truth.copy())  # the rest of the picture may go


class _Feeds:
    """Makes a graph's inputs of pictures. Of a network with a strength the judgement of its own is asked for, which is 1."""

    def __init__(self, spec: ModelSpec, inputs: Sequence[str], context: Path | None) -> None:
        self._spec = spec
        self._inputs = inputs
        self._styles = painted(spec.styles)
        self._context: ContextSource | None = ChosenStrength() if spec.strength else None
        if context is not None and spec.thumbnail:
            backend = open_graph(context, "onnxruntime-cpu", 0)
            self._context = ContextGraph(backend, spec.thumbnail, mixture(spec.styles))
        self._random = np.random.default_rng(0)

    def __enter__(self) -> _Feeds:
        return self

    def __exit__(self, *_: object) -> None:
        if self._context:
            self._context.close()

    def whole(self, picture: _Picture, index: int) -> JudgedPicture:
        """The middle of a large picture, the thumbnail's too."""
        height, width = self._inside(self._spec.size.fixed or (LARGEST, LARGEST))
        top, left = (max(picture.given.shape[0] - height, 0) // 2, max(picture.given.shape[1] - width, 0) // 2)
        middle = picture.cut(self._spec.scale, top, left, height, width)
        return self._judged(middle, middle.given, index)

    def piece(self, picture: _Picture, index: int) -> JudgedPicture:
        """A seeded place in the picture; the whole of a small one."""
        sides = self._spec.size.fixed or (CROP, CROP)
        top, left = (
            int(self._random.integers(0, max(have - side, 0) + 1))
            for have, side in zip(picture.given.shape, sides, strict=False)
        )
        part = picture.cut(self._spec.scale, top, left, *self._inside(sides))
        return self._judged(part, picture.given, index)

    def _inside(self, sides: tuple[int, int]) -> tuple[int, int]:
        """What of a network's input of this height and width is picture, and not its border."""
        return max(sides[0] - 2 * self._spec.border, 1), max(sides[1] - 2 * self._spec.border, 1)

    def _judged(self, part: _Picture, picture: np.ndarray, index: int) -> JudgedPicture:
        border, scale = self._spec.border, self._spec.scale
        rows, columns = (slice(border * scale, (border + side) * scale) for side in part.given.shape[:2])
        # Calibrated and judged on each style in turn; of HELD_OUT pictures in one style, one is held out.
        style = self._styles[index // HELD_OUT % len(self._styles)] if self._styles else None
        return JudgedPicture(self._feed(part.given, picture, style), (rows, columns), part.truth, style)

    def _feed(self, part: np.ndarray, picture: np.ndarray, style: str | None) -> Feed:
        height, width = (side + 2 * self._spec.border for side in part.shape[:2])
        padded = np.empty((*self._spec.size.padded(height, width), 3), np.uint8)
        reflect_into(padded, part, self._spec.border, self._spec.border)
        feed = {self._inputs[0]: padded[None]}
        if isinstance(self._context, ContextGraph):
            self._context.mixture = mixture(self._spec.styles, style)
        if self._context:
            feed[self._inputs[1]] = self._context.of_picture(np.ascontiguousarray(picture)).copy()
        return feed


def _damage_of(spec: ModelSpec, recipe: dict[str, Any]) -> str:
    written = recipe.get("degradation")
    if spec.task == "stylize":
        return AS_THEY_ARE
    return written if isinstance(written, str) else _TRAINED_ON.get(spec.task, AS_THEY_ARE)


def _spoiler(damage: str, spec: ModelSpec) -> Callable[[np.ndarray, int], _Picture]:
    """A function that damages picture number i, from weak to strong in turn. Raises OptionError, MissingDependency."""
    if damage == AS_THEY_ARE:
        return lambda picture, index: _Picture(picture, None)
    try:
        from impasto.training import degrade
    except ImportError as error:
        raise MissingDependency(
            f"damaging pictures as {spec.name} was trained needs torch ({error}): {install('train')}, or give "
            f"pictures that are damaged already and say --degrade {AS_THEY_ARE}"
        ) from None
    kind = degrade.parse(damage)
    if kind.scale != spec.scale:
        raise OptionError(f"{damage} makes pictures smaller by {kind.scale}, and {spec.name} enlarges by {spec.scale}")

    def spoil(picture: np.ndarray, index: int) -> _Picture:
        picture = images.middle(picture, LARGEST * kind.scale + 2 * MARGIN)
        height, width = (side // kind.scale * kind.scale for side in picture.shape[:2])
        if not height or not width:
            raise PictureError(f"a picture of {picture.shape[0]} x {picture.shape[1]} is too small to be damaged")
        share = (index % STRENGTHS + 1) / STRENGTHS
        truth = np.ascontiguousarray(picture[:height, :width])
        return _Picture(degrade.damaged(truth, kind.at(share), index), truth)

    return spoil


def _spread(files: list[Path], most: int) -> list[Path]:
    if len(files) <= most:
        return files
    return [files[index * len(files) // most] for index in range(most)]
