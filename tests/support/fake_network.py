"""The network that an ONNX parser fills, as far as layers' names, kinds and types go; more helpers than any real parser adds.

What it copies was read in onnx/onnx-tensorrt: nodes one after the other, outputs called as in ONNX, helpers without a node's
name among a node's layers, weights and sizes as layers of their own; casts are IDENTITY layers on 8.5.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import onnx
from onnx import NodeProto, TensorProto

from impasto.export.graph.helpers import constants, element_types

KINDS = {
    "Conv": "CONVOLUTION",
    "ConvTranspose": "DECONVOLUTION",
    "DequantizeLinear": "DEQUANTIZE",
    "QuantizeLinear": "QUANTIZE",
    "Concat": "CONCATENATION",
    "DepthToSpace": "SHUFFLE",
    "Gather": "GATHER",
    "Gemm": "MATRIX_MULTIPLY",
    "Identity": "IDENTITY",
    "InstanceNormalization": "NORMALIZATION",
    "Pad": "SLICE",
    "ReduceMean": "REDUCE",
    "Relu": "ACTIVATION",
    "Reshape": "SHUFFLE",
    "Resize": "RESIZE",
    "Round": "UNARY",
    "Slice": "SLICE",
    "SpaceToDepth": "SHUFFLE",
    "Split": "SLICE",
    "Sqrt": "UNARY",
    "Transpose": "SHUFFLE",
    "Unsqueeze": "SHUFFLE",
}
_ELEMENTWISE = ("Add", "Sub", "Mul", "Div", "Pow", "Max", "Min", "Clip")


@dataclass(frozen=True)
class Parsed:
    """A layer, and what it came from."""

    layer: Any
    """Has the attributes of its version's ILayer, and no others."""
    node: NodeProto
    floating: Any
    """The version's DataType.FLOAT."""

    @property
    def told(self) -> bool:
        """Whether it was told to compute and to give float32. Fails where only half of that was said."""
        outputs = [call.args for call in self.layer.method_calls if call[0] == "set_output_type"]
        precise = vars(self.layer).get("precision") == self.floating
        assert outputs == ([(index, self.floating) for index in range(self.layer.num_outputs)] if precise else [])
        return precise

    @property
    def types(self) -> set[str]:
        """Of all that goes in and out: names of the version's DataType."""
        sides = ((self.layer.get_input, self.layer.num_inputs), (self.layer.get_output, self.layer.num_outputs))
        found = [side(index) for side, count in sides for index in range(count)]
        return {tensor.dtype.name for tensor in found if tensor is not None}


class FakeParser:
    """Fills a network of one version. strict: makes an instance of a class of that version, by its name."""

    def __init__(self, module: Any, strict: Callable[..., Any], model: onnx.ModelProto) -> None:
        self._module, self._strict = module, strict
        self._types, self._values = element_types(model), constants(model.graph)
        self._tensors: dict[str, Any] = {}
        self.layers: list[Parsed] = []
        for node in model.graph.node:
            self._add(node)

    def _add(self, node: NodeProto) -> None:
        for name in node.input:
            if name in self._values and name not in self._tensors:
                self._layer(node, "CONSTANT", name, [], [self._tensor(name)])
        inputs = [self._tensor(name) if name else None for name in node.input]
        sizes = self._helper(node, "SHAPE", inputs[:1], "INT32")
        self._helper(node, "GATHER", [sizes], "INT32")
        outputs = [self._tensor(name) for name in node.output]
        if node.op_type in _ELEMENTWISE:
            kind = outputs[0].dtype.name
            inputs = [value and self._helper(node, "SHUFFLE", [value, None], kind) for value in inputs]
            self._layer(node, "ELEMENTWISE", node.name, inputs, outputs)
        elif node.op_type == "Split":
            for output in outputs:
                self._layer(node, "SLICE", node.name, inputs, [output])
        else:
            self._layer(node, self._kind(node), node.name, inputs, outputs)

    def _kind(self, node: NodeProto) -> str:
        if node.op_type != "Cast":
            return KINDS[node.op_type]
        return "CAST" if hasattr(self._module.LayerType, "CAST") else "IDENTITY"

    def _helper(self, node: NodeProto, kind: str, inputs: list[Any], dtype: str) -> Any:
        output = self._strict("ITensor", dtype=self._module.DataType[dtype])
        output.name = f"(Unnamed Layer* {len(self.layers)}) [{kind.title()}]_output"
        self._layer(node, kind, "", inputs, [output])
        return output

    def _tensor(self, name: str) -> Any:
        if name not in self._tensors:
            kind = TensorProto.DataType.Name(self._types[name]).replace("FLOAT16", "HALF")
            known = self._module.DataType.__members__
            tensor = self._strict("ITensor", dtype=known.get(kind, known["INT32"]))  # 8.x has 32 bits for INT64
            tensor.name = name
            self._tensors[name] = tensor
        return self._tensors[name]

    def _layer(self, node: NodeProto, kind: str, name: str, inputs: list[Any], outputs: list[Any]) -> None:
        layer = self._strict("ILayer", num_inputs=len(inputs), num_outputs=len(outputs))
        layer.type = self._module.LayerType[kind]
        layer.name = name or f"(Unnamed Layer* {len(self.layers)}) [{kind.title()}]"
        layer.get_input.side_effect, layer.get_output.side_effect = inputs.__getitem__, outputs.__getitem__
        self.layers.append(Parsed(layer, node, self._module.DataType.FLOAT))
