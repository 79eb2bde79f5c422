"""Restorers: networks that undo damage of unknown strength, or what pairs of pictures show."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from impasto.errors import OptionError

from . import checkpoint, degrade, losses, validation
from .backbones import Backbone, load_backbone
from .data.colours import luminance
from .data.crops import CropSampler
from .data.photos import Photos
from .data.split import split_pairs, split_photos
from .data.synthetic import synthetic_pictures
from .degrade import Degradation, GaussianNoise
from .inference import draw, side_by_side
from .loop.device import pick_device
from .loop.options import FitOptions, FitResult, ModelInfo, Report, silent
from .loop.stages import within
from .loop.task import Task, TaskOptions
from .loop.trainer import fit
from .networks import Network
from .networks.initial_weights import arguments_for, new_network
from .options import TrainingOptions
from .recipe import digest_of_weights, recipe_of

RESTORE_WEIGHTS = {"charbonnier": 1.0, "psnr": 0.0, "frequency": 0.0, "perceptual": 0.0}

STRONGER = 2
"""One of this many pictures of a batch trains a strength above 1, if the network has one."""


@dataclass(frozen=True)
class RestoreOptions(TrainingOptions):
    """Options for training a restorer: the damage decides whether it is a denoiser, deblurrer, inpainter, upscaler or JPEG cleaner."""

    degradation: Degradation = GaussianNoise(0, 55)  # noqa: RUF009 (frozen)
    """The damage that is done to the photos. It also decides the network's scale."""
    pairs: tuple[Path, Path] | None = None
    """Instead of photos: a folder of pictures, and a folder of their targets, under the same names."""
    with_strength: bool = False
    """Let the strength be chosen at run time: up to 2 for a denoiser, otherwise up to 1."""
    fit: FitOptions = FitOptions(steps=40_000)  # noqa: RUF009 (frozen)
    batch: int = 32
    crop: int = 128
    architecture: str = "unet-restorer"
    weights: Mapping[str, float] = field(default_factory=lambda: dict(RESTORE_WEIGHTS))
    synthetic: float = 0.0
    """Share of the training pictures that are generated: text, line drawings, flat shapes and gradients; 0 to 0.9."""
    gray: float = 0.0
    """Share of the crops that are turned gray before they are damaged; 0 to 1."""

    accepts_foreign: ClassVar[bool] = True

    @property
    def data_folders(self) -> tuple[tuple[Path, ...], Path | None]:
        """The folders of pictures, and the folder of their targets."""
        return ((self.pairs[0],), self.pairs[1]) if self.pairs else super().data_folders

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.synthetic <= 0.9 or not 0 <= self.gray <= 1:
            raise OptionError(
                f"synthetic pictures {self.synthetic}, gray crops {self.gray}: wanted shares from 0 to 0.9, and from 0 to 1"
            )
        if self.pairs and (self.synthetic or self.gray):
            raise OptionError("pairs are learnt as they are; leave synthetic and gray pictures out")
        if bool(self.photo_folders) == bool(self.pairs):
            raise OptionError(
                "a restorer learns from photos that are damaged for it, or from pairs: name one of the two (--photos, --pairs)"
            )
        if self.pairs and (self.validation or self.test):
            raise OptionError("pairs are judged by pairs: hold a share of them out, and name no other folder")


def train_restorer(options: RestoreOptions, report: Report = silent) -> FitResult:
    """Train a network to undo a damage of unknown strength, or to turn the first picture of a pair into the second.

    Args:
        options: the damage or the pairs, the photos, and where the results go.
        report: called with the step and the losses every 25 steps.

    Returns:
        A `FitResult`: the checkpoint's path, the losses, and PSNR in dB on the photos that were held out.

    Raises:
        OptionError: options that do not fit each other, or this machine.
        PictureError: a folder holds no pictures.
        CheckpointError: the weights to start from, or the backbone's, cannot be read.
        TrainingError: a loss is not finite, no photo can be used, or another run lies in the output folder.
        OutputError: the output folder cannot be written.

    Example:
        >>> from pathlib import Path
        >>> from impasto.training import FitOptions, RestoreOptions, train_restorer
        >>> from impasto.training.degrade import parse
        >>> result = train_restorer(RestoreOptions(
        ...     name="denoiser", photos=Path("photos"), output=Path("runs/denoiser"), degradation=parse("noise:0-30"),
        ...     fit=FitOptions(steps=2), batch=2, crop=32,
        ... ))
        >>> sorted(result.quality)
        ['psnr_sigma_15', 'psnr_sigma_25', 'psnr_sigma_50']
    """
    device = pick_device(options.fit.device)
    if options.pairs:  # noqa: SIM108 (one line would be too long)
        split = split_pairs(*options.pairs, options)
    else:
        split = split_photos(options, options.crop * options.degradation.scale)
    network = _network(options, split.train.scale if options.pairs else options.degradation.scale).to(device)
    backbone = None
    if options.weights.get("perceptual"):
        backbone = load_backbone(options.backbone, options.backbone_weights).to(device)
    extra: dict[str, Any] = {"backbone": str(backbone)} if backbone else {}
    digests = {"backbone": digest_of_weights(backbone)} if backbone else {}
    task: Restoration
    if options.pairs:
        task = PairTask(network, split.train, split.validation, options.task_options(device), backbone=backbone)
        kind = "upscale" if network.scale > 1 else "restore"
    else:
        made = _synthetic(options, len(split.train.names))
        task = RestoreTask(
            network,
            split.train.joined(made),
            split.validation,
            options.task_options(device),
            degradation=options.degradation,
            gray=options.gray,
            backbone=backbone,
        )
        kind = options.degradation.task
        extra["degradation"] = str(options.degradation)
        # Only where they are used, so that runs of earlier versions can be resumed.
        extra |= {"synthetic": len(made.names)} if made.names else {}
        extra |= {"gray": options.gray} if options.gray else {}
    model = ModelInfo(options.name, kind, recipe_of(options, network, split, extra, digests))
    return fit(task, options.fit, options.output, model, test=split.test, resume=options.resume, report=report)


def _network(options: RestoreOptions, scale: int) -> Network:
    """The network that the options ask for. scale: that it has to have. Raises OptionError where it does not suit the options."""
    implied = arguments_for(options.architecture, scale, None if options.pairs else options.degradation)
    network = new_network(options, implied | _implied_strength(options, scale))
    if options.with_strength and not network.strength:
        raise OptionError(
            f"a {network.architecture} takes no strength; leave --with-strength out, or train a unet-restorer"
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
    return network


def _implied_strength(options: RestoreOptions, scale: int) -> dict[str, Any]:
    """The network's argument `strength`; empty for none.

    The strength of the network in `start` is kept, but at most 1 unless the damage is noise.
    """
    known = 0.0 if options.start is None else checkpoint.load_network(options.start).strength
    if not (options.with_strength or known):
        return {}
    noise = options.pairs is None and options.degradation.task == "denoise"
    possible = 2.0 if noise else 1.0
    if options.with_strength:
        return {"strength": possible}
    return {"strength": min(known, possible) if scale == 1 else 0.0}


def _synthetic(options: RestoreOptions, photos: int) -> Photos:
    """Pictures made by program, so many that they are the wanted share of all."""
    count = round(photos * options.synthetic / (1 - options.synthetic))
    return synthetic_pictures(count, options.fit.seed) if count else Photos((), (), ())


class Restoration(Task):
    """Give back what a picture ought to be. Subclasses say where the two come from."""

    def __init__(self, network: Network, validation: Photos, options: TaskOptions, backbone: Backbone | None) -> None:
        """backbone: for the perceptual term, where it has a weight."""
        super().__init__()
        self.network, self.weights, self.backbone = network, losses.requested(options.weights), backbone
        self._validation, self._options = validation, options

    def forward(self, *batch: Tensor) -> dict[str, Tensor]:
        """batch: what is given and what is wanted, (N, 3, S, S) and (N, 3, scale · S, scale · S) in 0..1."""
        damaged, clean = batch
        return self._terms(self.network(damaged).float(), clean)

    def _terms(self, restored: Tensor, clean: Tensor) -> dict[str, Tensor]:
        terms = {"charbonnier": losses.charbonnier(restored, clean)}
        if "psnr" in self.weights:
            terms["psnr"] = losses.log_error(restored, clean)
        if "frequency" in self.weights:
            terms["frequency"] = losses.frequency(restored, clean)
        if "perceptual" in self.weights:
            assert self.backbone is not None
            layer = self.backbone.content_layer
            with torch.no_grad():
                of_clean = self.backbone(clean, layer)[layer]
            terms["perceptual"] = losses.perceptual(self.backbone(restored.clamp(0, 1), layer)[layer], of_clean)
        return terms

    def score(self, quality: Mapping[str, float]) -> float:
        # Undamaged pictures that come back equal have an infinite PSNR, which would hide all others.
        return float(np.mean([min(value, 60.0) for value in quality.values()]))


class RestoreTask(Restoration):
    """Give the clean photo back, from seeded damage of unknown strength.

    A network whose strength goes above 1 also learns to take more for damage: asked for s, it is to give what it makes itself, at
    strength 1, of the picture with s times its damage. That changes its stage for strengths above 1 and nothing else.
    """

    def __init__(
        self,
        network: Network,
        photos: Photos,
        validation: Photos,
        options: TaskOptions,
        *,
        degradation: Degradation,
        gray: float = 0.0,
        backbone: Backbone | None = None,
    ) -> None:
        """The clean crops are larger than options.crop by the degradation's scale. gray: share of the crops that lose their
        colour before they are damaged."""
        super().__init__(network, validation, options, backbone)
        self._degradation, self._gray = degradation, gray
        side, batch = options.crop * degradation.scale, options.whole_batch
        self._sampler = CropSampler(photos, side, batch, options.device, seed=options.seed, turns=True)

    def batch(self, step: int) -> tuple[Tensor, ...]:
        clean = self._sampler.batch(step).crops.float() / 255
        generator = torch.Generator(self._options.device).manual_seed(self._options.seed * 1_000_003 + step)
        if self._gray:
            colourless = torch.rand(len(clean), 1, 1, 1, device=self._options.device, generator=generator) < self._gray
            clean = torch.where(colourless, degrade.eight_bits(luminance(clean)), clean)
        # All processes draw the damage of the whole batch: so it is the same however many share it.
        pictures = self._degradation(clean, generator)[self._options.part], clean[self._options.part]
        return (*pictures, *self._strengths(step)) if self.network.strength > 1 else pictures

    def _strengths(self, step: int) -> tuple[Tensor, Tensor]:
        """What is asked for each picture, float32 (N, 1), and the places of those for which it may be above 1, int64 (n,): the
        same in every step, for recorded steps."""
        asked = np.random.default_rng([self._options.seed, step, 5]).uniform(
            1, self.network.strength, (self._options.whole_batch, 1)
        )
        number = np.arange(self._options.whole_batch)
        asked[number % STRONGER != 0] = 1
        if self._options.whole_batch == 1 and step % STRONGER:
            asked[:] = 1
        places = np.flatnonzero(number[self._options.part] % STRONGER == 0)
        strength = torch.from_numpy(asked[self._options.part].astype(np.float32))
        return strength.to(self._options.device), torch.from_numpy(places).to(self._options.device)

    def forward(self, *batch: Tensor) -> dict[str, Tensor]:
        """batch: as of any restoration; where strengths above 1 are learnt, also what `_strengths` gives."""
        if len(batch) == 2:
            return super().forward(*batch)
        damaged, clean, strength, places = batch
        with torch.no_grad():
            asked, truth = strength[places, :, None, None], clean[places]
            worse = (truth + asked * (damaged[places] - truth)).clamp(0, 1)
            taught = torch.where(asked > 1, self.network(worse).float().clamp(0, 1), truth)
        above_1 = self._with_fixed_weights(damaged[places], strength[places]).float()
        if not self._learns_strength_1():
            return self._terms(above_1, taught)
        return self._terms(torch.cat([self.network(damaged).float(), above_1]), torch.cat([clean, taught]))

    def _learns_strength_1(self) -> bool:
        """Whether anything but the stage for strengths above 1 is to learn."""
        return any(
            weight.requires_grad and not within(name, self.network.stage_above_1)
            for name, weight in self.network.named_parameters()
        )

    def _with_fixed_weights(self, damaged: Tensor, strength: Tensor) -> Tensor:
        """What the network makes at these strengths, with a gradient for what it adds above 1 alone.

        Otherwise it would learn from itself: once its own drawings are bad, they teach worse ones.
        """
        weights = {
            name: weight if within(name, self.network.stage_above_1) else weight.detach()
            for name, weight in self.network.named_parameters()
        }
        drawn: Tensor = torch.func.functional_call(self.network, weights, (damaged, strength))
        return drawn

    def judge(self, network: Network, photos: Photos) -> dict[str, float]:
        if isinstance(self._degradation, degrade.GaussianNoise):
            return validation.denoise_psnr(network, photos.pictures)
        return validation.restore_psnr(network, photos.pictures, self._degradation)

    def preview(self, network: Network) -> np.ndarray | None:
        scale, pairs = self._degradation.scale, []
        for seed, photo in enumerate(self._validation.pictures[:2]):
            damaged = degrade.damaged(validation.judged(photo, scale), self._degradation.at(0.5), seed)
            pairs.append((damaged.repeat(scale, 0).repeat(scale, 1), draw(network, damaged)))
        return side_by_side(pairs)


class PairTask(Restoration):
    """Give the partner of a real picture: another camera's, a cleaned one, a larger one."""

    def __init__(
        self,
        network: Network,
        pairs: Photos,
        validation: Photos,
        options: TaskOptions,
        *,
        backbone: Backbone | None = None,
    ) -> None:
        """pairs: photos with targets of the network's scale."""
        super().__init__(network, validation, options, backbone)
        self._sampler = CropSampler(
            pairs,
            options.crop,
            options.whole_batch,
            options.device,
            seed=options.seed,
            turns=True,
            processes=options.processes,
        )

    def batch(self, step: int) -> tuple[Tensor, ...]:
        batch = self._sampler.batch(step)
        assert batch.targets is not None
        return batch.crops.float() / 255, batch.targets.float() / 255

    def judge(self, network: Network, photos: Photos) -> dict[str, float]:
        return validation.pair_psnr(network, photos)

    def score(self, quality: Mapping[str, float]) -> float:
        return quality["psnr"]

    def preview(self, network: Network) -> np.ndarray | None:
        shown = self._validation.first(2)
        pairs = [validation.middle_of_pair(*pair) for pair in zip(shown.pictures, shown.targets, strict=True)]
        return side_by_side(
            [
                (source.repeat(shown.scale, 0).repeat(shown.scale, 1), draw(network, source), target)
                for source, target in pairs
            ]
        )
