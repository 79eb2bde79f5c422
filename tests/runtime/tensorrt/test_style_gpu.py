"""Style on a real GPU, where there is one: engine and Gram kernel measure what ONNX Runtime and NumPy measure."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support.perceptual_networks import write_perceptual
from support.small_models import picture

from impasto.errors import ImpastoError
from impasto.export.tensorrt.options import BuildOptions, Sizes
from impasto.export.tensorrt.package_engines import build_engine
from impasto.kernels import module
from impasto.runtime import StyleMeter, cuda
from impasto.runtime.backends.tensorrt.api import tensorrt

SIZES = (Sizes.parse("32x32:128x192:256x256"),)


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("IMPASTO_CACHE", str(tmp_path / "cache"))
    return write_perceptual(tmp_path / "small")


@pytest.fixture
def built(network: Path) -> Path:
    """The network's package with an engine for this machine's GPU."""
    try:
        api, device = tensorrt(), cuda.device(0)
        with device.active():
            module.loaded()
    except ImpastoError as error:
        pytest.skip(str(error))
    result = build_engine(network, BuildOptions("fp32", SIZES))
    if result.why_not_here:
        pytest.skip(f"{api} builds for {device.name} and does not run on it: {result.why_not_here}")
    return network


@pytest.mark.gpu
def test_gpu_and_cpu_measure_the_same(built: Path) -> None:
    painting = picture(130, 97)
    with (
        StyleMeter(painting, built, backend="tensorrt") as on_gpu,
        StyleMeter(painting, built, backend="onnxruntime-cpu") as on_cpu,
    ):
        assert (on_gpu.backend, on_gpu.layers) == ("tensorrt", on_cpu.layers)
        for seed, size in enumerate([(32, 32), (101, 77), (256, 256), (256, 256), (256, 256), (33, 200)]):
            image = picture(*size, seed=seed) // 2
            assert dict(on_gpu(image).layers) == pytest.approx(dict(on_cpu(image).layers), rel=1e-3)
        assert on_gpu(painting).total < 1e-6


@pytest.mark.gpu
def test_distances_repeat_bit_by_bit_and_lose_no_memory(built: Path) -> None:
    image, free, found = picture(128, 192, seed=1), [], set()
    for _ in range(20):
        with StyleMeter(picture(130, 97), built, backend="tensorrt") as meter:
            found |= {meter(image).total for _ in range(3)}
        free.append(cuda.device(0).free_memory())
    assert len(found) == 1
    assert np.isfinite(found.pop())
    assert free[0] - free[-1] < 1 << 20


def test_a_perceptual_network_builds_for_gpus_that_are_not_here(network: Path) -> None:
    pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")
    result = build_engine(network, BuildOptions("fp32", SIZES, targets=("sm86",)))
    assert (result.record.spec["task"], result.plan.parent) == ("perceptual", network / "engines")
    assert result.record.precisions()["fp32"] >= 2
