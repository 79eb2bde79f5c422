"""Writes what the GPU machine builds: graphs of opset 17 and a list of jobs. Run where onnx and onnxruntime are.

    python tests/device/engine/prepare.py FOLDER [NAME=PACKAGE | NAME=ARCHITECTURE ...]

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
    folder.mkdir(parents=True, exist_ok=True)
    jobs = []
    for name, path in models.items():
        model, spec = load(path)
        spec = replace(spec, name=name, border=0)  # the sizes below are the network's own
        target = folder / f"{name}.onnx"
        onnx.save(prepare(model, 17), str(target))
        extra = context_of(model)
        if extra is not None:
            np.save(folder / f"context-{name}.npy", extra)
        quantized(target, folder / f"{name}.int8.onnx", [synthetic(256, 256, seed) for seed in range(4)], extra)
        onnx.save(prepare(onnx.load(str(folder / f"{name}.int8.onnx")), 17), str(folder / f"{name}.int8.onnx"))
        for precision, file in (("fp16", target.name), ("int8", f"{name}.int8.onnx")):
            jobs += [
                {"graph": file, "plain": target.name, "spec": spec.to_json(), "precision": precision, "size": s}
                for s in SIZES
            ]
        if path == "residual":
            onnx.save(float_pixels(onnx.load(str(target))), str(folder / f"{name}.float.onnx"))
            jobs.append(
                {
                    "graph": f"{name}.float.onnx",
                    "plain": target.name,
                    "spec": spec.to_json(),
                    "precision": "fp16",
                    "size": SIZES[0],
                }
            )
    jobs.sort(key=lambda job: SIZES.index(job["size"]))  # the ones that matter most come first
    (folder / "jobs.json").write_text(json.dumps(jobs, indent=1))


def context_of(model: onnx.ModelProto) -> np.ndarray | None:
    """A plausible second input, where the graph has one: scales of 1 and shifts of 0 with some noise."""
    if len(model.graph.input) == 1:
        return None
    length = model.graph.input[1].type.tensor_type.shape.dim[1].dim_value
    return np.random.default_rng(0).normal(0.5, 0.3, (1, length)).astype(np.float32)


if __name__ == "__main__":
    given = dict(pair.split("=", 1) for pair in sys.argv[2:])
    every = {name: name for name in ("residual", "thumbnail-stylizer", "unet-restorer", "classic-stylizer")}
    main(Path(sys.argv[1]), given or every)
