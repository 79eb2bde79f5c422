"""ONNX Runtime with its tensors held on a device; here the device is the CPU, which takes the same calls."""

from __future__ import annotations

import numpy as np
import pytest
from support.small_models import picture

from impasto.errors import BackendError
from impasto.runtime.backends.onnxruntime import OnnxRuntimeBackend, _DeviceTensors, onnxruntime


@pytest.mark.parametrize("thumbnail", [None, 8])
def test_tensors_on_the_device_give_the_same_pictures(make_package, thumbnail):
    graph = make_package(thumbnail=thumbnail) / "model.onnx"
    plain, held = (OnnxRuntimeBackend(graph, "onnxruntime-cpu", 0) for _ in range(2))
    held._held = _DeviceTensors(onnxruntime(), "cpu", 0)
    for seed, size in enumerate([(16, 20), (16, 20), (24, 8), (16, 20)]):
        inputs = [picture(*size, seed=seed)[None]]
        inputs += [np.full((1, 5), 0.1 * seed, np.float32)] if thumbnail else []
        drawn, expected = np.empty_like(inputs[0]), np.empty_like(inputs[0])
        held.run(inputs, drawn)
        plain.run(inputs, expected)
        np.testing.assert_array_equal(drawn, expected)
    held.close()


def test_the_result_is_written_into_the_callers_array(make_package, monkeypatch):
    """No array of ONNX Runtime's own comes between them."""
    held = OnnxRuntimeBackend(make_package() / "model.onnx", "onnxruntime-cpu", 0)
    held._held = _DeviceTensors(onnxruntime(), "cpu", 0)
    monkeypatch.setattr(onnxruntime().OrtValue, "numpy", None)
    image, drawn = picture(16, 20)[None], np.zeros((1, 16, 20, 3), np.uint8)
    held.run([image], drawn)
    assert drawn.any()


def test_a_failure_leaves_the_graph_usable(make_package):
    held = OnnxRuntimeBackend(make_package() / "model.onnx", "onnxruntime-cpu", 0)
    held._held = _DeviceTensors(onnxruntime(), "cpu", 0)
    wrong, right = np.zeros((1, 17, 20, 3), np.uint8), picture(16, 20)[None]
    with pytest.raises(BackendError, match="ONNX Runtime failed"):
        held.run([wrong], np.empty_like(wrong))
    held.run([right], np.empty_like(right))
    with pytest.raises(BackendError, match="onnxruntime-cuda cannot run"):
        OnnxRuntimeBackend(make_package("other") / "model.onnx", "onnxruntime-cuda", 0)


def test_a_graph_that_begins_on_the_cpu_gets_every_picture(make_package, monkeypatch):
    """ONNX Runtime copies such a graph's input when it is bound, and never looks at it again."""
    bind = _DeviceTensors.bind

    def copying(self, binding):
        held, value = self._inputs, onnxruntime().OrtValue
        self._inputs = {name: value.ortvalue_from_numpy(tensor.numpy().copy()) for name, tensor in held.items()}
        bind(self, binding)
        self._inputs = held

    monkeypatch.setattr(_DeviceTensors, "bind", copying)
    graph = make_package() / "model.onnx"
    plain, held = (OnnxRuntimeBackend(graph, "onnxruntime-cpu", 0) for _ in range(2))
    held._held = _DeviceTensors(onnxruntime(), "cpu", 0)
    for seed in range(3):
        image = picture(16, 20, seed=seed)[None]
        drawn, expected = np.empty_like(image), np.empty_like(image)
        held.run([image], drawn)
        plain.run([image], expected)
        np.testing.assert_array_equal(drawn, expected)
