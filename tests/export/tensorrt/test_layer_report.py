"""What TensorRT's engine inspector says of layers, in the words of 8.5 to 10: read right, and never taken for what it is not."""

from __future__ import annotations

import json
import warnings
from typing import Any

import pytest

from impasto.errors import ImpastoWarning, PrecisionMismatch
from impasto.export.tensorrt.layer_report import (
    from_inspector,
    from_log,
    hides_formats,
    require_precision,
    warn_of_wide_int8,
)

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


@pytest.mark.parametrize(
    ("sides", "text", "moved"),
    [([1, 64, 8, 8], "Half", 2 * 2 * 4096), ([1, 64, 8, 8], "Row major linear FP32", 2 * 4 * 4096),
     ([-1, 64, 8, 8], "Half", None), ([1, 64, 8, 8], HIDDEN, None)],
)  # fmt: skip
def test_what_a_layer_moves_is_known_of_fixed_sizes(sides: list[int], text: str, moved: int | None) -> None:
    entry = layer(text)
    for tensor in entry["Inputs"]:
        tensor["Dimensions"] = sides
    assert from_inspector(json.dumps({"Layers": [entry]}))[0].moved_bytes == moved


LOGGED = (
    "Name: conv_myl0_1, LayerType: correlation, Inputs: [ {{ Name: a, Dimensions: [1,32,{side},32], Strides: [1,1,1,1], StrideOrder: "
    "[3,0,2,1], Datatype: Int8, Format: (NHWC) Channel major format }}], Constants: [ {{ Name: w, Dimensions: [32,32,3,3], Strides: "
    "[288,1,96,32], StrideOrder: [3,0,2,1], Datatype: Int8, Format: (NHWC) Channel major format }}], Outputs: [ {{ Name: b, "
    "Dimensions: [1,32,{side},32], Strides: [1,1,1,1], StrideOrder: [3,0,2,1], Datatype: {type}, Format: (NHWC) Channel major format "
    "}}], "
    "TacticName: sm80_something, StreamId: 0"
)


def test_the_log_says_what_a_layer_moves_without_its_weights() -> None:
    fixed, free = from_log([LOGGED.format(side=32, type="Float"), LOGGED.format(side=-1, type="Half")])
    assert (fixed.moved_bytes, free.moved_bytes) == (32 * 32 * 32 * (1 + 4), None)
    assert (fixed.precision, fixed.outputs) == ("int8", ("Float, (NHWC) Channel major format",))


@pytest.mark.parametrize(("types", "warned"), [(["Float", "Float", "Int8"], True), (["Int8", "Int8", "Float"], False)])
def test_int8_that_writes_fp32_is_told(types: list[str], warned: bool) -> None:
    layers = from_log([LOGGED.format(side=32, type=each) for each in types])
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        warn_of_wide_int8(layers, "compute capability 8.6")
    assert [str(warning.message) for warning in said if "2 of 3 convolutions write FP32" in str(warning.message)] == [
        str(warning.message) for warning in said
    ]
    assert bool(said) == warned


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
