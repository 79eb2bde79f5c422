"""What one training step does, for each task: a batch as a pure function of the step, and the losses on it."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from impasto.errors import OptionError
from impasto.styles import PHOTO, mixture
from impasto.training.data.photos import CropSampler, Photos, WholeSampler, inside, thumbnails, thumbnails_of
from impasto.training.loop.processes import ALONE, Processes

from . import degrade, losses
from . import validation as metrics
from .backbones import Backbone
from .degrade import Degradation
from .inference import draw
from .networks import Network, mixed

STYLE_WEIGHTS = {
    "content": 1.0, "style": 10.0, "total variation": 0.05, "grid": 1.0, "shift": 20.0, "range": 10.0, "photo": 10.0,
    "temporal": 0.0, "deep content": 0.0,
}  # fmt: skip
"""`photo` draws a network of several styles to the photo, in so far as less than full strength is asked of it. `deep content` is
content in the backbone's deepest layer, which knows things rather than edges."""

FULL_STRENGTH, NO_STRENGTH = 0.7, 0.1
"""Shares of the steps that ask a network of several styles for one of them alone, and for none; the rest ask for a mixture
of one with the photo."""

STRONGER = 2
"""One of so many pictures of a batch is asked for more than the strength 1, of a restorer that is to learn it."""

RESTORE_WEIGHTS = {"charbonnier": 1.0, "psnr": 0.0, "frequency": 0.0, "perceptual": 0.0}

ON_REQUEST = ("temporal", "deep content", "psnr", "frequency", "perceptual")
"""Terms that are not even computed without a weight."""

MOVED_PIXELS, MOVED_SHARE, MOVED_NOISE = 4.0, 0.02, 3.0
"""What the temporal term takes two pictures of a video to differ by, at most: pixels of motion, share of the size by which it
grows or shrinks, standard deviation of the noise in levels of 255."""

SHIFT_MARGIN = 24
"""Pixels at the edges of a crop that the shift term leaves out for networks that know where the edges are."""


def asked(weights: Mapping[str, float]) -> dict[str, float]:
    """The weights without those of terms that nobody asks for."""
    return {name: value for name, value in weights.items() if value or name not in ON_REQUEST}


class Task(nn.Module):
    """A network, its data and its losses; calling it on a batch gives the terms of the loss."""

    network: Network
    weights: Mapping[str, float]
    _validation: Photos

    @abstractmethod
    def batch(self, step: int) -> tuple[Tensor, ...]:
        """The tensors of one step, on the training device; the same for the same seed and step."""

    @abstractmethod
    def forward(self, *batch: Tensor) -> dict[str, Tensor]:
        """The loss terms, unweighted scalars, one for each of `weights`."""

    @abstractmethod
    def judge(self, network: Network, photos: Photos) -> dict[str, float]:
        """Quality on pictures that training has not seen; empty where there are none."""

    @property
    def can_validate(self) -> bool:
        """Whether there are pictures that were held out."""
        return bool(self._validation.pictures)

    def validate(self, network: Network) -> dict[str, float]:
        """Quality on the pictures that were held out."""
        return self.judge(network, self._validation)

    @abstractmethod
    def score(self, quality: Mapping[str, float]) -> float:
        """What `validate` found as one number; higher is better."""

    @abstractmethod
    def preview(self, network: Network) -> np.ndarray | None:
        """A few of those pictures before and after, side by side, uint8 (H, W, 3); None where none were held out."""


class StyleTask(Task):
    """Paint photos like a painting: content of the photo, Gram matrices of the painting (Johnson et al. 2016).

    A network of several styles learns one of them in each step, in turn.
    """

    def __init__(
        self, network: Network, backbone: Backbone, paintings: Sequence[np.ndarray], photos: Photos, validation: Photos,
        *, crop: int, batch: int, seed: int, device: torch.device, weights: Mapping[str, float],
        whole: tuple[int, int] | None = None, scales: int = 1, processes: Processes = ALONE,
    ) -> None:  # fmt: skip
        """paintings: uint8 (H, W, 3), at the size at which their strokes are to be learnt; one for each of the network's
        styles besides PHOTO, in their order. whole: instead of crops, whole photos with a longer side between these two, in pixels.
        scales: sizes at which the drawing's statistics are compared with the painting's, each half the one before."""
        super().__init__()
        self.network, self.backbone = network, backbone
        self.weights = {name: value for name, value in asked(weights).items() if name != "photo" or network.styles}
        self._validation, self._seed, self._device = validation, seed, device
        self._batch, self._processes, self._scales = batch * processes.count, processes, scales
        self._thumbnails = None
        if whole:
            crop, self._around = int(0.75 * whole[0]), network.border
            self._sampler: CropSampler | WholeSampler = WholeSampler(
                photos, whole, self._batch, device, seed=seed, multiple=network.multiple, around=self._around,
                processes=processes,
            )  # fmt: skip
        else:
            # Enough surroundings that no judged pixel depends on where the input ends. With little of them, a network told from
            # the zero padding where a crop ends, and drew a sky along the top and a wave into the corners of every picture.
            self._around = -(-(network.receptive_field or 0) // network.multiple) * network.multiple
            self._sampler = CropSampler(
                photos, crop, self._batch, device, seed=seed, around=self._around, processes=processes
            )
            self._thumbnails = thumbnails(photos, network.thumbnail, device) if network.thumbnail else None
        if "temporal" in self.weights and crop <= 2 * self._temporal_margin(crop):
            raise OptionError(f"the temporal term sees nothing of crops of {crop} pixels; use larger ones")
        if self.weights["shift"] and not self._around and crop - network.multiple <= 2 * SHIFT_MARGIN:
            raise OptionError(
                f"the shift term sees nothing of crops of {crop} pixels, of which it leaves out {SHIFT_MARGIN} at each edge; use "
                f"crops above {2 * SHIFT_MARGIN + network.multiple}, or leave the term away (--weight shift=0)"
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
        shift = np.random.default_rng([self._seed, step, 1]).integers(0, self.network.multiple, 2)
        colours = random_colours(self._batch, np.random.default_rng([self._seed, step, 2]))
        colours = colours[self._processes.part(self._batch)]
        inputs: tuple[Tensor, ...] = (
            batch.crops,
            torch.from_numpy(shift).to(self._device),
            torch.from_numpy(colours).to(self._device),
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
        generator = np.random.default_rng([self._seed, step, 4])
        motion = np.zeros((self._batch, 2, 3), np.float32)
        motion[:, [0, 1], [0, 1]] = 1 + generator.uniform(-MOVED_SHARE, MOVED_SHARE, (self._batch, 1))
        # In units of half a side, x before y.
        motion[:, :, 2] = generator.uniform(-MOVED_PIXELS, MOVED_PIXELS, (self._batch, 2)) * 2 / np.array(size[::-1])
        noise = generator.standard_normal((self._batch, 3, *size), np.float32)
        noise *= generator.uniform(0, MOVED_NOISE / 255, (self._batch, 1, 1, 1)).astype(np.float32)
        part = self._processes.part(self._batch)
        return torch.from_numpy(motion[part]).to(self._device), torch.from_numpy(noise[part]).to(self._device)

    def _lesson(self, step: int) -> tuple[Tensor, Tensor]:
        """What a step asks for: each style's share, float32 (styles,), on the device, and the painting's number, on the CPU."""
        number = step % len(self._painted)
        draw, share = np.random.default_rng([self._seed, step, 3]).random(2)
        strength = 1.0 if draw < FULL_STRENGTH else 0.0 if draw < FULL_STRENGTH + NO_STRENGTH else float(share)
        shares = mixture(self.network.styles, self._painted[number], strength)
        return torch.from_numpy(shares).to(self._device), torch.tensor(number)

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
            return metrics.style_objective(network, pictures, self.backbone, self.targets[0])
        found = {
            name: metrics.style_objective(network, pictures, self.backbone, target, mixture(network.styles, name))
            for name, target in zip(self._painted, self.targets, strict=True)
        }
        if not pictures:
            return {}
        photo = mixture(network.styles, strength=0)
        return {
            **{f"{key} {name}": value for name, row in found.items() for key, value in row.items()},
            "photo psnr": float(np.mean([metrics.bounded_psnr(draw(network, p, photo), p) for p in pictures])),
        }

    def score(self, quality: Mapping[str, float]) -> float:
        return -float(np.mean([value for key, value in quality.items() if key.startswith("objective")]))

    def preview(self, network: Network) -> np.ndarray | None:
        mixtures = [mixture(network.styles, name) for name in self._painted] or [mixture(())]
        return side_by_side(
            [(photo, *(draw(network, photo, m) for m in mixtures)) for photo in self._validation.pictures[:2]]
        )


class Restoration(Task):
    """Give back what a picture ought to be. Subclasses say where the two come from."""

    def __init__(
        self, network: Network, validation: Photos, weights: Mapping[str, float], backbone: Backbone | None
    ) -> None:
        """backbone: for the perceptual term, where it has a weight."""
        super().__init__()
        self.network, self.weights, self.backbone = network, asked(weights), backbone
        self._validation = validation

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
    strength 1, of the picture with s times its damage.
    """

    def __init__(
        self, network: Network, photos: Photos, validation: Photos,
        *, degradation: Degradation, crop: int, batch: int, seed: int, device: torch.device, weights: Mapping[str, float],
        gray: float = 0.0, processes: Processes = ALONE, backbone: Backbone | None = None,
    ) -> None:  # fmt: skip
        """crop: side of what the network sees; the clean crops are larger by the degradation's scale. gray: share of the crops that
        lose their colour before they are damaged."""
        super().__init__(network, validation, weights, backbone)
        self._degradation, self._seed, self._device, self._gray = degradation, seed, device, gray
        batch *= processes.count
        self._part, self._batch = processes.part(batch), batch
        self._sampler = CropSampler(photos, crop * degradation.scale, batch, device, seed=seed, turns=True)

    def batch(self, step: int) -> tuple[Tensor, ...]:
        clean = self._sampler.batch(step).crops.float() / 255
        generator = torch.Generator(self._device).manual_seed(self._seed * 1_000_003 + step)
        if self._gray:
            colourless = torch.rand(len(clean), 1, 1, 1, device=self._device, generator=generator) < self._gray
            clean = torch.where(colourless, degrade.eight_bits(luminance(clean)), clean)
        # All processes draw the damage of the whole batch: so it is the same however many share it.
        pictures = self._degradation(clean, generator)[self._part], clean[self._part]
        return (*pictures, *self._strengths(step)) if self.network.strength > 1 else pictures

    def _strengths(self, step: int) -> tuple[Tensor, Tensor]:
        """What is asked for each picture, float32 (N, 1), and the places of those for which it may be above 1, int64 (n,): the
        same in every step, for recorded steps."""
        asked = np.random.default_rng([self._seed, step, 5]).uniform(1, self.network.strength, (self._batch, 1))
        number = np.arange(self._batch)
        asked[number % STRONGER != 0] = 1
        if self._batch == 1 and step % STRONGER:
            asked[:] = 1
        places = np.flatnonzero(number[self._part] % STRONGER == 0)
        strength = torch.from_numpy(asked[self._part].astype(np.float32))
        return strength.to(self._device), torch.from_numpy(places).to(self._device)

    def forward(self, *batch: Tensor) -> dict[str, Tensor]:
        """batch: as of any restoration; where strengths above 1 are learnt, also what `_strengths` gives."""
        if len(batch) == 2:
            return super().forward(*batch)
        damaged, clean, strength, places = batch
        with torch.no_grad():
            asked, truth = strength[places, :, None, None], clean[places]
            worse = (truth + asked * (damaged[places] - truth)).clamp(0, 1)
            taught = self.network(worse).float().clamp(0, 1)
            wanted = clean.index_copy(0, places, torch.where(asked > 1, taught, truth))
        return self._terms(self.network(damaged, strength).float(), wanted)

    def judge(self, network: Network, photos: Photos) -> dict[str, float]:
        if isinstance(self._degradation, degrade.GaussianNoise):
            return metrics.denoise_psnr(network, photos.pictures)
        return metrics.restore_psnr(network, photos.pictures, self._degradation)

    def preview(self, network: Network) -> np.ndarray | None:
        scale, pairs = self._degradation.scale, []
        for seed, photo in enumerate(self._validation.pictures[:2]):
            damaged = degrade.damaged(metrics.judged(photo, scale), self._degradation.at(0.5), seed)
            pairs.append((damaged.repeat(scale, 0).repeat(scale, 1), draw(network, damaged)))
        return side_by_side(pairs)


class PairTask(Restoration):
    """Give the partner of a real picture: another camera's, a cleaned one, a larger one."""

    def __init__(
        self, network: Network, pairs: Photos, validation: Photos,
        *, crop: int, batch: int, seed: int, device: torch.device, weights: Mapping[str, float],
        processes: Processes = ALONE, backbone: Backbone | None = None,
    ) -> None:  # fmt: skip
        """pairs: photos with targets of the network's scale. crop: side of what the network sees."""
        super().__init__(network, validation, weights, backbone)
        batch *= processes.count
        self._sampler = CropSampler(pairs, crop, batch, device, seed=seed, turns=True, processes=processes)

    def batch(self, step: int) -> tuple[Tensor, ...]:
        batch = self._sampler.batch(step)
        assert batch.targets is not None
        return batch.crops.float() / 255, batch.targets.float() / 255

    def judge(self, network: Network, photos: Photos) -> dict[str, float]:
        return metrics.pair_psnr(network, photos)

    def score(self, quality: Mapping[str, float]) -> float:
        return quality["psnr"]

    def preview(self, network: Network) -> np.ndarray | None:
        shown = self._validation.first(2)
        pairs = [metrics.middle_of_pair(*pair) for pair in zip(shown.pictures, shown.targets, strict=True)]
        return side_by_side(
            [
                (source.repeat(shown.scale, 0).repeat(shown.scale, 1), draw(network, source), target)
                for source, target in pairs
            ]
        )


def random_colours(count: int, generator: np.random.Generator) -> np.ndarray:
    """Random contrast, saturation and brightness: float32 (count, 3, 4), a matrix and an offset on RGB in 0..1.

    A hundred photos show few kinds of light; a network that saw no others left bright, busy pictures unpainted.
    """
    contrast = np.exp(generator.uniform(-0.35, 0.35, (count, 1, 1)))
    saturation = np.exp(generator.uniform(-0.7, 0.4, (count, 1, 1)))
    brightness = generator.uniform(-0.1, 0.1, (count, 1, 1))
    grey = np.full((3, 3), 1 / 3)
    matrix = contrast * (grey + saturation * (np.eye(3) - grey))
    offset = 0.5 * (1 - contrast) + brightness
    return np.concatenate([matrix, np.repeat(offset, 3, axis=1)], axis=2).astype(np.float32)


def luminance(picture: Tensor) -> Tensor:
    """BT.601 luma of RGB pictures in any range: (N, 3, H, W) to (N, 1, H, W)."""
    weights = picture.new_tensor((0.299, 0.587, 0.114)).view(1, 3, 1, 1)
    return (picture * weights).sum(1, keepdim=True)


def recoloured(levels: Tensor, colours: Tensor) -> Tensor:
    """uint8 (N, 3, H, W) to float in 0..1, each picture with its own matrix and offset."""
    values = torch.einsum("nij,njhw->nihw", colours[:, :, :3], levels.float() / 255)
    return (values + colours[:, :, 3, None, None]).clamp(0, 1)


def side_by_side(pairs: Sequence[tuple[np.ndarray, ...]]) -> np.ndarray | None:
    """Each pair in a row of its own, on white where one is narrower."""
    rows = [np.concatenate(pair, axis=1) for pair in pairs]
    if not rows:
        return None
    width = max(row.shape[1] for row in rows)
    return np.concatenate(
        [np.pad(row, ((0, 0), (0, width - row.shape[1]), (0, 0)), constant_values=255) for row in rows]
    )


def _to_float(image: Tensor) -> Tensor:
    """uint8 (H, W, 3) to (1, 3, H, W) in 0..1."""
    return image.permute(2, 0, 1)[None].float() / 255
