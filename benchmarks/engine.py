"""What a TensorRT engine takes on the GPU in this machine: the engine alone, its copies, launches, and whole frames.

    python -m impasto.benchmarks.engine FOLDER OUT.json

FOLDER holds engines (`*.plan` with their records) and, for each picture size, `picture-HxW.npy` with the FP32 result of each
source graph, `expected-NAME-HxW.npy`, and where a graph has
a second input, `context-NAME.npy`. Needs NumPy, PyCUDA and TensorRT alone.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import impasto
from impasto.errors import ImpastoError
from impasto.files import check_writable, write_text
from impasto.kernels import cuda_driver
from impasto.metrics import psnr
from impasto.runtime import cuda
from impasto.runtime.backends import open_engine
from impasto.runtime.backends.tensorrt.api import tensorrt
from impasto.runtime.backends.tensorrt.engine import TensorRTBackend
from impasto.runtime.backends.tensorrt.slot import TensorRTSlot
from impasto.runtime.loading.source import resolve

_ROTATION = 4
"""Slots whose buffers take turns, so that a picture is not found in the GPU's cache."""
_LAUNCHES = 5
"""Runs of each slot in one timed graph."""
_REPEATS = 30
_FRAMES = 300


def measure_folder(folder: Path, out: Path) -> dict[str, Any]:
    """Measure every engine of the folder, and write what there is after each: a GPU is lent for minutes.

    An engine that fails, in whatever way, leaves its error in its place.
    """
    device, api = cuda.device(), tensorrt()
    results: dict[str, Any] = {
        "gpu": device.name,
        "compute_capability": device.compute_capability,
        "driver_cuda": device.driver_major,
        "tensorrt": str(api),
        "python": sys.version.split()[0],
        "graphs": cuda_driver.has_graphs(),
        "engines": [],
    }
    for plan in sorted(folder.glob("*.plan")):
        start = time.perf_counter()
        entry: dict[str, Any] = {"plan": plan.name}
        _attempt(entry, partial(measure_engine, plan, folder, entry))
        entry["seconds"] = round(time.perf_counter() - start, 2)
        results["engines"].append(entry)
        print(json.dumps({key: value for key, value in entry.items() if key != "layers"}), flush=True)
        _write(out, results)
    whole = [entry["plan"] for entry in results["engines"] if "run_into_ms" in entry]
    if whole:
        memory: dict[str, Any] = {}
        _attempt(memory, lambda: memory.update(_loads(folder / whole[0], 50)))
        results["memory_after_50_loads"] = memory
        _write(out, results)
    return results


def _attempt(entry: dict[str, Any], work: Callable[[], object]) -> None:
    """Do it, or say in the entry why it failed."""
    try:
        work()
    except Exception as error:
        ours = isinstance(error, ImpastoError)
        entry["error"] = str(error) if ours else traceback.format_exc()


def _write(out: Path, results: dict[str, Any]) -> None:
    write_text(out, json.dumps(results, indent=1) + "\n")


def measure_engine(plan: Path, folder: Path, entry: dict[str, Any]) -> None:
    """All figures of one engine, into `entry`; what was measured before a failure stays.

    Raises ImpastoError, and whatever else goes wrong where pictures are missing or of another type.
    """
    source = resolve(plan)
    record = source.engine
    assert record is not None
    _, height, width, _ = record.profiles[0]["image"][1]
    picture = np.load(folder / f"picture-{height}x{width}.npy")
    name = record.spec["name"]
    entry |= {
        "name": name,
        "precision": record.precision,
        "size": [height, width],
        "plan_bytes": record.plan_bytes,
        "device_memory_bytes": record.device_memory_bytes,
        "layers_by_precision": record.precisions(),
        "layers": [[layer.name[:60], layer.kind, layer.precision] for layer in record.layers],
    }
    backend = open_engine(plan, record, "tensorrt", 0, "impasto build")
    assert isinstance(backend, TensorRTBackend)
    context = folder / f"context-{name}.npy"
    extra = [np.load(context)] if context.exists() else []
    expected = folder / f"expected-{name}-{height}x{width}.npy"
    try:
        slot = _started(backend, picture, extra)
        entry["psnr_db"], entry["largest_difference"] = _compare(slot.result[0], expected)
        slot.close()
        entry["engine_ms"], entry["engine_eager_ms"] = _engine_times(backend, picture)
        entry.update(_frame_times(backend, picture))
        entry["layer_ms"] = _layer_times(backend, picture)
    finally:
        backend.close()
    # A context comes from its own engine, which only a package holds (a strength from the caller); and a model takes and gives uint8.
    needs_context = bool(extra) and not record.spec.get("strength")
    if needs_context or {spec.dtype.name for spec in (*backend.inputs, *backend.outputs)} != {"uint8"}:
        return
    with impasto.load(plan, working_size=None) as model:
        out = model(picture)
        entry["run_into_ms"] = _median(lambda: model.run_into(picture, out), _REPEATS)
        entry["stream_ms"] = {str(depth): _stream_time(model, picture, depth) for depth in (1, 2, 3, 4)}


def _engine_times(backend: TensorRTBackend, picture: np.ndarray) -> tuple[float | None, float]:
    """Milliseconds of the engine alone: replayed from a graph over several buffers, and launched one by one."""
    slots = [_started(backend, picture) for _ in range(_ROTATION)]
    try:
        stream = slots[0].stream

        def launch() -> None:
            for _ in range(_LAUNCHES):
                for slot in slots:
                    slot.compute(stream)

        device = cuda.device()
        graph = stream.capture(launch)
        runs = _ROTATION * _LAUNCHES
        with device.active():
            eager = [stream.time(launch) / runs for _ in range(_REPEATS)]
            if graph is None:
                return None, float(np.median(eager))
            for _ in range(3):
                graph.replay()
            replayed = [stream.time(graph.replay) / runs for _ in range(_REPEATS)]
            stream.wait()
        graph.free()
        return float(np.median(replayed)), float(np.median(eager))
    finally:
        for slot in slots:
            slot.close()


def _frame_times(backend: TensorRTBackend, picture: np.ndarray) -> dict[str, float | None]:
    """Copies alone, and one frame from pinned memory to pinned memory: as a graph, and launched piece by piece."""
    slot = _started(backend, picture)
    device, stream = cuda.device(), slot.stream

    def eager() -> None:
        with device.active():
            slot.upload()
            slot.compute()
            slot.download()
        slot.wait()

    def replayed() -> None:
        slot.start()
        slot.wait()

    try:
        with device.active():
            upload = float(np.median([stream.time(slot.upload) for _ in range(_REPEATS)]))
            download = float(np.median([stream.time(slot.download) for _ in range(_REPEATS)]))
        pageable = np.empty_like(slot.result[0])
        return {
            "upload_ms": upload,
            "download_ms": download,
            "copy_into_pinned_ms": _median(lambda: np.copyto(slot.images[0][0], picture), _REPEATS),
            "copy_out_of_pinned_ms": _median(lambda: np.copyto(pageable, slot.result[0]), _REPEATS),
            "frame_eager_ms": _median(eager, _REPEATS),
            "frame_graph_ms": _median(replayed, _REPEATS) if slot.replays else None,
        }
    finally:
        slot.close()


def _layer_times(backend: TensorRTBackend, picture: np.ndarray) -> list[tuple[str, float]]:
    """Mean milliseconds of each layer by TensorRT's profiler, which synchronises after each: larger than in use."""
    module = tensorrt().module
    totals: dict[str, list[float]] = {}

    class Profiler(module.IProfiler):  # type: ignore[name-defined]
        def __init__(self) -> None:
            super().__init__()

        def report_layer_time(self, layer: str, milliseconds: float) -> None:
            totals.setdefault(layer, []).append(milliseconds)

    slot = _started(backend, picture)
    try:
        slot.profile(Profiler())
        with cuda.device().active():
            for _ in range(10):
                slot.compute()
                slot.stream.wait()
        return [(name[:80], round(float(np.median(times)), 4)) for name, times in totals.items()]
    finally:
        slot.close()


def _started(backend: TensorRTBackend, picture: np.ndarray, extra: Sequence[np.ndarray] = ()) -> TensorRTSlot:
    others = [tuple(size or 1 for size in spec.shape) for spec in backend.inputs[1:]]
    slot = backend.slot(((1, *picture.shape), *others))
    for host, array in zip(
        slot.images, (picture, *(extra or [np.zeros(shape, np.float32) for shape in others])), strict=True
    ):
        host[...] = array
    for _ in range(3):  # the first runs eagerly and records the graph
        slot.start()
        slot.wait()
    return slot


def _stream_time(model: impasto.Model, picture: np.ndarray, depth: int) -> float:
    """Milliseconds per frame of a long stream, from NumPy frame to NumPy frame."""
    frames = [np.roll(picture, 16 * shift, axis=1) for shift in range(8)]

    def endless() -> Any:
        index = 0
        while True:
            yield frames[index % len(frames)]
            index += 1

    results = model.stream(endless(), depth=depth)
    for _ in range(20):
        next(results)
    start = time.perf_counter()
    for _ in range(_FRAMES):
        next(results)
    elapsed = time.perf_counter() - start
    results.close()  # type: ignore[attr-defined]
    return 1000 * elapsed / _FRAMES


def _loads(plan: Path, times: int) -> dict[str, int]:
    """Free GPU memory before and after loading, running and closing a model many times."""
    free = []
    for _ in range(times):
        with impasto.load(plan, working_size=None) as model:
            _, height, width, _ = resolve(plan).engine.profiles[0]["image"][1]  # type: ignore[union-attr]
            model(np.zeros((height, width, 3), np.uint8))
        gc.collect()
        free.append(cuda.device().free_memory())
    return {"after_first": free[0], "after_last": free[-1], "lost": free[0] - free[-1]}


def _compare(drawn: np.ndarray, expected: Path) -> tuple[float | None, int]:
    """PSNR in dB (None where both are equal) and largest difference in levels."""
    reference = np.load(expected)
    difference = int(np.abs(drawn.astype(np.float32) - reference).max())
    return (psnr(drawn, reference) if difference else None), difference


def _median(function: Callable[[], object], repeats: int) -> float:
    times = []
    for _ in range(3 + repeats):
        start = time.perf_counter()
        function()
        times.append(1000 * (time.perf_counter() - start))
    return float(np.median(times[3:]))


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="of engines, pictures and expected results")
    parser.add_argument("out", type=Path, help="JSON to write")
    options = parser.parse_args(arguments)
    try:
        check_writable(options.out)
        if not any(options.folder.glob("*.plan")):
            parser.error(f"{options.folder} holds no engines (*.plan); build some there first")
        measure_folder(options.folder, options.out)
    except ImpastoError as error:
        parser.error(str(error))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
