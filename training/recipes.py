"""The two trainings that people ask for, each one call: a stylizer from a painting, a restorer from clean photos."""

from __future__ import annotations

import hashlib
import itertools
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch

from impasto.errors import OptionError
from impasto.images import PAINTING_SIDE, read_painting
from impasto.images.sizes import LEAST_WORKING_SIZE
from impasto.styles import PHOTO
from impasto.training.data.photos import Photos, Split, digest, read_folders, read_pairs, read_photos
from impasto.training.data.synthetic import synthetic_pictures
from impasto.training.loop.processes import launched
from impasto.training.loop.trainer import FitOptions, FitResult, Progress, fit, pick_device
from impasto.training.networks.unet_restorer import UnetRestorer

from . import checkpoint
from .backbones import BACKBONES, load_backbone
from .degrade import MISSING_COLOUR, Degradation, GaussianNoise, Missing
from .networks import Network, build, kmac_per_pixel
from .spandrel_models import FOREIGN
from .tasks import RESTORE_WEIGHTS, STYLE_WEIGHTS, PairTask, Restoration, RestoreTask, StyleTask


@dataclass(frozen=True)
class CommonOptions:
    """What both trainings take."""

    name: str
    """The model's name."""
    photos: Path | Sequence[Path] | None
    """Folder of photos, or several; None where a training's data is named otherwise."""
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
    test_share: float = 0.0
    """Share of all the photos kept for a test set, which is judged once, at the end."""
    test: Path | None = None
    """Folder of photos for it, instead."""
    config: Mapping[str, Any] = field(default_factory=dict)
    """The network's own arguments, where they differ from its defaults."""
    start: Path | None = None
    """A checkpoint or package of the same architecture to begin with; one for another scale lends all but its head."""
    resume: bool = False
    terms: str = ""
    """What the owners of the pictures allow, for the recipe: `impasto models` shows it."""
    command: str = ""
    """The command line, for the recipe."""
    architecture: str = ""
    """The network's name in `training.networks`."""
    backbone: str = "vgg16"
    """The classifier in `training.backbones` whose features tell content and style; restorers need it for the
    perceptual term alone."""
    weights: Mapping[str, float] = field(default_factory=dict)
    """Of the loss terms."""
    backbone_weights: Path | None = None
    """Its weights; by default those in the cache, in an installed package, or from the official place."""

    @property
    def photo_folders(self) -> tuple[Path, ...]:
        """The folders of photos; none where a training's data is named otherwise."""
        if self.photos is None:
            return ()
        return (Path(self.photos),) if isinstance(self.photos, (str, os.PathLike)) else tuple(map(Path, self.photos))

    def __post_init__(self) -> None:
        if self.batch < 1 or self.crop < 32 or self.crop % 8 or not 0 <= self.held_out <= 0.5:
            raise OptionError(
                f"batch {self.batch}, crop {self.crop}, held out {self.held_out}: wanted at least 1, a multiple of 8 of at least "
                "32, and 0 to 0.5"
            )
        if not 0 <= self.test_share <= 0.5 or (self.test_share and self.test):
            raise OptionError(f"test share {self.test_share}: wanted 0 to 0.5, and none beside a folder of test photos")
        if self.held_out + self.test_share > 0.9:
            raise OptionError(
                f"held out {self.held_out} and test share {self.test_share}: too little is left to train on; hold less out"
            )
        if self.backbone not in BACKBONES:
            raise OptionError(f"unknown backbone {self.backbone!r}; choose one of {', '.join(BACKBONES)}")
        unfit = {name: value for name, value in self.weights.items() if not (math.isfinite(value) and value >= 0)}
        if unfit:
            raise OptionError(f"weights of loss terms are numbers from 0 on; got {unfit}")
        if self.start is None and (self.fit.freeze or self.fit.depth_decay != 1):
            raise OptionError(
                "frozen stages and lower rates by depth spare what was learnt before; name it with --start"
            )
        if self.start is None and self.fit.qat:
            raise OptionError(
                "weights get used to INT8 at the end of a training; name a trained checkpoint with --start"
            )


def check_whole(sides: tuple[int, int]) -> None:
    """Raises OptionError for longer sides of whole photos, in pixels, that nothing can be learnt from."""
    if not 128 <= sides[0] <= sides[1]:
        raise OptionError(f"whole photos of {sides[0]} to {sides[1]} pixels: wanted 128 or more, smaller first")


@dataclass(frozen=True)
class StyleOptions(CommonOptions):
    """A stylizer."""

    paintings: tuple[Path, ...] = ()
    whole: tuple[int, int] | None = None
    """Instead of crops, whole photos whose longer side lies between these two, in pixels."""
    scales: int = 1
    """Sizes at which the strokes are compared with the painting's, each half the one before."""
    with_strength: bool = False
    """Also learn the photo itself as a style, so that a strength can be chosen at run time; several paintings imply it."""
    working_size: int | None = None
    """Pixels of the longest side at which larger photos will be drawn; None for every photo's own size."""
    architecture: str = "thumbnail-stylizer"
    weights: Mapping[str, float] = field(default_factory=lambda: dict(STYLE_WEIGHTS))

    @property
    def styles(self) -> list[str]:
        """Names for a network of several styles: PHOTO and the paintings' file names; none for one style alone."""
        several = self.with_strength or len(self.paintings) > 1
        return [PHOTO, *(painting.stem for painting in self.paintings)] if several else []

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.working_size is not None and self.working_size < LEAST_WORKING_SIZE:
            raise OptionError(f"working size {self.working_size}: wanted at least {LEAST_WORKING_SIZE} pixels")
        if not self.photo_folders or not self.paintings:
            raise OptionError("a stylizer needs a folder of photos, and at least one painting to learn")
        if not 1 <= self.scales <= 4:
            raise OptionError(f"strokes are compared at 1 to 4 scales; got {self.scales}")
        if self.whole:
            check_whole(self.whole)
        if self.whole and self.fit.replay:
            raise OptionError("a recorded step has one size; leave --cuda-graph away, or train on crops")
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
    pairs: tuple[Path, Path] | None = None
    """Instead of photos to damage: a folder of pictures, and one of what they ought to be, under the same names."""
    with_strength: bool = False
    """Let the strength be chosen at run time: up to 2 for what undoes noise, else up to 1."""
    architecture: str = "unet-restorer"
    weights: Mapping[str, float] = field(default_factory=lambda: dict(RESTORE_WEIGHTS))
    synthetic: float = 0.0
    """Share of the pictures to train on that are made by program: text, line drawings, flat shapes and gradients."""
    gray: float = 0.0
    """Share of the crops whose colour is taken away before they are damaged."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.synthetic <= 0.9 or not 0 <= self.gray <= 1:
            raise OptionError(
                f"synthetic pictures {self.synthetic}, gray crops {self.gray}: wanted shares from 0 to 0.9, and from 0 to 1"
            )
        if self.pairs and (self.synthetic or self.gray):
            raise OptionError("pairs are learnt as they are; leave synthetic and gray pictures away")
        if bool(self.photo_folders) == bool(self.pairs):
            raise OptionError(
                "a restorer learns from photos that are damaged for it, or from pairs: name one of the two (--photos, --pairs)"
            )
        if self.pairs and (self.validation or self.test):
            raise OptionError("pairs are judged by pairs: hold a share of them out, and name no other folder")


Report = Callable[[Progress], None]


def fit_style(options: StyleOptions, report: Report = lambda progress: None) -> FitResult:
    """Train a stylizer. Raises PictureError, TrainingError, CheckpointError, OptionError, OutputError."""
    device = pick_device(options.fit.device)
    # Photos at the size at which people look at results, so that a crop shows things and not pixels.
    split = split_photos(options, options.crop, longest=768, enlarged_to=options.crop)
    # Each photo again at a smaller size: busier, the same things smaller. Whole photos have random sizes anyway.
    both = split.train if options.whole else split.train.joined(split.train.scaled(512, smallest=options.crop))
    backbone = load_backbone(options.backbone, options.backbone_weights).to(device)
    named = options.architecture == "thumbnail-stylizer"
    network = new_network(options, {"styles": options.styles} if named else {}, style=options.paintings[0].stem).to(
        device
    )
    if list(network.styles) != options.styles:
        raise OptionError("styles are what the paintings' files are called; leave styles out of --config")
    paintings = [read_painting(painting) for painting in options.paintings]
    task = StyleTask(
        network,
        backbone,
        paintings,
        both,
        split.validation,
        crop=options.crop,
        batch=options.batch,
        seed=options.fit.seed,
        device=device,
        weights=options.weights,
        whole=options.whole,
        scales=options.scales,
        processes=launched(),
    )
    extra: dict[str, Any] = {
        "paintings": [painting.name for painting in options.paintings],
        "painting_side": PAINTING_SIDE,
        "backbone": str(backbone),
        **({"working_size": options.working_size} if options.working_size else {}),
    }
    # Only where they are used: runs of before are gone on with.
    extra |= {"whole": list(options.whole)} if options.whole else {}
    extra |= {"scales": options.scales} if options.scales > 1 else {}
    digests = {"paintings": [digest(painting) for painting in paintings], "backbone": digest_of_weights(backbone)}
    return _fit(options, task, "stylize", split, extra, report, digests)


def fit_restore(options: RestoreOptions, report: Report = lambda progress: None) -> FitResult:
    """Train a restorer. Raises PictureError, TrainingError, CheckpointError, OptionError, OutputError."""
    device = pick_device(options.fit.device)
    split = _split_pairs(options) if options.pairs else split_photos(options, options.crop * options.degradation.scale)
    scale = split.train.scale if options.pairs else options.degradation.scale
    implied = arguments_for(options.architecture, scale, None if options.pairs else options.degradation)
    network = new_network(options, implied | _implied_strength(options, scale)).to(device)
    if options.with_strength and not network.strength:
        raise OptionError(
            f"a {network.architecture} takes no strength; leave --with-strength away, or train a unet-restorer"
        )
    if network.scale != scale:
        raise OptionError(
            f"{'these pairs ask' if options.pairs else f'{options.degradation} asks'} for a network that enlarges ×{scale}; this one "
            f"enlarges ×{network.scale}. Leave scale out of --config, or begin with another checkpoint"
        )
    if options.crop % network.multiple or options.crop < network.minimum:
        raise OptionError(
            f"crops of {options.crop} do not suit this network; choose a multiple of {network.multiple} of at least {network.minimum}"
        )
    backbone = None
    if options.weights.get("perceptual"):
        backbone = load_backbone(options.backbone, options.backbone_weights).to(device)
    common: Any = {
        "crop": options.crop,
        "batch": options.batch,
        "seed": options.fit.seed,
        "device": device,
        "weights": options.weights,
        "processes": launched(),
        "backbone": backbone,
    }
    extra: dict[str, Any] = {"backbone": str(backbone)} if backbone else {}
    digests = {"backbone": digest_of_weights(backbone)} if backbone else {}
    if options.pairs:
        paired = PairTask(network, split.train, split.validation, **common)
        return _fit(options, paired, "upscale" if scale > 1 else "restore", split, extra, report, digests)
    made = _synthetic(options, len(split.train.names))
    task = RestoreTask(
        network,
        split.train.joined(made),
        split.validation,
        degradation=options.degradation,
        gray=options.gray,
        **common,
    )
    extra["degradation"] = str(options.degradation)
    # Only where they are used: runs of before are gone on with.
    extra |= {"synthetic": len(made.names)} if made.names else {}
    extra |= {"gray": options.gray} if options.gray else {}
    return _fit(options, task, options.degradation.task, split, extra, report, digests)


def _fit(
    options: CommonOptions,
    task: StyleTask | Restoration,
    kind: str,
    split: Split,
    extra: dict[str, Any],
    report: Report,
    digests: dict[str, Any],
) -> FitResult:
    """extra, digests: what the recipe and its digests say besides what those of all trainings say."""
    return fit(
        task,
        options.fit,
        options.output,
        name=options.name,
        kind=kind,
        recipe=recipe_of(options, task.network, split, extra, digests),
        test=split.test,
        resume=options.resume,
        report=report,
    )


def _synthetic(options: RestoreOptions, photos: int) -> Photos:
    """As many pictures made by program as make the wanted share of all."""
    count = round(photos * options.synthetic / (1 - options.synthetic))
    return synthetic_pictures(count, options.fit.seed) if count else Photos((), (), ())


def split_photos(
    options: CommonOptions, crop: int, longest: int | None = None, enlarged_to: int | None = None
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


def _check_apart(split: Split) -> None:
    """Raises OptionError where a photo has two purposes: a figure on photos that were learnt says nothing of others."""
    for (purpose, photos), (other, others) in itertools.combinations(_by_purpose(split).items(), 2):
        known = set(photos.digests)
        again = [name for name, found in zip(others.names, others.digests, strict=True) if found in known]
        if again:
            raise OptionError(
                f"{len(again)} of the photos for {other} are also for {purpose}, such as {again[0]}; take them out of one of the two "
                "folders, or leave the folder away and hold a share out"
            )


def _by_purpose(split: Split) -> dict[str, Photos]:
    sets = {"training": split.train, "validation": split.validation, "test": split.test}
    return {purpose: photos for purpose, photos in sets.items() if photos is not None}


def _digest_of_all(photos: Photos) -> str:
    return hashlib.blake2b("".join(photos.digests).encode(), digest_size=16).hexdigest()


def digest_of_weights(network: torch.nn.Module) -> str:
    """32 hexadecimal digits, the same for the same weights."""
    made = hashlib.blake2b(digest_size=16)
    for name, tensor in network.state_dict().items():
        made.update(name.encode())
        made.update(tensor.detach().cpu().contiguous().numpy())
    return made.hexdigest()


def _split_pairs(options: RestoreOptions) -> Split:
    """The pairs by purpose. A source is at least as large as a crop: its reflection and its target's do not fit each other."""
    assert options.pairs is not None
    pairs = read_pairs(*options.pairs, smallest=options.crop)
    return _with_test(*pairs.split(options.held_out), len(pairs.names), options.test_share)


def _with_test(train: Photos, validation: Photos, whole: int, share: float) -> Split:
    """train: what is left of `whole` photos, of which the test set is to have `share`."""
    if not share:
        return Split(train, validation, None)
    train, test = train.split(share * whole / len(train.names))
    return Split(train, validation, test)


def new_network(options: CommonOptions, implied: Mapping[str, Any] = MappingProxyType({}), style: str = "") -> Network:
    """Fresh weights of this seed, or those of a checkpoint.

    implied: arguments that follow from the task. style: what a network of one style is to learn, as one of several may know it.
    """
    if options.start is None:
        torch.manual_seed(options.fit.seed)
        return build(options.architecture, {**implied, **options.config}).train()
    network = checkpoint.load_network(options.start)
    if network.architecture == FOREIGN and isinstance(options, RestoreOptions) and not options.config:
        return network.train()
    if network.architecture != options.architecture:
        raise OptionError(
            f"{options.start} holds a {network.architecture}; this training wants a {options.architecture}"
        )
    implied = {**implied, **options.config}
    # Configurations leave out what is empty.
    if any((network.config.get(key) or None) != (value or None) for key, value in implied.items()):
        return _rebuilt(network, implied, options.fit.seed, style).train()
    return network.train()


def arguments_for(architecture: str, scale: int, degradation: Degradation | None) -> dict[str, Any]:
    """What a damage asks of a network. Where nothing but missing pixels is to be mended, the others are right as they are."""
    if architecture != UnetRestorer.architecture:
        return {"scale": scale} if scale > 1 else {}
    return {"scale": scale, "marker": list(MISSING_COLOUR) if isinstance(degradation, Missing) else None}


def _implied_strength(options: RestoreOptions, scale: int) -> dict[str, Any]:
    """The argument, where a strength is asked for or known. One that is known from the start stays, as far as the damage has it."""
    known = 0.0 if options.start is None else checkpoint.load_network(options.start).strength
    if not (options.with_strength or known):
        return {}
    noise = options.pairs is None and options.degradation.task == "denoise"
    possible = 2.0 if noise else 1.0
    if options.with_strength:
        return {"strength": possible}
    return {"strength": min(known, possible) if scale == 1 else 0.0}


def _rebuilt(network: Network, implied: Mapping[str, Any], seed: int, style: str) -> Network:
    """The network with other arguments; weights that do not fit them, such as those of its head, begin afresh."""
    torch.manual_seed(seed)
    other = build(network.architecture, {**network.config, **implied})
    other.adopt(network, style)
    return other


def recipe_of(
    options: CommonOptions, network: Network, split: Split, extra: dict[str, Any], digests: dict[str, Any]
) -> dict[str, Any]:
    """How a training is made. extra, digests: what is said besides what is the same for all; digests are of contents."""
    start = checkpoint.load(options.start).recipe if options.start else {}
    # Who began with pictures of some terms is bound by them.
    terms = "; ".join(dict.fromkeys(filter(None, (options.terms, start.get("terms")))))
    return {
        "command": options.command,
        **({"terms": terms} if terms else {}),
        "seed": options.fit.seed,
        "steps": options.fit.steps,
        "batch": options.batch,
        **({"processes": launched().count} if launched().count > 1 else {}),
        "crop": options.crop,
        **_changed_weights(options),
        "data": _data(options, split),
        "split": {
            "train": list(split.train.names),
            "validation": list(split.validation.names),
            "test": list(split.test.names) if split.test else [],
        },
        "digests": {**{purpose: _digest_of_all(photos) for purpose, photos in _by_purpose(split).items()}, **digests},
        # With the recipe of where it began: one file tells the whole history.
        "start": options.start and {"file": os.fspath(options.start), "recipe": start},
        "kmac_per_pixel": round(kmac_per_pixel(network), 1),
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        **extra,
    }


def _changed_weights(options: CommonOptions) -> dict[str, Any]:
    """Where the losses have other weights than usual; a run is not gone on with under other ones."""
    (usual,) = (other.default_factory for other in fields(options) if other.name == "weights")
    assert callable(usual)
    changed = {name: weight for name, weight in options.weights.items() if weight != usual().get(name, 0)}
    return {"weights": changed} if changed else {}


def _data(options: CommonOptions, split: Split) -> dict[str, Any]:
    """Where the pictures come from, and what became of them."""
    pairs = options.pairs if isinstance(options, RestoreOptions) else None
    folders = [os.fspath(folder) for folder in (pairs[:1] if pairs else options.photo_folders)]
    folder = folders[0] if len(folders) == 1 else folders
    return {
        "folder": folder,
        **({"targets": os.fspath(pairs[1])} if pairs else {}),
        "photos": len(split.train.names),
        "validation": {
            "folder": os.fspath(options.validation) if options.validation else folder,
            "files": list(split.validation.names),
        },
        **(
            {"test": {"folder": os.fspath(options.test) if options.test else folder, "photos": len(split.test.names)}}
            if split.test
            else {}
        ),
        "skipped": [line for photos in _read(options, split) for line in photos.skipped],
    }


def _read(options: CommonOptions, split: Split) -> list[Photos]:
    """Those of the sets that were read from a folder each; the others are shares, and their files are told with the rest."""
    of_folders = [split.train]
    if options.validation is not None:
        of_folders.append(split.validation)
    if options.test is not None and split.test is not None:
        of_folders.append(split.test)
    return of_folders
