"""Photos to train on: decoded once, kept as bytes on the training device, cropped there by one gather for a whole batch."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from impasto import images
from impasto.errors import PictureError, TrainingError

from .processes import ALONE, Processes

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

    def split(self, held_out: float) -> tuple[Photos, Photos]:
        """(train, validation): every 1/held_out-th file by name, so that the split depends on nothing else.

        held_out: share for validation, 0 to 0.5; at least one picture where it is above 0 and there are two.
        """
        if held_out == 0 or len(self.names) < 2:
            return self, Photos((), (), ())
        step = max(2, round(1 / held_out))
        chosen = set(range(0, len(self.names), step))
        return self._take(lambda index: index not in chosen), self._take(lambda index: index in chosen)

    def joined(self, other: Photos) -> Photos:
        """Both, this one's first; what was skipped is told once."""
        return Photos(self.pictures + other.pictures, self.names + other.names, self.skipped)

    def scaled(self, longest: int, smallest: int) -> Photos:
        """The same photos, scaled down to `longest` pixels on their longer side as far as `smallest` on the shorter allows."""
        return Photos(tuple(_scaled(picture, smallest, longest) for picture in self.pictures), self.names, self.skipped)

    def _take(self, wanted: Callable[[int], bool]) -> Photos:
        kept = [index for index in range(len(self.names)) if wanted(index)]
        return Photos(
            tuple(self.pictures[index] for index in kept), tuple(self.names[index] for index in kept), self.skipped
        )


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
    pictures, names, skipped, held = [], [], [], 0
    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        for done, (file, result) in enumerate(
            zip(files, pool.map(lambda f: _decode(f, smallest, longest, enlarged_to), files), strict=True)
        ):
            progress(done + 1, len(files))
            if isinstance(result, str):
                skipped.append(result)
            else:
                pictures.append(result)
                names.append(file.name)
                held += result.nbytes
                if held > MEMORY:
                    raise TrainingError(
                        f"the photos in {folder} take more than {MEMORY >> 30} GiB decoded; use fewer, or --longest-side"
                    )
    if not pictures:
        raise TrainingError(f"none of the {len(files)} pictures in {folder} can be trained on; the first: {skipped[0]}")
    return Photos(tuple(pictures), tuple(names), tuple(skipped))


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
        shapes = np.array([picture.shape[:2] for picture in photos.pictures], dtype=np.int64)
        self._heights, self._widths = shapes[:, 0], shapes[:, 1]
        pixels = shapes.prod(1)
        self._starts = np.concatenate([[0], np.cumsum(pixels)[:-1]])
        # Large photos show more: they are drawn in proportion to their number of disjoint crops, within a factor of 4.
        weights = np.clip(pixels / np.median(pixels), 0.5, 2)
        self._chances = weights / weights.sum()
        flat = np.concatenate([picture.reshape(-1, 3) for picture in photos.pictures])
        self._pixels = torch.from_numpy(flat).to(device)
        self._device = device

    def batch(self, step: int) -> Batch:
        """The crops of one step."""
        generator = np.random.default_rng([self._seed, step])
        photo = generator.choice(len(self._starts), self._batch, p=self._chances)
        # A photo smaller than a crop fills the rest of it with its reflection.
        top, left = (
            (generator.random(self._batch) * (np.maximum(lengths[photo] - self._side, 0) + 1)).astype(np.int64)
            for lengths in (self._heights, self._widths)
        )
        mirrored = generator.random(self._batch) < 0.5
        turned = generator.random(self._batch) < (0.5 if self._turns else 0)
        photo, top, left = photo[self._part], top[self._part], left[self._part]
        mirrored, turned = mirrored[self._part], turned[self._part]
        places = np.arange(-self._around, self._side + self._around)
        rows = _reflected(top[:, None] + places, self._heights[photo, None])
        columns = _reflected(left[:, None] + places, self._widths[photo, None])
        columns[mirrored] = columns[mirrored, ::-1]
        rows = self._starts[photo, None] + rows * self._widths[photo, None]
        # One offset into all pixels per row and one per column; a quarter turn (with a mirroring) swaps the two.
        down, across = (torch.from_numpy(offsets).to(self._device) for offsets in (rows, columns))
        index = down[:, :, None] + across[:, None, :]
        turn = torch.from_numpy(turned).to(self._device)
        index = torch.where(turn[:, None, None], index.mT, index)
        crops = self._pixels[index].permute(0, 3, 1, 2)
        return Batch(crops, torch.from_numpy(photo), torch.from_numpy(mirrored))


@dataclass(frozen=True)
class Batch:
    """Crops of one step."""

    crops: Tensor
    """uint8, (N, 3, side + 2 around, side + 2 around), channels-last in memory."""
    photo: Tensor
    """int64, (N,), on the CPU: which photo each is from."""
    mirrored: Tensor
    """bool, (N,), on the CPU."""


def thumbnails(photos: Photos, side: int, device: torch.device) -> Tensor:
    """Every photo's thumbnail and its mirror image: uint8, (2, photos, 3, side, side)."""
    small = np.stack([images.thumbnail(picture, side) for picture in photos.pictures])
    both = np.stack([small, small[:, :, ::-1]])
    return torch.from_numpy(np.ascontiguousarray(both)).to(device).permute(0, 1, 4, 2, 3)


def _reflected(places: np.ndarray, length: np.ndarray) -> np.ndarray:
    """Places outside of 0 … length - 1, mirrored at the ends as often as it takes; the end itself is not repeated."""
    period = np.maximum(2 * (length - 1), 1)
    places = places % period
    return np.minimum(places, period - places)


def _decode(file: Path, smallest: int, longest: int | None, enlarged_to: int | None) -> np.ndarray | str:
    """The picture, or why not."""
    try:
        rgb = images.read(file).rgb
    except PictureError as error:
        return str(error)
    shorter = min(rgb.shape[:2])
    if shorter < smallest:
        return f"{file} is {rgb.shape[0]} x {rgb.shape[1]}; a side of at least {smallest} is needed"
    if enlarged_to and shorter < enlarged_to:
        return _resized(rgb, enlarged_to / shorter)
    return _scaled(rgb, enlarged_to or smallest, longest) if longest else rgb


def _scaled(rgb: np.ndarray, smallest: int, longest: int) -> np.ndarray:
    factor = max(longest / max(rgb.shape[:2]), smallest / min(rgb.shape[:2]))
    return rgb if factor >= 1 else _resized(rgb, factor)


def _resized(rgb: np.ndarray, factor: float) -> np.ndarray:
    from PIL import Image

    size = (round(rgb.shape[1] * factor), round(rgb.shape[0] * factor))
    return np.asarray(Image.fromarray(rgb).resize(size, Image.Resampling.LANCZOS))
