"""Train a network that paints like a painting, and export it.

usage: python examples/train_style.py painting.jpg photos/ mine --steps 3500
It begins with the shipped great-wave, which saves most of the time. The first run downloads VGG16 (528 MB); --backbone
efficientnet-lite0 needs the extra `backbones` instead.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from impasto.export import export_checkpoint
from impasto.runtime.loading.source import known_names
from impasto.training import FitOptions, StyleOptions, train_style
from impasto.training.style import STYLE_WEIGHTS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("painting", type=Path)
    parser.add_argument("photos", type=Path)
    parser.add_argument("name")
    parser.add_argument("--steps", type=int, default=3500)
    parser.add_argument("--crop", type=int, default=256)
    parser.add_argument("--backbone", default="vgg16")
    given = parser.parse_args()
    run = Path("runs") / given.name
    options = StyleOptions(
        name=given.name,
        paintings=(given.painting,),
        photos=given.photos,
        output=run,
        start=known_names()["great-wave"],
        fit=FitOptions(steps=given.steps, learning_rate=7e-4),
        batch=2,
        crop=given.crop,
        weights={**STYLE_WEIGHTS, "shift": 0.0, "grid": 5.0},
        backbone=given.backbone,
    )
    result = train_style(options)
    print(result)
    print(export_checkpoint(result.checkpoint, Path(given.name)))


if __name__ == "__main__":
    main()
