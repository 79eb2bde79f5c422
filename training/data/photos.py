"""Photos to train on, decoded once."""

from __future__ import annotations

import hashlib
import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np

from impasto import images
from impasto.errors import PictureError, TrainingError

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
    """The digest of each file's pixels, before they were scaled, its target's too; empty for pictures that come from no files."""

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
        """The photos of both sets, this one's first; what was skipped is told once."""
        return Photos(
            self.pictures + other.pictures, self.names + other.names, self.skipped, digests=self.digests + other.digests
        )

    def scaled(self, longest: int, smallest: int) -> Photos:
        """These photos, scaled down to `longest` pixels on their longer side as far as `smallest` on the shorter allows."""
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


def read_photos(
    folder: str | os.PathLike[str],
    *,
    smallest: int,
    longest: int | None = None,
    enlarged_to: int | None = None,
) -> Photos:
    """Decode a folder of photos in background threads; unusable files are skipped and listed.

    smallest: a photo with a shorter side below this is skipped. longest: larger photos are scaled down to this, Lanczos,
    as far as their shorter side allows. enlarged_to: the other way, a shorter side below this is enlarged to it.
    Raises PictureError for a folder without pictures, TrainingError where none of them can be used or they take more
    than MEMORY bytes.
    """
    files = images.list_folder(folder)
    pictures, names, digests, skipped, held = [], [], [], [], 0
    for file, result in in_threads(lambda f: decode(f, smallest, longest, enlarged_to), files):
        if isinstance(result, str):
            skipped.append(result)
        else:
            pictures.append(result.pixels)
            names.append(file.name)
            digests.append(result.digest)
            held += held_bytes(folder, held, result.pixels)
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
        held += held_bytes(folder, held, *found.pictures)
        names = tuple(f"{Path(folder).name}/{name}" for name in found.names)
        photos, skipped = photos.joined(replace(found, names=names)), skipped + found.skipped
    return replace(photos, skipped=skipped)


Item = TypeVar("Item")
Result = TypeVar("Result")


def in_threads(work: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[tuple[Item, Result]]:
    """Each item with what `work` makes of it, in order."""
    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        yield from zip(items, pool.map(work, items), strict=True)


def held_bytes(folder: str | os.PathLike[str], before: int, *pictures: np.ndarray) -> int:
    """Bytes of pictures. Raises TrainingError where they are too many with those before."""
    bytes_more = sum(picture.nbytes for picture in pictures)
    if before + bytes_more > MEMORY:
        raise TrainingError(
            f"the pictures in {folder} take more than {MEMORY >> 30} GiB decoded; use fewer or smaller ones"
        )
    return bytes_more


def digest(pixels: np.ndarray) -> str:
    """A name for a picture by its pixels, 32 hexadecimal digits; another size is another picture. pixels: uint8 (H, W, 3)."""
    made = hashlib.blake2b(str(pixels.shape).encode(), digest_size=16)
    made.update(np.ascontiguousarray(pixels).data)
    return made.hexdigest()


@dataclass(frozen=True)
class Decoded:
    """A file's picture."""

    pixels: np.ndarray
    """uint8 (H, W, 3), at the size that was asked for."""
    digest: str
    """The digest of the pixels at the file's own size."""


def decode(file: Path, smallest: int, longest: int | None, enlarged_to: int | None) -> Decoded | str:
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
        return Decoded(_resized(rgb, enlarged_to / shorter), name)
    return Decoded(_scaled(rgb, enlarged_to or smallest, longest) if longest else rgb, name)


def _scaled(rgb: np.ndarray, smallest: int, longest: int) -> np.ndarray:
    factor = max(longest / max(rgb.shape[:2]), smallest / min(rgb.shape[:2]))
    return rgb if factor >= 1 else _resized(rgb, factor)


def _resized(rgb: np.ndarray, factor: float) -> np.ndarray:
    from PIL import Image

    size = (round(rgb.shape[1] * factor), round(rgb.shape[0] * factor))
    return np.asarray(Image.fromarray(rgb).resize(size, Image.Resampling.LANCZOS))
