"""Runs the model.onnx beside this file in Triton's Python backend, for servers without the ONNX Runtime backend.

Triton imports this file by itself: it needs NumPy and ONNX Runtime, and nothing of Impasto.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import triton_python_backend_utils as triton


class TritonPythonModel:
    """One instance of the model, as Triton's Python backend wants it."""

    def initialize(self, args: dict[str, str]) -> None:
        """args: Triton's; the model's folder, version and configuration."""
        config = json.loads(args["model_config"])
        path = Path(args["model_repository"]) / args["model_version"] / "model.onnx"
        wanted = ("CUDAExecutionProvider", "CPUExecutionProvider")
        held = onnxruntime.get_available_providers()
        use_gpu = args["model_instance_kind"] == "GPU"
        self._session = onnxruntime.InferenceSession(
            str(path), providers=[name for name in wanted if name in held and (use_gpu or name.startswith("CPU"))]
        )
        self._outputs = [output["name"] for output in config["output"]]

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Run a batch of requests of one shape together; those of other shapes by themselves."""
        feeds = [{port.name: _array(request, port.name) for port in self._session.get_inputs()} for request in requests]
        responses: list[Any] = [None] * len(requests)
        for places in _of_one_shape(feeds):
            joined = {name: np.concatenate([feeds[place][name] for place in places]) for name in feeds[places[0]]}
            results = self._session.run(self._outputs, joined)
            start = 0
            for place in places:
                stop = start + len(next(iter(feeds[place].values())))
                tensors = [
                    triton.Tensor(name, np.ascontiguousarray(result[start:stop]))
                    for name, result in zip(self._outputs, results, strict=True)
                ]
                responses[place] = triton.InferenceResponse(tensors)
                start = stop
        return responses


def _array(request: Any, name: str) -> np.ndarray:
    array: np.ndarray = triton.get_input_tensor_by_name(request, name).as_numpy()
    return array


def _of_one_shape(feeds: Sequence[dict[str, np.ndarray]]) -> Collection[list[int]]:
    groups: dict[tuple[tuple[int, ...], ...], list[int]] = {}
    for place, feed in enumerate(feeds):
        groups.setdefault(tuple(array.shape[1:] for array in feed.values()), []).append(place)
    return groups.values()
