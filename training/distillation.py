"""A small network learns to draw what a larger one draws: Hinton et al. 2015, "Distilling the knowledge in a neural network"."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from impasto.errors import OptionError
from impasto.metrics import bounded_psnr
from impasto.styles import mixture, painted

from . import checkpoint, losses, validation
from .data.colours import random_colours, recoloured
from .data.crops import Batch, CropSampler, WholeSampler, inside, thumbnails, thumbnails_of
from .data.photos import Photos
from .data.split import split_photos
from .degrade import Degradation, damaged
from .inference import draw, side_by_side
from .loop.device import pick_device
from .loop.options import FitResult, ModelInfo, Report, silent
from .loop.task import Task, TaskOptions
from .loop.trainer import fit
from .networks import Network, kmac_per_pixel, mixed
from .networks.initial_weights import arguments_for, new_network
from .options import TrainingOptions, check_whole
from .recipe import digest_of_weights, recipe_of

DISTILL_WEIGHTS = {"teacher": 1.0, "truth": 0.0}
"""Weights of the loss terms. `truth` is the distance from the undamaged photo; stylizers have none."""

STUDENTS = {"stylize": "thumbnail-stylizer"}
"""The student's default network for a task; unet-restorer for every other task."""


@dataclass(frozen=True)
class DistillOptions(TrainingOptions):
    """Options for training a small network (the student) to draw what a larger one (the teacher) draws."""

    teacher: Path = Path()
    """The teacher: a checkpoint or package."""
    degradation: Degradation | None = None
    """The damage that is done to the photos before both networks see them; None for stylizers."""
    style: str = ""
    """The style to learn, if the teacher has several."""
    batch: int = 8
    crop: int = 128
    weights: Mapping[str, float] = field(default_factory=lambda: dict(DISTILL_WEIGHTS))
    whole: tuple[int, int] | None = None
    """For stylizers, instead of crops: whole photos whose longer side lies between these two, in pixels."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.photo_folders:
            raise OptionError("a student needs a folder of photos")
        if self.whole:
            check_whole(self.whole)
        if self.whole and (self.degradation or self.fit.replay):
            raise OptionError("whole photos are for stylizers, and no recorded step takes them; leave --whole out")
        if self.weights.get("truth") and self.degradation is None:
            raise OptionError(
                "the distance from the truth is known where photos are damaged; name --degrade, or leave it 0"
            )


def distill(options: DistillOptions, report: Report = silent) -> FitResult:
    """Train a small network (the student) to draw what a larger one (the teacher) draws.

    Args:
        options: the teacher, the student's network, the photos, and where the results go.
        report: called with the step and the losses every 25 steps.

    Returns:
        A `FitResult`; its quality is the likeness to the teacher, PSNR in dB, on the photos that were held out.

    Raises:
        OptionError: options that do not fit each other, the teacher, or this machine.
        PictureError: a folder holds no pictures.
        CheckpointError: the teacher, or the weights to start from, cannot be read.
        TrainingError: a loss is not finite, no photo can be used, or another run lies in the output folder.
        OutputError: the output folder cannot be written.

    Example:
        >>> from pathlib import Path
        >>> from impasto.training import DistillOptions, FitOptions, distill
        >>> from impasto.training.degrade import parse
        >>> result = distill(DistillOptions(
        ...     name="small", teacher=Path("runs/denoiser/checkpoint.safetensors"), degradation=parse("noise:0-30"),
        ...     config={"widths": [8, 8, 8]}, photos=Path("photos"), output=Path("runs/small"),
        ...     fit=FitOptions(steps=2), batch=2, crop=32,
        ... ))
        >>> "psnr_to_teacher" in result.quality
        True
    """
    device = pick_device(options.fit.device)
    taught = checkpoint.load(options.teacher)
    teacher, degradation = taught.network.to(device), options.degradation
    scale = degradation.scale if degradation else 1
    if (degradation is None) != (taught.task == "stylize") or scale != teacher.scale:
        raise OptionError(
            f"{options.teacher} is a network for {taught.task} that enlarges ×{teacher.scale}, and the photos are "
            f"{f'damaged by {degradation}' if degradation else 'not damaged'}: name with --degrade what it undoes, or nothing for a "
            "stylizer"
        )
    shares = _taught_style(teacher, options)
    options = replace(options, architecture=options.architecture or STUDENTS.get(taught.task, "unet-restorer"))
    sizes = {} if degradation else {"longest": 768, "enlarged_to": options.crop}
    split = split_photos(options, options.crop * scale, **sizes)
    implied = arguments_for(options.architecture, scale, degradation) if degradation else {}
    network = new_network(options, implied).to(device)
    if network.styles:
        raise OptionError(
            f"a student learns one style, and this network draws {', '.join(network.styles)}; begin with another one, or anew"
        )
    if network.strength > 1:
        raise OptionError(
            f"a student learns its teacher at strength 1, and this network goes up to {network.strength:g}; leave strength out of "
            "--config, or begin with another one"
        )
    task = DistillTask(
        network,
        teacher,
        split.train,
        split.validation,
        options.task_options(device),
        degradation=degradation,
        shares=shares,
        whole=options.whole,
    )
    extra = {
        "teacher": {
            "file": os.fspath(options.teacher),
            "architecture": teacher.architecture,
            "kmac_per_pixel": round(kmac_per_pixel(teacher), 1),
            "recipe": taught.recipe,
            **({"style": options.style} if options.style else {}),
        },
        "degradation": str(degradation or "none"),
        **({"whole": list(options.whole)} if options.whole else {}),
    }
    kind = degradation.task if degradation else taught.task
    recipe = recipe_of(options, network, split, extra, {"teacher": digest_of_weights(teacher)})
    model = ModelInfo(options.name, kind, recipe)
    return fit(task, options.fit, options.output, model, test=split.test, resume=options.resume, report=report)


def _taught_style(teacher: Network, options: DistillOptions) -> np.ndarray:
    """What the teacher is to draw: shares of its styles, float32 (styles,). Raises OptionError where that is left open."""
    known = painted(teacher.styles)
    if len(known) > 1 and not options.style:
        raise OptionError(
            f"{options.teacher} draws {', '.join(known)}, and a student learns one style; name it with --style"
        )
    return mixture(teacher.styles, options.style or None)


class DistillTask(Task):
    """Draw what the teacher draws of the same picture; its clipped drawing is the truth."""

    def __init__(
        self,
        network: Network,
        teacher: Network,
        photos: Photos,
        validation: Photos,
        options: TaskOptions,
        *,
        degradation: Degradation | None,
        shares: np.ndarray | None = None,
        whole: tuple[int, int] | None = None,
    ) -> None:
        """Crops come with surroundings as wide as either network looks. shares: of the teacher's styles,
        float32 (styles,); by default those of its first painting. whole: instead of crops, whole photos with a longer side between
        these two, reflected around as the runtime does."""
        super().__init__()
        self.network, self.teacher = network, teacher.eval().requires_grad_(False)
        self.weights = {name: value for name, value in options.weights.items() if value or name == "teacher"}
        self._shares = mixture(teacher.styles) if shares is None else shares
        self._degradation, self._validation, self._options = degradation, validation, options
        batch, device = options.whole_batch, options.device
        # A stylizer knows what lies around; a restorer's crops are as they are used, damaged to their very edge.
        multiple = max(network.multiple, teacher.multiple)
        reach = 0 if degradation else max(network.receptive_field or 0, teacher.receptive_field or 0)
        self._around = network.border if whole else -(-reach // multiple) * multiple
        if whole:
            self._sampler: CropSampler | WholeSampler = WholeSampler(
                photos, whole, batch, device, seed=options.seed, multiple=multiple, around=self._around
            )
        else:
            self._sampler = CropSampler(
                photos,
                options.crop * network.scale,
                batch,
                device,
                seed=options.seed,
                turns=degradation is not None,
                around=self._around,
            )
        self._thumbnails = [
            thumbnails(photos, n.thumbnail, device) if n.thumbnail and not whole else None for n in (network, teacher)
        ]

    def batch(self, step: int) -> tuple[Tensor, ...]:
        batch = self._sampler.batch(step)
        if self._degradation:
            clean = batch.crops.float() / 255
            given = self._degradation(
                clean, torch.Generator(self._options.device).manual_seed(self._options.seed * 1_000_003 + step)
            )
            return given[self._options.part], clean[self._options.part]
        colours = torch.from_numpy(
            random_colours(self._options.whole_batch, np.random.default_rng([self._options.seed, step, 2]))
        ).to(self._options.device)
        given = recoloured(batch.crops, colours)
        small = [self._small(batch, number, colours) for number in range(2)]
        return tuple(tensor[self._options.part] for tensor in (given, given, *small))

    def _small(self, batch: Batch, number: int, colours: Tensor) -> Tensor:
        """The thumbnails of the student (number 0) or the teacher (1) in 0..1, (N, 3, T, T); empty for a network without one."""
        kept, side = self._thumbnails[number], (self.network, self.teacher)[number].thumbnail
        if side is None:
            return colours.new_empty(len(colours), 0)
        if kept is None:
            return recoloured(thumbnails_of(inside(batch.crops, self._around), side), colours)
        return recoloured(kept[batch.mirrored.long(), batch.photo], colours)

    def forward(self, *batch: Tensor) -> dict[str, Tensor]:
        """batch: what both see and the undamaged picture, (N, 3, S, S) and (N, 3, scale · S, scale · S) in 0..1, and for
        stylizers the student's and the teacher's thumbnails (N, 3, T, T), empty for one without."""
        given, clean, *small = batch
        drawn = self.network(given, *_context(self.network, small[:1])).float()
        with torch.no_grad():
            wanted = self.teacher(given, *_context(self.teacher, small[1:], self._shares)).float().clamp(0, 1)
        terms = {"teacher": losses.charbonnier(inside(drawn, self._around), inside(wanted, self._around))}
        return {**terms, "truth": losses.charbonnier(drawn, clean)} if "truth" in self.weights else terms

    def judge(self, network: Network, photos: Photos) -> dict[str, float]:
        pictures = [self._given(picture, seed) for seed, picture in enumerate(photos.pictures)]
        if not pictures:
            return {}
        alike = [bounded_psnr(draw(network, p), draw(self.teacher, p, self._shares)) for p in pictures]
        truth = validation.restore_psnr(network, photos.pictures, self._degradation) if self._degradation else {}
        return {"psnr_to_teacher": float(np.mean(alike)), **truth}

    def score(self, quality: Mapping[str, float]) -> float:
        return quality["psnr_to_teacher"]

    def preview(self, network: Network) -> np.ndarray | None:
        pictures = [self._given(picture, seed) for seed, picture in enumerate(self._validation.pictures[:2])]
        scale = network.scale
        return side_by_side(
            [
                (p.repeat(scale, 0).repeat(scale, 1), draw(self.teacher, p, self._shares), draw(network, p))
                for p in pictures
            ]
        )

    def _given(self, picture: np.ndarray, seed: int) -> np.ndarray:
        """What a network gets of a photo when it is judged."""
        if self._degradation is None:
            return picture
        return damaged(validation.judged(picture, self._degradation.scale), self._degradation.at(0.5), seed)


def _context(network: Network, small: list[Tensor], shares: np.ndarray | None = None) -> tuple[Tensor, ...]:
    """What the network takes besides the picture. small: its thumbnail, or none. shares: of its styles, where it has several."""
    if not network.thumbnail:
        return ()
    context = network.context(small[0])
    if network.styles and shares is not None:
        context = mixed(context, torch.from_numpy(shares).to(context.device))
    return (context,)
