"""Which photos are learnt from, which choose, and which judge."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from impasto.errors import OptionError

from .pairs import read_pairs
from .photos import Photos, read_folders, read_photos

if TYPE_CHECKING:
    from impasto.training.options import TrainingOptions


@dataclass(frozen=True)
class Split:
    """Which photos are for what; no file is in two of them."""

    train: Photos
    validation: Photos
    """The photos to look at while training, and to choose by."""
    test: Photos | None
    """The photos for one figure at the end; None where it was not asked for."""

    def by_purpose(self) -> dict[str, Photos]:
        """The sets that there are, by what they are for."""
        sets = {"training": self.train, "validation": self.validation, "test": self.test}
        return {purpose: photos for purpose, photos in sets.items() if photos is not None}


def split_photos(
    options: TrainingOptions, crop: int, longest: int | None = None, enlarged_to: int | None = None
) -> Split:
    """The photos by purpose; those to train on have sides of at least half a crop.

    A smaller photo fills a restorer's crops with its reflection: enlarged, it would teach that clean photos are blurred.
    """
    # Judging cuts sides to whole cells; there must be one.
    smallest = max(32, 8 * crop // options.crop)
    train = read_folders(options.photo_folders, smallest=crop // 2, longest=longest, enlarged_to=enlarged_to)
    whole = len(train.names)
    if options.validation is None:
        train, validation = train.split(options.held_out)
    else:
        validation = read_photos(options.validation, smallest=smallest, longest=longest)
    if options.test is not None:
        split = Split(train, validation, read_photos(options.test, smallest=smallest, longest=longest))
    else:
        split = _with_test(train, validation, whole, options.test_share)
    if options.validation is not None or options.test is not None:
        _check_apart(split)
    return split


def split_pairs(sources: Path, targets: Path, options: TrainingOptions) -> Split:
    """The pairs by purpose. A source is at least as large as a crop: its reflection and its target's do not fit each other.

    sources, targets: folders whose files pair by name.
    """
    pairs = read_pairs(sources, targets, smallest=options.crop)
    return _with_test(*pairs.split(options.held_out), len(pairs.names), options.test_share)


def _with_test(train: Photos, validation: Photos, whole: int, share: float) -> Split:
    """train: what is left of `whole` photos, of which the test set is to have `share`."""
    if not share:
        return Split(train, validation, None)
    train, test = train.split(share * whole / len(train.names))
    return Split(train, validation, test)


def _check_apart(split: Split) -> None:
    """Raises OptionError where a photo has two purposes: a figure on photos that were learnt says nothing of others."""
    for (purpose, photos), (other, others) in itertools.combinations(split.by_purpose().items(), 2):
        known = set(photos.digests)
        again = [name for name, found in zip(others.names, others.digests, strict=True) if found in known]
        if again:
            raise OptionError(
                f"{len(again)} of the photos for {other} are also for {purpose}, such as {again[0]}; take them out of one of the two "
                "folders, or leave the folder out and hold a share out"
            )
