"""What one training step does, for each task: a batch as a pure function of the step, and the losses on it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import degrade, losses, metrics
from .backbones import Vgg16
from .data import CropSampler, Photos, thumbnails
from .networks import Network

STYLE_WEIGHTS = {"content": 1.0, "style": 10.0, "total variation": 0.05, "grid": 1.0, "range": 10.0}
RESTORE_WEIGHTS = {"charbonnier": 1.0}


class Task(nn.Module):
    """A network, its data and its losses; calling it on a batch gives the terms of the loss."""

    network: Network
    weights: Mapping[str, float]

    @abstractmethod
    def batch(self, step: int) -> tuple[Tensor, ...]:
        """The tensors of one step, on the training device; the same for the same seed and step."""

    @abstractmethod
    def forward(self, *batch: Tensor) -> dict[str, Tensor]:
        """The loss terms, unweighted scalars, one for each of `weights`."""

    @abstractmethod
    def validate(self, network: Network) -> dict[str, float]:
        """Quality on pictures that training has not seen; empty where none were held out."""


class StyleTask(Task):
    """Paint photos like a painting: content of the photo, Gram matrices of the painting (Johnson et al. 2016)."""

    CONTENT_LAYER = "relu3_3"

    def __init__(
        self, network: Network, backbone: Vgg16, painting: np.ndarray, photos: Photos, validation: Photos,
        *, crop: int, batch: int, seed: int, device: torch.device, weights: Mapping[str, float],
    ) -> None:  # fmt: skip
        """painting: uint8 (H, W, 3), at the size at which its strokes are to be learnt."""
        super().__init__()
        self.network, self.backbone, self.weights = network, backbone, weights
        self._validation = validation
        self._sampler = CropSampler(photos, crop, batch, device, seed=seed, turns=False)
        self._thumbnails = thumbnails(photos, network.thumbnail, device) if network.thumbnail else None
        with torch.no_grad():
            self.target = losses.StyleTarget(backbone(_to_float(torch.from_numpy(painting.copy()).to(device))))

    def batch(self, step: int) -> tuple[Tensor, ...]:
        batch = self._sampler.batch(step)
        if self._thumbnails is None:
            return (batch.crops,)
        return batch.crops, self._thumbnails[batch.mirrored.long(), batch.photo]

    def forward(self, *batch: Tensor) -> dict[str, Tensor]:
        photo = batch[0].float() / 255
        extra = (self.network.context(batch[1].float() / 255),) if len(batch) > 1 else ()
        border = self.network.border
        padded = F.pad(photo, (border,) * 4, mode="reflect") if border else photo
        drawn = self.network(padded, *extra).float()
        if border:
            drawn = drawn[..., border:-border, border:-border]
        with torch.no_grad():
            of_photo = self.backbone(photo)[self.CONTENT_LAYER]
        features = self.backbone(drawn.clamp(0, 1))
        return {
            "content": losses.content(features[self.CONTENT_LAYER], of_photo),
            "style": self.target.distance(features),
            "total variation": losses.total_variation(drawn),
            "grid": losses.cell_pattern(drawn, self.network.multiple),
            "range": losses.out_of_range(drawn),
        }

    def validate(self, network: Network) -> dict[str, float]:
        return metrics.style_objective(network, self._validation.pictures[:6], self.backbone, self.target)


class RestoreTask(Task):
    """Give the clean photo back: blind Gaussian denoising."""

    def __init__(
        self, network: Network, photos: Photos, validation: Photos,
        *, sigma: tuple[float, float], crop: int, batch: int, seed: int, device: torch.device, weights: Mapping[str, float],
    ) -> None:  # fmt: skip
        """sigma: range of the noise's standard deviation, in levels of 255."""
        super().__init__()
        self.network, self.weights = network, weights
        self._validation, self._sigma, self._seed, self._device = validation, sigma, seed, device
        self._sampler = CropSampler(photos, crop, batch, device, seed=seed, turns=True)

    def batch(self, step: int) -> tuple[Tensor, ...]:
        clean = self._sampler.batch(step).crops.float() / 255
        generator = torch.Generator(self._device).manual_seed(self._seed * 1_000_003 + step)
        return degrade.gaussian_noise(clean, self._sigma, generator), clean

    def forward(self, *batch: Tensor) -> dict[str, Tensor]:
        noisy, clean = batch
        return {"charbonnier": losses.charbonnier(self.network(noisy).float(), clean)}

    def validate(self, network: Network) -> dict[str, float]:
        return metrics.denoise_psnr(network, self._validation.pictures)


def _to_float(image: Tensor) -> Tensor:
    """uint8 (H, W, 3) to (1, 3, H, W) in 0..1."""
    return image.permute(2, 0, 1)[None].float() / 255
