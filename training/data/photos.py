"""Photos to train on: decoded once, kept as bytes on the training device, cropped there by one gather for a whole batch."""

from __future__ import annotations

import hashlib
import itertools
import math
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from impasto import images
from impasto.errors import PictureError, TrainingError
from impasto.training.loop.processes import ALONE, Processes

MEMORY = 8 << 30
"""Bytes of decoded photos that are accepted; more would not fit beside the training itself on common devices."""


@dataclass(frozen=True)
class Photos:
    """Decoded photos and what became of the files."""

    pictures: tuple[np.ndarray, ...]
    """uint8, (H, W, 3) each."""
    names: tuple[str, ...]
    skipped: tuple[str, ...]
    """One line for each file that could not be used."""
    targets: tuple[np.ndarray, ...] = ()
    """What each picture is to become, uint8, (scale · H, scale · W, 3); empty where that is not said."""
    digests: tuple[str, ...] = ()
    """Of each file's pixels, before they were scaled, its target's too; empty for pictures that come from no files."""

    @property
    def scale(self) -> int:
        """Side of a target / side of its picture; 1 without targets."""
        return self.targets[0].shape[0] // self.pictures[0].shape[0] if self.targets else 1

    def first(self, count: int) -> Photos:
        """The first of them."""
        return self._take(lambda index: index < count)

    def split(self, held_out: float) -> tuple[Photos, Photos]:
        """(train, validation): files evenly spaced by name, such as every 20th, so that the split depends on nothing else.

        held_out: share for validation, 0 to below 1; at least one picture where it is above 0 and there are two, and at least one is
        left to train on.
        """
        count = len(self.names)
        if held_out == 0 or count < 2:
            return self, Photos((), (), ())
        # Multiples of 1/held_out, rounded down; what is added keeps 3 / 0.1 from being less than 30.
        places = (int(number / held_out + 1e-9) for number in range(count))
        chosen = set(itertools.islice((place for place in places if place < count), count - 1))
        return self._take(lambda index: index not in chosen), self._take(lambda index: index in chosen)

    def joined(self, other: Photos) -> Photos:
        """Both, this one's first; what was skipped is told once."""
        return Photos(
            self.pictures + other.pictures, self.names + other.names, self.skipped, digests=self.digests + other.digests
        )

    def scaled(self, longest: int, smallest: int) -> Photos:
        """The same photos, scaled down to `longest` pixels on their longer side as far as `smallest` on the shorter allows."""
        return replace(self, pictures=tuple(_scaled(picture, smallest, longest) for picture in self.pictures))

    def _take(self, wanted: Callable[[int], bool]) -> Photos:
        kept = [index for index in range(len(self.names)) if wanted(index)]
        return Photos(
            tuple(self.pictures[index] for index in kept),
            tuple(self.names[index] for index in kept),
            self.skipped,
            tuple(self.targets[index] for index in kept if self.targets),
            tuple(self.digests[index] for index in kept if self.digests),
        )


@dataclass(frozen=True)
class Split:
    """Which photos are for what; no file is in two of them."""

    train: Photos
    validation: Photos
    """To look at while training, and to choose by."""
    test: Photos | None
    """For one figure at the end; None where nobody asked for one."""


def read_photos(
    folder: str | os.PathLike[str],
    *,
    smallest: int,
    longest: int | None = None,
    enlarged_to: int | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Photos:
    """Decode a folder of photos in background threads; unusable files are skipped and listed.

    smallest: a photo with a shorter side below this is skipped. longest: larger photos are scaled down to this, Lanczos,
    as far as their shorter side allows. enlarged_to: the other way, a shorter side below this is enlarged to it.
    Raises PictureError for a folder without pictures, TrainingError where none of them can be used or they take more
    than MEMORY bytes.
    """
    files = images.list_folder(folder)
    pictures, names, digests, skipped, held = [], [], [], [], 0
    for file, result in _in_threads(lambda f: _decode(f, smallest, longest, enlarged_to), files, progress):
        if isinstance(result, str):
            skipped.append(result)
        else:
            pictures.append(result.pixels)
            names.append(file.name)
            digests.append(result.digest)
            held += _held(folder, held, result.pixels)
    if not pictures:
        raise TrainingError(f"none of the {len(files)} pictures in {folder} can be used; the first: {skipped[0]}")
    return Photos(tuple(pictures), tuple(names), tuple(skipped), digests=tuple(digests))


def read_folders(
    folders: Sequence[str | os.PathLike[str]],
    *,
    smallest: int,
    longest: int | None = None,
    enlarged_to: int | None = None,
) -> Photos:
    """The photos of several folders, as `read_photos` reads each; names say the folder where there are several.

    Raises TrainingError also where all together take more than MEMORY bytes, or two folders have the same name.
    """
    if len(folders) == 1:
        return read_photos(folders[0], smallest=smallest, longest=longest, enlarged_to=enlarged_to)
    if len({Path(folder).name for folder in folders}) < len(folders):
        raise TrainingError(
            f"two of the folders {', '.join(str(folder) for folder in folders)} have one name; rename one, or link to it"
        )
    photos, held = Photos((), (), ()), 0
    skipped: tuple[str, ...] = ()
    for folder in folders:
        found = read_photos(folder, smallest=smallest, longest=longest, enlarged_to=enlarged_to)
        held += _held(folder, held, *found.pictures)
        names = tuple(f"{Path(folder).name}/{name}" for name in found.names)
        photos, skipped = photos.joined(replace(found, names=names)), skipped + found.skipped
    return replace(photos, skipped=skipped)


def read_pairs(
    sources: str | os.PathLike[str],
    targets: str | os.PathLike[str],
    *,
    smallest: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Photos:
    """Decode two folders of which each picture has a partner of the same file stem in the other; broken pairs are skipped.

    A target has its source's size, or a whole multiple of it, the same for all. smallest: a pair whose source has a shorter side
    below this is skipped. Raises PictureError for a folder without pictures, TrainingError for names without a partner, for
    sizes that do not fit, where no pair can be used, and where they take more than MEMORY bytes.
    """
    files = _partners(Path(sources), Path(targets))
    pictures, wanted, names, digests, skipped, held = [], [], [], [], [], 0
    for (source, target), result in _in_threads(lambda pair: _decode_pair(*pair, smallest), files, progress):
        if isinstance(result, str):
            skipped.append(result)
            continue
        both = tuple(decoded.pixels for decoded in result)
        pictures.append(both[0])
        wanted.append(both[1])
        names.append(source.name)
        digests.append("-".join(decoded.digest for decoded in result))
        scale = _scale(source, target, *both)
        if scale != _scale(source, target, pictures[0], wanted[0]):
            raise TrainingError(
                f"{target} is {scale} times the size of {source}, unlike the pairs before it; sort them by size"
            )
        held += _held(sources, held, *both)
    if not pictures:
        raise TrainingError(f"none of the {len(files)} pairs in {sources} can be trained on; the first: {skipped[0]}")
    return Photos(tuple(pictures), tuple(names), tuple(skipped), tuple(wanted), tuple(digests))


class CropSampler:
    """Random square crops of photos, with random mirroring and quarter turns; a pure function of seed and step."""

    def __init__(
        self,
        photos: Photos,
        side: int,
        batch: int,
        device: torch.device,
        *,
        seed: int,
        turns: bool = False,
        around: int = 0,
        processes: Processes = ALONE,
    ) -> None:
        """side: of the crops. turns: quarter turns besides mirroring (photos of people and houses have an upside).

        batch: crops that are drawn for a step; of them, this process gets its part. around: pixels of surroundings on each
        side that come with a crop; beyond the photo's edges they are its reflection.
        """
        self._side, self._batch, self._seed, self._turns, self._around = side, batch, seed, turns, around
        self._part = processes.part(batch)
        self._stack = _Stack(photos.pictures, device)
        self._targets = _Stack(photos.targets, device) if photos.targets else None
        self._scale = photos.scale
        pixels = self._stack.heights * self._stack.widths
        # Large photos show more: they are drawn in proportion to their number of disjoint crops, within a factor of 4.
        weights = np.clip(pixels / np.median(pixels), 0.5, 2)
        self._chances = weights / weights.sum()

    def batch(self, step: int) -> Batch:
        """The crops of one step."""
        generator = np.random.default_rng([self._seed, step])
        photo = generator.choice(len(self._chances), self._batch, p=self._chances)
        # A photo smaller than a crop fills the rest of it with its reflection.
        top, left = (
            (generator.random(self._batch) * (np.maximum(lengths[photo] - self._side, 0) + 1)).astype(np.int64)
            for lengths in (self._stack.heights, self._stack.widths)
        )
        mirrored = generator.random(self._batch) < 0.5
        turned = generator.random(self._batch) < (0.5 if self._turns else 0)
        places = _Places(*(drawn[self._part] for drawn in (photo, top, left, mirrored, turned)))
        targets = None
        if self._targets is not None:
            scale = self._scale
            targets = self._targets.cut(places.scaled(scale), scale * self._side, scale * self._around)
        crops = self._stack.cut(places, self._side, self._around)
        return Batch(crops, torch.from_numpy(places.photo), torch.from_numpy(places.mirrored), targets)


class WholeSampler:
    """Whole photos at random sizes, with random mirroring; a pure function of seed and step.

    A batch has one size, so each photo is cut to the largest middle part of 4:3, or of 3:4 where the batch's first photo stands
    upright.
    """

    def __init__(
        self,
        photos: Photos,
        sides: tuple[int, int],
        batch: int,
        device: torch.device,
        *,
        seed: int,
        multiple: int,
        around: int = 0,
        processes: Processes = ALONE,
    ) -> None:
        """sides: the shortest and longest of a picture's longer side, in pixels. multiple: of the sides that are drawn, and 16 at
        least. around: pixels of each picture's reflection on each side, as the runtime puts them there.
        """
        if not 64 <= sides[0] <= sides[1]:
            raise TrainingError(
                f"whole pictures of {sides[0]} to {sides[1]} pixels: wanted 64 or more, the smaller number first"
            )
        self._sides, self._batch, self._seed, self._around = sides, batch, seed, around
        self._multiple, self._part = math.lcm(16, multiple), processes.part(batch)
        self._stack = _Stack(photos.pictures, device)

    def batch(self, step: int) -> Batch:
        """The pictures of one step."""
        generator = np.random.default_rng([self._seed, step])
        photo = generator.choice(len(self._stack.heights), self._batch)
        mirrored = generator.random(self._batch) < 0.5
        longest = generator.uniform(*self._sides)
        long, short = (max(1, round(side / self._multiple)) * self._multiple for side in (longest, 0.75 * longest))
        upright = self._stack.heights[photo[0]] > self._stack.widths[photo[0]]
        size = (long, short) if upright else (short, long)
        photo, mirrored = photo[self._part], mirrored[self._part]
        pictures = [self._picture(int(number), size) for number in photo]
        flipped = [picture.flip(2) if turn else picture for picture, turn in zip(pictures, mirrored, strict=True)]
        whole = F.pad(torch.stack(flipped), (self._around,) * 4, mode="reflect").round().clamp(0, 255).to(torch.uint8)
        return Batch(whole, torch.from_numpy(photo), torch.from_numpy(mirrored))

    def _picture(self, number: int, size: tuple[int, int]) -> Tensor:
        """A photo's largest middle part of this shape at this size: (3, *size), levels of 255, float."""
        pixels = self._stack.picture(number)
        height, width = pixels.shape[1:]
        share = min(height / size[0], width / size[1])
        cut = [max(1, round(side * share)) for side in size]
        top, left = (height - cut[0]) // 2, (width - cut[1]) // 2
        part = pixels[None, :, top : top + cut[0], left : left + cut[1]].float()
        return F.interpolate(part, size=size, mode="bilinear", antialias=True)[0]


@dataclass(frozen=True)
class _Places:
    """Where crops lie: arrays, one entry for each crop."""

    photo: np.ndarray
    top: np.ndarray
    left: np.ndarray
    mirrored: np.ndarray
    turned: np.ndarray

    def scaled(self, scale: int) -> _Places:
        """The same places in pictures of so many times the size."""
        return replace(self, top=scale * self.top, left=scale * self.left)


class _Stack:
    """The pixels of all pictures in one row on the device, so that one gather cuts a whole batch."""

    def __init__(self, pictures: Sequence[np.ndarray], device: torch.device) -> None:
        shapes = np.array([picture.shape[:2] for picture in pictures], dtype=np.int64)
        self.heights, self.widths = shapes[:, 0], shapes[:, 1]
        self._starts = np.concatenate([[0], np.cumsum(shapes.prod(1))[:-1]])
        self._pixels = torch.from_numpy(np.concatenate([picture.reshape(-1, 3) for picture in pictures])).to(device)

    def picture(self, number: int) -> Tensor:
        """One whole picture: uint8 (3, H, W)."""
        start, height, width = (int(of[number]) for of in (self._starts, self.heights, self.widths))
        return self._pixels[start : start + height * width].view(height, width, 3).permute(2, 0, 1)

    def cut(self, at: _Places, side: int, around: int) -> Tensor:
        """uint8 crops, (N, 3, side + 2 around, side + 2 around), channels-last in memory."""
        device, photo = self._pixels.device, at.photo
        places = np.arange(-around, side + around)
        rows = _reflected(at.top[:, None] + places, self.heights[photo, None])
        columns = _reflected(at.left[:, None] + places, self.widths[photo, None])
        columns[at.mirrored] = columns[at.mirrored, ::-1]
        rows = self._starts[photo, None] + rows * self.widths[photo, None]
        # One offset into all pixels per row and one per column; a quarter turn (with a mirroring) swaps the two.
        down, across = (torch.from_numpy(offsets).to(device) for offsets in (rows, columns))
        index = down[:, :, None] + across[:, None, :]
        turn = torch.from_numpy(at.turned).to(device)
        index = torch.where(turn[:, None, None], index.mT, index)
        return self._pixels[index].permute(0, 3, 1, 2)


@dataclass(frozen=True)
class Batch:
    """Crops of one step."""

    crops: Tensor
    """uint8, (N, 3, side + 2 around, side + 2 around), channels-last in memory; whole photos have a height and a width."""
    photo: Tensor
    """int64, (N,), on the CPU: which photo each is from."""
    mirrored: Tensor
    """bool, (N,), on the CPU."""
    targets: Tensor | None = None
    """What the crops are to become, where the photos have targets: uint8, (N, 3, S, S), S = scale (side + 2 around)."""


def thumbnails(photos: Photos, side: int, device: torch.device) -> Tensor:
    """Every photo's thumbnail and its mirror image: uint8, (2, photos, 3, side, side)."""
    small = np.stack([images.thumbnail(picture, side) for picture in photos.pictures])
    both = np.stack([small, small[:, :, ::-1]])
    return torch.from_numpy(np.ascontiguousarray(both)).to(device).permute(0, 1, 4, 2, 3)


def thumbnails_of(pictures: Tensor, side: int) -> Tensor:
    """Of whole photos on the device: uint8 (N, 3, H, W) to uint8 (N, 3, side, side), means of areas as the runtime's."""
    return F.interpolate(pictures.float(), size=(side, side), mode="area").round().to(torch.uint8)


def inside(pictures: Tensor, around: int) -> Tensor:
    """(N, C, H, W) without so many pixels at each edge."""
    height, width = pictures.shape[2:]
    return pictures[..., around : height - around, around : width - around]


def _reflected(places: np.ndarray, length: np.ndarray) -> np.ndarray:
    """Places outside of 0 … length - 1, mirrored at the ends as often as it takes; the end itself is not repeated."""
    period = np.maximum(2 * (length - 1), 1)
    places = places % period
    return np.minimum(places, period - places)


Item = TypeVar("Item")
Result = TypeVar("Result")


def _in_threads(
    work: Callable[[Item], Result], items: Sequence[Item], progress: Callable[[int, int], None]
) -> Iterator[tuple[Item, Result]]:
    """Each item with what `work` makes of it, in order."""
    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        for done, pair in enumerate(zip(items, pool.map(work, items), strict=True), 1):
            progress(done, len(items))
            yield pair


def _held(folder: str | os.PathLike[str], before: int, *pictures: np.ndarray) -> int:
    """Bytes of pictures. Raises TrainingError where they are too many with those before."""
    bytes_more = sum(picture.nbytes for picture in pictures)
    if before + bytes_more > MEMORY:
        raise TrainingError(
            f"the pictures in {folder} take more than {MEMORY >> 30} GiB decoded; use fewer or smaller ones"
        )
    return bytes_more


def _partners(sources: Path, targets: Path) -> list[tuple[Path, Path]]:
    """Files of equal stems, sorted. Raises TrainingError where one has no partner, or several."""
    by_stem = [_by_stem(images.list_folder(folder)) for folder in (sources, targets)]
    lone = [sorted(by_stem[i].keys() - by_stem[1 - i].keys()) for i in range(2)]
    if lone[0] or lone[1]:
        parts = [
            f"{len(stems)} of {folder} (such as {by_stem[i][stems[0]].name}) without a partner in {other}"
            for i, (stems, folder, other) in enumerate(zip(lone, (sources, targets), (targets, sources), strict=True))
            if stems
        ]
        raise TrainingError(
            f"{' and '.join(parts)}; give both pictures of a pair the same name, or move the others away"
        )
    return [(by_stem[0][stem], by_stem[1][stem]) for stem in sorted(by_stem[0])]


def _by_stem(files: Sequence[Path]) -> dict[str, Path]:
    found = {file.stem: file for file in files}
    if len(found) < len(files):
        first = next(file for file in files if found[file.stem] != file)
        raise TrainingError(f"{first} and {found[first.stem].name} have the same name but for its ending; remove one")
    return found


def digest(pixels: np.ndarray) -> str:
    """A name for a picture by its pixels, 32 hexadecimal digits; another size is another picture. pixels: uint8 (H, W, 3)."""
    made = hashlib.blake2b(str(pixels.shape).encode(), digest_size=16)
    made.update(np.ascontiguousarray(pixels).data)
    return made.hexdigest()


@dataclass(frozen=True)
class _Decoded:
    """A file's picture."""

    pixels: np.ndarray
    """uint8 (H, W, 3), at the size that was asked for."""
    digest: str
    """Of the pixels at the file's own size."""


def _decode_pair(source: Path, target: Path, smallest: int) -> tuple[_Decoded, _Decoded] | str:
    """Both pictures, or why not."""
    one, other = _decode(source, smallest, None, None), _decode(target, smallest, None, None)
    for result in (one, other):
        if isinstance(result, str):
            return result
    return one, other  # type: ignore[return-value]


def _scale(source: Path, target: Path, one: np.ndarray, other: np.ndarray) -> int:
    (height, width), (high, wide) = one.shape[:2], other.shape[:2]
    scale = high // height
    if scale < 1 or (high, wide) != (scale * height, scale * width):
        raise TrainingError(
            f"{source} is {height} x {width} and {target} {high} x {wide}; a target has its source's size or a multiple of it"
        )
    return scale


def _decode(file: Path, smallest: int, longest: int | None, enlarged_to: int | None) -> _Decoded | str:
    """The picture, or why not."""
    try:
        rgb = images.read(file).rgb
    except PictureError as error:
        return str(error)
    shorter = min(rgb.shape[:2])
    if shorter < smallest:
        return f"{file} is {rgb.shape[0]} x {rgb.shape[1]}; a side of at least {smallest} is needed"
    name = digest(rgb)
    if enlarged_to and shorter < enlarged_to:
        return _Decoded(_resized(rgb, enlarged_to / shorter), name)
    return _Decoded(_scaled(rgb, enlarged_to or smallest, longest) if longest else rgb, name)


def _scaled(rgb: np.ndarray, smallest: int, longest: int) -> np.ndarray:
    factor = max(longest / max(rgb.shape[:2]), smallest / min(rgb.shape[:2]))
    return rgb if factor >= 1 else _resized(rgb, factor)


def _resized(rgb: np.ndarray, factor: float) -> np.ndarray:
    from PIL import Image

    size = (round(rgb.shape[1] * factor), round(rgb.shape[0] * factor))
    return np.asarray(Image.fromarray(rgb).resize(size, Image.Resampling.LANCZOS))
