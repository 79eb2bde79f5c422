"""Chains of reshapes that are a pixel shuffle become one operator; those that are none stay."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
import onnxruntime
import pytest
from support.external_graphs import Sketch

from impasto.export.graph.pixel_shuffle import fold_pixel_shuffles

UNSHUFFLE, SHUFFLE = [0, 1, 3, 5, 2, 4], [0, 1, 4, 2, 5, 3]


def reshapes(sketch: Sketch, *shapes: Sequence[int]) -> Sketch:
    for shape in shapes:
        sketch.op("Reshape", sketch.constant(shape, np.int64))
    return sketch


def unshuffled(block: int, order: list[int] = UNSHUFFLE) -> Sketch:
    """As torch's exporter of opset 9 to 17 writes pixel_unshuffle: every shape constant, no size."""
    sketch = Sketch()
    sketch.op("Unsqueeze", sketch.constant([3], np.int64))
    reshapes(sketch, [0, 0, -1, block, 0], [0, 0, 0, 0, -1, block]).op("Transpose", perm=order)
    reshapes(sketch, [0, -1, 1, 1, 0, 0]).op("Squeeze", sketch.constant([2, 3], np.int64))
    sketch.channels = 3 * block**2
    return sketch


def shuffled(block: int, order: list[int] = SHUFFLE) -> Sketch:
    """The same of pixel_shuffle."""
    sketch = Sketch().conv(3 * block**2)
    sketch.op("Unsqueeze", sketch.constant([2, 3], np.int64))
    reshapes(sketch, [0, -1, block, block, 0, 0]).op("Transpose", perm=order)
    reshapes(sketch, [0, 0, -1, 1, 0, 0], [0, 0, 0, 0, -1, 1])
    sketch.channels = 3
    return sketch.op("Squeeze", sketch.constant([3, 5], np.int64))


def computed(block: int) -> Sketch:
    """As torch.export writes pixel_unshuffle: the shapes are computed from the picture's."""
    sketch = Sketch()
    one, factor = sketch.constant([-1], np.int64), sketch.constant([block], np.int64)
    sizes = []
    for start in (1, 2, 3):
        sketch.op("Shape", take="x", start=start, end=start + 1)
        sizes.append(sketch.last)
    cells = [sketch.op("Div", factor, take=size).last for size in sizes[1:]]
    apart = sketch.op("Concat", sizes[0], cells[0], factor, cells[1], factor, take=one, axis=0).last
    sketch.op("Reshape", apart, take="x").op("Transpose", perm=UNSHUFFLE)
    moved = sketch.last
    channels = sketch.op("Mul", sketch.constant([block**2], np.int64), take=sizes[0]).last
    joined = sketch.op("Concat", channels, *cells, take=one, axis=0).last
    sketch.op("Reshape", joined, take=moved)
    sketch.channels = 3 * block**2
    return sketch


def operators(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


def drawn(model: onnx.ModelProto, height: int, width: int) -> np.ndarray:
    image = np.random.default_rng(0).uniform(0, 1, (2, 3, height, width)).astype(np.float32)
    return onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"x": image})[0]


@pytest.mark.parametrize("block", [2, 3, 4])
@pytest.mark.parametrize("chain", [unshuffled, shuffled, computed])
def test_a_chain_becomes_one_operator_that_gives_the_same(chain, block):
    model = chain(block).conv(3).model(opset=20)
    folded = fold_pixel_shuffles(model)
    kinds = operators(folded)
    assert not {"Reshape", "Squeeze", "Unsqueeze", "Shape", "Div", "Transpose"} & set(kinds)
    assert ("DepthToSpace" if chain is shuffled else "SpaceToDepth") in kinds
    assert np.array_equal(drawn(model, 6 * block, 4 * block), drawn(folded, 6 * block, 4 * block))
    onnx.checker.check_model(folded, full_check=True)


@pytest.mark.parametrize(
    "sketch",
    [
        unshuffled(2, [0, 1, 3, 5, 4, 2]),
        shuffled(2, [0, 1, 4, 3, 5, 2]),
        unshuffled(5),  # no block that anybody uses
        reshapes(Sketch().conv(12), [0, 3, 2, 2, 2, -1]).op("Transpose", perm=SHUFFLE),  # never put together again
    ],
)
def test_what_is_no_shuffle_stays(sketch):
    model = sketch.model(opset=20)
    assert operators(fold_pixel_shuffles(model)) == operators(model)


def test_what_others_read_of_a_chain_stays_too():
    sketch = unshuffled(2)
    shuffle = sketch.last
    middle = next(node.output[0] for node in sketch._nodes if node.op_type == "Transpose")
    sketch.op("ReduceMean", sketch.constant([2, 3, 4, 5], np.int64), take=middle)
    sketch.op("Reshape", sketch.constant([0, -1, 1, 1], np.int64)).op("ReduceMean", sketch.constant([1], np.int64))
    model = sketch.op("Add", shuffle).model(opset=20)
    folded = fold_pixel_shuffles(model)
    assert "SpaceToDepth" in operators(folded)
    assert np.array_equal(drawn(model, 12, 8), drawn(folded, 12, 8))
