"""Writes what the GPU machine builds: graphs of opset 17 and a list of jobs. Run where onnx and onnxruntime are.

    python tests/device/prepare.py FOLDER [NAME=PACKAGE | NAME=ARCHITECTURE ...]

An architecture is one of `impasto.training.networks`, with fresh weights; "residual" is a plain network of 65 GMAC at
1088 x 1920. Without arguments: all of them.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from device.pictures import synthetic
from support.engine_graphs import float_pixels, network, quantized

from impasto.export.tensorrt.parser_graph import prepare
from impasto.package.spec import ModelSpec, SizeRule
from impasto.runtime.loading.source import resolve

SIZES = ((1088, 1920), (512, 512))


def load(path: str) -> tuple[onnx.ModelProto, ModelSpec]:
    """A package's FP32 graph, or a fresh network's, with its spec."""
    if path == "residual":
        return network(4, 64, 6), ModelSpec("residual", size=SizeRule(4))
    if Path(path).exists():
        source = resolve(path)
        assert source.manifest
        return onnx.load(str(source.graph_path)), source.manifest.spec
    import torch

    from impasto.export import from_torch as canonical
    from impasto.training import networks

    torch.manual_seed(0)
    fresh = networks.build(path, {}).folded()
    spec = canonical.spec_of(fresh, path, "unknown")
    return canonical.export_model(fresh, spec), spec


def main(folder: Path, models: dict[str, str]) -> None:
    """Write each model's graphs: plain, with Q/DQ, and both once more with float32 pixels, should uint8 be refused."""
    folder.mkdir(parents=True, exist_ok=True)
    jobs = []
    for name, path in models.items():
        model, spec = load(path)
        spec = replace(spec, name=name, border=0)  # the sizes below are the network's own
        target = folder / f"{name}.onnx"
        onnx.save(prepare(model, 17), str(target))
        extra = context_of(model, spec)
        if extra is not None:
            np.save(folder / f"context-{name}.npy", extra)
        quantized(target, folder / f"{name}.int8.onnx", [synthetic(256, 256, seed) for seed in range(4)], extra)
        onnx.save(prepare(onnx.load(str(folder / f"{name}.int8.onnx")), 17), str(folder / f"{name}.int8.onnx"))
        for precision, file, borne in (("fp16", target.name, "fp32"), ("int8", f"{name}.int8.onnx", "int8")):
            float_graph = file.replace(".onnx", ".float.onnx")
            onnx.save(float_pixels(onnx.load(str(folder / file))), str(folder / float_graph))
            common = {"graph": file, "float_graph": float_graph, "plain": target.name, "graph_precision": borne}
            jobs += [common | {"spec": spec.to_json(), "precision": precision, "size": size} for size in SIZES]
    jobs.sort(key=lambda job: SIZES.index(job["size"]))  # the ones that matter most come first
    (folder / "jobs.json").write_text(json.dumps(jobs, indent=1))


def context_of(model: onnx.ModelProto, spec: ModelSpec) -> np.ndarray | None:
    """A plausible second input, where the graph has one: a strength of 1, or scales and shifts with some noise."""
    if len(model.graph.input) == 1:
        return None
    if spec.strength:
        return np.ones((1, 1), np.float32)
    length = model.graph.input[1].type.tensor_type.shape.dim[1].dim_value
    return np.random.default_rng(0).normal(0.5, 0.3, (1, length)).astype(np.float32)


if __name__ == "__main__":
    given = dict(pair.split("=", 1) for pair in sys.argv[2:])
    every = {name: name for name in ("residual", "thumbnail-stylizer", "unet-restorer", "classic-stylizer")}
    main(Path(sys.argv[1]), given or every)
