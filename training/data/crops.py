"""Batches of photos: kept as bytes on the training device, and cropped there by one gather for a whole batch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from impasto import images
from impasto.errors import TrainingError
from impasto.training.loop.processes import ALONE, Processes

from .photos import Photos


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
        """These places in pictures of `scale` times the size."""
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


def thumbnails(photos: Photos, side: int, device: torch.device) -> Tensor:
    """Every photo's thumbnail and its mirror image: uint8, (2, photos, 3, side, side)."""
    small = np.stack([images.thumbnail(picture, side) for picture in photos.pictures])
    both = np.stack([small, small[:, :, ::-1]])
    return torch.from_numpy(np.ascontiguousarray(both)).to(device).permute(0, 1, 4, 2, 3)


def thumbnails_of(pictures: Tensor, side: int) -> Tensor:
    """Thumbnails of whole photos on the device: uint8 (N, 3, H, W) to uint8 (N, 3, side, side), means of areas as the runtime's."""
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
