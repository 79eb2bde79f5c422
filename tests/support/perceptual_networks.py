"""A small perceptual network, made of ONNX nodes: nothing here needs torch or anybody's weights."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from impasto.files import sha256
from impasto.package.manifest import MANIFEST, Manifest, PackageFile
from impasto.package.spec import PERCEPTUAL, ModelSpec, SizeRule
from impasto.runtime.loading.opening import SPEC_KEY

LAYERS = {"shallow": 8, "deep": 20}
"""The network's layers and their channels; at 1/1 and 1/2 of the picture's sides."""


def perceptual_graph(task: str | None = PERCEPTUAL) -> onnx.ModelProto:
    """Two 3 x 3 convolutions of random weights, each with a ReLU; the second has stride 2. task: None leaves the spec out."""
    generator = np.random.default_rng(7)
    weights = {
        "w1": generator.normal(0, 0.3, (8, 3, 3, 3)),
        "w2": generator.normal(0, 0.2, (20, 8, 3, 3)),
        "k": np.array(1 / 255),
    }
    nodes = [
        helper.make_node("Transpose", ["image"], ["t"], perm=[0, 3, 1, 2]),
        helper.make_node("Cast", ["t"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["f", "k"], ["x"]),
        helper.make_node("Conv", ["x", "w1"], ["c1"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c1"], ["shallow"]),
        helper.make_node("Conv", ["shallow", "w2"], ["c2"], pads=[1, 1, 1, 1], strides=[2, 2]),
        helper.make_node("Relu", ["c2"], ["deep"]),
    ]
    outputs = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", channels, f"H_{name}", f"W_{name}"])
        for name, channels in LAYERS.items()
    ]
    graph = helper.make_graph(
        nodes,
        "perceptual",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["N", "H", "W", 3])],
        outputs,
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    if task:
        model.metadata_props.add(key=SPEC_KEY, value=json.dumps(spec(task).to_json()))
    onnx.checker.check_model(model)
    return model


def spec(task: str = PERCEPTUAL) -> ModelSpec:
    return ModelSpec("small", task=task, size=SizeRule(minimum=32))


def write_perceptual(folder: Path, task: str = PERCEPTUAL) -> Path:
    """The network as a package. Returns its folder."""
    folder.mkdir(parents=True)
    onnx.save(perceptual_graph(task), str(folder / "model.onnx"))
    file = PackageFile("model.onnx", "model", sha256(folder / "model.onnx"))
    (folder / MANIFEST).write_text(json.dumps(Manifest(spec(task), (file,)).to_json()))
    return folder
