"""What TensorRT's engine inspector says of layers, in the words of 8.5 to 10: read right, and never taken for what it is not."""

from __future__ import annotations

import json
import warnings
from typing import Any

import pytest

from impasto.errors import ImpastoWarning, PrecisionMismatch
from impasto.export.tensorrt.layer_report import from_inspector, hides_formats, require_precision

HIDDEN = "N/A due to dynamic shapes"


def layer(read: str, **rest: Any) -> dict[str, Any]:
    """A convolution as in the developer guide's example ("Engine Inspector", 8.2 to 10.x)."""
    tensors = [{"Name": "a", "Location": "Device", "Dimensions": [-1, 64, -1, -1], "Format/Datatype": read}]
    return {
        "Name": "conv + relu",
        "LayerType": "CaskConvolution",
        "Inputs": tensors,
        "Outputs": tensors,
        "ParameterType": "Convolution",
        "TacticValue": "0x11bde0e1d9f2f35d",
    } | rest


@pytest.mark.parametrize(
    ("entry", "precision"),
    [
        (layer("Thirty-two wide channel vectorized row major Int8 format."), "int8"),
        (layer("Channel major FP16 format where channel % 8 == 0"), "fp16"),
        (layer("Row major linear FP32"), "fp32"),
        (layer("Half"), "fp16"),
        (layer(HIDDEN, Weights={"Type": "Int8", "Count": 13824}), "int8"),
        (layer(HIDDEN, Weights={"Type": "Half", "Count": 13824}), "fp16"),
        (layer(HIDDEN, Weights={"Type": "Float", "Count": 13824}), "fp32"),
        (
            layer(HIDDEN, TacticName="sm80_xmma_fprop_implicit_gemm_interleaved_i8i8_i8i32_f32_nchw_vect_c_32kcrs"),
            "int8",
        ),
        (layer(HIDDEN, TacticName="sm80_xmma_fprop_implicit_gemm_indexed_f16f16_f16f32_f32_nhwckrsc_nhwc"), "fp16"),
        (layer(HIDDEN, TacticName="ampere_h16816cudnn_256x64_ldg8_relu_exp_medium_nhwc_tn_v1"), "fp16"),
        (layer(HIDDEN, TacticName="ampere_scudnn_128x64_relu_medium_nn_v1"), "fp32"),
        (layer(HIDDEN), "unknown"),
    ],
)
def test_a_convolution_is_what_it_reads_or_else_what_its_weights_or_its_kernel_are(
    entry: dict[str, Any], precision: str
) -> None:
    (found,) = from_inspector(json.dumps({"Layers": [entry]}))
    assert found.precision == precision
    assert hides_formats(json.dumps(entry)) == (entry["Inputs"][0]["Format/Datatype"] == HIDDEN)


def test_names_with_separators_between_them_are_read() -> None:
    """TensorRT 8.6 and later put the control characters 0x1E and 0x1F between nodes' names, escaped or not."""
    text = json.dumps({"Layers": [layer("Half", Metadata="[ONNX Layer: conv] [ONNX Layer: relu]")]})
    assert from_inspector(text.replace("] [", "]\x1e["))[0].precision == "fp16"


def test_what_nothing_is_known_of_is_not_taken_for_what_was_asked() -> None:
    layers = from_inspector(json.dumps({"Layers": [layer(HIDDEN)]}))
    with pytest.raises(PrecisionMismatch, match="1 in unknown"):
        require_precision(layers, "fp16", "a GPU", 1)


@pytest.mark.parametrize("entries", [[], [{"Name": "{ForeignNode[conv1...conv9]}", "LayerType": "Myelin"}]])
def test_arithmetic_that_is_named_nowhere_is_told(entries: list[dict[str, str]]) -> None:
    """Of layers that hide what they fuse, or where the words of a version are new, nobody knows what they compute in."""
    layers = from_inspector(json.dumps({"Layers": entries}))
    with pytest.warns(ImpastoWarning, match=rf"of 9 convolutions .* none among the engine's {len(entries)} layers"):
        require_precision(layers, "int8", "a GPU", 9)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        require_precision(layers, "int8", "a GPU", 0)
