"""NVIDIA ModelOpt as the quantizer for TensorRT, run by a Python of its own.

It pins onnx and onnxruntime to versions that other parts cannot have, so nothing here imports it: it is given files and gives one.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
import onnx

from impasto.errors import MissingDependency, OptionError, PrecisionError, install
from impasto.export.graph.helpers import producers, with_names
from impasto.export.graph.int8 import ARITHMETIC
from impasto.export.tensorrt.layer_report import LEAST_SHARE

from .calibration import Feed

METHODS = {"entropy": "entropy", "min-max": "max"}
"""Our names for calibrations that it has, and its own."""

_MODULE = "modelopt.onnx.quantization"
_SETUP = f"python -m venv modelopt && modelopt/bin/{install('modelopt')}, then --modelopt modelopt/bin/python"


def require(python: Path) -> None:
    """Raises OptionError or MissingDependency where this Python has no ModelOpt."""
    try:
        found = subprocess.run([python, "-c", f"import {_MODULE}"], capture_output=True, text=True, check=False)
    except OSError as error:
        raise OptionError(f"{python} is no Python that can be run ({error.strerror}); make one: {_SETUP}") from None
    if found.returncode:
        raise MissingDependency(
            f"{python} cannot import ModelOpt ({_last_line(found.stderr)}); make one that can: {_SETUP}"
        )


def quantized(
    python: Path, model: onnx.ModelProto, feeds: Sequence[Feed], method: str, excluded: Collection[str]
) -> onnx.ModelProto:
    """The graph with Q/DQ where ModelOpt puts them for TensorRT, around all layers but the excluded ones.

    model: float32, with node names. feeds: the graph's inputs for one picture each; the most frequent size is used. method: one
    of METHODS. Raises PrecisionError with ModelOpt's reason.
    """
    alike = _of_one_size(feeds)
    with tempfile.TemporaryDirectory() as folder:
        given, pictures, written = (Path(folder) / name for name in ("model.onnx", "pictures.npz", "quantized.onnx"))
        onnx.save(model, str(given))
        np.savez(pictures, **{name: np.concatenate([feed[name] for feed in alike]) for name in alike[0]})  # type: ignore[arg-type]
        command = [
            *(str(python), "-m", _MODULE, f"--onnx_path={given}", f"--output_path={written}", "--quantize_mode=int8"),
            *(
                f"--calibration_data_path={pictures}",
                f"--calibration_method={METHODS[method]}",
                "--calibration_eps",
                "cpu",
            ),
            *("--calibration_shapes=" + ",".join(f"{name}:{_shape(array)}" for name, array in alike[0].items()),),
            *("--high_precision_dtype=fp32", "--dq_only", "--op_types_to_quantize", *ARITHMETIC),
            *(["--nodes_to_exclude", *(f"^{re.escape(name)}$" for name in sorted(excluded))] if excluded else []),
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode or not written.is_file():
            raise PrecisionError(f"ModelOpt cannot quantize this graph: {_last_line(done.stderr or done.stdout)}")
        result = onnx.load(str(written))
    del result.metadata_props[:], result.graph.value_info[:]
    result.metadata_props.extend(model.metadata_props)  # which it drops
    _require_quantized(result, excluded)
    return with_names(result)


def _require_quantized(model: onnx.ModelProto, excluded: Collection[str]) -> None:
    """Raises PrecisionError where too many layers are left in floats. ModelOpt leaves some, such as convolutions of few channels."""
    by = producers(model.graph)
    layers = [node for node in model.graph.node if node.op_type in ARITHMETIC and node.name not in excluded]
    left = [node.name for node in layers if node.input[0] not in by or by[node.input[0]].op_type != "DequantizeLinear"]
    if len(left) > (1 - LEAST_SHARE) * len(layers):
        raise PrecisionError(
            f"ModelOpt left {len(left)} of {len(layers)} layers in floats ({left[0]}, …), too many for an INT8 graph; quantize "
            "without --modelopt"
        )


def _of_one_size(feeds: Sequence[Feed]) -> list[Feed]:
    sizes = [tuple(array.shape for array in feed.values()) for feed in feeds]
    (most, _), *_ = Counter(sizes).most_common(1)
    return [feed for feed, size in zip(feeds, sizes, strict=True) if size == most]


def _shape(array: np.ndarray) -> str:
    return "x".join(map(str, array.shape))


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "it says nothing"
