"""Builds every job's engine. Run on the GPU machine with the Python that has TensorRT, NumPy, PyCUDA and onnx.

python build.py JOBS_FOLDER ENGINES_FOLDER OUT.json [SECONDS]    # no new job is begun after SECONDS
"""

from __future__ import annotations

import json
import sys
import time
import traceback
from pathlib import Path
from typing import Any

from impasto.errors import ImpastoError
from impasto.export.tensorrt.builder import EngineBuilder
from impasto.export.tensorrt.cache import EngineCache
from impasto.export.tensorrt.options import BuildOptions, Sizes
from impasto.package.spec import ModelSpec


def main(jobs: Path, engines: Path, out: Path, seconds: float = float("inf")) -> list[dict[str, Any]]:
    """What became of each job; written after each, since a GPU is lent for minutes."""
    begun, report = time.perf_counter(), []
    for job in json.loads((jobs / "jobs.json").read_text()):
        if time.perf_counter() - begun > seconds:
            report.append(_name(job) | {"error": "not begun: the time for building was over"})
        else:
            report.append(build(job, jobs, engines))
        print(json.dumps(report[-1]), flush=True)
        out.write_text(json.dumps(report, indent=1) + "\n")
    return report


def build(job: dict[str, Any], jobs: Path, engines: Path) -> dict[str, Any]:
    """A job with uint8 pixels, and where TensorRT refuses that, with float32 ones, which is said as "float_pixels"."""
    line = _attempt(job, jobs, engines)
    if "error" in line and job.get("float_graph"):
        again = _attempt(job | {"graph": job["float_graph"]}, jobs, engines)
        return again | {"float_pixels": True, "error_with_uint8": line["error"]}
    return line


def _attempt(job: dict[str, Any], jobs: Path, engines: Path) -> dict[str, Any]:
    start, size = time.perf_counter(), tuple(job["size"])
    line = _name(job)
    try:
        spec = ModelSpec.from_json(job["spec"], "jobs.json")
        sources = ("edge_mask_convolutions", "jit_convolutions")  # the others want cuDNN and cuBLAS
        options = BuildOptions(job["precision"], (Sizes(size, size, size),), tactic_sources=sources)
        builder = EngineBuilder(
            jobs / job["graph"], spec, options, graph_precision=job["graph_precision"], cache=EngineCache(engines)
        )
        entry, built = builder.build()
        line |= {"built": built, "plan": entry.plan.name, "layers": entry.record.precisions()}
    except ImpastoError as error:
        line["error"] = str(error)
    except Exception:  # what nobody foresaw is a result, too
        line["error"] = traceback.format_exc()
    return line | {"seconds": round(time.perf_counter() - start, 1)}


def _name(job: dict[str, Any]) -> dict[str, Any]:
    return {name: job[name] for name in ("graph", "precision", "size")}


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:4]), *map(float, sys.argv[4:5]))
