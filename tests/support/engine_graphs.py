"""Networks of the engine-friendly kind with random weights, written without torch: for tests and for the GPU machine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def network(cell: int = 4, channels: int = 64, blocks: int = 6, *, opset: int = 20, seed: int = 0) -> onnx.ModelProto:
    """Space-to-depth by `cell`, residual blocks of two 3 x 3 convolutions, depth-to-space, added to the picture.

    Canonical: uint8 N x H x W x 3 in and out. 65 GMAC at 1088 x 1920 with the default arguments.
    """
    generator = np.random.default_rng(seed)
    weights: dict[str, np.ndarray] = {}
    nodes = [
        helper.make_node("Transpose", ["image"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Cast", ["planes"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["floats", "k"], ["x"]),
        helper.make_node("SpaceToDepth", ["x"], ["cells"], blocksize=cell),
    ]

    def convolution(name: str, source: str, inside: int, outside: int, gain: float) -> str:
        deviation = gain / np.sqrt(9 * inside)
        weights[f"{name}.w"] = generator.normal(0, deviation, (outside, inside, 3, 3)).astype(np.float32)
        weights[f"{name}.b"] = generator.normal(0, 0.02, outside).astype(np.float32)
        nodes.append(helper.make_node("Conv", [source, f"{name}.w", f"{name}.b"], [name], name, pads=[1, 1, 1, 1]))
        return name

    def relu(source: str) -> str:
        nodes.append(helper.make_node("Relu", [source], [f"{source}.relu"]))
        return f"{source}.relu"

    pixels = 3 * cell * cell
    last = relu(convolution("stem", "cells", pixels, channels, 1.4))
    for index in range(blocks):
        inner = relu(convolution(f"block{index}.a", last, channels, channels, 1.4))
        outer = convolution(f"block{index}.b", inner, channels, channels, 0.3)
        nodes.append(helper.make_node("Add", [last, outer], [f"block{index}"]))
        last = f"block{index}"
    last = convolution("head", last, channels, pixels, 0.2)
    nodes += [
        helper.make_node("DepthToSpace", [last], ["detail"], blocksize=cell, mode="CRD"),
        helper.make_node("Add", ["x", "detail"], ["y"]),
        helper.make_node("Mul", ["y", "top"], ["levels"]),
        helper.make_node("Round", ["levels"], ["rounded"]),
        helper.make_node("Clip", ["rounded", "zero", "top"], ["clipped"]),
        helper.make_node("Cast", ["clipped"], ["bytes"], to=TensorProto.UINT8),
        helper.make_node("Transpose", ["bytes"], ["picture"], perm=[0, 2, 3, 1]),
    ]
    weights |= {key: np.array(value, np.float32) for key, value in {"k": 1 / 255, "top": 255, "zero": 0}.items()}
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["N", "H", "W", 3])],
        [helper.make_tensor_value_info("picture", TensorProto.UINT8, ["N", "H", "W", 3])],
        [numpy_helper.from_array(value, key) for key, value in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8 if opset < 19 else 10)


def half(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same in FP16 between the scaling of the pixels and the last sum: what a strongly typed builder needs to see."""
    result = onnx.ModelProto()
    result.CopyFrom(model)
    for tensor in result.graph.initializer:
        if tensor.name.endswith((".w", ".b")):
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), tensor.name))
    nodes = list(result.graph.node)
    del result.graph.node[:]
    for node in nodes:
        if node.op_type == "SpaceToDepth":
            result.graph.node.append(helper.make_node("Cast", [node.input[0]], ["x.half"], to=TensorProto.FLOAT16))
            node.input[0] = "x.half"
        if node.output[0] == "y":
            result.graph.node.append(helper.make_node("Cast", ["detail"], ["detail.float"], to=TensorProto.FLOAT))
            node.input[1] = "detail.float"
        result.graph.node.append(node)
    return result


def half_convolutions(model: onnx.ModelProto) -> onnx.ModelProto:
    """Any network with its convolutions in FP16, each between two casts."""
    result = onnx.ModelProto()
    result.CopyFrom(model)
    weights = {tensor.name: tensor for tensor in result.graph.initializer}
    nodes = list(result.graph.node)
    del result.graph.node[:]
    for node in nodes:
        if node.op_type != "Conv":
            result.graph.node.append(node)
            continue
        for index, name in enumerate(node.input):
            if name in weights:
                if weights[name].data_type == TensorProto.FLOAT:
                    values = numpy_helper.to_array(weights[name]).astype(np.float16)
                    weights[name].CopyFrom(numpy_helper.from_array(values, name))
                continue
            cast = f"{node.output[0]}.half{index}"
            result.graph.node.append(helper.make_node("Cast", [name], [cast], to=TensorProto.FLOAT16))
            node.input[index] = cast
        drawn = node.output[0]
        node.output[0] = f"{drawn}.half"
        result.graph.node.append(node)
        result.graph.node.append(helper.make_node("Cast", [f"{drawn}.half"], [drawn], to=TensorProto.FLOAT))
    return result


def float_pixels(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same with float32 pixels in and out: shows what uint8 costs, or saves."""
    result = onnx.ModelProto()
    result.CopyFrom(model)
    pixels = {result.graph.input[0].name}
    for node in result.graph.node:
        if node.op_type == "Transpose" and node.input[0] in pixels:
            pixels.add(node.output[0])
        if node.op_type == "Cast" and (node.input[0] in pixels or node.attribute[0].i == TensorProto.UINT8):
            node.op_type = "Identity"
            del node.attribute[:]
    for value in (result.graph.input[0], result.graph.output[0]):
        value.type.tensor_type.elem_type = TensorProto.FLOAT
    return result


def quantized(source: Path, target: Path, pictures: list[np.ndarray], context: np.ndarray | None = None) -> None:
    """Write `source` with Q/DQ before every convolution but the first and the last, as TensorRT wants it."""
    from onnxruntime.quantization import (
        CalibrationDataReader,
        CalibrationMethod,
        QuantFormat,
        QuantType,
        quantize_static,
    )

    class Pictures(CalibrationDataReader):
        def __init__(self) -> None:
            self._rest: Iterator[np.ndarray] = iter(pictures)

        def get_next(self) -> dict[str, np.ndarray] | None:
            picture = next(self._rest, None)
            if picture is None:
                return None
            return {"image": picture[None]} | ({} if context is None else {"context": context})

    convolutions = [node.name for node in onnx.load(str(source)).graph.node if node.op_type == "Conv"]
    quantize_static(
        str(source),
        str(target),
        Pictures(),
        quant_format=QuantFormat.QDQ,
        op_types_to_quantize=["Conv"],
        nodes_to_exclude=[convolutions[0], convolutions[-1]],
        per_channel=True,
        activation_type=QuantType.QInt8,
        weight_type=QuantType.QInt8,
        calibrate_method=CalibrationMethod.MinMax,
        extra_options={
            "ActivationSymmetric": True,
            "WeightSymmetric": True,
            "QuantizeBias": False,
            "OpTypesToExcludeOutputQuantization": ["Conv"],
        },
    )
