"""Strict stand-ins of the bindings of each TensorRT version: what a version lacks raises."""

from __future__ import annotations

import enum
import json
import types
from typing import Any
from unittest import mock

import onnx
import pytest

from impasto.kernels import cuda_driver
from impasto.runtime import cuda
from impasto.runtime.backends.tensorrt.api import TensorRT
from support.fake_gpu import FakeDriver
from support.fake_network import FakeParser, Parsed
from support.small_models import REPOSITORY

API = REPOSITORY / "tests" / "support" / "tensorrt_api"


VERSIONS = sorted(path.stem for path in API.glob("*.json"))


ENUMS = {
    "NetworkDefinitionCreationFlag", "BuilderFlag", "TacticSource", "ComputeCapability", "MemoryPoolType", "DataType",
    "HardwareCompatibilityLevel", "OnnxParserFlag", "ProfilingVerbosity", "TensorIOMode", "LayerInformationFormat",
    "PreviewFeature", "LayerType", "DeviceType", "DynamicShapesKernelSpecializationStrategy",
}  # fmt: skip


def inspected(text: str) -> str:
    """The inspector's JSON of one convolution that reads a tensor of this type."""
    tensors = [{"Name": "a", "Format/Datatype": text}]
    return json.dumps({"Layers": [{"Name": "conv", "LayerType": "CaskConvolution", "Inputs": tensors, "Outputs": []}]})


INPUTS = {"image": (-1, -1, -1, 3), "context": (-1, 5)}


class Bindings:
    """A module with exactly the names of one version, whose objects answer with plausible values."""

    def __init__(self, version: str) -> None:
        self.facts: dict[str, Any] = json.loads((API / f"{version}.json").read_text())
        self.product = "tensorrt-rtx" if version.startswith("rtx") else "tensorrt"
        self.module = types.SimpleNamespace(__version__=self.facts["version"])
        for name in ENUMS & set(self.facts):
            setattr(self.module, name, enum.IntEnum(name, {member: i for i, member in enumerate(self.facts[name])}))
        for name in ("ILogger", "IProgressMonitor", "IProfiler"):
            if name in self.facts:
                setattr(self.module, name, type(name, (), {}))
        for name in ("IBuilderConfig", "ILayer"):
            setattr(self.module, name, types.SimpleNamespace(**dict.fromkeys(self.facts[name])))
        self.config, self.profile = self.strict("IBuilderConfig"), self.strict("IOptimizationProfile")
        self.config.add_optimization_profile.return_value = 0
        if hasattr(self.config, "get_timing_cache"):
            self.config.get_timing_cache.return_value.serialize.return_value = b"measured"
        self._answer_build()
        self._answer_run()
        self.api = TensorRT(self.module, self.product)

    def strict(self, name: str, **values: Any) -> mock.Mock:
        """An instance of a class that has the version's attributes and no others."""
        made = mock.Mock(spec_set=self.facts[name])
        made.configure_mock(**values)
        return made

    def _answer_build(self) -> None:
        tensors = []
        for name, shape in INPUTS.items():
            tensor = self.strict("ITensor", shape=shape)
            tensor.name = name
            tensors.append(tensor)
        self.network = self.strict("INetworkDefinition", num_inputs=2, num_layers=0)
        self.network.get_input.side_effect = tensors.__getitem__
        self.builder = self.strict("Builder")
        self.builder.create_network.return_value = self.network
        self.builder.create_builder_config.return_value = self.config
        self.builder.create_optimization_profile.return_value = self.profile
        self.builder.build_serialized_network.return_value = b"plan"
        self.parser = self.strict("OnnxParser", num_errors=0)
        self.parser.parse.side_effect = self._parse
        self.layers: list[Parsed] = []
        self.module.Builder = lambda log: self.builder
        self.module.OnnxParser = lambda network, log: self.parser

    def _parse(self, content: bytes) -> bool:
        self.layers = FakeParser(self.module, self.strict, onnx.load_from_string(content)).layers
        self.network.num_layers = len(self.layers)
        self.network.get_layer.side_effect = lambda index: self.layers[index].layer
        return True

    def _answer_run(self) -> None:
        names = [*INPUTS, "picture"]
        mode, dtype = self.module.TensorIOMode, self.module.DataType
        self.context = self.strict("IExecutionContext")
        self.context.get_tensor_shape.return_value = (1, 64, 64, 3)
        self.context.execute_async_v3.return_value = True
        self.engine = self.strict("ICudaEngine", num_io_tensors=3, num_optimization_profiles=2)
        for size in {"device_memory_size", "device_memory_size_v2"} & set(self.facts["ICudaEngine"]):
            setattr(self.engine, size, 1000)
        self.engine.get_tensor_name.side_effect = names.__getitem__
        self.engine.get_tensor_mode.side_effect = lambda name: mode.OUTPUT if name == "picture" else mode.INPUT
        self.engine.get_tensor_shape.side_effect = lambda name: (1, 5) if name == "context" else (1, -1, -1, 3)
        self.engine.get_tensor_dtype.side_effect = lambda name: dtype.FLOAT if name == "context" else dtype.UINT8
        self.engine.get_tensor_profile_shape.side_effect = lambda name, profile: (
            [(1, 5)] * 3 if name == "context" else [(1, 16, 16, 3), (1, 32, 32, 3), (1, 64, 64, 3)]
        )
        self.engine.create_execution_context.return_value = self.context
        if "IRuntimeCache" in self.facts:
            self.module.IRuntimeCache = object
            self.kernels, config = self.strict("IRuntimeCache"), self.strict("IRuntimeConfig")
            self.kernels.serialize.return_value = b"kernels"
            config.create_runtime_cache.return_value = self.kernels
            self.runtime_config = config
            self.engine.create_runtime_config.return_value = config
        inspector = self.strict("EngineInspector")
        inspector.get_engine_information.side_effect = lambda kind: inspected(
            # Types of an engine with free sizes are told for a context that knows its shapes.
            "Channel major FP16 format where channel % 8 == 0"
            if inspector.execution_context is self.context and self.context.set_input_shape.call_count == len(INPUTS)
            else "N/A due to dynamic shapes"
        )
        self.engine.create_engine_inspector.return_value = inspector
        runtime = self.strict("Runtime")
        runtime.deserialize_cuda_engine.return_value = self.engine
        self.module.Runtime = lambda log: runtime


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Any:
    fake = FakeDriver()
    monkeypatch.setattr(cuda, "_devices", {})
    monkeypatch.setattr(cuda, "driver", lambda: fake)
    monkeypatch.setattr(cuda_driver, "has_graphs", lambda: False)
    return cuda.device(0)
