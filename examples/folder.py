"""Draw all pictures of a folder. The next picture is read while a GPU draws this one.

usage: python examples/folder.py photos/ painted/ --model ejiri
"""

from __future__ import annotations

import argparse
from pathlib import Path

import impasto
from impasto import images


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--model", default="great-wave")
    given = parser.parse_args()
    given.target.mkdir(exist_ok=True)
    paths = images.list_folder(given.source)
    photos = (images.read(path).rgb for path in paths)  # read one by one, when the model asks for it
    with impasto.load(given.model) as model:
        for path, drawn in zip(paths, model.stream(photos), strict=True):
            images.write(given.target / f"{path.stem}.png", drawn)
            print(path.name)


if __name__ == "__main__":
    main()
