"""The two trainings that people ask for, each one call: a stylizer from a painting, a restorer from clean photos."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch

from impasto import images
from impasto.errors import OptionError
from impasto.styles import PHOTO

from . import checkpoint
from .backbones import load_backbone
from .data import Photos, read_photos
from .degrade import Degradation, GaussianNoise
from .fit import FitOptions, FitResult, Progress, fit, pick_device
from .networks import Network, build, kmac_per_pixel
from .processes import launched
from .tasks import RESTORE_WEIGHTS, STYLE_WEIGHTS, RestoreTask, StyleTask

PAINTING_SIDE = 384
"""Longest side to which a painting is scaled: at it, its strokes have the size that they shall have in photos."""


@dataclass(frozen=True)
class CommonOptions:
    """What both trainings take."""

    name: str
    """The model's name."""
    photos: Path
    """Folder of photos."""
    output: Path
    """Folder for the checkpoint, the log and the state."""
    fit: FitOptions
    batch: int
    """Crops in a step; under torchrun, of each process."""
    crop: int
    """Side of the square crops, a multiple of 8."""
    held_out: float = 0.05
    """Share of the photos kept for validation, where there is no folder of them."""
    validation: Path | None = None
    """Folder of photos to judge by; none of `photos` is held out then."""
    config: Mapping[str, Any] = field(default_factory=dict)
    """The network's own arguments, where they differ from its defaults."""
    start: Path | None = None
    """A checkpoint of the same architecture to begin with; one for another scale lends all but its head."""
    resume: bool = False
    command: str = ""
    """The command line, for the recipe."""
    architecture: str = ""
    """The network's name in `training.networks`."""
    backbone: str = "vgg16"
    """The classifier in `training.backbones` whose features tell content and style; restorers need it for the
    perceptual term alone."""
    backbone_weights: Path | None = None
    """Its weights; by default those in the cache, in an installed package, or from the official place."""

    def __post_init__(self) -> None:
        if self.batch < 1 or self.crop < 32 or self.crop % 8 or not 0 <= self.held_out <= 0.5:
            raise OptionError(
                f"batch {self.batch}, crop {self.crop}, held out {self.held_out}: wanted at least 1, a multiple of 8 of at least "
                "32, and 0 to 0.5"
            )
        if self.start is None and (self.fit.freeze or self.fit.depth_decay != 1):
            raise OptionError(
                "frozen stages and lower rates by depth spare what was learnt before; name it with --start"
            )


@dataclass(frozen=True)
class StyleOptions(CommonOptions):
    """A stylizer."""

    paintings: tuple[Path, ...] = ()
    with_strength: bool = False
    """Also learn the photo itself as a style, so that a strength can be chosen at run time; several paintings imply it."""
    architecture: str = "thumbnail-stylizer"
    weights: Mapping[str, float] = field(default_factory=lambda: dict(STYLE_WEIGHTS))

    @property
    def styles(self) -> list[str]:
        """Names for a network of several styles: PHOTO and the paintings' file names; none for one style alone."""
        several = self.with_strength or len(self.paintings) > 1
        return [PHOTO, *(painting.stem for painting in self.paintings)] if several else []

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.paintings:
            raise OptionError("a stylizer needs at least one painting to learn")
        if len(set(self.styles)) < len(self.styles):
            raise OptionError(
                f"the paintings' file names become the styles' names; these are not all different: {self.styles}"
            )
        if self.styles and self.architecture != "thumbnail-stylizer":
            raise OptionError(
                f"a {self.architecture} learns one style; several, or a strength, need a thumbnail-stylizer"
            )
        if len(self.paintings) > 1 and self.fit.replay:
            raise OptionError(
                "a recorded step cannot change its painting; leave --cuda-graph away, or name one painting"
            )


@dataclass(frozen=True)
class RestoreOptions(CommonOptions):
    """A restorer: denoiser, deblurrer, inpainter, upscaler or JPEG cleaner, as the damage says."""

    degradation: Degradation = GaussianNoise(0, 55)  # noqa: RUF009 (frozen)
    """What is done to the photos; a network of another scale than 1 follows from it."""
    architecture: str = "unet-restorer"
    weights: Mapping[str, float] = field(default_factory=lambda: dict(RESTORE_WEIGHTS))


Report = Callable[[Progress], None]


def fit_style(options: StyleOptions, report: Report = lambda progress: None) -> FitResult:
    """Train a stylizer. Raises PictureError, TrainingError, CheckpointError, OptionError, OutputError."""
    device = pick_device(options.fit.device)
    # Photos at the size at which people look at results, so that a crop shows things and not pixels.
    train, validation = _photos(options, options.crop, longest=768, enlarged_to=options.crop)
    # Each photo again at a smaller size: busier, the same things smaller.
    both = train.joined(train.scaled(512, smallest=options.crop))
    backbone = load_backbone(options.backbone, options.backbone_weights).to(device)
    network = _network(options, {"styles": options.styles} if options.styles else {}).to(device)
    task = StyleTask(
        network,
        backbone,
        [read_painting(painting) for painting in options.paintings],
        both,
        validation,
        crop=options.crop,
        batch=options.batch,
        seed=options.fit.seed,
        device=device,
        weights=options.weights,
        processes=launched(),
    )
    extra = {
        "paintings": [painting.name for painting in options.paintings],
        "painting_side": PAINTING_SIDE,
        "backbone": str(backbone),
    }
    recipe = _recipe(options, network, train, validation, extra)
    return fit(
        task,
        options.fit,
        options.output,
        name=options.name,
        kind="stylize",
        recipe=recipe,
        resume=options.resume,
        report=report,
    )


def fit_restore(options: RestoreOptions, report: Report = lambda progress: None) -> FitResult:
    """Train a restorer. Raises PictureError, TrainingError, CheckpointError, OptionError, OutputError."""
    device = pick_device(options.fit.device)
    scale = options.degradation.scale
    # A smaller photo fills its crops with its reflection: enlarged, it would teach that clean photos are blurred.
    train, validation = _photos(options, options.crop * scale)
    network = _network(options, {"scale": scale}).to(device)
    if network.scale != scale:
        raise OptionError(
            f"{options.degradation} asks for a network that enlarges ×{scale}; this one enlarges ×{network.scale}. "
            "Leave scale out of --config, or begin with another checkpoint"
        )
    backbone = None
    if options.weights.get("perceptual"):
        backbone = load_backbone(options.backbone, options.backbone_weights).to(device)
    task = RestoreTask(
        network,
        train,
        validation,
        backbone=backbone,
        degradation=options.degradation,
        crop=options.crop,
        batch=options.batch,
        seed=options.fit.seed,
        device=device,
        weights=options.weights,
        processes=launched(),
    )
    extra = {"degradation": str(options.degradation), **({"backbone": str(backbone)} if backbone else {})}
    recipe = _recipe(options, network, train, validation, extra)
    return fit(
        task,
        options.fit,
        options.output,
        name=options.name,
        kind=options.degradation.task,
        recipe=recipe,
        resume=options.resume,
        report=report,
    )


def _photos(
    options: CommonOptions, crop: int, longest: int | None = None, enlarged_to: int | None = None
) -> tuple[Photos, Photos]:
    """Those to train on, with sides of at least half a crop, and those to judge by."""
    photos = read_photos(options.photos, smallest=crop // 2, longest=longest, enlarged_to=enlarged_to)
    if options.validation is None:
        return photos.split(options.held_out)
    return photos, read_photos(options.validation, smallest=32)


def _network(options: CommonOptions, implied: Mapping[str, Any] = MappingProxyType({})) -> Network:
    """Fresh weights of this seed, or those of a checkpoint. implied: arguments that follow from the task."""
    if options.start is None:
        torch.manual_seed(options.fit.seed)
        return build(options.architecture, {**implied, **options.config}).train()
    network = checkpoint.load(options.start).network
    if network.architecture != options.architecture:
        raise OptionError(
            f"{options.start} holds a {network.architecture}; this training wants a {options.architecture}"
        )
    if options.config:
        raise OptionError(f"--config and --start exclude each other: {options.start} has its own {network.config}")
    if any(network.config.get(key) != value for key, value in implied.items()):
        return _rebuilt(network, implied, options.fit.seed).train()
    return network.train()


def _rebuilt(network: Network, implied: Mapping[str, Any], seed: int) -> Network:
    """The network with other arguments; weights that do not fit them, such as those of its head, begin afresh."""
    torch.manual_seed(seed)
    other = build(network.architecture, {**network.config, **implied})
    other.adopt(network)
    return other


def read_painting(path: Path) -> np.ndarray:
    """The painting at the size at which it is learnt: uint8 (H, W, 3). Raises PictureError."""
    from PIL import Image

    picture = Image.fromarray(images.read(path).rgb)
    factor = PAINTING_SIDE / max(picture.size)
    size = (max(32, int(picture.width * factor)), max(32, int(picture.height * factor)))
    return np.asarray(picture.resize(size, Image.Resampling.LANCZOS))


def _recipe(
    options: CommonOptions, network: Network, train: Photos, validation: Photos, extra: dict[str, Any]
) -> dict[str, Any]:
    return {
        "command": options.command,
        "seed": options.fit.seed,
        "steps": options.fit.steps,
        "batch": options.batch,
        **({"processes": launched().count} if launched().count > 1 else {}),
        "crop": options.crop,
        "data": {
            "folder": os.fspath(options.photos),
            "photos": len(train.names),
            "validation": {
                "folder": os.fspath(options.validation or options.photos),
                "files": list(validation.names),
            },
            "skipped": list(train.skipped),
        },
        # With the recipe of where it began: one file tells the whole history.
        "start": options.start and {"file": os.fspath(options.start), "recipe": checkpoint.load(options.start).recipe},
        "kmac_per_pixel": round(kmac_per_pixel(network), 1),
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        **extra,
    }
