"""How far an output pixel looks: what the walk over the graph says, against what changing single pixels shows."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from support.external_graphs import Sketch, restorer, u_net, upscaler

from impasto.export.graph.helpers import with_names
from impasto.export.graph.receptive_field import receptive_field
from impasto.export.graph.weight_storage import without_fp16_storage
from impasto.package.manifest import read_manifest
from impasto.runtime.loading.source import shipped_models

SIDE = 96


def reach(model: onnx.ModelProto, scale: int) -> tuple[int, int]:
    """How far the output changes to both sides, in input pixels, when one input pixel in the middle does; at the worst place."""
    session = onnxruntime.InferenceSession(model.SerializeToString())
    image = np.random.default_rng(0).uniform(0.2, 0.8, (1, 3, SIDE, SIDE)).astype(np.float32)
    before = session.run(None, {"x": image})[0]
    worst = 0, 0
    for row in range(SIDE // 2, SIDE // 2 + 8):  # every place that strides and blocks tell apart
        changed = image.copy()
        changed[:, :, row, SIDE // 2 + 3] += 5
        rows = np.flatnonzero((session.run(None, {"x": changed})[0] != before).any((0, 1, 3)))
        worst = max(worst[0], row - rows[0] // scale), max(worst[1], rows[-1] // scale - row)
    return worst


def kernels(sketch: Sketch) -> Sketch:
    return sketch.conv(4, 5).conv(4, 3, dilations=[3, 3], pads=[3] * 4).conv(3, 1)


def pooled(sketch: Sketch) -> Sketch:
    sketch.op("AveragePool", kernel_shape=[3, 3], pads=[1] * 4).op("MaxPool", kernel_shape=[2, 2], strides=[2, 2])
    return sketch.op("Resize", "", sketch.constant([1, 1, 2, 2]), mode="linear").conv(3)


def cubic(sketch: Sketch) -> Sketch:
    return sketch.op("Resize", "", sketch.constant([1, 1, 2, 2]), mode="cubic").conv(3)


def shrunk_and_back(sketch: Sketch) -> Sketch:
    halved = sketch.constant([1, 1, 0.5, 0.5])
    sketch.op("Resize", "", halved, mode="linear", antialias=1).conv(3)
    return sketch.op("Resize", "", sketch.constant([1, 1, 2, 2]), mode="nearest")


def cells(sketch: Sketch) -> Sketch:
    sketch.op("SpaceToDepth", blocksize=4)
    sketch.channels = 48
    return sketch.conv(48).op("DepthToSpace", blocksize=4, mode="CRD")


def reflected(sketch: Sketch) -> Sketch:
    pads = sketch.constant([0, 0, 4, 4, 0, 0, 4, 4], np.int64)
    return sketch.op("Pad", pads, mode="reflect").conv(3, 9, pads=[0] * 4)


def cropped(sketch: Sketch) -> Sketch:
    """A picture that lies two pixels further down than its own detail."""
    starts, ends, axes = (sketch.constant(v, np.int64) for v in ([0, 0], [SIDE, SIDE], [2, 3]))
    pads = sketch.constant([0, 0, 2, 0, 0, 0, 0, 0], np.int64)
    return sketch.op("Pad", pads).op("Slice", starts, ends, axes).conv(3)


def other_axes(sketch: Sketch) -> Sketch:
    sketch.op("Transpose", perm=[0, 2, 3, 1]).op("MatMul", sketch.constant(np.eye(3) + 0.1))
    return sketch.op("LayerNormalization", sketch.constant(np.ones(3))).op("Transpose", perm=[0, 3, 1, 2]).conv(3)


BRANCHES = [kernels, pooled, cubic, shrunk_and_back, cells, reflected, cropped, other_axes]
SCALES = {cubic: 2}


@pytest.mark.parametrize("branch", BRANCHES)
def test_no_pixel_beyond_the_radius_changes_anything_and_the_radius_is_no_larger_than_that(branch):
    model = branch(Sketch()).model(opset=20)
    scale = SCALES.get(branch, 1)
    found = receptive_field(model)
    assert found is not None
    assert max(reach(model, scale)) == found.radius


@pytest.mark.parametrize(("sketch", "scale", "alignment"), [(restorer(3), 1, 1), (upscaler(2), 2, 1), (u_net(3), 1, 8)])
def test_whole_networks(sketch, scale, alignment):
    model = sketch.model(opset=20, scale=scale)
    found = receptive_field(model)
    assert found.alignment == alignment
    assert max(reach(model, scale)) == found.radius


@pytest.mark.parametrize("name", sorted(path.parent.name for path in shipped_models().glob("*/model.onnx")))
def test_what_ships_looks_no_further_than_its_manifest_says(name):
    """Training bounds the radius from the layers; this is from the graph that came out of it, and may only be nearer."""
    folder = shipped_models() / name
    spec = read_manifest(folder).spec
    found = receptive_field(with_names(without_fp16_storage(onnx.load(str(folder / "model.onnx")))))
    assert spec.receptive_field - 8 <= found.radius <= spec.receptive_field
    assert found.alignment == spec.size.multiple


def everywhere(sketch: Sketch) -> Sketch:
    sketch.op("GlobalAveragePool")
    return sketch.op("Add", "x")


def normalized(sketch: Sketch) -> Sketch:
    return sketch.op("InstanceNormalization", sketch.constant(np.ones(3)), sketch.constant(np.zeros(3)))


def over_rows(sketch: Sketch) -> Sketch:
    return sketch.op("Softmax", axis=2)


def averaged(sketch: Sketch) -> Sketch:
    return sketch.op("ReduceMean", sketch.constant([2, 3], np.int64)).op("Add", "x")


def reshaped(sketch: Sketch) -> Sketch:
    return sketch.op("Reshape", sketch.constant([0, 0, -1, 1], np.int64))


def bound_to_places(sketch: Sketch) -> Sketch:
    return sketch.op("Mul", sketch.constant(np.linspace(0, 1, SIDE).reshape(1, 1, 1, SIDE)))


def wrapped(sketch: Sketch) -> Sketch:
    return sketch.op("Pad", sketch.constant([0, 0, 1, 1, 0, 0, 1, 1], np.int64), mode="wrap").conv(3, pads=[0] * 4)


def by_corners(sketch: Sketch) -> Sketch:
    factors = sketch.constant([1, 1, 2, 2])
    return sketch.op("Resize", "", factors, mode="linear", coordinate_transformation_mode="align_corners")


def padded_by_size(sketch: Sketch) -> Sketch:
    weights = sketch.constant(np.ones((3, 3, 3, 3)))
    return sketch.op("Conv", weights, auto_pad="SAME_UPPER", strides=[2, 2])


def looked_up(sketch: Sketch) -> Sketch:
    """The picture chooses rows of a table, so that its axes are others from there on."""
    sketch.op("Cast", to=onnx.TensorProto.INT64)
    return sketch.op("Gather", sketch.last, take=sketch.constant(np.ones((2, 5))), axis=0)


def branched(sketch: Sketch) -> Sketch:
    """What the branches read of the graph around them is none of the node's inputs."""
    pool = onnx.helper.make_node("AveragePool", ["x"], ["pooled"], kernel_shape=[9, 9], pads=[4] * 4)
    given = onnx.helper.make_tensor_value_info("pooled", onnx.TensorProto.FLOAT, None)
    body = onnx.helper.make_graph([pool], "body", [], [given])
    sketch.op("If", take=sketch.constant(True, bool), then_branch=body, else_branch=body)
    return sketch.op("Add", "x")


def computed_places(sketch: Sketch) -> Sketch:
    ramp = sketch.constant(np.linspace(0, 1, SIDE).reshape(1, 1, 1, SIDE))
    return sketch.op("Expand", sketch.constant([1, 1, SIDE, SIDE], np.int64), take=ramp).op("Add", "x")


def stored_places(sketch: Sketch) -> Sketch:
    ramp = sketch.constant(np.tile(np.arange(SIDE), (1, 1, SIDE, 1)), np.int8)
    return sketch.op("DequantizeLinear", sketch.constant(0.01), take=ramp).op("Add", "x")


def one_colour_over_rows(sketch: Sketch) -> Sketch:
    """A single index takes the axis away, so that 1 is the rows'."""
    sketch.op("Gather", sketch.constant(1, np.int64), axis=1).op("ReduceMax", sketch.constant([1], np.int64))
    return sketch.op("Add", "x")


def rows_as_channels(sketch: Sketch) -> Sketch:
    sketch.op("Transpose", perm=[0, 2, 3, 1])
    sketch.op("BatchNormalization", *(sketch.constant(np.linspace(1, 2, SIDE)) for _ in range(4)))
    return sketch.op("Transpose", perm=[0, 3, 1, 2])


@pytest.mark.parametrize(
    "branch",
    [
        branched,
        computed_places,
        stored_places,
        one_colour_over_rows,
        rows_as_channels,
        looked_up,
        everywhere,
        normalized,
        over_rows,
        averaged,
        reshaped,
        bound_to_places,
        wrapped,
        by_corners,
        padded_by_size,
    ],
)
def test_what_looks_everywhere_or_depends_on_the_place_has_none(branch):
    assert receptive_field(branch(Sketch()).model(opset=20)) is None


def test_softmax_of_old_opsets_takes_all_axes_together():
    assert receptive_field(Sketch().op("Softmax", axis=1).model(opset=12)) is None


def test_what_is_computed_for_each_channel_is_the_same_everywhere():
    sketch = Sketch()
    factors = sketch.op("Relu", take=sketch.constant(np.ones((1, 3, 1, 1)))).last
    assert receptive_field(sketch.conv(3).op("Mul", factors, take="x").conv(3).model(opset=20)).radius == 1


def test_what_the_output_does_not_depend_on_does_not_matter():
    sketch = Sketch().op("GlobalAveragePool")
    sketch.last = "x"
    assert receptive_field(sketch.conv(3).model(opset=20)).radius == 1


def test_layers_of_different_steps_cannot_be_joined():
    sketch = Sketch().conv(3, 1, strides=[2, 2], pads=[0] * 4)
    assert receptive_field(sketch.op("Add", "x").model(opset=20)) is None
