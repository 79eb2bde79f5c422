"""Small photos, backbone weights and trainings; a pytest plugin of this folder's tests."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from impasto import images
from impasto.training.loop.options import FitOptions
from impasto.training.restoration import RestoreOptions
from impasto.training.style import StyleOptions
from support.small_training import SMALL, photo, style_options


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of eight small photos, of which one is damaged and one too small."""
    folder = tmp_path_factory.mktemp("photos")
    for index in range(6):
        images.write(folder / f"{index}.png", photo(72 + 8 * index, 104, index))
    images.write(folder / "tiny.png", photo(12, 90))
    (folder / "damaged.jpg").write_bytes(b"\xff\xd8\xff\xe0 this was a photo once")
    return folder


@pytest.fixture(scope="session")
def others(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of seven more photos, of which one is too small."""
    folder = tmp_path_factory.mktemp("others")
    for index in range(6):
        images.write(folder / f"{index}.png", photo(64, 72, 10 + index))
    images.write(folder / "tiny.png", photo(12, 90))
    return folder


@pytest.fixture(scope="session")
def vgg(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of random VGG16 weights, at the scale that keeps activations alive."""
    from safetensors.torch import save_file

    generator = torch.Generator().manual_seed(0)
    tensors, inputs = {}, 3
    for block, (count, outputs) in enumerate(((2, 64), (2, 128), (3, 256), (3, 512)), 1):
        for index in range(1, count + 1):
            weight = torch.randn(outputs, inputs, 3, 3, generator=generator) * (2 / (9 * inputs)) ** 0.5
            tensors[f"conv{block}_{index}.weight"], tensors[f"conv{block}_{index}.bias"] = weight, torch.zeros(outputs)
            inputs = outputs
    path = tmp_path_factory.mktemp("weights") / "vgg16.safetensors"
    save_file(tensors, path)
    return path


@pytest.fixture
def restoring(photos: Path, tmp_path: Path) -> Callable[..., RestoreOptions]:
    """A function that gives the options of a tiny denoiser's training."""

    def options(folder: str = "run", steps: int = 6, **changes: object) -> RestoreOptions:
        base = RestoreOptions(
            name="tiny",
            photos=photos,
            output=tmp_path / folder,
            fit=FitOptions(steps=steps, device="cpu"),
            batch=2,
            crop=32,
            held_out=0.2,
            config=SMALL["unet-restorer"],
        )
        return replace(base, **changes)  # type: ignore[arg-type]

    return options


@pytest.fixture
def stylizing(photos: Path, vgg: Path, tmp_path: Path) -> Callable[..., StyleOptions]:
    """A function that gives the options of a tiny stylizer's training."""

    def options(folder: str = "run", steps: int = 2, **changes: object) -> StyleOptions:
        return style_options(photos, vgg, tmp_path / folder, steps, **changes)

    return options
