"""Pairs of pictures: what is given, and what is wanted of it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from impasto import images
from impasto.errors import TrainingError

from .photos import Decoded, Photos, decode, held_bytes, in_threads


def read_pairs(
    sources: str | os.PathLike[str],
    targets: str | os.PathLike[str],
    *,
    smallest: int,
) -> Photos:
    """Decode two folders of which each picture has a partner of the same file stem in the other; broken pairs are skipped.

    A target has its source's size, or a whole multiple of it, the same for all. smallest: a pair whose source has a shorter side
    below this is skipped. Raises PictureError for a folder without pictures, TrainingError for names without a partner, for
    sizes that do not fit, where no pair can be used, and where they take more than MEMORY bytes.
    """
    files = _partners(Path(sources), Path(targets))
    pictures, wanted, names, digests, skipped, held = [], [], [], [], [], 0
    for (source, target), result in in_threads(lambda pair: _decode_pair(*pair, smallest), files):
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
        held += held_bytes(sources, held, *both)
    if not pictures:
        raise TrainingError(f"none of the {len(files)} pairs in {sources} can be trained on; the first: {skipped[0]}")
    return Photos(tuple(pictures), tuple(names), tuple(skipped), tuple(wanted), tuple(digests))


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


def _decode_pair(source: Path, target: Path, smallest: int) -> tuple[Decoded, Decoded] | str:
    """Both pictures of a pair, or a line that says why it cannot be used."""
    one, other = decode(source, smallest, None, None), decode(target, smallest, None, None)
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
