"""Builds every job's engine. Run on the GPU machine with the Python that has TensorRT, NumPy and PyCUDA; and onnx, or
no engine keeps its FP32 islands.

python build.py JOBS_FOLDER ENGINES_FOLDER [SECONDS]    # no new job is begun after SECONDS
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from impasto.errors import ImpastoError
from impasto.export.tensorrt.builder import EngineBuilder
from impasto.export.tensorrt.cache import EngineCache
from impasto.export.tensorrt.options import BuildOptions, Sizes
from impasto.package.spec import ModelSpec

folder, engines = Path(sys.argv[1]), Path(sys.argv[2])
limit = float(sys.argv[3]) if len(sys.argv) > 3 else float("inf")
begun = time.perf_counter()
report = []
for job in json.loads((folder / "jobs.json").read_text()):
    size = tuple(job["size"])
    options = BuildOptions(
        job["precision"], (Sizes(size, size, size),), tactic_sources=("edge_mask_convolutions", "jit_convolutions")
    )
    start = time.perf_counter()
    if start - begun > limit:
        break
    line = {"graph": job["graph"], "precision": job["precision"], "size": size}
    try:
        spec = ModelSpec.from_json(job["spec"], "jobs.json")
        builder = EngineBuilder(
            folder / job["graph"], spec, options, graph_precision=job["precision"], cache=EngineCache(engines)
        )
        entry, built = builder.build()
        line |= {"built": built, "plan": entry.plan.name, "layers": entry.record.precisions()}
    except ImpastoError as error:
        line |= {"error": str(error)}
    line["seconds"] = round(time.perf_counter() - start, 1)
    print(json.dumps(line), flush=True)
    report.append(line)
(engines / "builds.txt").write_text(json.dumps(report, indent=1))
