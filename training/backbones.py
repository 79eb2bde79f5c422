"""Perceptual backbones: frozen classifiers whose feature maps say what a picture shows and how it is painted."""

from __future__ import annotations

import os
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from impasto.errors import CheckpointError, TrainingError

CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "impasto" / "backbones"
"""Where weights are looked for when no file is named."""

VGG16_LAYERS = {"relu1_2": 64, "relu2_2": 128, "relu3_3": 256, "relu4_3": 512}
"""The layers that the losses look at, and their channels."""


class Vgg16(nn.Module):
    """VGG16 up to relu4_3 (Simonyan and Zisserman 2015), with the weights of the original Caffe release.

    Takes RGB in 0..1; the release's own preprocessing (BGR, 0..255, minus the ImageNet mean) is inside. Run it in BF16
    or FP32: in FP16 the activations, up to 11,000, leave gradients that underflow.
    """

    mean: Tensor
    _BLOCKS = ((1, 2), (2, 2), (3, 3), (4, 3))

    def __init__(self, weights: dict[str, Tensor]) -> None:
        super().__init__()
        inputs = 3
        for block, count in self._BLOCKS:
            for index in range(1, count + 1):
                outputs = VGG16_LAYERS[f"relu{block}_{count}"]
                self.add_module(f"conv{block}_{index}", nn.Conv2d(inputs, outputs, 3, padding=1))
                inputs = outputs
        self.load_state_dict({key: value.float() for key, value in weights.items()})
        self.register_buffer("mean", torch.tensor([103.939, 116.779, 123.68]).view(1, 3, 1, 1), persistent=False)
        self.eval().requires_grad_(False)

    def forward(self, image: Tensor, last: str = "relu4_3") -> dict[str, Tensor]:
        """(N, 3, H, W) RGB in 0..1 to the feature maps of VGG16_LAYERS, at 1/1, 1/2, 1/4 and 1/8, up to the layer `last`."""
        x = image.flip(1) * 255 - self.mean
        features = {}
        for block, count in self._BLOCKS:
            if block > 1:
                x = F.max_pool2d(x, 2)
            for index in range(1, count + 1):
                x = F.relu(self.get_submodule(f"conv{block}_{index}")(x))
            features[f"relu{block}_{count}"] = x
            if last in features:
                break
        return features


def load_vgg16(path: str | os.PathLike[str] | None = None) -> Vgg16:
    """VGG16 from a .safetensors file, by default the one in the cache. Raises TrainingError or CheckpointError.

    The file holds conv1_1.weight, conv1_1.bias, … conv4_3.bias in Caffe's convention (BGR, 0..255).
    """
    file = Path(path) if path is not None else CACHE / "vgg16_caffe_relu4_3.safetensors"
    if not file.is_file():
        raise TrainingError(
            f"no VGG16 weights at {file}; name a file with --vgg: a .safetensors with conv1_1.weight … conv4_3.bias of the "
            "original Caffe VGG16 (BGR, 0..255), FP16 or FP32"
        )
    try:
        return Vgg16(load_file(file))
    except (SafetensorError, OSError, RuntimeError) as error:
        raise CheckpointError(f"{file} holds no VGG16 weights: {str(error).splitlines()[0]}") from None
