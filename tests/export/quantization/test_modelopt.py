"""`--modelopt`: what NVIDIA ModelOpt is given, and what becomes of what it gives.

A stand-in of the same command line takes its place, since it wants an environment of its own. With IMPASTO_MODELOPT naming the Python
of one, the real ModelOpt is run as well.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import onnx
import pytest
from support.precision_graphs import chain, photos
from support.small_models import write_graph

from impasto.errors import MissingDependency, OptionError, PrecisionError, install
from impasto.export.graph.int8 import layers_of
from impasto.export.graph.qdq_lint import problems
from impasto.export.quantization.modelopt import require
from impasto.export.quantization.quality import Budget
from impasto.export.quantization.search import QuantizeOptions, quantize
from impasto.package.spec import ModelSpec

STAND_IN = """
import argparse, sys
from pathlib import Path
import numpy as np
import onnx
from impasto.export.graph import int8

parser = argparse.ArgumentParser()
for name in ("onnx_path", "output_path", "quantize_mode", "calibration_data_path", "calibration_method", "calibration_shapes",
             "high_precision_dtype"):
    parser.add_argument(f"--{name}", required=True)
parser.add_argument("--calibration_eps", nargs="+")
parser.add_argument("--dq_only", action="store_true")
parser.add_argument("--op_types_to_quantize", nargs="+")
parser.add_argument("--nodes_to_exclude", nargs="*", default=[])
given = parser.parse_args()
pictures = np.load(given.calibration_data_path)["image"]
assert pictures.dtype == np.uint8 and pictures.shape[1:] == tuple(map(int, given.calibration_shapes.split(":")[1].split("x")[1:]))
assert (given.quantize_mode, given.calibration_method, given.high_precision_dtype) == ("int8", METHOD, "fp32")
model = onnx.load(given.onnx_path)
excluded = {node.name for node in model.graph.node if f"^{node.name}$" in given.nodes_to_exclude}
assert len(excluded) == len(given.nodes_to_exclude)
with Path(__file__).with_name("calls").open("a") as calls:
    calls.write(f"{len(excluded)} excluded\\n")
ranges = int8.find_ranges(model, [{"image": picture[None]} for picture in pictures], "min-max")
written = int8.quantized(model, ranges, excluded, "tensorrt")
del written.metadata_props[:]
onnx.save(written, given.output_path)
"""

GRAPH = chain(8, channels=16, hostile=4)
GRAPH.metadata_props.add(key="note", value="kept")


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The package `modelopt` on the path of this Python; its __main__.py may be overwritten."""
    module = tmp_path / "site/modelopt/onnx/quantization"
    module.mkdir(parents=True)
    for folder in (module, *list(module.parents)[:2]):
        (folder / "__init__.py").touch()
    (module / "__main__.py").write_text(STAND_IN.replace("METHOD", '"entropy"'))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"))
    return module


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "small"
    folder.mkdir()
    write_graph(folder, ModelSpec("small", receptive_field=8), GRAPH)
    return folder


def wanted(tmp_path: Path, budget: float, python: str = sys.executable) -> QuantizeOptions:
    folder = tmp_path / "photos"
    return QuantizeOptions(
        folder if folder.exists() else photos(folder), "int8", ("tensorrt",), Budget(psnr=budget), modelopt=Path(python)
    )


def test_its_graph_is_judged_and_packed(stand_in: Path, model: Path, tmp_path: Path) -> None:
    (made,) = quantize(model, wanted(tmp_path, 1)).made
    assert (made.target_backend, made.method, made.excluded) == ("tensorrt", "ModelOpt, entropy", ())
    graph = onnx.load(str(made.path))
    assert problems(graph) == ()
    assert [entry.value for entry in graph.metadata_props] == ["kept"]
    assert (stand_in / "calls").read_text() == "0 excluded\n", "it runs once for each assignment"


def test_layers_are_excluded_until_the_budget_holds(stand_in: Path, model: Path, tmp_path: Path) -> None:
    (made,) = quantize(model, wanted(tmp_path, 25)).made
    assert made.excluded[0] == "conv4"
    assert made.quality.psnr >= 25
    quantized = sum(node.op_type == "QuantizeLinear" for node in onnx.load(str(made.path)).graph.node)
    assert quantized == len(layers_of(GRAPH)) - len(made.excluded)


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("raise ValueError('no such axis')", "ModelOpt cannot quantize this graph: ValueError: no such axis"),
        ("print('done')", "ModelOpt cannot quantize this graph: done"),
        ("", "it says nothing"),
    ],
)
def test_its_failure_is_one_line_and_nothing_is_written(
    stand_in: Path, model: Path, tmp_path: Path, script: str, reason: str
) -> None:
    (stand_in / "__main__.py").write_text(script)
    with pytest.raises(PrecisionError, match=reason):
        quantize(model, wanted(tmp_path, 1))
    assert {path.name for path in model.iterdir()} - {".lock"} == {"model.onnx", "manifest.json"}


def test_a_graph_that_it_leaves_in_floats_is_refused(stand_in: Path, model: Path, tmp_path: Path) -> None:
    (stand_in / "__main__.py").write_text(
        STAND_IN.replace("METHOD", '"entropy"').replace("ranges, excluded", "ranges, int8.layers_of(model)")
    )
    with pytest.raises(PrecisionError, match="ModelOpt left 8 of 8 layers in floats"):
        quantize(model, wanted(tmp_path, 1))


def test_an_environment_without_it_is_told_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="no Python that can be run .*" + re.escape(install("modelopt"))):
        require(tmp_path / "none")
    with pytest.raises(MissingDependency, match=r"cannot import ModelOpt .*No module named 'modelopt'"):
        require(Path(sys.executable))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"target_backends": ()}, "--for tensorrt"),
        ({"target_backends": ("openvino",)}, "--for tensorrt"),
        ({"to": "auto"}, "--to int8"),
        ({"method": "percentile"}, "does not calibrate by percentile; choose entropy or min-max"),
    ],
)
def test_it_quantizes_to_int8_for_tensorrt(tmp_path: Path, change: dict[str, object], reason: str) -> None:
    options = {"to": "int8", "target_backends": ("tensorrt",), "modelopt": Path(sys.executable)}
    with pytest.raises(OptionError, match=reason):
        QuantizeOptions(tmp_path, **(options | change))  # type: ignore[arg-type]


@pytest.mark.skipif(
    "IMPASTO_MODELOPT" not in os.environ, reason="opt-in: set IMPASTO_MODELOPT to a Python that has ModelOpt"
)
@pytest.mark.parametrize("budget", [1, 25])
def test_the_real_one(model: Path, tmp_path: Path, budget: float) -> None:
    (made,) = quantize(model, wanted(tmp_path, budget, os.environ["IMPASTO_MODELOPT"])).made
    assert problems(onnx.load(str(made.path))) == ()
    assert made.quality.psnr >= budget
    assert bool(made.excluded) == (budget == 25)
