"""From a trained network to the canonical ONNX graph; the only file of `export` that imports torch.

The canonical graph takes and gives uint8 N x H x W x 3 RGB with free N, H and W; scaling and layout are inside it, so that
every backend gets them for free. A network with a context becomes two graphs: `context` maps a thumbnail of the whole
picture to scales and shifts, and `model` takes those as its second input. A network with a strength takes that there, and
remains one graph.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import warnings
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from impasto._version import __version__
from impasto.errors import ExportError
from impasto.export.graph.helpers import OPSET, fold_channel_gathers
from impasto.export.graph.pixel_shuffle import unshuffle_order
from impasto.export.graph.weight_storage import with_fp16_storage
from impasto.package.spec import PERCEPTUAL, ModelSpec, SizeRule
from impasto.runtime.loading.opening import SPEC_KEY
from impasto.training.packages import weights_of

if TYPE_CHECKING:
    from impasto.training.backbones import Backbone
    from impasto.training.networks.base import Network

LEAST_SIDE = 32
"""Smallest height and width of a perceptual network's pictures: its last layer is at 1/16 at the most."""

_MOST = 1 << 14
"""Upper bound of height and width, in network multiples; only bounds the exporter's symbols."""


def spec_of(network: Network, name: str, task: str) -> ModelSpec:
    """What the runtime needs to know of a network besides its graph."""
    return ModelSpec(
        name=name,
        task=task,
        scale=network.scale,
        size=SizeRule(network.multiple, network.minimum),
        border=network.border,
        receptive_field=network.receptive_field,
        thumbnail=network.thumbnail,
        styles=network.styles,
        strength=network.strength,
    )


def spec_of_backbone(backbone: Backbone, name: str) -> ModelSpec:
    """What the runtime needs to know of a perceptual network; its outputs' names are its layers'."""
    return ModelSpec(name, task=PERCEPTUAL, size=SizeRule(minimum=LEAST_SIDE))


def export_backbone(backbone: Backbone, spec: ModelSpec) -> onnx.ModelProto:
    """A backbone up to its last style layer: uint8 (N, H, W, 3) to one float32 (N, C, H', W') for each style layer.

    The outputs have the layers' names, and stand from shallow to deep. Raises ExportError.
    """
    image = torch.zeros(2, 4 * LEAST_SIDE, 5 * LEAST_SIDE, 3, dtype=torch.uint8)
    batch = torch.export.Dim("N", min=1, max=1 << 10)
    free: dict[int, Any] = {0: batch}
    if not backbone.same_padding:  # torch would export arithmetic on the sides, for which ONNX has one word: see below
        free |= {1 + i: torch.export.Dim(side, min=LEAST_SIDE, max=_MOST) for i, side in enumerate("HW")}
    model = _export(_Features(backbone), {"image": image}, {"image": free}, *backbone.style_layers)
    if backbone.same_padding:
        _pad_same(model)
    _name_sizes(model.graph.input[0], {0: "N", 1: "H", 2: "W"})
    for tensor in model.graph.output:
        _name_sizes(tensor, {0: "N", 2: f"H_{tensor.name}", 3: f"W_{tensor.name}"})
    model.metadata_props.add(key=SPEC_KEY, value=json.dumps(spec.to_json()))
    return model


def export_model(network: Network, spec: ModelSpec) -> onnx.ModelProto:
    """The picture path as a canonical graph with `spec` in its metadata; weights stored in FP16 where exact.

    Raises ExportError.
    """
    side = max(8 * network.multiple, network.minimum)
    inputs: dict[str, Tensor] = {"image": torch.zeros(2, side, side + network.multiple, 3, dtype=torch.uint8)}
    batch = torch.export.Dim("N", min=1, max=1 << 10)
    height, width = (network.multiple * torch.export.Dim(side, min=1, max=_MOST) for side in ("h", "w"))
    free: dict[str, dict[int, Any]] = {"image": {0: batch, 1: height, 2: width}}
    if network.thumbnail:
        with torch.no_grad():
            context = network.context(torch.zeros(2, 3, network.thumbnail, network.thumbnail))
            inputs["context"] = context[:, 0].contiguous() if network.styles else context
    elif network.strength:
        inputs["context"] = torch.ones(2, 1)
    if "context" in inputs:
        free["context"] = {0: batch}
    model = _export(_PicturePath(network), inputs, free, "picture")
    _name_sizes(model.graph.input[0], {0: "N", 1: "H", 2: "W"})
    drawn = {1: "H", 2: "W"} if spec.scale == 1 else {1: "H_out", 2: "W_out"}
    _name_sizes(model.graph.output[0], {0: "N", **drawn})
    model.metadata_props.add(key=SPEC_KEY, value=json.dumps(spec.to_json()))
    return with_fp16_storage(model)


def export_context(network: Network) -> onnx.ModelProto:
    """The context path: uint8 (N, side, side, 3) thumbnail to float32 (N, K), or (N, styles, K). FP16 weight storage.

    Raises ExportError.
    """
    side = network.thumbnail
    if side is None:
        raise ExportError(f"a {network.architecture} has no context; export its picture path alone")
    inputs = {"thumbnail": torch.zeros(2, side, side, 3, dtype=torch.uint8)}
    free = {"thumbnail": {0: torch.export.Dim("N", min=1, max=1 << 10)}}
    return with_fp16_storage(_export(_ContextPath(network), inputs, free, "context"))


def hold_weights(graphs: Iterable[onnx.ModelProto], network: Network) -> bool:
    """Whether the graphs hold every weight of the network, so that training can begin with them."""
    held = weights_of(graphs)
    wanted = network.state_dict()
    return held.keys() == wanted.keys() and all(
        wanted[key].is_floating_point() and np.array_equal(held[key], wanted[key].numpy()) for key in held
    )


class _PicturePath(nn.Module):
    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor, context: Tensor | None = None) -> Tensor:
        values = image.permute(0, 3, 1, 2).to(torch.float32) * (1 / 255)
        drawn: Tensor = self.network(values) if context is None else self.network(values, context)
        return (drawn * 255).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1)


class _Features(nn.Module):
    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        values = image.permute(0, 3, 1, 2).to(torch.float32) * (1 / 255)
        features = self.backbone(values, self.backbone.style_layers[-1])
        return tuple(self.backbone.style(features).values())


class _ContextPath(nn.Module):
    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, thumbnail: Tensor) -> Tensor:
        context: Tensor = self.network.context(thumbnail.permute(0, 3, 1, 2).to(torch.float32) * (1 / 255))
        return context


def _pad_same(model: onnx.ModelProto) -> None:
    """Let every convolution pad as TensorFlow's SAME, in place of the paddings for the sides that were exported."""
    for node in model.graph.node:
        if node.op_type == "Conv":
            kept = [attribute for attribute in node.attribute if attribute.name not in ("pads", "auto_pad")]
            del node.attribute[:]
            node.attribute.extend([*kept, onnx.helper.make_attribute("auto_pad", "SAME_UPPER")])


def _name_sizes(tensor: onnx.ValueInfoProto, names: dict[int, str]) -> None:
    """Name a tensor's free sizes, in place of the exporter's arithmetic. names: axis to symbol."""
    for axis, name in names.items():
        tensor.type.tensor_type.shape.dim[axis].dim_param = name


def _export(module: nn.Module, inputs: dict[str, Tensor], free: dict[str, Any], *outputs: str) -> onnx.ModelProto:
    """Run torch's exporter and clean up after it."""
    try:
        with _quiet():
            program = torch.onnx.export(
                module.eval(),
                tuple(inputs.values()),
                dynamo=True,
                opset_version=OPSET,
                input_names=list(inputs),
                output_names=list(outputs),
                dynamic_shapes=tuple(free[name] for name in inputs),
                custom_translation_table={torch.ops.aten.pixel_unshuffle.default: _space_to_depth},
                verbose=False,
            )
    except Exception as error:  # torch's exporter raises whatever its stages raise
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        lines = str(cause).strip().splitlines()
        raise ExportError(
            f"torch cannot export this network to ONNX opset {OPSET} ({type(cause).__name__}: {lines[0] if lines else ''}); "
            "a forward pass may not branch on values or turn sizes into Python numbers"
        ) from error
    assert program is not None  # None only where the exporter was asked to write a file
    model: onnx.ModelProto = program.model_proto
    fold_channel_gathers(model.graph)
    _strip(model)
    onnx.checker.check_model(model, full_check=True)
    return model


def _space_to_depth(image: Any, factor: int) -> Any:
    """torch's pixel_unshuffle as one ONNX operator and a reordering of channels.

    SpaceToDepth puts the offset inside a cell before the channel, torch the channel before the offset. torch's own
    translation is a chain of reshapes over symbolic sizes, which no engine fuses.
    """
    from onnxscript import opset20

    op: Any = opset20  # its stubs want concrete tensor types

    channels = 3 if image.shape is None else int(image.shape[1])
    order = unshuffle_order(channels, factor)
    return op.Gather(
        op.SpaceToDepth(image, blocksize=factor), op.Constant(value=numpy_helper.from_array(order)), axis=1
    )


def _strip(model: onnx.ModelProto) -> None:
    """Drop what the exporter noted about its own work: it holds local paths and doubles the file's size."""
    graph = model.graph
    for part in (*graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        del part.metadata_props[:]
        part.doc_string = ""
    del graph.metadata_props[:], graph.value_info[:], model.metadata_props[:]
    graph.name = "impasto"
    model.producer_name, model.producer_version, model.doc_string = "impasto", __version__, ""


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's progress lines and the warnings about its own internals to itself."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
