"""INT8 in the graph, as QuantizeLinear and DequantizeLinear around what computes in it. ONNX Runtime's quantizer does the mechanics.

This is the only file that imports `onnxruntime.quantization`.
"""

from __future__ import annotations

import contextlib
import io
import logging
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from impasto.errors import MissingDependency, PrecisionError, first_line, install
from impasto.export.quantization.calibration import Feed
from impasto.export.quantization.ranges import Session, opened

from .helpers import attribute, constants, copy, producers

METHODS = ("percentile", "min-max", "entropy")
"""Ways to choose each tensor's range: 99.99 % of its values; all of them; the range that keeps most information
(Kullback-Leibler divergence, after Migacz 2017, "8-bit inference with TensorRT")."""

ARITHMETIC = ("Conv", "ConvTranspose", "Gemm", "MatMul")
"""What is worth quantizing: it multiplies by stored weights."""

_PERCENTILE = 99.99
_BINS = {"percentile": 2048, "entropy": 256}
"""Bins of the histograms by calibration method. Entropy compares each bin's range in a Python loop, and takes seconds even so."""


@dataclass(frozen=True)
class Placement:
    """Where a target backend wants Q/DQ. Layers' inputs are quantized for all of them."""

    outputs: bool
    """Whether layers' outputs are quantized as well."""
    unsigned: bool
    """uint8 activations with any zero point, and int32 biases; otherwise int8 with zero point 0 and float biases."""
    half: bool
    """Whether the rest computes in FP16."""


PLACEMENTS = {
    # Signed, symmetric, no int32 bias: all that TensorRT's parser takes. What is not INT8 there is FP16.
    "tensorrt": Placement(outputs=False, unsigned=False, half=True),
    "openvino": Placement(outputs=False, unsigned=False, half=False),
    # ONNX Runtime's x86 kernels are made for uint8 activations; on int8 ones they are slower than FP32. Sums between quantized
    # layers it runs in 8 bits by itself; told to, it would also do so between layers that are excluded, and round what passes by.
    "onnxruntime": Placement(outputs=True, unsigned=True, half=False),
}


def layers_of(model: onnx.ModelProto) -> tuple[str, ...]:
    """The nodes that can compute in INT8, in the graph's order. model: with node names."""
    stored = constants(model.graph)
    return tuple(
        node.name
        for node in model.graph.node
        if node.op_type in ARITHMETIC
        and node.input[1] in stored
        and node.input[0] not in stored
        and stored[node.input[1]].dtype == np.float32
    )


def find_ranges(model: onnx.ModelProto, feeds: Sequence[Feed], method: str) -> Any:
    """Every float tensor's range by one of METHODS, as the quantizer takes it."""
    quantization = _library()
    calibrate = quantization.calibrate
    kind = {"min-max": "MinMax", "entropy": "Entropy", "percentile": "Percentile"}[method]
    # Symmetry is left to the quantizer: a symmetric range of what a ReLU gives would waste half of uint8.
    options: dict[str, Any] = {"symmetric": False}
    if method == "entropy":
        options |= {"num_bins": _BINS[method], "num_quantized_bins": 128}
    elif method == "percentile":
        options |= {"num_bins": _BINS[method], "percentile": _PERCENTILE}
    with tempfile.TemporaryDirectory() as folder, _quiet():
        plain = Path(folder) / "model.onnx"
        onnx.save(model, str(plain))
        calibrator = calibrate.create_calibrator(
            plain,
            list(ARITHMETIC),
            augmented_model_path=str(Path(folder) / "augmented.onnx"),
            calibrate_method=getattr(calibrate.CalibrationMethod, kind),
            extra_options=options,
        )
        for feed in feeds:  # one at a time: the calibrator keeps every tensor of what it is given at once
            calibrator.collect_data(_reader(calibrate, feed))
        return calibrator.compute_data()


def learnt_ranges(model: onnx.ModelProto, learnt: Mapping[str, float]) -> Any:
    """The range of every tensor that a layer reads, as a quantization-aware training has learnt it; None where one is not known.

    The form is that of `find_ranges`. learnt: by layer of the network, such as "body.0.first", the largest magnitude that is not
    clipped. A tensor that two layers read gets the larger one.
    """
    calibrate = _library().calibrate
    layers = set(layers_of(model))
    ends: dict[str, float] = {}
    for node in model.graph.node:
        if node.name in layers:
            end = learnt.get(node.input[1].removeprefix("network.").removesuffix(".weight"))
            if end is None:
                return None
            ends[node.input[0]] = max(ends.get(node.input[0], 0), end)
    ranges = {name: (np.float32(-end), np.float32(end)) for name, end in ends.items()}
    return calibrate.TensorsData(calibrate.CalibrationMethod.MinMax, ranges)


def quantized(model: onnx.ModelProto, ranges: Any, excluded: Collection[str], target_backend: str) -> onnx.ModelProto:
    """The graph with Q/DQ where the target backend wants them, around all layers but the excluded ones.

    model: float32, with node names. ranges: of `find_ranges`.
    """
    quantization = _library()
    placement = PLACEMENTS[target_backend]
    wanted = [layer for layer in layers_of(model) if layer not in excluded]
    source = onnx.shape_inference.infer_shapes(model)
    kind = quantization.QuantType
    quantizer = quantization.qdq_quantizer.QDQQuantizer(
        source,
        True,  # per channel
        False,  # the full range of 8 bits
        kind.QInt8,
        kind.QUInt8 if placement.unsigned else kind.QInt8,
        ranges,
        wanted,
        [],
        list(ARITHMETIC),
        {
            "ActivationSymmetric": not placement.unsigned,
            "WeightSymmetric": True,
            "QuantizeBias": placement.unsigned,
            "OpTypesToExcludeOutputQuantization": [] if placement.outputs else list(ARITHMETIC),
        },
    )
    with _quiet():
        quantizer.quantize_model()
        quantizer.model.topological_sort()
    result: onnx.ModelProto = quantizer.model.model
    if not placement.outputs:
        _give_back(result.graph, set(wanted))
    del result.graph.value_info[:]
    return result


def _give_back(graph: onnx.GraphProto, layers: Collection[str]) -> None:
    """Let what is no layer read the float tensor again: the quantizer rounds it for all who read it.

    Skip connections carry the picture itself past the layers, and what is rounded there adds up.
    """
    by = producers(graph)
    for node in graph.node:
        if node.name in layers or node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            continue
        for index, name in enumerate(node.input):
            dequantize = by.get(name)
            quantize = by.get(dequantize.input[0]) if dequantize and dequantize.op_type == "DequantizeLinear" else None
            if quantize is not None:
                node.input[index] = quantize.input[0]


def equalized(model: onnx.ModelProto, feeds: Sequence[Feed]) -> onnx.ModelProto:
    """A graph that computes the same, with channels of more equal range between two layers: Nagel et al. 2019, section 4.1.

    For layer -> ReLU -> layer with no other reader, channel i of the first is divided by s_i and the second's weights for it are
    multiplied: ReLU(s x) = s ReLU(x) for s > 0. s_i = sqrt(r1_i r2_i) / r2_i, where r1_i is the channel's range on `feeds` (the
    paper takes the first layer's weights for it) and r2_i the largest weight that reads it.
    """
    pairs = _equal_pairs(model)
    if not pairs:
        return model
    ranges = _channel_ranges(model, [first.output[0] for first, _ in pairs], feeds)
    result = copy(model)
    stored = {tensor.name: tensor for tensor in result.graph.initializer}
    for first, second in pairs:
        reading = numpy_helper.to_array(stored[second.input[1]])
        r1, r2 = ranges[first.output[0]], np.abs(reading).max((0, 2, 3))
        scale = np.sqrt(np.maximum(r1, 1e-8) / np.maximum(r2, 1e-8))
        scale = (scale / np.exp(np.log(scale).mean())).clip(1 / 64, 64).astype(np.float32)
        _scale(stored[first.input[1]], 1 / scale[:, None, None, None])
        if len(first.input) > 2:
            _scale(stored[first.input[2]], 1 / scale)
        _scale(stored[second.input[1]], scale[None, :, None, None])
    return result


def _equal_pairs(model: onnx.ModelProto) -> list[tuple[onnx.NodeProto, onnx.NodeProto]]:
    """Two convolutions with nothing but a ReLU between them."""
    graph = model.graph
    by = producers(graph)
    uses = [name for node in graph.node for name in node.input]
    stored = constants(graph)
    found = []
    for second in graph.node:
        relu = by.get(second.input[0]) if second.op_type == "Conv" else None
        first = by.get(relu.input[0]) if relu is not None and relu.op_type == "Relu" else None
        if relu is None or first is None or first.op_type != "Conv":
            continue
        alone = all(
            uses.count(name) == 1 for name in (relu.output[0], first.output[0], second.input[1], *first.input[1:])
        )
        plain = all(attribute(node, "group", 1) == 1 for node in (first, second)) and all(
            name in stored for name in (second.input[1], *first.input[1:])
        )
        if alone and plain:
            found.append((first, second))
    return found


def _channel_ranges(model: onnx.ModelProto, tensors: list[str], feeds: Sequence[Feed]) -> dict[str, np.ndarray]:
    session = Session(opened(model, tensors))
    highest: dict[str, np.ndarray] = {}
    for feed in feeds:
        found = session.all(feed)
        for name in tensors:
            value = found[name].max((0, 2, 3)).clip(min=0)  # what the ReLU lets through
            highest[name] = np.maximum(highest.get(name, value), value)
    return highest


def _scale(tensor: onnx.TensorProto, by: np.ndarray) -> None:
    values = (numpy_helper.to_array(tensor) * by).astype(np.float32)
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))


def _reader(calibrate: Any, feed: Feed) -> Any:
    class One(calibrate.CalibrationDataReader):
        def __init__(self) -> None:
            self._rest: Iterator[Feed] = iter([feed])

        def get_next(self) -> Feed | None:
            return next(self._rest, None)

    return One()


def _library() -> Any:
    try:
        import onnxruntime.quantization
        import onnxruntime.quantization.qdq_quantizer
    except ImportError as error:
        raise MissingDependency(f"INT8 needs onnxruntime and onnx ({error}): {install('export')}") from None
    return onnxruntime.quantization


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The quantizer prints as it goes, and logs advice for its own command line."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    except (ValueError, RuntimeError, NotImplementedError) as error:
        raise PrecisionError(f"this graph cannot be quantized to INT8: {first_line(error)}; use --to fp16") from error
    finally:
        logging.disable(level)
