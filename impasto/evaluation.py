"""Quality on pictures that training has not seen: what `impasto.load` gives, compared with the truth or with a painting."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from impasto.benchmarks.measurement.report import describe_machine
from impasto.errors import MissingDependency, OptionError, PictureError, install
from impasto.images.contact_sheet import Panel, write_contact_sheet
from impasto.metrics import bounded_psnr, ssim_rgb
from impasto.progress import Progress, silent
from impasto.runtime import Model, ModelInfo, load
from impasto.styles import Wanted, painted

from . import images

if TYPE_CHECKING:
    from impasto.training.backbones import Backbone
    from impasto.training.degrade import Degradation

STRENGTHS = (0.0, 0.25, 0.5, 0.75, 1.0)
"""The places in a damage's range that restorers are judged at."""

SHEET_ROWS = 6

_STUDENT = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131,
    2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
)  # fmt: skip
"""Student's t at 97.5 % for 1 to 30 degrees of freedom."""


@dataclass(frozen=True)
class Score:
    """One measure over all pictures."""

    values: tuple[float, ...]
    """One for each picture."""

    @property
    def mean(self) -> float:
        return float(np.mean(self.values))

    @property
    def interval(self) -> float:
        """Half the width of the mean's 95 % confidence interval (Student's t); NaN for one picture."""
        freedom = len(self.values) - 1
        if freedom < 1:
            return math.nan
        t = _STUDENT[freedom - 1] if freedom <= len(_STUDENT) else 1.96 + 2.4 / freedom
        return float(t * np.std(self.values, ddof=1) / math.sqrt(len(self.values)))

    def __str__(self) -> str:
        spread = "" if math.isnan(self.interval) else f" ± {self.interval:.3g}"
        return f"{self.mean:.4g}{spread}"

    def to_json(self) -> dict[str, Any]:
        interval = None if math.isnan(self.interval) else self.interval
        return {"mean": self.mean, "confidence_95": interval, "values": list(self.values)}


@dataclass(frozen=True)
class Condition:
    """What the pictures were made of, and how well the model did."""

    name: str
    """The damage, such as "noise:25-25", or the painting's file name."""
    scores: dict[str, Score]


@dataclass(frozen=True)
class Evaluation:
    """A model's quality."""

    info: ModelInfo
    pictures: tuple[str, ...]
    conditions: tuple[Condition, ...]
    panels: tuple[tuple[Panel, ...], ...] = field(repr=False)
    """The first few pictures before and after, for a contact sheet."""
    skipped: tuple[str, ...] = ()
    """One line for each file that could not be judged."""

    def write_sheet(self, path: str | os.PathLike[str]) -> None:
        """Write the contact sheet. Raises OutputError, and OptionError for a suffix that is no picture format."""
        write_contact_sheet(path, self.panels)

    def to_json(self) -> dict[str, Any]:
        return {
            "model": self.info.to_json(),
            "pictures": list(self.pictures),
            "skipped": list(self.skipped),
            "conditions": [
                {"name": row.name, "scores": {key: score.to_json() for key, score in row.scores.items()}}
                for row in self.conditions
            ],
            "environment": describe_machine(),
        }


@dataclass(frozen=True)
class LoadOptions:
    """How `impasto.load` is to load the model."""

    backend: str = "auto"
    precision: str = "auto"
    device: int = 0


def evaluate(
    model: str | os.PathLike[str],
    photos: str | os.PathLike[str],
    reference: Sequence[str] | os.PathLike[str],
    *,
    vgg: str | os.PathLike[str] | None = None,
    style: Wanted = None,
    strength: float = 1.0,
    options: LoadOptions = LoadOptions(),
    progress: Progress = silent,
) -> Evaluation:
    """Judge a model on photos that its training has not seen. Files that cannot be judged are left out and listed.

    Args:
        model: what `impasto.load` takes: a model's name, a package, an ONNX file or an engine.
        photos: a folder of clean photos.
        reference: for a restorer the damages to undo, such as ["noise:0-55"]; for a stylizer the `Path` of the painting.
        vgg: a file of VGG16's weights. A stylizer needs them (default: those in the cache); a restorer is also given its
            perceptual distance with them.
        style: for a network of several styles, the one to judge, as `Model.set_style` takes it.
        strength: as `Model.strength` takes it.
        options: how the model is loaded.
        progress: called before each picture with one line, the pictures done and their number.

    Returns:
        An `Evaluation`: for each damage or painting the scores of every picture, their mean and its 95 % confidence interval. A
        restorer's scores are PSNR in dB and SSIM, a stylizer's are content and style distance.

    Raises:
        OptionError: the model does not fit the reference, or a damage cannot be read.
        PictureError: no photo can be judged.
        MissingDependency: torch is not installed.
        TrainingError, CheckpointError: VGG16's weights cannot be had.
        Also what `impasto.load` raises.

    Example:
        >>> from impasto.evaluation import evaluate
        >>> result = evaluate("denoiser", "photos", ["noise:25-25"])
        >>> sorted(result.conditions[0].scores)
        ['PSNR', 'SSIM', 'damaged PSNR', 'damaged SSIM']
    """
    if isinstance(reference, os.PathLike):
        return evaluate_stylizer(
            model, photos, reference, vgg=vgg, style=style, strength=strength, options=options, progress=progress
        )
    damages = [reference] if isinstance(reference, str) else list(reference)
    if not damages:
        raise OptionError("no damage to judge by; name one, such as noise:0-55, or give the Path of a painting")
    if style:
        raise OptionError("a style is a stylizer's; leave it out, or judge a stylizer by a painting")
    return evaluate_restorer(model, photos, damages, vgg=vgg, strength=strength, options=options, progress=progress)


def evaluate_restorer(
    model: str | os.PathLike[str],
    photos: str | os.PathLike[str],
    damages: Sequence[str],
    *,
    vgg: str | os.PathLike[str] | None = None,
    strength: float = 1.0,
    options: LoadOptions = LoadOptions(),
    progress: Progress = silent,
) -> Evaluation:
    """PSNR and SSIM of damaged and of restored photos, at STRENGTHS of each damage's range; unusable files are left out and listed.

    photos: a folder of clean pictures; their sides are cut to multiples of 8 times the scale. damages: as
    `impasto.training.degrade.parse` reads them. Picture number i is damaged by seed i. Where the model enlarges, "damaged" is the
    small picture enlarged by bicubic interpolation. vgg: VGG16's weights, for the distance of VGG16's relu3_3 (a
    perceptual distance; LPIPS itself needs weights that would have to be downloaded). strength: as `Model.strength` takes it.
    Raises OptionError, PictureError, MissingDependency, and what `load` raises.
    """
    degrade = _degrade()
    wanted = [degrade.parse(text) for text in damages]
    backbone = _backbone(vgg) if vgg is not None else None
    with load(model, **asdict(options), working_size=None) as loaded:
        _check_restorer(loaded, wanted)
        loaded.strength = strength
        files, skipped = _usable(photos, 8 * loaded.info.scale, progress)
        fixed = {str(damage): damage for given in wanted for damage in map(given.at, STRENGTHS)}
        shown = {str(given.at(0.5)) for given in wanted}
        found: dict[str, list[dict[str, float]]] = {name: [] for name in fixed}
        panels: list[tuple[Panel, ...]] = []
        for number, file in enumerate(files):
            progress(file.name, number, len(files))
            clean = _cut(images.read(file).rgb, file, 8 * loaded.info.scale)
            for name, damage in fixed.items():
                damaged = degrade.damaged(clean, damage, number)
                restored = loaded(damaged)
                plain = _enlarged(damaged, loaded.info.scale)
                found[name].append(_restorer_scores(clean, plain, restored, backbone))
                if name in shown and len(panels) < SHEET_ROWS:
                    panels.append((Panel(file.name, clean), Panel(name, plain), Panel(loaded.info.name, restored)))
        rows = tuple(Condition(name, _collected(scores)) for name, scores in found.items())
        return Evaluation(loaded.info, tuple(file.name for file in files), rows, tuple(panels), skipped)


def evaluate_stylizer(
    model: str | os.PathLike[str],
    photos: str | os.PathLike[str],
    painting: str | os.PathLike[str],
    *,
    vgg: str | os.PathLike[str] | None = None,
    style: Wanted = None,
    strength: float = 1.0,
    options: LoadOptions = LoadOptions(),
    progress: Progress = silent,
) -> Evaluation:
    """Content and style distance and their objective, content + 10 · style, as training measures them; unusable files are left out
    and listed.

    photos: a folder; their sides are cut to multiples of 16, and they are drawn at their own size, whatever the model's working size.
    painting: the picture that was learnt. vgg: VGG16's weights; by default those in the cache. style, strength: as `Model.set_style`
    takes them.
    Raises OptionError, PictureError, TrainingError, CheckpointError, and what `load` raises.
    """
    _degrade()
    from impasto.images import read_painting
    from impasto.training.losses import StyleTarget, content

    drawn_like = read_painting(Path(painting))
    found: list[dict[str, float]] = []
    panels: list[tuple[Panel, ...]] = []
    with load(model, **asdict(options), working_size=None) as loaded:
        _check_stylizer(loaded, style)
        files, skipped = _usable(photos, 16, progress)
        backbone = _backbone(vgg)
        target = StyleTarget(_features(backbone, drawn_like))
        loaded.set_style(style, strength=strength)
        for number, file in enumerate(files):
            progress(file.name, number, len(files))
            photo = _cut(images.read(file).rgb, file, 16)
            drawing = loaded(photo)
            of_photo, of_drawing = _features(backbone, photo), _features(backbone, drawing)
            kept = float(content(of_drawing["relu3_3"], of_photo["relu3_3"]))
            distance = float(target.distance(of_drawing))
            found.append({"content": kept, "style": distance, "objective": kept + 10 * distance})
            if len(panels) < SHEET_ROWS:
                panels.append((Panel(file.name, photo), Panel(loaded.info.name, drawing)))
        row = Condition(Path(painting).name, _collected(found))
        return Evaluation(loaded.info, tuple(file.name for file in files), (row,), tuple(panels), skipped)


def _usable(photos: str | os.PathLike[str], cell: int, progress: Progress) -> tuple[tuple[Path, ...], tuple[str, ...]]:
    """The files that can be judged, and a line for each other: read beforehand, for it is minutes that judging takes.

    Raises PictureError where there is none.
    """
    files, skipped = [], []
    listed = images.list_folder(photos)
    for number, file in enumerate(listed):
        progress(f"reading {file.name}", number, len(listed))
        try:
            _cut(images.read(file).rgb, file, cell)
        except PictureError as error:
            skipped.append(str(error))
        else:
            files.append(file)
    if not files:
        raise PictureError(f"none of the {len(skipped)} pictures in {photos} can be judged; the first: {skipped[0]}")
    return tuple(files), tuple(skipped)


def _check_stylizer(loaded: Model, style: Wanted) -> None:
    if loaded.info.task not in ("stylize", "unknown"):
        raise OptionError(
            f"{loaded.info.name} is a network for {loaded.info.task}; judge it with --degrade instead of --painting"
        )
    if loaded.info.scale != 1:
        raise OptionError(f"{loaded.info.name} enlarges ×{loaded.info.scale}; a stylizer keeps the size")
    known = painted(loaded.info.spec.styles)
    if style is None and len(known) > 1:
        raise OptionError(f"{loaded.info.name} draws {', '.join(known)}; say with --style which is the painting's")


def _check_restorer(loaded: Model, damages: Sequence[Degradation]) -> None:
    if loaded.info.task == "stylize":
        raise OptionError(f"{loaded.info.name} is a stylizer; judge it with --painting instead of --degrade")
    for damage in damages:
        if damage.scale != loaded.info.scale:
            raise OptionError(
                f"{damage} makes pictures smaller by {damage.scale}, and {loaded.info.name} enlarges by {loaded.info.scale}; "
                + (
                    "choose a damage with down:" + str(loaded.info.scale)
                    if loaded.info.scale > 1
                    else "leave out down:"
                )
            )


def _restorer_scores(
    clean: np.ndarray, plain: np.ndarray, restored: np.ndarray, backbone: Backbone | None
) -> dict[str, float]:
    scores = {
        "damaged PSNR": bounded_psnr(plain, clean),
        "PSNR": bounded_psnr(restored, clean),
        "damaged SSIM": ssim_rgb(plain, clean),
        "SSIM": ssim_rgb(restored, clean),
    }
    if backbone is not None:
        from impasto.training.losses import content

        distance = partial(_features, backbone, last="relu3_3")
        truth = distance(clean)["relu3_3"]
        for name, picture in (("damaged VGG", plain), ("VGG", restored)):
            scores[name] = float(content(distance(picture)["relu3_3"], truth))
    return scores


def _collected(scores: list[dict[str, float]]) -> dict[str, Score]:
    return {key: Score(tuple(score[key] for score in scores)) for key in scores[0]}


def _cut(picture: np.ndarray, file: Path, cell: int) -> np.ndarray:
    """Sides cut to multiples of `cell`."""
    height, width = (side // cell * cell for side in picture.shape[:2])
    if min(height, width) < 2 * cell:
        raise PictureError(f"{file} is {picture.shape[0]} x {picture.shape[1]}; judging needs {2 * cell} pixels a side")
    return np.ascontiguousarray(picture[:height, :width])


def _enlarged(picture: np.ndarray, scale: int) -> np.ndarray:
    from PIL import Image

    if scale == 1:
        return picture
    size = (picture.shape[1] * scale, picture.shape[0] * scale)
    return np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BICUBIC))


def _features(backbone: Backbone, picture: np.ndarray, last: str = "relu4_3") -> Any:
    import torch

    with torch.no_grad():
        return backbone(_tensor(picture).to(backbone.scale.device), last)


def _tensor(picture: np.ndarray) -> Any:
    import torch

    return torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None].float() / 255


def _backbone(vgg: str | os.PathLike[str] | None) -> Backbone:
    from impasto.training.backbones import load_vgg16
    from impasto.training.loop.device import pick_device

    return load_vgg16(vgg).to(pick_device("auto"))


def _degrade() -> Any:
    """impasto.training.degrade. Raises MissingDependency."""
    try:
        from impasto.training import degrade
    except ImportError as error:
        raise MissingDependency(f"judging needs torch ({error}): {install('train')}") from None
    return degrade
