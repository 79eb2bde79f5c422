"""Build a TensorRT engine on the device, once, and draw a picture with it.

usage: python examples/jetson_engine.py mine photo.jpg painted.png --size 1080p
Needs TensorRT and PyCUDA: docs/jetson.md. The model must be a package, or a name.
"""

from __future__ import annotations

import argparse

import impasto
from impasto import images
from impasto.errors import EngineMismatch
from impasto.export import BuildOptions, Sizes, build_engine


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("source")
    parser.add_argument("target")
    parser.add_argument("--size", default="1080p")
    parser.add_argument("--precision", default="fp16")
    given = parser.parse_args()
    photo = images.read(given.source).rgb
    try:
        model = impasto.load(given.model, backend="tensorrt")  # never builds
    except EngineMismatch:  # none fits this GPU
        print("building an engine takes minutes, once")
        build_engine(given.model, BuildOptions(precision=given.precision, sizes=(Sizes.parse(given.size),)))
        model = impasto.load(given.model, backend="tensorrt")
    with model:
        print(model.info)
        images.write(given.target, model(photo))


if __name__ == "__main__":
    main()
