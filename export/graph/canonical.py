"""An external picture graph as a canonical one: float planes inside, uint8 N x H x W x 3 RGB outside, a modern opset."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, ValueInfoProto, compose, helper, inliner, numpy_helper, version_converter

from impasto._version import __version__
from impasto.errors import ExportError, first_line
from impasto.package.spec import Pixels
from impasto.runtime.backends.onnxruntime import onnxruntime, session_options

from .fp16 import widened
from .helpers import (
    LEAST_OPSET,
    OPSET,
    attribute,
    bodies,
    constants,
    element_types,
    fold_channel_gathers,
    opset,
    replace_nodes,
    tensor_text,
    with_names,
)
from .pixel_shuffle import fold_pixel_shuffles
from .weight_storage import without_fp16_storage

_INPUT, _OUTPUT = "image", "picture"
_FIRST_WITH_MODES = 11
"""The first opset whose Resize says how it samples."""


def read_external(path: Path) -> onnx.ModelProto:
    """The file's graph: one picture in, one out. Weights are no inputs, constants are initializers, nodes have names, and
    functions that the file defines are written out.

    Raises ExportError for what is no ONNX file, or no graph from one picture to one picture.
    """
    try:
        model = onnx.load(str(path))
        onnx.checker.check_model(model)
    except Exception as error:  # protobuf's DecodeError and the checker's error have no public base that onnx promises
        raise ExportError(f"{path} is no ONNX file that can be read: {first_line(error)}") from None
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in weights]  # old exporters list weights as inputs
    del model.graph.input[:]
    model.graph.input.extend(inputs)
    model.ir_version = max(model.ir_version, 4)  # the first that allows that
    for values, what in ((inputs, "takes"), (model.graph.output, "gives")):
        found = ", ".join(f"{value.name} {tensor_text(value)}" for value in values)
        if len(values) != 1 or len(values[0].type.tensor_type.shape.dim) != 4:
            raise ExportError(
                f"{path} {what} {found or 'nothing'}; a picture model {what} one (N, 3, H, W) or (N, H, W, 3) tensor"
            )
        kind = values[0].type.tensor_type.elem_type
        if kind not in (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.UINT8):
            raise ExportError(
                f"{path} {what} {found}; pictures are float32, float16 or uint8. Export it again in float32 (in torch: model.float())"
            )
    batch = inputs[0].type.tensor_type.shape.dim[0].dim_value
    if batch > 1:  # nodes behind it may count on that number, which no change of the input's shape would tell them
        raise ExportError(
            f"{path} takes {batch} pictures at once, neither more nor fewer ({tensor_text(inputs[0])}), and pictures are drawn one by "
            "one; export it again with a free batch, or a batch of 1"
        )
    if model.functions:  # few tools look into them, and a change of the opset loses them
        model = inliner.inline_local_functions(model, convert_version=True)
    return with_names(model)


def is_canonical(model: onnx.ModelProto) -> bool:
    """Whether it takes and gives uint8 (N, H, W, 3) as it is."""
    ends = (model.graph.input[0].type.tensor_type, model.graph.output[0].type.tensor_type)
    return all(end.elem_type == TensorProto.UINT8 and end.shape.dim[3].dim_value == 3 for end in ends)


def is_modern(model: onnx.ModelProto) -> bool:
    """Whether `modernized` has nothing to do: opset 20, and no halves but stored weights."""
    return opset(model) == OPSET and TensorProto.FLOAT16 not in element_types(without_fp16_storage(model)).values()


def modernized(model: onnx.ModelProto) -> onnx.ModelProto:
    """The graph in float32 and opset 20, with constants computed, batch norms folded into convolutions and pixel shuffles whole.

    Raises ExportError where it can be neither converted nor left as it is.
    """
    if opset(model) != OPSET:
        try:
            converted = version_converter.convert_version(model, OPSET)
            if opset(model) < _FIRST_WITH_MODES:
                _write_old_modes(converted.graph)
            model = converted
        except Exception as error:  # the converter raises RuntimeError, or what its C++ parts throw
            if opset(model) < LEAST_OPSET:
                raise ExportError(
                    f"the graph has opset {opset(model)}, and ONNX cannot convert it to {OPSET} ({first_line(error)}); "
                    f"export it again with opset {LEAST_OPSET} or later"
                ) from None
    if TensorProto.FLOAT16 in element_types(model).values():
        model = widened(model)
    return fold_pixel_shuffles(with_names(_simplified(model)))


def _write_old_modes(graph: onnx.GraphProto) -> None:
    """Write out how Upsample and Resize sampled before opset 11: they had no such attributes, and the new ones default to another way.

    ONNX's converter leaves that out (onnx 1.23, issue 8480).
    """
    known = constants(graph)
    for node in graph.node:
        for body in bodies(node):
            _write_old_modes(body)
        if node.op_type == "Resize":
            # Where pictures get smaller, ONNX Runtime and OpenVINO take the next pixel and not the one before.
            scales = known.get(node.input[2], np.ones(1)) if len(node.input) > 2 else np.ones(1)
            rounding = "ceil" if scales.size and scales.max() <= 1 and scales.min() < 1 else "floor"
            modes = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": rounding}
            node.attribute.extend(helper.make_attribute(name, mode) for name, mode in modes.items())


def _simplified(model: onnx.ModelProto) -> onnx.ModelProto:
    """After ONNX Runtime's basic optimizations, which use ONNX's own operators alone. Raises ExportError."""
    ort = onnxruntime()
    with tempfile.TemporaryDirectory() as folder:
        before, after = Path(folder) / "before.onnx", Path(folder) / "after.onnx"
        onnx.save(model, str(before))
        options = session_options(exact=False)  # its INT8 products are prepared by rewriting weights
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath = str(after)
        try:
            ort.InferenceSession(str(before), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # the vendor's exceptions have no common base
            raise ExportError(f"ONNX Runtime cannot load the graph: {first_line(error)}") from None
        result = onnx.load(str(after))
    used = {node.domain or "ai.onnx" for node in result.graph.node}
    kept = [entry for entry in result.opset_import if (entry.domain or "ai.onnx") in used]
    del result.opset_import[:]
    result.opset_import.extend(kept)
    return result


def with_pixels(model: onnx.ModelProto, pixels: Pixels) -> onnx.ModelProto:
    """The graph with pixels converted inside it, as `Pixels.encode` and `decode` do: canonical. model: as `modernized` gives.

    Raises ExportError for a graph of other than 3 channels.
    """
    taken = {name for node in model.graph.node for name in (*node.input, *node.output)}
    if any(name.split("/")[0] in (_INPUT, _OUTPUT) for name in taken):
        model = compose.add_prefix(model, "network/")
    graph = model.graph
    entry, drawn = graph.input[0], graph.output[0]
    for value in (entry, drawn):
        if _channels(value) != 3:
            raise ExportError(f"the graph's {value.name} is {tensor_text(value)}; a picture model has 3 channels")
    first, weights = _encoding(entry, pixels)
    last, more = _decoding(drawn, pixels)
    nodes = [*first, *graph.node, *last]
    del graph.node[:], graph.value_info[:]
    graph.node.extend(nodes)
    graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in {**weights, **more}.items())
    taken_sizes, given_sizes = _sides(entry, ("N", "H", "W")), _sides(drawn, ("N", "H_out", "W_out"))
    for values, name, sizes in ((graph.input, _INPUT, taken_sizes), (graph.output, _OUTPUT, given_sizes)):
        del values[:]
        values.append(helper.make_tensor_value_info(name, TensorProto.UINT8, [*sizes, 3]))
    fold_channel_gathers(graph)
    _keep_planes(graph)
    return finished(without_fp16_storage(model))


def _keep_planes(graph: onnx.GraphProto) -> None:
    """Stand a node before every Resize that ONNX Runtime computes in planes only, which it moves no Transpose past.

    Its optimizer would move the one that makes planes of the picture behind such a Resize, and then refuse to load the graph (1.32).
    A DepthToSpace by 1 changes nothing, and costs a copy.
    """
    nodes = []
    for node in graph.node:
        if node.op_type == "Resize" and (attribute(node, "mode", b"") == b"cubic" or attribute(node, "antialias", 0)):
            planes = f"{node.name}/planes"
            nodes.append(helper.make_node("DepthToSpace", [node.input[0]], [planes], planes, blocksize=1))
            node.input[0] = planes
        nodes.append(node)
    replace_nodes(graph, nodes)


def finished(model: onnx.ModelProto) -> onnx.ModelProto:
    """The graph without what other tools noted about their work, checked by onnx. Raises ExportError."""
    model.producer_name, model.producer_version, model.doc_string = "impasto", __version__, ""
    model.graph.name = "impasto"
    del model.metadata_props[:]
    try:
        onnx.checker.check_model(model, full_check=True)
    except Exception as error:
        raise ExportError(f"the graph cannot take and give pixels: {first_line(error)}") from None
    return model


def _encoding(entry: ValueInfoProto, pixels: Pixels) -> tuple[list[NodeProto], dict[str, np.ndarray]]:
    """The nodes from the uint8 picture to what the graph takes, and their constants."""
    chain = _Chain(_INPUT)
    chain.add("Cast", to=TensorProto.FLOAT)
    planes = not _channels_last(entry)
    if planes:
        chain.add("Transpose", perm=[0, 3, 1, 2])
    chain.scale("Mul", (pixels.high - pixels.low) / 255, neutral=1)
    chain.scale("Add", pixels.low, neutral=0)
    if pixels.order == "bgr":
        chain.reverse(1 if planes else 3)
    if entry.type.tensor_type.elem_type == TensorProto.UINT8:
        chain.add("Cast", to=TensorProto.UINT8)
    return chain.ending(entry.name), chain.constants


def _decoding(drawn: ValueInfoProto, pixels: Pixels) -> tuple[list[NodeProto], dict[str, np.ndarray]]:
    """The nodes from what the graph gives to the uint8 picture."""
    chain = _Chain(drawn.name, _OUTPUT)
    if drawn.type.tensor_type.elem_type == TensorProto.UINT8:
        chain.add("Cast", to=TensorProto.FLOAT)
    planes = not _channels_last(drawn)
    if pixels.order == "bgr":
        chain.reverse(1 if planes else 3)
    chain.scale("Sub", pixels.low, neutral=0)
    chain.scale("Mul", 255 / (pixels.high - pixels.low), neutral=1)
    chain.add("Round")
    chain.clip(0, 255)
    if planes:
        chain.add("Transpose", perm=[0, 2, 3, 1])
    chain.add("Cast", to=TensorProto.UINT8)
    return chain.ending(_OUTPUT), chain.constants


class _Chain:
    """Nodes one behind another."""

    def __init__(self, source: str, label: str | None = None) -> None:
        """label: what the names of its tensors begin with."""
        self._last = source
        self._label = label or source
        self._nodes: list[NodeProto] = []
        self.constants: dict[str, np.ndarray] = {}

    def add(self, kind: str, *others: str, **attributes: Any) -> None:
        name = f"{self._label}/{len(self._nodes)} {kind}"
        self._nodes.append(helper.make_node(kind, [self._last, *others], [name], name, **attributes))
        self._last = name

    def scale(self, kind: str, number: float, *, neutral: float) -> None:
        """Multiply or add a number, unless that changes nothing."""
        if number != neutral:
            self.add(kind, self._constant(kind, np.float32(number)))

    def clip(self, low: float, high: float) -> None:
        self.add("Clip", self._constant("low", np.float32(low)), self._constant("high", np.float32(high)))

    def reverse(self, axis: int) -> None:
        """RGB to BGR, or back."""
        self.add("Gather", self._constant("order", np.array([2, 1, 0])), axis=axis)

    def ending(self, name: str) -> list[NodeProto]:
        """The nodes; the last one's result is called so."""
        self._nodes[-1].output[0] = name
        return self._nodes

    def _constant(self, what: str, value: np.ndarray | np.generic) -> str:
        name = f"{self._label}/{what}"
        self.constants[name] = np.asarray(value)
        return name


def _channels_last(value: ValueInfoProto) -> bool:
    sizes = [dimension.dim_value for dimension in value.type.tensor_type.shape.dim]
    return bool(sizes[3] == 3 and sizes[1] != 3)


def _channels(value: ValueInfoProto) -> int:
    """How many, where the graph says it; an exporter that leaves it out is believed."""
    sizes = [dimension.dim_value for dimension in value.type.tensor_type.shape.dim]
    return 3 if _channels_last(value) else sizes[1] or 3


def _sides(value: ValueInfoProto, names: tuple[str, str, str]) -> list[int | str]:
    """Batch, height and width: numbers where they are fixed, these names where they are free."""
    dimensions = value.type.tensor_type.shape.dim
    kept = (0, 1, 2) if _channels_last(value) else (0, 2, 3)
    return [dimensions[axis].dim_value or name for axis, name in zip(kept, names, strict=True)]
