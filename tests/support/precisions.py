"""A model's FP16 and INT8 graphs as `impasto quantize` makes them, without its search for the best ones."""

from __future__ import annotations

import numpy as np
import onnx

from impasto.export.graph.fp16 import find_fp32_nodes, to_half
from impasto.export.graph.helpers import with_names
from impasto.export.graph.int8 import find_ranges, quantized
from impasto.export.graph.weight_storage import without_fp16_storage
from impasto.export.quantization.ranges import observe
from support.small_models import picture


def half_and_whole(model: onnx.ModelProto) -> dict[str, onnx.ModelProto]:
    """{"fp16": ..., "int8": ...}, the latter for TensorRT. model: canonical, FP32; a second input is taken for a context."""
    model = with_names(without_fp16_storage(model))
    feeds = [{"image": picture(64, 96, seed)[None]} for seed in range(2)]
    if len(model.graph.input) > 1:
        length = model.graph.input[1].type.tensor_type.shape.dim[1].dim_value
        feeds = [{**feed, "context": np.full((1, length), 0.1, np.float32)} for feed in feeds]
    names = {fp32_node.node for fp32_node in find_fp32_nodes(model, observe(model, feeds))}
    whole = quantized(model, find_ranges(model, feeds, "min-max"), (), "tensorrt")
    return {"fp16": to_half(model, names), "int8": to_half(whole, names)}
