"""Draws every job's picture with its FP32 graph in ONNX Runtime. Run on the GPU machine with the Python that has it.

python reference.py JOBS_FOLDER
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from device.pictures import synthetic


def main(folder: Path) -> None:
    for job in json.loads((folder / "jobs.json").read_text()):
        height, width = job["size"]
        picture = synthetic(height, width)
        np.save(folder / f"picture-{height}x{width}.npy", picture)
        target = folder / f"expected-{job['spec']['name']}-{height}x{width}.npy"
        if target.exists():
            continue
        session = onnxruntime.InferenceSession(str(folder / job["plain"]), providers=["CPUExecutionProvider"])
        feeds = {"image": picture[None]}
        if len(session.get_inputs()) > 1:
            feeds["context"] = np.load(folder / f"context-{job['spec']['name']}.npy")
        np.save(target, session.run(None, feeds)[0][0])
        print("drew", target.name, flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
