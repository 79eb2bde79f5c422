"""The whole way on a real GPU, where there is one: build into a package, find, run, compare, close."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from support.small_models import picture

import impasto
from impasto.errors import ImpastoError
from impasto.export.checks.engine import check_engine
from impasto.export.tensorrt.options import BuildOptions, Sizes
from impasto.export.tensorrt.package_engines import BuildResult, build_engine
from impasto.runtime import cuda
from impasto.runtime.backends.tensorrt.api import tensorrt

pytestmark = pytest.mark.gpu


@pytest.fixture
def built(make_package: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> BuildResult:
    monkeypatch.setenv("IMPASTO_CACHE", str(tmp_path / "cache"))
    try:
        api, device = tensorrt(), cuda.device(0)
    except ImpastoError as error:
        pytest.skip(str(error))
    precision = "fp16" if api.has_precision_flags else "fp32"
    options = BuildOptions(precision, (Sizes.parse("64x64:128x192:256x256"),))
    result = build_engine(make_package(thumbnail=8, border=4), options)
    if result.why_not_here:
        pytest.skip(f"{api} builds for {device.name} and does not run on it: {result.why_not_here}")
    return result


def test_an_engine_draws_what_its_package_draws(built: BuildResult) -> None:
    for engine in (built.plan, built.source):
        check_engine(engine, built.source).require()


def test_sizes_around_the_engines_own(built: BuildResult) -> None:
    with (
        impasto.load(built.source, backend="tensorrt") as model,
        impasto.load(built.source, backend="onnxruntime-cpu") as reference,
    ):
        images = [picture(*size) for size in ((30, 50), (128, 192), (256, 256), (300, 500))]
        streamed = list(model.stream(images[1:2] * 9, depth=3))
        for image in images:
            drawn, expected = model(image), reference(image)
            assert np.abs(drawn.astype(int) - expected)[:-8, :-8].max() <= 2
        assert all(np.abs(frame.astype(int) - model(images[1])).max() <= 1 for frame in streamed)


def test_loading_and_closing_50_times_loses_no_memory(built: BuildResult) -> None:
    free = []
    for _ in range(50):
        with impasto.load(built.source, backend="tensorrt") as model:
            model(picture(128, 192))
        free.append(cuda.device(0).free_memory())
    assert free[0] - free[-1] < 1 << 20
