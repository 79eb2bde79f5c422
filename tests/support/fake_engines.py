"""Engines for the GPU and the TensorRT of `fake_gpu`, with their records."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from impasto.export.tensorrt.cache import engine_key
from impasto.files import sha256
from impasto.package.engine_record import EngineRecord
from impasto.package.spec import ModelSpec


def key(name: str) -> str:
    """A key such as `impasto build` gives, the same for the same name."""
    return engine_key({"name": name})


def record(**changed: object) -> EngineRecord:
    profile = {"image": ((1, 16, 16, 3), (1, 16, 16, 3), (1, 64, 64, 3))}
    values = {
        "key": key("tiny"),
        "product": "tensorrt",
        "version": "8.5.3.1",
        "precision": "fp16",
        "compute_capabilities": ("8.7",),
        "gpu": "Fake GPU",
        "source_sha256": "0" * 64,
        "profiles": (profile,),
        "spec": ModelSpec("tiny").to_json(),
    }
    return EngineRecord(**(values | changed))  # type: ignore[arg-type]


def write_plan(folder: Path, content: bytes = b"plan", name: str = "tiny", **changed: object) -> Path:
    path = folder / f"{name}.plan"
    path.write_bytes(content)
    path.with_suffix(".json").write_text(
        json.dumps({"sha256": sha256(path), "record": record(**{"key": path.stem, **changed}).to_json()})
    )
    return path


def picture(height: int = 20, width: int = 30, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
