"""Stylizers: networks that paint photos like a painting."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from impasto.errors import OptionError
from impasto.images import PAINTING_SIDE, read_painting
from impasto.images.sizes import LEAST_WORKING_SIZE
from impasto.metrics import bounded_psnr
from impasto.styles import PHOTO, mixture

from . import losses, validation
from .backbones import Backbone, load_backbone
from .data.colours import random_colours, recoloured
from .data.crops import CropSampler, WholeSampler, inside, thumbnails, thumbnails_of
from .data.photos import Photos, digest
from .data.split import split_photos
from .inference import draw, side_by_side
from .loop.device import pick_device
from .loop.options import FitResult, ModelInfo, Report, silent
from .loop.task import Task, TaskOptions
from .loop.trainer import fit
from .losses import requested
from .networks import Network, mixed
from .networks.initial_weights import new_network
from .options import TrainingOptions, check_whole
from .recipe import digest_of_weights, recipe_of

STYLE_WEIGHTS = {
    "content": 1.0, "style": 10.0, "total variation": 0.05, "grid": 1.0, "shift": 20.0, "range": 10.0, "photo": 10.0,
    "temporal": 0.0, "deep content": 0.0,
}  # fmt: skip
"""Weights of the loss terms. `photo` pulls a network of several styles toward the photo, where less than full strength is wanted.
`deep content` is content in the backbone's deepest layer, whose features are objects rather than edges."""

FULL_STRENGTH, NO_STRENGTH = 0.7, 0.1
"""For a network of several styles: the share of steps at full strength of one style, and at strength 0. The other steps train
a mixture of one style with the photo."""

MOVED_PIXELS, MOVED_SHARE, MOVED_NOISE = 4.0, 0.02, 3.0
"""Largest differences between two frames of the temporal term's artificial video: motion in pixels, change of size as a share, and
standard deviation of the noise in levels of 255."""

SHIFT_MARGIN = 24
"""Pixels at the edges of a crop that the shift term leaves out for networks that know where the edges are."""


@dataclass(frozen=True)
class StyleOptions(TrainingOptions):
    """Options for training a stylizer."""

    paintings: tuple[Path, ...] = ()
    """Picture files of the paintings, one for each style. At least one."""
    whole: tuple[int, int] | None = None
    """Instead of crops, whole photos whose longer side lies between these two, in pixels."""
    scales: int = 1
    """Number of sizes, 1 to 4, at which strokes are compared with the painting's. Each is half the one before."""
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
            raise OptionError("a recorded step has one size; leave --cuda-graph out, or train on crops")
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
                "a recorded step cannot change its painting; leave --cuda-graph out, or name one painting"
            )


def train_style(options: StyleOptions, report: Report = silent) -> FitResult:
    """Train a network to paint photos in the style of one painting, or of several that can be mixed.

    Args:
        options: what to learn, from which photos, and where the results go.
        report: called with the step and the losses every 25 steps.

    Returns:
        A `FitResult`: the checkpoint's path, the losses, and the quality on the photos that were held out.

    Raises:
        OptionError: options that do not fit each other, or this machine.
        PictureError: a painting cannot be read, or a folder holds no pictures.
        CheckpointError: the weights to start from, or the backbone's, cannot be read.
        TrainingError: a loss is not finite, no photo can be used, or another run lies in the output folder.
        OutputError: the output folder cannot be written.

    Example:
        >>> from pathlib import Path
        >>> from impasto.training import FitOptions, StyleOptions, train_style
        >>> result = train_style(StyleOptions(
        ...     name="waves", paintings=(Path("waves.png"),), photos=Path("photos"), output=Path("runs/waves"),
        ...     backbone_weights=Path("vgg16.safetensors"), fit=FitOptions(steps=2), batch=1, crop=128,
        ... ))
        >>> result.checkpoint.name, result.steps
        ('checkpoint.safetensors', 2)
    """
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
        options.task_options(device),
        whole=options.whole,
        scales=options.scales,
    )
    extra: dict[str, Any] = {
        "paintings": [painting.name for painting in options.paintings],
        "painting_side": PAINTING_SIDE,
        "backbone": str(backbone),
        **({"working_size": options.working_size} if options.working_size else {}),
    }
    # Only where they are used, so that runs of earlier versions can be resumed.
    extra |= {"whole": list(options.whole)} if options.whole else {}
    extra |= {"scales": options.scales} if options.scales > 1 else {}
    digests = {"paintings": [digest(painting) for painting in paintings], "backbone": digest_of_weights(backbone)}
    model = ModelInfo(options.name, "stylize", recipe_of(options, network, split, extra, digests))
    return fit(task, options.fit, options.output, model, test=split.test, resume=options.resume, report=report)


class StyleTask(Task):
    """Paint photos like a painting: content of the photo, Gram matrices of the painting (Johnson et al. 2016).

    A network of several styles learns one of them in each step, in turn.
    """

    def __init__(
        self,
        network: Network,
        backbone: Backbone,
        paintings: Sequence[np.ndarray],
        photos: Photos,
        validation: Photos,
        options: TaskOptions,
        *,
        whole: tuple[int, int] | None = None,
        scales: int = 1,
    ) -> None:
        """paintings: uint8 (H, W, 3), at the size at which their strokes are to be learnt; one for each of the network's
        styles besides PHOTO, in their order. whole: instead of crops, whole photos with a longer side between these two, in pixels.
        scales: sizes at which the drawing's statistics are compared with the painting's, each half the one before."""
        super().__init__()
        self.network, self.backbone = network, backbone
        self.weights = {
            name: value for name, value in requested(options.weights).items() if name != "photo" or network.styles
        }
        self._validation, self._options, self._scales = validation, options, scales
        crop, device, seed, batch = options.crop, options.device, options.seed, options.whole_batch
        self._thumbnails = None
        if whole:
            crop, self._around = int(0.75 * whole[0]), network.border
            self._sampler: CropSampler | WholeSampler = WholeSampler(
                photos, whole, batch, device, seed=seed, multiple=network.multiple, around=self._around,
                processes=options.processes,
            )  # fmt: skip
        else:
            # Enough surroundings that no judged pixel depends on where the input ends. With little of them, a network told from
            # the zero padding where a crop ends, and drew a sky along the top and a wave into the corners of every picture.
            self._around = -(-(network.receptive_field or 0) // network.multiple) * network.multiple
            self._sampler = CropSampler(
                photos, crop, batch, device, seed=seed, around=self._around, processes=options.processes
            )
            self._thumbnails = thumbnails(photos, network.thumbnail, device) if network.thumbnail else None
        if "temporal" in self.weights and crop <= 2 * self._temporal_margin(crop):
            raise OptionError(f"the temporal term sees nothing of crops of {crop} pixels; use larger ones")
        if self.weights["shift"] and not self._around and crop - network.multiple <= 2 * SHIFT_MARGIN:
            raise OptionError(
                f"the shift term sees nothing of crops of {crop} pixels, of which it leaves out {SHIFT_MARGIN} at each edge; use "
                f"crops above {2 * SHIFT_MARGIN + network.multiple}, or leave the term out (--weight shift=0)"
            )
        self._painted = [name for name in network.styles if name != PHOTO]
        with torch.no_grad():
            pictures = [_to_float(torch.from_numpy(painting.copy()).to(device)) for painting in paintings]
            # Of each painting one target a scale; the first is what a stylizer is judged by.
            self._pyramids = [
                [losses.StyleTarget(backbone.style(backbone(p))) for p in self._pyramid(p)] for p in pictures
            ]
            self.targets = [pyramid[0] for pyramid in self._pyramids]

    def _pyramid(self, picture: Tensor) -> list[Tensor]:
        """The picture, and halved as often as there are more scales."""
        return [picture, *(F.avg_pool2d(picture, 2**scale) for scale in range(1, self._scales))]

    def batch(self, step: int) -> tuple[Tensor, ...]:
        batch = self._sampler.batch(step)
        shift = np.random.default_rng([self._options.seed, step, 1]).integers(0, self.network.multiple, 2)
        colours = random_colours(self._options.whole_batch, np.random.default_rng([self._options.seed, step, 2]))
        colours = colours[self._options.part]
        inputs: tuple[Tensor, ...] = (
            batch.crops,
            torch.from_numpy(shift).to(self._options.device),
            torch.from_numpy(colours).to(self._options.device),
        )
        if self._thumbnails is not None:
            inputs = (*inputs, self._thumbnails[batch.mirrored.long(), batch.photo])
        elif self.network.thumbnail:
            inputs = (*inputs, thumbnails_of(inside(batch.crops, self._around), self.network.thumbnail))
        if self._painted:
            inputs = (*inputs, *self._lesson(step))
        return (*inputs, *self._next_frame(step, batch.crops.shape[2:])) if "temporal" in self.weights else inputs

    def _next_frame(self, step: int, size: Sequence[int]) -> tuple[Tensor, Tensor]:
        """How each crop's next picture in a video differs: motion, (N, 2, 3), and noise, (N, 3, H, W)."""
        generator = np.random.default_rng([self._options.seed, step, 4])
        motion = np.zeros((self._options.whole_batch, 2, 3), np.float32)
        motion[:, [0, 1], [0, 1]] = 1 + generator.uniform(-MOVED_SHARE, MOVED_SHARE, (self._options.whole_batch, 1))
        # In units of half a side, x before y.
        motion[:, :, 2] = (
            generator.uniform(-MOVED_PIXELS, MOVED_PIXELS, (self._options.whole_batch, 2)) * 2 / np.array(size[::-1])
        )
        noise = generator.standard_normal((self._options.whole_batch, 3, *size), np.float32)
        noise *= generator.uniform(0, MOVED_NOISE / 255, (self._options.whole_batch, 1, 1, 1)).astype(np.float32)
        part = self._options.part
        return torch.from_numpy(motion[part]).to(self._options.device), torch.from_numpy(noise[part]).to(
            self._options.device
        )

    def _lesson(self, step: int) -> tuple[Tensor, Tensor]:
        """What a step asks for: each style's share, float32 (styles,), on the device, and the painting's number, on the CPU."""
        number = step % len(self._painted)
        draw, share = np.random.default_rng([self._options.seed, step, 3]).random(2)
        strength = 1.0 if draw < FULL_STRENGTH else 0.0 if draw < FULL_STRENGTH + NO_STRENGTH else float(share)
        shares = mixture(self.network.styles, self._painted[number], strength)
        return torch.from_numpy(shares).to(self._options.device), torch.tensor(number)

    def forward(self, *batch: Tensor) -> dict[str, Tensor]:
        """batch: uint8 crops with surroundings (N, 3, S, S), a shift's rows and columns (2,), changes of colour (N, 3, 4),
        uint8 thumbnails (N, 3, T, T) where they are used, the lesson of a network of several styles, and the next frame's motion
        and noise for the temporal term."""
        frame: tuple[Tensor, ...] = ()
        if "temporal" in self.weights:
            batch, frame = batch[:-2], batch[-2:]
        surrounded = recoloured(batch[0], batch[2])
        extra: tuple[Tensor, ...] = ()
        if len(batch) > 3:
            extra = (self.network.context(recoloured(batch[3], batch[2])),)
        pyramid, strength = self._pyramids[0], surrounded.new_ones(())
        if len(batch) > 4:
            shares, number = batch[4:]
            extra = tuple(mixed(context, shares) for context in extra)
            pyramid, strength = self._pyramids[int(number)], 1 - shares[self.network.styles.index(PHOTO)]
        drawn = self.network(surrounded, *extra).float()
        shift, whole = self._shift_term(surrounded, drawn, batch[1], extra), drawn
        photo, drawn = (inside(picture, self._around) for picture in (surrounded, drawn))
        shallow, deep = self.backbone.content_layer, [*self.backbone.layers][-1]
        with torch.no_grad():
            of_photo = self.backbone(photo, deep if "deep content" in self.weights else shallow)
        features, *smaller = (self.backbone(picture) for picture in self._pyramid(drawn.clamp(0, 1)))
        distances = [target.distance(maps) for target, maps in zip(pyramid, (features, *smaller), strict=True)]
        terms = {
            "content": losses.content(features[shallow], of_photo[shallow]),
            "style": strength * torch.stack(distances).mean(),
            "total variation": losses.total_variation(drawn),
            "grid": losses.cell_pattern(drawn, self.network.multiple),
            "shift": shift,
            "range": losses.out_of_range(drawn),
        }
        if "deep content" in self.weights:
            terms["deep content"] = losses.content(features[deep], of_photo[deep])
        if frame:
            terms["temporal"] = self._temporal_term(surrounded, whole, frame, extra)
        return {**terms, "photo": (1 - strength) * losses.charbonnier(drawn, photo)} if self._painted else terms

    def _shift_term(self, photo: Tensor, drawn: Tensor, shift: Tensor, extra: tuple[Tensor, ...]) -> Tensor:
        """How much a drawing changes with the place where its cells begin. shift: rows and columns, (2,), on the device.

        Both pictures have the same reflection at two of their edges alone; the margin leaves the others out.
        """
        if not self.weights["shift"]:
            return drawn.new_zeros(())
        sides = [side - self.network.multiple for side in photo.shape[2:]]
        rows, columns = (torch.arange(side, device=photo.device) + by for side, by in zip(sides, shift, strict=True))
        shifted = self.network(photo.index_select(2, rows).index_select(3, columns), *extra).float()
        margin = self._around or SHIFT_MARGIN
        down, across = (slice(margin, side - margin) for side in sides)
        same = drawn.index_select(2, rows[down]).index_select(3, columns[across])
        return losses.disagreement(shifted[..., down, across], same)

    def _temporal_term(
        self, photo: Tensor, drawn: Tensor, frame: tuple[Tensor, ...], extra: tuple[Tensor, ...]
    ) -> Tensor:
        """How much the next frame's drawing differs from this one's, moved as the photo moves. frame: motion and noise."""
        motion, noise = frame
        redrawn = self.network((losses.moved(photo, motion) + noise).clamp(0, 1), *extra).float()
        margin = self._around + self._temporal_margin(max(photo.shape[2:]) - 2 * self._around)
        return losses.temporal(redrawn, drawn, motion, margin)

    def _temporal_margin(self, crop: int) -> int:
        """Pixels at the edges of a crop that may have come from outside of it, or that the network knows to be edges."""
        reach = math.ceil(MOVED_PIXELS + MOVED_SHARE * (crop / 2 + self._around))
        return reach if self._around else reach + SHIFT_MARGIN

    def validate(self, network: Network) -> dict[str, float]:
        return self.judge(network, self._validation.first(6))

    def judge(self, network: Network, photos: Photos) -> dict[str, float]:
        pictures = photos.pictures
        if not self._painted:
            return validation.style_objective(network, pictures, self.backbone, self.targets[0])
        found = {
            name: validation.style_objective(network, pictures, self.backbone, target, mixture(network.styles, name))
            for name, target in zip(self._painted, self.targets, strict=True)
        }
        if not pictures:
            return {}
        photo = mixture(network.styles, strength=0)
        return {
            **{f"{key} {name}": value for name, row in found.items() for key, value in row.items()},
            "photo psnr": float(np.mean([bounded_psnr(draw(network, p, photo), p) for p in pictures])),
        }

    def score(self, quality: Mapping[str, float]) -> float:
        return -float(np.mean([value for key, value in quality.items() if key.startswith("objective")]))

    def preview(self, network: Network) -> np.ndarray | None:
        mixtures = [mixture(network.styles, name) for name in self._painted] or [mixture(())]
        return side_by_side(
            [(photo, *(draw(network, photo, m) for m in mixtures)) for photo in self._validation.pictures[:2]]
        )


def _to_float(image: Tensor) -> Tensor:
    """uint8 (H, W, 3) to (1, 3, H, W) in 0..1."""
    return image.permute(2, 0, 1)[None].float() / 255
