"""Paint or restore one picture.

usage: python examples/one_picture.py photo.jpg painted.png --model great-wave
"""

from __future__ import annotations

import argparse

import impasto
from impasto import images


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source")
    parser.add_argument("target")
    parser.add_argument("--model", default="great-wave")
    given = parser.parse_args()
    photo = images.read(given.source).rgb  # uint8, H x W x 3, RGB
    with impasto.load(given.model) as model:
        print(model.info)
        images.write(given.target, model(photo))


if __name__ == "__main__":
    main()
