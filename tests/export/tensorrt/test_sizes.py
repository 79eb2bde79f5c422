"""A network behind an engine's size limits draws what it draws without them. The network is real, the limits are lent."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from support.small_models import picture

import impasto
from impasto.errors import ShapeError
from impasto.runtime.backends.base import SizeLimits
from impasto.runtime.backends.onnxruntime import OnnxRuntimeBackend

FIXED = SizeLimits((((64, 64), (64, 64)),), "impasto build tiny")
RANGE = SizeLimits((((32, 48), (64, 96)),), "impasto build tiny")
TWO = SizeLimits((((16, 16), (40, 40)), ((64, 64), (128, 64))), "impasto build tiny")


@pytest.mark.parametrize("limits", [FIXED, RANGE, TWO], ids=["fixed", "range", "two profiles"])
@pytest.mark.parametrize("size", [(128, 192), (64, 200), (200, 64), (68, 68), (64, 64)])
def test_tiles_of_an_engine_join_exactly(
    make_package: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, limits: SizeLimits, size: tuple[int, int]
) -> None:
    package, image = make_package(), picture(*size)
    with impasto.load(package, backend="onnxruntime-cpu") as model:
        whole = model(image)
    monkeypatch.setattr(OnnxRuntimeBackend, "limits", limits)
    with impasto.load(package, backend="onnxruntime-cpu") as model:
        np.testing.assert_array_equal(model(image), whole)


def test_small_pictures_differ_at_the_padded_edge_only(
    make_package: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    package, image = make_package(), picture(48, 40)
    with impasto.load(package, backend="onnxruntime-cpu") as model:
        whole = model(image)
    monkeypatch.setattr(OnnxRuntimeBackend, "limits", FIXED)
    with impasto.load(package, backend="onnxruntime-cpu") as model:
        drawn = model(image)
    np.testing.assert_array_equal(drawn[:-8, :-8], whole[:-8, :-8])


def test_limits_choose_the_smallest_that_holds() -> None:
    assert TWO.whole(40, 40) == (40, 40)
    assert TWO.whole(8, 20) == (16, 20)
    assert TWO.whole(44, 8) == (64, 64)
    assert TWO.whole(130, 8) is None
    assert TWO.window(200, 200) == (128, 64)


def test_a_network_without_receptive_field_is_not_cut(
    make_package: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(OnnxRuntimeBackend, "limits", FIXED)
    with (
        impasto.load(make_package(tiled=False), backend="onnxruntime-cpu") as model,
        pytest.raises(ShapeError, match=r"cannot be cut into tiles; build one for it: impasto build tiny --size 65x10"),
    ):
        model(picture(65, 10))
