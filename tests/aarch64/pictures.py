"""Draw one picture with every shipped model, and compare what two machines drew. `run.sh` says how it is used."""

from __future__ import annotations

import sys

import numpy as np

import impasto
from impasto.runtime.loading.source import known_names


def photo() -> np.ndarray:
    """The same smooth colours, edges and noise on every machine: uint8 (96, 128, 3)."""
    y, x = np.mgrid[0:96, 0:128]
    colours = np.stack([x * 2, y * 2, 127 + 120 * ((x // 16 + y // 16) % 2)], -1)
    noise = np.random.default_rng(0).integers(0, 40, colours.shape)
    return np.clip(colours * 0.8 + noise, 0, 255).astype(np.uint8)


def draw(path: str) -> None:
    """Write every model's drawing into an .npz file."""
    drawn = {}
    for name in known_names():
        with impasto.load(name, backend="onnxruntime-cpu") as model:
            drawn[name] = model(photo())
    np.savez(path, **drawn)


def compare(first: str, second: str) -> None:
    """Print how far two files of drawings differ; exit with 1 where a value differs by more than one level of 255."""
    one, other = np.load(first), np.load(second)
    worst = 0
    for name in one.files:
        apart = np.abs(one[name].astype(int) - other[name])
        worst = max(worst, int(apart.max()))
        print(f"{name:18} at most {apart.max()} levels, {(apart > 0).mean():.4%} of the values differ")
    sys.exit(worst > 1 or one.files != other.files)


if __name__ == "__main__":
    {"draw": draw, "compare": compare}[sys.argv[1]](*sys.argv[2:])
