"""Style measured by an engine and the Gram kernel, over a GPU made of NumPy: addresses, sizes, what is freed, what is said."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support.emulated_gpu import EmulatedModule
from support.fake_engines import picture, write_plan
from support.fake_gpu import FakeDriver, FakeTensorRT, features
from support.fake_kernel import FakeModule

import impasto
from impasto.errors import BackendError, OptionError, ShapeError
from impasto.kernels import module
from impasto.package.spec import PERCEPTUAL, ModelSpec
from impasto.runtime import StyleMeter
from impasto.runtime.style_distances import gram

pytest_plugins = ("support.engine_fixtures",)


@pytest.fixture
def kernel(driver: FakeDriver, monkeypatch: pytest.MonkeyPatch) -> FakeModule:
    fake = FakeModule(driver)
    monkeypatch.setattr(module, "loaded", lambda: fake)
    return fake


@pytest.fixture
def network(vendor: FakeTensorRT, tmp_path: Path) -> Path:
    return write_plan(tmp_path, b"perceptual", precision="fp32", spec=ModelSpec("small", task=PERCEPTUAL).to_json())


def expected(image: np.ndarray, painting: np.ndarray) -> dict[str, float]:
    """Each layer's distance, on the host."""
    targets = {name: gram(values) for name, values in features(painting).items()}
    return {
        name: float(np.square(gram(values) - targets[name]).mean() / np.square(targets[name]).mean())
        for name, values in features(image).items()
    }


@pytest.fixture(params=[FakeModule, EmulatedModule])
def any_kernel(request: pytest.FixtureRequest, driver: FakeDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    """NumPy's, and gram.cu itself on an emulated GPU, which share the parameters."""
    loaded = FakeModule(driver) if request.param is FakeModule else request.getfixturevalue("emulated")(800)
    monkeypatch.setattr(module, "loaded", lambda: loaded)


@pytest.mark.parametrize("driver", [False, True], indirect=True, ids=["discrete", "integrated"])
def test_distances_are_the_hosts_at_every_size(any_kernel: None, network: Path) -> None:
    painting = picture(40, 33)
    with StyleMeter(painting, network) as meter:
        assert (meter.backend, meter.layers) == ("tensorrt", ("shallow", "deep"))
        for seed, size in enumerate([(20, 30), (20, 30), (64, 64), (17, 33), (20, 30), (40, 33)]):
            image = picture(*size, seed=seed)
            assert dict(meter(image).layers) == pytest.approx(expected(image, painting), rel=1e-4)
        assert meter(painting).total == pytest.approx(0, abs=1e-9)


def test_all_layers_share_one_launch_and_feature_maps_stay_on_the_gpu(
    driver: FakeDriver, kernel: FakeModule, network: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copied = []
    download = FakeDriver.memcpy_dtoh_async
    with StyleMeter(picture(40, 33), network) as meter:
        kernel.launches.clear()
        monkeypatch.setattr(
            FakeDriver,
            "memcpy_dtoh_async",
            lambda self, array, *rest: (copied.append(array.nbytes), download(self, array, *rest)),
        )
        meter(picture(64, 64))
    assert kernel.launches == ["gram_forward_f32_nchw", "gram_finish"]
    assert copied == [4 * 4 * (1 + 3)]  # four strips of each 32 x 32 on and above the diagonal, of 3 and of 40 channels


def test_measuring_and_closing_50_times_frees_everything(
    driver: FakeDriver, vendor: FakeTensorRT, kernel: FakeModule, network: Path
) -> None:
    for index in range(50):
        with StyleMeter(picture(40, 33), network) as meter:
            meter(picture(20, 30))
            meter(picture(20 + index % 2, 30))
    assert not driver.live
    assert vendor.live_contexts == 0


def test_pictures_of_one_size_take_no_new_memory(
    driver: FakeDriver, kernel: FakeModule, network: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with StyleMeter(picture(40, 33), network) as meter:
        first = meter(picture(20, 30))
        monkeypatch.setattr(driver, "mem_alloc", None)
        monkeypatch.setattr(driver, "pagelocked_empty", None)
        assert meter(picture(20, 30)) == first


def test_a_failed_launch_leaves_the_meter_usable(driver: FakeDriver, kernel: FakeModule, network: Path) -> None:
    with StyleMeter(picture(40, 33), network) as meter:
        first = meter(picture(20, 30))
        kernel.fail_next = True
        with pytest.raises(BackendError, match=r"Gram kernel failed: .* unspecified launch failure"):
            meter(picture(20, 30))
        assert meter(picture(20, 30)) == first
    assert not driver.live


@pytest.mark.parametrize("painting", [np.zeros((40, 33, 3), np.uint8), picture(65, 64), picture(15, 64)])
def test_a_painting_that_cannot_be_measured_leaves_nothing_behind(
    driver: FakeDriver, vendor: FakeTensorRT, kernel: FakeModule, network: Path, painting: np.ndarray
) -> None:
    with pytest.raises(
        (BackendError, ShapeError), match=r"another painting|and got \(1, .*; build one for it: impasto build"
    ):
        StyleMeter(painting, network)
    assert not driver.live
    assert vendor.live_contexts == 0


def test_a_built_perceptual_engine_is_not_asked_to_draw(
    vendor: FakeTensorRT, network: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from impasto.cli.build import _check
    from impasto.export.tensorrt.package_engines import BuildResult
    from impasto.runtime.loading.stored_engines import read_stored

    stored = read_stored(network)
    _check(BuildResult(stored.plan, stored.record, True, None, network, why_not_here=None), 0)
    assert "a perceptual network draws no pictures" in capsys.readouterr().err


def test_an_engine_that_draws_is_no_perceptual_network_and_the_reverse(network: Path, tmp_path: Path) -> None:
    with pytest.raises(BackendError, match="2 outputs; a picture model has one"):
        impasto.load(network)
    with pytest.raises(OptionError, match=r"is a picture model \(unknown\)"):
        StyleMeter(picture(40, 33), write_plan(tmp_path))
