"""What TensorRT's ONNX parsers read, as laws: of operators, types, attributes, and of what must be stored in the graph.

They were written down from the parsers' public sources (onnx/onnx-tensorrt: builtin_op_importers.cpp, onnx2trt_utils.cpp,
ModelImporter.cpp, docs/operators.md, docs/Changelog.md), never by running them:

- opset 17: 8.5, from shortly before its release; what it asserts of the operators below is also in the text of
  libnvonnxparser.so.8 in the wheel 8.5.3.1. And 8.6, where by its changelog a Cast became a layer of its own and uint8
  between layers an error.
- opset 20: versions from 9 to 10.x. TensorRT 10.3 (JetPack 6.1 and 6.2) is the oldest that reads it. No text of just that version
  was there to read: what both 9.2 and 10.6 assert or leave out is a law, and what they do differently.

The laws are stricter than the parsers: an operator that no graph of ours has is refused until somebody has read its importer.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, numpy_helper

from impasto.export.graph.helpers import attribute, constants, opset, producers, readers

FLOAT, HALF, INT8, UINT8 = TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.INT8, TensorProto.UINT8
FLOATS = frozenset((FLOAT, HALF))
WHOLE = frozenset((TensorProto.INT32, TensorProto.INT64))
"""Sizes, between Shape and Reshape: shape tensors (ShapeTensor.cpp). 8.x has 32 bits for both."""
STORED = WHOLE | {FLOAT, HALF, INT8}
"""Weights of other types are converted (double, uint8 to int32) or refused: convertOnnxWeights."""
CASTS = {(UINT8, FLOAT), (UINT8, HALF), (FLOAT, UINT8), (HALF, UINT8), (FLOAT, HALF), (HALF, FLOAT)}
CASTS |= {pair for whole in WHOLE for kind in FLOATS | WHOLE for pair in ((whole, kind), (kind, whole))}
"""importCast, 8.5: uint8 from and to floating point alone."""
INT32 = np.iinfo(np.int32)


@dataclass(frozen=True)
class Operator:
    """What an importer asserts of a node."""

    attributes: frozenset[str] = frozenset()
    """Those that it reads, or that mean nothing to it."""
    inputs: tuple[int, int] = (1, 1)
    """Fewest and most."""
    stored: frozenset[int] = frozenset()
    """Inputs that must be initializers."""
    types: frozenset[int] = FLOATS
    """Of inputs that are computed."""
    rank: int | None = None
    """Of the first input."""
    more: Callable[[NodeProto, Graph], Iterator[str]] | None = None
    """Whatever else it asserts: yields what is wrong."""


def broken_laws(model: onnx.ModelProto) -> list[str]:
    """Everything in a prepared graph that a parser of its opset would refuse or read otherwise; empty for a good one."""
    graph = Graph(model)
    found = [*_of_model(model), *_of_initializers(model.graph), *_of_pixels(graph), *_of_names(model.graph)]
    for node in model.graph.node:
        found += [f"{node.op_type} {node.name or node.output[0]!r}: {problem}" for problem in _of_node(node, graph)]
    return found


class Graph:
    """A graph's values, types, shapes and who reads what."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = model
        self.opset = opset(model)
        self.old = self.opset <= 17
        self.values = constants(model.graph)
        self.by = producers(model.graph)
        inferred = onnx.shape_inference.infer_shapes(model).graph
        tensors = {
            value.name: value.type.tensor_type for value in (*inferred.input, *inferred.output, *inferred.value_info)
        }
        self.types = {name: tensor.elem_type for name, tensor in tensors.items()}
        self.types |= {tensor.name: tensor.data_type for tensor in model.graph.initializer}
        self.shapes = {name: [dim.dim_value or None for dim in tensor.shape.dim] for name, tensor in tensors.items()}
        self.shapes |= {name: list(value.shape) for name, value in self.values.items()}

    def rank(self, name: str) -> int:
        return len(self.shapes.get(name, ()))


def _of_model(model: onnx.ModelProto) -> Iterator[str]:
    domains = {entry.domain for entry in model.opset_import} | {node.domain for node in model.graph.node}
    if domains - {"", "ai.onnx"}:
        yield f"operators of {domains} go to plugins"
    if opset(model) not in (17, 20):
        yield f"opset {opset(model)}; docs/operators.md of 8.5 and 8.6 says 17, of 10.x 20"
    if model.functions or model.graph.sparse_initializer:
        yield "functions or sparse initializers, which 8.x does not look at"


def _of_initializers(graph: onnx.GraphProto) -> Iterator[str]:
    ends = {name for node in graph.node if node.op_type == "Slice" for name in node.input[1:3]}
    for tensor in graph.initializer:
        if tensor.data_type not in STORED:
            yield f"initializer {tensor.name!r} of type {TensorProto.DataType.Name(tensor.data_type)}"
        if tensor.data_location == TensorProto.EXTERNAL:
            yield f"initializer {tensor.name!r} in another file, which is not there where bytes are parsed"
        if tensor.data_type == TensorProto.INT64 and tensor.name not in ends:
            values = numpy_helper.to_array(tensor)
            if values.size and (values.min() < INT32.min or values.max() > INT32.max):
                yield f"initializer {tensor.name!r} beyond 32 bits, to which 8.x clamps"


def _of_pixels(graph: Graph) -> Iterator[str]:
    """importCast and IIdentityLayer, 8.5; "UINT8 is only allowed as network inputs and outputs", ModelImporter.cpp from 8.6 on."""
    inputs = {value.name for value in graph.model.graph.input}
    outputs = {value.name for value in graph.model.graph.output}
    read = readers(graph.model.graph)
    for name, kind in graph.types.items():
        if kind != UINT8:
            continue
        if name not in inputs and (name not in outputs or graph.by[name].op_type != "Cast"):
            yield f"uint8 {name!r} between layers"
        for node in read.get(name, ()):
            if node.op_type != "Cast":
                yield f"uint8 {name!r} is read by {node.op_type}; only a Cast may"


def _of_names(graph: onnx.GraphProto) -> Iterator[str]:
    """registerLayer makes names unique, QuantDequantLinearHelper does not; the builder refuses a "Repeated layer name"."""
    taken = Counter((*(node.name for node in graph.node), *(tensor.name for tensor in graph.initializer)))
    for node in graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear") and node.name and taken[node.name] > 1:
            yield f"{node.op_type} {node.name!r} shares its name"


def _of_node(node: NodeProto, graph: Graph) -> Iterator[str]:
    law = (OLD if graph.old else NEW).get(node.op_type)
    if law is None:
        yield "nobody has read its importer; add it to tests/support/parser_laws.py with what it asserts"
        return
    if unknown := {found.name for found in node.attribute} - law.attributes:
        yield f"attributes {sorted(unknown)}"
    if not law.inputs[0] <= len(node.input) <= law.inputs[1]:
        yield f"{len(node.input)} inputs; wanted {law.inputs[0]} to {law.inputs[1]}"
        return
    for index, name in enumerate(node.input):
        if index in law.stored and name and name not in graph.values:
            yield f"input {index} is computed; it must be an initializer"
        elif name and name not in graph.values and graph.types.get(name) not in law.types:
            yield f"input {index} of type {graph.types.get(name)}"
    if law.rank is not None and graph.rank(node.input[0]) != law.rank:
        yield f"rank {graph.rank(node.input[0])}; wanted {law.rank}"
    if law.more:
        yield from law.more(node, graph)


def _alike(node: NodeProto, graph: Graph) -> Iterator[str]:
    """A strongly typed network has no implicit casts, and neither has ONNX."""
    kinds = {graph.types.get(name) for name in node.input if name}
    if len(kinds) > 1:
        yield f"inputs of types {kinds}"


def _cast(node: NodeProto, graph: Graph) -> Iterator[str]:
    pair = (graph.types.get(node.input[0]), attribute(node, "to", 0))
    if pair not in CASTS:
        yield f"from {pair[0]} to {pair[1]}"


def _convolution(node: NodeProto, graph: Graph) -> Iterator[str]:
    """importConv and convMultiInput. The latter did not look at the weights' shape before 10.4 (docs/Changelog.md)."""
    weights = node.input[1]
    if weights not in graph.values:
        if not attribute(node, "kernel_shape", None):
            yield "computed weights and no kernel_shape"
        if weights not in graph.by or graph.by[weights].op_type != "DequantizeLinear":
            yield "weights that are computed by something else than DequantizeLinear"
    if attribute(node, "auto_pad", b"NOTSET") not in (b"NOTSET", b"SAME_UPPER", b"SAME_LOWER", b"VALID"):
        yield "this auto_pad"
    if attribute(node, "auto_pad", b"NOTSET").startswith(b"SAME") and attribute(node, "pads", None):
        yield "pads beside auto_pad"
    if len(node.input) > 2 and graph.rank(node.input[2]) != 1:
        yield "a bias that is not of rank 1"
    yield from _alike(node, graph)


def _clip(node: NodeProto, graph: Graph) -> Iterator[str]:
    """importClip reads bounds as float or half, whatever they are."""
    for name in node.input[1:]:
        if name and (graph.types[name] not in FLOATS or graph.values[name].size != 1):
            yield f"bound {name!r} is no floating-point number"


def _transposed(node: NodeProto, graph: Graph) -> Iterator[str]:
    """importConvTranspose: it looks at the shape of its weights, wherever they come from, so that kernel_shape may be left out.

    generatePadding computes with sizes of -1 where they are free, and gives an odd pixel to the other end than ONNX; beside
    auto_pad, output_padding is dropped. So neither auto_pad nor output_shape. A computed bias would come before the zeros that
    output_padding adds.
    """
    shape = graph.shapes.get(node.input[1], [])
    kernel = attribute(node, "kernel_shape", shape[2:])
    if kernel != shape[2:]:
        yield f"kernel_shape {kernel} for weights {shape}"
    if node.input[1] not in graph.values and graph.by[node.input[1]].op_type != "DequantizeLinear":
        yield "weights that are computed by something else than DequantizeLinear"
    pads = attribute(node, "pads", [0] * 2 * len(kernel))
    if min(pads, default=0) < 0:
        yield "pads below 0"
    if len(node.input) > 2 and graph.rank(node.input[2]) != 1:
        yield "a bias that is not of rank 1"
    yield from _alike(node, graph)


def _slope(node: NodeProto, graph: Graph) -> Iterator[str]:
    """importPRelu and IParametricReLULayer: a slope for each element, or one along an axis; it may be computed."""
    data, slope = (graph.shapes.get(name, []) for name in node.input)
    if len(slope) > len(data):
        yield f"a slope of rank {len(slope)} for a tensor of rank {len(data)}"
    for size, found in zip(reversed(data), reversed(slope), strict=False):
        if found not in (1, size):
            yield f"a slope {slope} for {data}"
    yield from _alike(node, graph)


def _constants_of_selu(node: NodeProto, _: Graph) -> Iterator[str]:
    """importSelu's own are 1.6732 and 1.0507, which is not what ONNX says."""
    if missing := {"alpha", "gamma"} - {found.name for found in node.attribute}:
        yield f"no {sorted(missing)}"


def _layer_norm(node: NodeProto, graph: Graph) -> Iterator[str]:
    """importLayerNormalization, 9.2: gives one output; a missing bias is a number, where scale and bias have one shape."""
    if len(node.output) > 1:
        yield "more outputs than one"
    if attribute(node, "stash_type", FLOAT) != FLOAT:
        yield "statistics in another type than float32"
    if graph.shapes[node.input[1]] != graph.shapes[node.input[2]]:
        yield "scale and bias of two shapes"
    yield from _alike(node, graph)


def _instance_norm(node: NodeProto, graph: Graph) -> Iterator[str]:
    """normalizationHelper, 10.x: over everything behind two axes, of which there is some."""
    if graph.rank(node.input[0]) < 3:
        yield f"rank {graph.rank(node.input[0])}; wanted 3 or more"
    yield from _alike(node, graph)


def _batch_norm(node: NodeProto, graph: Graph) -> Iterator[str]:
    if attribute(node, "training_mode", 0) or len(node.output) > 1:
        yield "training"
    if any(graph.rank(name) != 1 for name in node.input[1:]):
        yield "statistics that are not of rank 1"
    yield from _alike(node, graph)


def _gather(node: NodeProto, graph: Graph) -> Iterator[str]:
    """importGather: int64 indices become int32, for data that is none."""
    indices = node.input[1]
    kind = graph.types[indices]
    if kind not in WHOLE:
        yield f"indices of type {kind}"


def _shape(node: NodeProto, graph: Graph) -> Iterator[str]:
    """A Reshape's or an Expand's: ShapeTensor takes sizes of one axis or none, stored or computed."""
    if graph.rank(node.input[1]) != 1 or graph.types[node.input[1]] not in WHOLE:
        yield "a shape that is no list of sizes"
    if node.input[1] in graph.values and (graph.values[node.input[1]] < -1).any():
        yield "sizes below -1"


def _squeeze(node: NodeProto, graph: Graph) -> Iterator[str]:
    """importSqueeze: without axes it wants every size known."""
    if len(node.input) < 2 and None in graph.shapes[node.input[0]]:
        yield "no axes, and sizes that are free"


def _choice(node: NodeProto, graph: Graph) -> Iterator[str]:
    kinds = [graph.types.get(name) for name in node.input]
    if kinds[0] != TensorProto.BOOL or kinds[1] != kinds[2]:
        yield f"inputs of types {kinds}"


def _space_and_depth(node: NodeProto, graph: Graph) -> Iterator[str]:
    if attribute(node, "mode", b"DCR") not in (b"DCR", b"CRD"):
        yield "this mode"


def _quantizer(node: NodeProto, graph: Graph) -> Iterator[str]:
    """QuantDequantLinearHelper, and what the builder of 8.5 says of Q and DQ layers."""
    quantizes, (data, scale, zero) = node.op_type == "QuantizeLinear", node.input
    stored = data in graph.values
    kind = graph.types.get(data)
    if quantizes and kind not in (FLOATS if not graph.old else {FLOAT}):
        yield f"quantizes type {kind}"
    if not quantizes and kind != INT8:
        yield f"dequantizes type {kind}"
    if not quantizes and stored and graph.old:
        yield "dequantizes stored levels; 8.x wants floating-point weights with both layers behind them"
    if graph.types[scale] not in (FLOATS if not graph.old else {FLOAT}):
        yield f"a scale of type {graph.types[scale]}; 8.x reads it as float whatever it is"
    values = graph.values[scale]
    if not (values > 0).all():
        yield "a scale that is not above 0"
    if graph.values[zero].any() or graph.values[zero].dtype != np.int8 or graph.values[zero].size != values.size:
        yield "a zero point that is not as many zeros of int8 as there are scales"
    if values.size > 1 and values.size != (graph.shapes[data] or [None])[attribute(node, "axis", 1)]:
        yield f"{values.size} scales along an axis of another size"


def _pad(node: NodeProto, graph: Graph) -> Iterator[str]:
    """importPad: kFILL, kREFLECT, kCLAMP; "wrap" came with 10.0, axes with 10.4 (docs/Changelog.md)."""
    if attribute(node, "mode", b"constant") not in (b"constant", b"reflect", b"edge"):
        yield "this mode"
    pads = graph.values[node.input[1]]
    if (pads < 0).any() or pads.size != 2 * graph.rank(node.input[0]):
        yield "pads below 0, or not two for each axis"


def _pool(node: NodeProto, graph: Graph) -> Iterator[str]:
    if len(node.output) > 1:
        yield "indices as a second output"
    if any(step != 1 for step in attribute(node, "dilations", ())):
        yield "dilations"
    if not attribute(node, "kernel_shape", None):
        yield "no kernel_shape"
    if attribute(node, "auto_pad", b"NOTSET") != b"NOTSET" and attribute(node, "pads", None):
        yield "pads beside auto_pad"


def _average(node: NodeProto, graph: Graph) -> Iterator[str]:
    yield from _pool(node, graph)
    if attribute(node, "ceil_mode", 0) and attribute(node, "count_include_pad", 0):
        yield "what is counted where windows reach beyond the pads is in no source that could be read"


def _resize(node: NodeProto, graph: Graph) -> Iterator[str]:
    """importResize: by stored float scales, or to stored sizes. Antialiasing is refused by 10.x, and not looked at by 8.x."""
    if attribute(node, "antialias", 0) or attribute(node, "keep_aspect_ratio_policy", b"stretch") != b"stretch":
        yield "antialiasing or kept proportions"
    if attribute(node, "mode", b"nearest") not in (b"nearest", b"linear", b"cubic"):
        yield "this mode"
    if attribute(node, "coordinate_transformation_mode", b"half_pixel") not in (
        b"half_pixel",
        b"pytorch_half_pixel",
        b"asymmetric",
        b"align_corners",
    ):
        yield "this coordinate_transformation_mode"
    if len(node.input) > 3 and node.input[3]:
        sizes = graph.values[node.input[3]]
        if node.input[2] or sizes.shape != (graph.rank(node.input[0]),):
            yield "sizes beside scales, or not one for each axis"
        return
    scales = graph.values[node.input[2]]
    mode = attribute(node, "mode", b"nearest")
    fixed = {b"linear": scales[:-3], b"cubic": scales[:-2]}.get(mode, scales[:0])
    if (fixed != 1).any():  # canUseNDResize
        yield "scales along more than the last axes"
    if scales.dtype != np.float32 or scales.shape != (graph.rank(node.input[0]),):
        yield "scales that are not one float32 for each axis"


def _slice(node: NodeProto, graph: Graph) -> Iterator[str]:
    if len({graph.values[name].size for name in node.input[1:] if name}) > 1:
        yield "starts, ends, axes and steps of different lengths"


def _split(node: NodeProto, graph: Graph) -> Iterator[str]:
    if len(node.input) > 1 and graph.values[node.input[1]].size != len(node.output):
        yield "not one size for each output"


def _reduce(node: NodeProto, graph: Graph) -> Iterator[str]:
    if graph.old and not attribute(node, "axes", None):
        yield "no axes"


_POINTWISE = Operator(inputs=(2, 2), types=FLOATS | WHOLE, more=_alike)
"""elementwiseHelper: not of bool, and kPOW not of integers."""
_UNARY = Operator()
"""unaryHelper and activationHelper: not of integers, as far as is asked here."""
_COMPARISON = Operator(inputs=(2, 2), more=_alike)
_MANY = Operator(inputs=(1, 64), more=_alike)
_ALPHA = Operator(frozenset(("alpha",)))
_MOVED = FLOATS | WHOLE
_CELLS = Operator(frozenset(("blocksize", "mode")), rank=4, more=_space_and_depth)
_PAIR = Operator(frozenset(("axis",)), (3, 3), frozenset((1, 2)), FLOATS | {INT8}, more=_quantizer)
_RESIZE_ATTRIBUTES = frozenset(
    (
        "coordinate_transformation_mode",
        "cubic_coeff_a",
        "exclude_outside",
        "extrapolation_value",
        "mode",
        "nearest_mode",
    )
)
_WINDOW = frozenset(("auto_pad", "dilations", "kernel_shape", "pads", "strides"))

COMMON = {
    "Abs": _UNARY,
    "Add": _POINTWISE,
    "Cast": Operator(frozenset(("to",)), types=_MOVED | {UINT8}, more=_cast),
    "Clip": Operator(inputs=(1, 3), stored=frozenset((1, 2)), more=_clip),
    "AveragePool": Operator(_WINDOW | {"ceil_mode", "count_include_pad"}, rank=4, more=_average),
    "BatchNormalization": Operator(
        frozenset(("epsilon", "momentum", "training_mode")), (5, 5), frozenset((1, 2, 3, 4)), more=_batch_norm
    ),
    "Ceil": _UNARY,
    "Concat": Operator(frozenset(("axis",)), (1, 64), types=_MOVED, more=_alike),
    "Conv": Operator(_WINDOW | {"group"}, (2, 3), frozenset((2,)), rank=4, more=_convolution),
    "ConvTranspose": Operator(
        frozenset(("dilations", "group", "kernel_shape", "output_padding", "pads", "strides")),
        (2, 3),
        frozenset((2,)),
        rank=4,
        more=_transposed,
    ),
    "Cos": _UNARY,
    "DepthToSpace": _CELLS,
    "DequantizeLinear": _PAIR,
    "Div": _POINTWISE,
    "Elu": _ALPHA,
    "Equal": _COMPARISON,
    "Erf": _UNARY,
    "Exp": _UNARY,
    "Expand": Operator(inputs=(2, 2), types=_MOVED, more=_shape),
    "Flatten": Operator(frozenset(("axis",)), types=_MOVED),
    "Floor": _UNARY,
    "Gather": Operator(frozenset(("axis",)), (2, 2), types=_MOVED, more=_gather),
    "Gemm": Operator(frozenset(("alpha", "beta", "transA", "transB")), (2, 3), frozenset((1, 2)), rank=2, more=_alike),
    "GlobalAveragePool": _UNARY,
    "GlobalMaxPool": _UNARY,
    "Greater": _COMPARISON,
    "HardSigmoid": Operator(frozenset(("alpha", "beta"))),
    "Identity": _UNARY,
    "LeakyRelu": _ALPHA,
    "Less": _COMPARISON,
    "Log": _UNARY,
    "MatMul": Operator(inputs=(2, 2), more=_alike),
    "Max": _MANY,
    "MaxPool": Operator(_WINDOW | {"ceil_mode", "storage_order"}, rank=4, more=_pool),
    "Min": _MANY,
    "Mul": _POINTWISE,
    "Neg": _UNARY,
    "PRelu": Operator(inputs=(2, 2), more=_slope),
    "Pad": Operator(frozenset(("mode",)), (2, 3), frozenset((1, 2)), more=_pad),
    "Pow": Operator(inputs=(2, 2), more=_alike),
    "QuantizeLinear": _PAIR,
    "Reciprocal": _UNARY,
    "Relu": _UNARY,
    "Reshape": Operator(frozenset(("allowzero",)), (2, 2), types=_MOVED, more=_shape),
    "Resize": Operator(_RESIZE_ATTRIBUTES, (3, 4), frozenset((1, 2, 3)), more=_resize),
    "Round": _UNARY,  # not of integers: unaryHelper
    "Selu": Operator(frozenset(("alpha", "gamma")), more=_constants_of_selu),
    "Shape": Operator(types=_MOVED),  # start and end are not looked at
    "Sigmoid": _UNARY,
    "Sin": _UNARY,
    "Slice": Operator(inputs=(4, 5), stored=frozenset((1, 2, 3, 4)), types=_MOVED, more=_slice),
    "Softmax": Operator(frozenset(("axis",))),
    "Softplus": _UNARY,
    "Softsign": _UNARY,
    "SpaceToDepth": _CELLS,
    "Split": Operator(frozenset(("axis",)), (1, 2), frozenset((1,)), more=_split),
    "Sqrt": _UNARY,
    "Squeeze": Operator(inputs=(1, 2), stored=frozenset((1,)), types=_MOVED, more=_squeeze),
    "Sub": _POINTWISE,
    "Sum": _MANY,
    "Tanh": _UNARY,
    "ThresholdedRelu": _ALPHA,
    "Tile": Operator(inputs=(2, 2), stored=frozenset((1,))),
    "Transpose": Operator(frozenset(("perm",))),
    "Unsqueeze": Operator(inputs=(2, 2), stored=frozenset((1,)), types=_MOVED),
    "Where": Operator(inputs=(3, 3), types=FLOATS | {TensorProto.BOOL}, more=_choice),
}
_REDUCTIONS = ("ReduceL1", "ReduceL2", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSumSquare")
OLD = COMMON | dict.fromkeys(_REDUCTIONS, Operator(frozenset(("axes", "keepdims")), more=_reduce))
OLD["ReduceSum"] = Operator(frozenset(("keepdims",)), (1, 2), frozenset((1,)))
"""Opset 17. reduceTensor reads `axes` as an attribute, but for ReduceSum; InstanceNormalization is a plugin over cuDNN there."""
_AXES_AS_INPUT = Operator(frozenset(("keepdims", "noop_with_empty_axes")), (1, 2), frozenset((1,)))
NEW = COMMON | {
    **dict.fromkeys(
        (*_REDUCTIONS, "ReduceSum"), _AXES_AS_INPUT
    ),  # importReduce* of 10.x; those of 9.2 do not look at them
    "LayerNormalization": Operator(frozenset(("axis", "epsilon", "stash_type")), (3, 3), more=_layer_norm),
    "InstanceNormalization": Operator(frozenset(("epsilon",)), (3, 3), frozenset((1, 2)), more=_instance_norm),
    "Resize": Operator(
        _RESIZE_ATTRIBUTES | {"antialias", "keep_aspect_ratio_policy"}, (3, 4), frozenset((1, 2, 3)), more=_resize
    ),
}
"""Opset 20. InstanceNormalization is a layer of TensorRT's own from 10.0 on (docs/Changelog.md)."""
