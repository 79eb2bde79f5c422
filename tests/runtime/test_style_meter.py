"""Style measured without torch: laws of the distance first, then a slow computation of it, then what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from support.perceptual_networks import LAYERS, perceptual_graph, write_perceptual
from support.small_models import float_graph, picture

from impasto import images
from impasto.errors import BackendError, ModelNotFound, OptionError, PackageError, PictureError, ShapeError
from impasto.runtime import StyleMeter, load
from impasto.runtime.backends import open_graph
from impasto.runtime.style_distances import gram

BACKENDS = ("onnxruntime-cpu", "openvino")


@pytest.fixture
def network(tmp_path: Path) -> Path:
    return write_perceptual(tmp_path / "small")


@pytest.fixture(params=BACKENDS)
def meter(request: pytest.FixtureRequest, network: Path):
    with StyleMeter(picture(48, 70), network, backend=request.param) as made:
        yield made


def test_a_painting_is_at_no_distance_from_itself(meter):
    distance = meter(picture(48, 70))
    assert set(distance.layers) == set(LAYERS)
    assert distance.total < 1e-9
    assert meter(picture(48, 70) // 2).total == pytest.approx(9 / 16, abs=0.02)  # a quarter of the Gram matrix


def test_a_picture_of_nothing_is_at_distance_one(meter):
    """Black has feature maps of zeros here, for lack of biases: (0 - A)² over A²."""
    assert dict(meter(np.zeros((40, 40, 3), np.uint8)).layers) == pytest.approx(dict.fromkeys(LAYERS, 1.0))


def test_style_does_not_depend_on_how_often_it_repeats(meter):
    """But for the edges, a picture and four of it side by side have one Gram matrix."""
    once = picture(64, 64, seed=3) // 2
    assert meter(np.tile(once, (2, 2, 1))).total == pytest.approx(meter(once).total, rel=0.05)


@pytest.mark.parametrize("size", [(32, 32), (33, 47), (80, 41)])
def test_distances_are_those_of_a_slow_float64_computation(meter, network, size):
    graph = open_graph(network / "model.onnx", "onnxruntime-cpu", 0, features=True)

    def grams(image):
        maps = [features[0].astype(np.float64) for features in graph.run_all((image[None],))]
        return [np.einsum("ihw,jhw->ij", f, f) / f.size for f in maps]

    drawn = picture(*size, seed=5)
    expected = [
        np.square(G - A).mean() / np.square(A).mean() for G, A in zip(grams(drawn), grams(picture(48, 70)), strict=True)
    ]
    found = meter(drawn)
    assert list(found.layers.values()) == pytest.approx(expected, rel=1e-4)
    assert found.total == pytest.approx(np.mean(expected), rel=1e-4)
    assert found.to_json() == {"total": found.total, "layers": dict(found.layers)}
    assert str(found).startswith(f"{found.total:.4g} (shallow ")


def test_a_gram_matrix_of_ones_is_one_over_the_channels():
    np.testing.assert_allclose(gram(np.ones((6, 5, 7), np.float32)), np.full((6, 6), 1 / 6))


def test_a_painting_file_is_scaled_as_training_scales_it(network, tmp_path):
    images.write(tmp_path / "painting.png", picture(96, 192))
    small = images.read_painting(tmp_path / "painting.png")
    assert small.shape == (192, 384, 3)
    with StyleMeter(tmp_path / "painting.png", network) as meter:
        assert meter(small).total < 1e-9


def test_a_graph_by_itself_measures_as_its_package(network):
    drawn = picture(40, 50, seed=1)
    with StyleMeter(picture(48, 70), network) as one, StyleMeter(picture(48, 70), network / "model.onnx") as other:
        assert one(drawn) == other(drawn)


def test_frames_of_a_stream_are_measured_one_by_one(network, make_package):
    """The loop of docs/kernels.md."""
    frames = [picture(48, 64, seed=seed) for seed in range(4)]
    with load(make_package(), precision="fp32") as model, StyleMeter(picture(48, 70), network) as meter:
        drift = [meter(frame).total for frame in model.stream(frames)]
        assert drift == [meter(model(frame)).total for frame in frames]


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (picture(31, 64), "31 x 64; small needs at least 32 x 32; enlarge the picture"),
        (picture(40, 40).astype(np.float32), r"got float32 \(40, 40, 3\)"),
        (picture(40, 40)[..., 0], r"got uint8 \(40, 40\)"),
        ("picture.png", "got str"),
    ],
)
def test_pictures_that_are_none_are_refused(meter, given, told):
    with pytest.raises(ShapeError, match=told):
        meter(given)


def test_networks_that_are_none_are_refused_with_the_command_to_run(network, tmp_path, make_package):
    painting = picture(48, 70)
    with pytest.raises(ModelNotFound, match="impasto export vgg16"):
        StyleMeter(painting, tmp_path / "missing")
    with pytest.raises(OptionError, match=r"is a network for denoise, and style is measured.*impasto export vgg16"):
        StyleMeter(painting, make_package())
    onnx.save(float_graph(), str(tmp_path / "external.onnx"))
    with pytest.raises(OptionError, match="does not say that it is a perceptual network"):
        StyleMeter(painting, tmp_path / "external.onnx")
    odd = perceptual_graph()
    odd.metadata_props[0].value = "no JSON"
    onnx.save(odd, str(tmp_path / "odd.onnx"))
    with pytest.raises(PackageError, match=r"odd\.onnx: its metadata 'impasto\.spec' cannot be read: it is no JSON"):
        StyleMeter(painting, tmp_path / "odd.onnx")
    images.write(tmp_path / "painting.png", painting)
    with pytest.raises(BackendError, match="no model that can be run"):
        StyleMeter(painting, tmp_path / "painting.png")
    onnx.save(perceptual_graph(task="other"), str(network / "model.onnx"))
    with pytest.raises(PackageError, match="not the file that its manifest describes"):
        StyleMeter(painting, network)


def test_paintings_that_are_none_are_refused(network, tmp_path):
    with pytest.raises(PictureError, match="does not exist"):
        StyleMeter(tmp_path / "missing.png", network)
    with pytest.raises(BackendError, match="another painting"):
        StyleMeter(np.zeros((64, 64, 3), np.uint8), network)
    with pytest.raises(ShapeError, match="31 x 64"):
        StyleMeter(picture(31, 64), network)


def test_a_closed_meter_refuses_to_measure(network):
    meter = StyleMeter(picture(48, 70), network)
    meter.close()
    meter.close()
    with pytest.raises(BackendError, match="closed"):
        meter(picture(48, 70))


def test_a_perceptual_network_draws_no_pictures(network):
    with pytest.raises(BackendError, match="2 outputs; a picture model has one"):
        load(network)
