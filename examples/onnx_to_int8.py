"""Take an external ONNX file to a model package with an INT8 graph that holds a budget of quality.

usage: python examples/onnx_to_int8.py other.onnx package/ photos/ --layout "rgb 0..1" --target openvino
"""

from __future__ import annotations

import argparse
from pathlib import Path

from impasto.export import QuantizeOptions, import_onnx, quantize


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("graph", type=Path)
    parser.add_argument("package", type=Path)
    parser.add_argument("photos", type=Path, help="pictures like those that the model will get")
    parser.add_argument("--layout", default="rgb 0..1", help="channel order and range of the file's pixels")
    parser.add_argument("--target", default="openvino", help="openvino, onnxruntime or tensorrt")
    given = parser.parse_args()
    print(import_onnx(given.graph, given.package, layout=given.layout))
    print(quantize(given.package, QuantizeOptions(given.photos, to="int8", target_backends=(given.target,))))


if __name__ == "__main__":
    main()
