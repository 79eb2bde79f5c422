"""The shipped restorers on the field's standard pictures, beside what published ones reach on the same.

usage: python -m impasto.benchmarks.standard [KIND ...] [--model NAME] [--data FOLDER] [--limit N] [--json FILE]

    denoise   white noise of sigma 15, 25, 50 in R, G and B (CBSD68, McMaster)
    gray      noise of sigma 25 on gray pictures, the same in R, G and B
    camera    a Bayer sensor's photon and read noise, demosaicked, gamma, with and without JPEG (McMaster)
    upscale   half as large by Pillow's bicubic filter; PSNR of Y, two pixels of the border left off (Set5, Set14)
    dejpeg    Pillow's JPEG of quality 10, 20, 40 (LIVE1)
    deblur    eight kernels and noise of sigma 2; 16 pixels left off, the best shift by two pixels
    inpaint   scratches, single pixels, discs; PSNR inside the holes
    clean     undamaged pictures, which should stay as they are
    text      a page drawn by Pillow: sigma 25, JPEG 20, half as large

PSNR in dB, means over pictures. Where no set is named, every sixth picture of CBSD68. --data, or $IMPASTO_DATA, holds
sets/NAME/*.png; a set that is missing is named, and the rest is measured. --model measures another model on the kinds named.
Never train on these pictures, nor choose by them.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

import impasto
from impasto import images
from impasto.benchmarks.dejpeg import through_jpeg
from impasto.benchmarks.inpaint import MAGENTA
from impasto.benchmarks.measurement.report import describe_machine
from impasto.datasets import data_folder, missing
from impasto.errors import ImpastoError, OptionError
from impasto.files import check_writable, sha256, write_text
from impasto.progress import Progress, silent
from impasto.runtime.loading.source import resolve

from .damage import (
    HOLES,
    blurred,
    camera,
    capped_psnr,
    gray,
    halved,
    holes,
    kernels,
    letters,
    luminance_psnr,
    noisy,
    resized,
    shifted_psnr,
)
from .peers import Peer, read_peers

TEXT = "text"
"""The set that is no folder: one page, drawn."""


@dataclass(frozen=True)
class Sample:
    """A damaged picture."""

    damage: str
    picture: np.ndarray
    """uint8 (H, W, 3)."""
    judge: Callable[[np.ndarray], float]
    """PSNR in dB of a restored picture."""


Damage = Callable[[np.ndarray, int], Iterator[Sample]]
"""An undamaged picture and a seed, the picture's number, to its damaged ones."""


@dataclass(frozen=True)
class Trial:
    """What some models are measured on."""

    damage: Damage
    models: tuple[str, ...]
    """The models that ship for this kind."""
    sets: tuple[str, ...] = ("CBSD68",)
    every: int = 6
    """The step from one picture of a set to the next that is taken, since some damages take long."""
    scale: int = 1
    """What a model is to enlarge by."""
    names_model: bool = False
    """Whether a row's name holds the model's, as among undamaged pictures, where each model has opponents of its own."""

    def row(self, of: str, damage: str, model: str) -> str:
        """The name of a row: of a set, a damage and a model."""
        return f"{of} {damage}, {model}" if self.names_model else f"{of} {damage}"


@dataclass(frozen=True)
class Row:
    """A line of the table: means over pictures."""

    kind: str
    row: str
    """The set and the damage; among undamaged pictures also the model."""
    model: str
    pictures: int
    damaged_db: float
    """The score of what the model gets; for an upscaler enlarged by the bicubic filter."""
    restored_db: float


def white_noise(picture: np.ndarray, seed: int) -> Iterator[Sample]:
    for sigma in (15, 25, 50):
        yield Sample(f"sigma {sigma}", noisy(picture, sigma, seed), partial(capped_psnr, picture))


def gray_noise(picture: np.ndarray, seed: int) -> Iterator[Sample]:
    without = gray(picture)
    yield Sample("gray sigma 25", noisy(without, 25, seed, alike=True), partial(capped_psnr, without))


def camera_noise(picture: np.ndarray, seed: int) -> Iterator[Sample]:
    for electrons, quality in ((400, None), (100, None), (100, 90), (40, 80)):
        clean, caught = camera(picture, electrons, seed)
        said = f"{electrons} electrons" + (f", JPEG {quality}" if quality else "")
        yield Sample(said, through_jpeg(caught, quality) if quality else caught, partial(capped_psnr, clean))


def half_size(picture: np.ndarray, seed: int) -> Iterator[Sample]:
    large, small = halved(picture)
    yield Sample("x2", small, partial(luminance_psnr, large))


def jpeg(picture: np.ndarray, seed: int) -> Iterator[Sample]:
    for quality in (10, 20, 40):
        yield Sample(f"quality {quality}", through_jpeg(picture, quality), partial(capped_psnr, picture))


def blur(picture: np.ndarray, seed: int) -> Iterator[Sample]:
    for name, kernel in kernels().items():
        yield Sample(name, blurred(picture, kernel, seed), partial(shifted_psnr, picture))


def missing_pixels(picture: np.ndarray, seed: int) -> Iterator[Sample]:
    for kind in HOLES:
        hole = holes(kind, picture.shape[0], picture.shape[1], seed)
        yield Sample(kind, np.where(hole[..., None], MAGENTA, picture), partial(_psnr_inside, hole, picture))


def _psnr_inside(hole: np.ndarray, picture: np.ndarray, restored: np.ndarray) -> float:
    return capped_psnr(picture[hole], restored[hole])


def nothing(picture: np.ndarray, seed: int) -> Iterator[Sample]:
    yield Sample("clean", picture, partial(capped_psnr, picture))


def noise_on_text(picture: np.ndarray, seed: int) -> Iterator[Sample]:
    yield Sample("sigma 25", noisy(picture, 25, seed), partial(capped_psnr, picture))


def jpeg_on_text(picture: np.ndarray, seed: int) -> Iterator[Sample]:
    yield Sample("JPEG 20", through_jpeg(picture, 20), partial(capped_psnr, picture))


KINDS: dict[str, tuple[Trial, ...]] = {
    "denoise": (Trial(white_noise, ("denoise",), ("CBSD68", "McMaster"), every=1),),
    "gray": (Trial(gray_noise, ("denoise",)),),
    "camera": (Trial(camera_noise, ("denoise",), ("McMaster",), every=1),),
    "upscale": (Trial(half_size, ("upscale-x2", "upscale-x2-fast"), ("Set5", "Set14"), every=1, scale=2),),
    "dejpeg": (Trial(jpeg, ("dejpeg",), ("LIVE1",), every=1),),
    "deblur": (Trial(blur, ("deblur",)),),
    "inpaint": (Trial(missing_pixels, ("inpaint",)),),
    "clean": (Trial(nothing, ("denoise", "dejpeg", "deblur"), names_model=True),),
    "text": (
        Trial(noise_on_text, ("denoise",), (TEXT,)),
        Trial(jpeg_on_text, ("dejpeg",), (TEXT,)),
        Trial(half_size, ("upscale-x2", "upscale-x2-fast"), (TEXT,), scale=2),
    ),
}
"""What is measured, by name."""


def measure(
    kinds: Sequence[str],
    data: Path,
    model: str | None = None,
    limit: int | None = None,
    progress: Progress = silent,
) -> tuple[list[Row], dict[str, Any]]:
    """The rows of these kinds, and what is known of the models: name to info and the hashes of its files.

    data: the folder that holds `sets`; those that it lacks are left out. model: another than the shipped ones. limit: pictures of
    each set. progress: called with each set before it is measured. Raises OptionError for a model that fits none of the kinds, and
    what `impasto.load` raises.
    """
    trials = [(kind, trial) for kind in kinds for trial in KINDS[kind]]
    names = [model] if model else list(dict.fromkeys(name for _, trial in trials for name in trial.models))
    rows, models = [], {}
    for name in names:
        with impasto.load(name) as loaded:
            models[name] = {**loaded.info.to_json(), "sha256": _hashes(name)}
            fitting = [
                (kind, trial)
                for kind, trial in trials
                if (model or name in trial.models) and trial.scale == loaded.info.scale
            ]
            if not fitting:
                raise OptionError(
                    f"{name} enlarges ×{loaded.info.scale}, and {', '.join(kinds)} want ×{trials[0][1].scale}; name other kinds, or "
                    "another --model"
                )
            for kind, trial in fitting:
                rows += _measured(kind, trial, loaded, name, data, limit, progress)
    order = list(KINDS)
    return sorted(rows, key=lambda row: order.index(row.kind)), models


def _measured(
    kind: str,
    trial: Trial,
    model: impasto.Model,
    name: str,
    data: Path,
    limit: int | None,
    progress: Progress,
) -> list[Row]:
    scores: dict[str, list[tuple[float, float]]] = {}
    for of in trial.sets:
        progress(f"{kind}: {name} on {of}")
        for seed, picture in enumerate(_pictures(data, of, trial.every, limit)):
            for sample in trial.damage(picture, seed):
                height, width = (side * trial.scale for side in sample.picture.shape[:2])
                before = sample.judge(resized(sample.picture, height, width))
                after = sample.judge(model(np.ascontiguousarray(sample.picture)))
                scores.setdefault(trial.row(of, sample.damage, name), []).append((before, after))
    return [
        Row(kind, row, name, len(of_all), *(float(mean) for mean in np.mean(of_all, axis=0)))
        for row, of_all in scores.items()
    ]


def _pictures(data: Path, of: str, every: int, limit: int | None) -> Iterator[np.ndarray]:
    """The pictures of a set, in the order of their names; none where the set is missing."""
    if of == TEXT:
        yield letters()
    elif (data / "sets" / of).is_dir():
        for path in images.list_folder(data / "sets" / of)[::every][:limit]:
            yield images.read(path).rgb


def _hashes(name: str) -> dict[str, str]:
    """SHA-256 of each graph of a package, or of a bare graph."""
    source = resolve(name)
    if source.manifest is None:
        return {source.graph_path.name: sha256(source.graph_path)}
    return {file.name: file.sha256 for file in source.manifest.files}


def table(kind: str, rows: Sequence[Row], peers: Sequence[Peer], limit: int | None) -> Table:
    """One kind's rows; beside them the peers that were measured on the same pictures."""
    known = [peer for peer in peers if kind in peer.figures]
    shown = [peer for peer in known if peer.figures[kind].limit == limit]
    made = Table(title=kind, title_justify="left", caption_justify="left")
    made.add_column("PSNR in dB", no_wrap=True)
    made.add_column("model")
    for heading in ("pictures", "damaged", "restored", *(peer.name for peer in shown)):
        made.add_column(heading, justify="right")
    for row in rows:
        figures = [peer.figures[kind].psnr_db.get(row.row) for peer in shown]
        cells = ["–" if figure is None else f"{figure:.2f}" for figure in figures]
        means = (f"{row.damaged_db:.2f}", f"[bold]{row.restored_db:.2f}[/]")
        made.add_row(row.row, escape(row.model), str(row.pictures), *means, *cells)
    made.caption = "\n".join([*map(str, shown), *_elsewhere(kind, known, limit)])
    return made


def _elsewhere(kind: str, known: Sequence[Peer], limit: int | None) -> Iterator[str]:
    """What to give for the peers that were measured on other pictures than these."""
    for other in sorted({peer.figures[kind].limit or 0 for peer in known} - {limit or 0}):
        names = "; ".join(peer.name for peer in known if (peer.figures[kind].limit or 0) == other)
        how = f"with --limit {other}" if other else "without --limit"
        yield f"{how} beside: {names}"


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kinds", nargs="*", metavar="KIND")
    parser.add_argument("--model")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--limit", type=int)
    parser.add_argument("--json", type=Path)
    try:
        _run(parser.parse_args(arguments))
    except ImpastoError as error:
        sys.exit(f"error: {error}")


def _run(given: argparse.Namespace) -> None:
    _check(given)
    data, kinds = data_folder(given.data), given.kinds or list(KINDS)
    wanted = {of: None for kind in kinds for trial in KINDS[kind] for of in trial.sets if of != TEXT}
    left_out = missing(data, [f"sets/{of}" for of in wanted])
    console, notes = _console(), Console(stderr=True, soft_wrap=True)
    for line in left_out:
        notes.print(f"left out: {line}", markup=False, highlight=False)
    with notes.status("") as status:
        rows, models = measure(kinds, data, given.model, given.limit, lambda said, *_: status.update(said))
    for kind in dict.fromkeys(row.kind for row in rows):
        console.print(table(kind, [row for row in rows if row.kind == kind], read_peers(), given.limit))
    if given.json:
        report = {
            "limit": given.limit,
            "missing": left_out,
            "rows": [asdict(row) for row in rows],
            "models": models,
            "environment": describe_machine(),
        }
        write_text(given.json, json.dumps(report, indent=1, ensure_ascii=False) + "\n")


def _check(given: argparse.Namespace) -> None:
    if unknown := [kind for kind in given.kinds if kind not in KINDS]:
        raise OptionError(f"unknown kind {unknown[0]!r}; choose among {', '.join(KINDS)}")
    if given.model and not given.kinds:
        raise OptionError(f"name the kinds to measure {given.model} on: {', '.join(KINDS)}")
    if given.limit is not None and given.limit < 1:
        raise OptionError(f"limit {given.limit}: wanted at least 1 picture of each set")
    if given.json:
        check_writable(given.json)


def _console() -> Console:
    """The console for tables: as wide as the terminal, or 200 columns in a pipe or a file."""
    return Console(highlight=False) if sys.stdout.isatty() else Console(highlight=False, width=200)
