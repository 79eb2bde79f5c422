"""Other projects' restorers: they draw what spandrel draws, learn, and become packages.

spandrel itself is real here. Where no torchvision fits the installed torch, the two names that it takes from there, for networks that
these tests do not touch, are stood in for while it is imported.
"""

from __future__ import annotations

import json
import re
import sys
import types
from dataclasses import replace
from functools import cache
from importlib.machinery import ModuleSpec

import numpy as np
import pytest
import torch
from support.small_training import SMALL, photo
from typer.testing import CliRunner

import impasto
from impasto import images
from impasto.cli.app import app
from impasto.errors import CheckpointError, MissingDependency, OptionError, install
from impasto.export.checks.against_torch import check_package
from impasto.export.from_checkpoint import export_checkpoint
from impasto.training import checkpoint
from impasto.training.checkpoint import load, load_network
from impasto.training.degrade import parse
from impasto.training.distillation import DistillOptions, distill
from impasto.training.inference import draw
from impasto.training.loop.options import FitOptions
from impasto.training.networks import spandrel_models
from impasto.training.restoration import train_restorer
from impasto.training.style import train_style

pytest_plugins = ("support.training_fixtures",)


def _import_spandrel():
    try:
        import spandrel
    except (ImportError, RuntimeError, OSError):
        functional = types.ModuleType("torchvision.transforms.functional")
        functional.InterpolationMode = types.SimpleNamespace(NEAREST="nearest", BILINEAR="bilinear")
        functional.rotate = functional.normalize = None
        names = {name: types.ModuleType(name) for name in ("torchvision", "torchvision.transforms")}
        names[functional.__name__] = functional
        for name, module in names.items():
            module.__spec__ = ModuleSpec(name, None)
        with pytest.MonkeyPatch.context() as patch:
            for name, module in names.items():
                patch.setitem(sys.modules, name, module)
            return pytest.importorskip("spandrel", exc_type=ImportError)
    return spandrel


spandrel = _import_spandrel()


def compact(scale=2, channels=3):
    from spandrel.architectures.Compact import Compact

    return Compact(num_in_ch=channels, num_out_ch=channels, num_feat=8, num_conv=2, upscale=scale)


def span():
    from spandrel.architectures.SPAN import SPAN

    return SPAN(num_in_ch=3, num_out_ch=3, feature_channels=8, upscale=2, norm=False)


def nafnet():
    from spandrel.architectures.NAFNet import NAFNet

    return NAFNet(img_channel=3, width=8, middle_blk_num=1, enc_blk_nums=[1, 1], dec_blk_nums=[1, 1])


def esrgan():
    from spandrel.architectures.ESRGAN import ESRGAN

    return ESRGAN(num_filters=8, num_blocks=1, scale=4)


KINDS = {"compact": (compact, 2, "upscale"), "span": (span, 2, "upscale"), "nafnet": (nafnet, 1, "restore"),
         "esrgan": (esrgan, 4, "upscale")}  # fmt: skip


def save(folder, kind, **options):
    torch.manual_seed(0)
    path = folder / f"Real_{kind}-X.pth"
    torch.save(KINDS[kind][0](**options).state_dict(), path)
    return path


@pytest.fixture
def saved(tmp_path):
    """A function that writes a random network of a kind as its own project would."""
    return lambda kind="compact", **options: save(tmp_path, kind, **options)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A function that gives such a network's file and the package of it, which is not to be changed."""

    @cache
    def export(kind):
        path = save(tmp_path_factory.mktemp(kind), kind)
        return path, export_checkpoint(path)

    return export


@pytest.mark.parametrize("kind", KINDS)
def test_a_foreign_network_draws_what_spandrel_draws(kind, saved):
    path = saved(kind)
    made = load(path)
    _, scale, task = KINDS[kind]
    assert (made.network.scale, made.task, made.name, made.ours) == (scale, task, f"real_{kind}-x", False)
    assert made.recipe["foreign"]["file"] == path.name
    image = torch.rand(1, 3, 24, 32, generator=torch.Generator().manual_seed(0))
    expected = spandrel.ModelLoader().load_from_file(path).eval()(image)
    with torch.no_grad():
        for network in (made.network, made.network.folded()):
            torch.testing.assert_close(network(image).clamp(0, 1), expected, atol=1e-5, rtol=1e-4)
        assert torch.equal(load_network(path)(image), made.network(image))


@pytest.mark.parametrize("kind", KINDS)
def test_every_parameter_has_one_stage(kind, saved):
    network = load_network(saved(kind))
    stages = network.stages()
    assert len(stages) > 1
    for name, _ in network.named_parameters():
        assert sum(name == stage or name.startswith(stage + ".") for stage in stages) == 1, name


@pytest.mark.parametrize("kind", KINDS)
def test_a_foreign_file_becomes_a_package(kind, exported):
    path, folder = exported(kind)
    assert folder == path.parent / f"real_{kind}-x"
    network = load_network(folder)
    assert isinstance(network, spandrel_models.ForeignRestorer)
    image = photo(29, 43)
    with impasto.load(folder) as model:
        drawn = model(image)
        assert model.info.scale == KINDS[kind][1]
    assert drawn.shape == (29 * network.scale, 43 * network.scale, 3)
    assert int(np.abs(drawn.astype(int) - draw(network, image)).max()) <= 1
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["recipe"]["foreign"]["architecture"] == network.config["architecture"]
    assert "model.float.onnx" in manifest["files"]


def test_what_was_exported_is_what_its_checkpoint_draws(exported):
    result = check_package(exported("span")[1])
    assert max(picture.max_difference for picture in result.pictures) <= 1


def test_the_command_line_exports_it(saved, tmp_path):
    done = CliRunner().invoke(app, ["export", str(saved()), "-o", str(tmp_path / "x2"), "--name", "x2"])
    assert done.exit_code == 0, done.output
    with impasto.load(tmp_path / "x2") as model:
        assert model(photo(16, 16)).shape == (32, 32, 3)


@pytest.mark.parametrize("kind", ["compact", "span"])
def test_fine_tuning_goes_on_from_it(kind, saved, restoring):
    path = saved(kind)
    options = restoring(
        start=path, config={}, degradation=parse("down:2"), steps=40, batch=4,
        fit=FitOptions(steps=40, device="cpu", learning_rate=3e-3, averaging=0.8, precision="fp32"),
    )  # fmt: skip
    seen = []
    result = train_restorer(options, lambda progress: seen.append(progress.losses["charbonnier"]))
    assert seen[-1] < 0.8 * seen[0]
    made = load(result.checkpoint)
    assert made.ours
    assert made.recipe["start"]["recipe"]["foreign"]["file"] == path.name
    assert made.network.config["architecture"] == load_network(path).config["architecture"]
    again = train_restorer(replace(options, output=options.output.parent / "again", start=result.checkpoint))
    assert load(again.checkpoint).network.scale == 2
    with impasto.load(export_checkpoint(result.checkpoint)) as model:
        image = photo(24, 40)
        assert int(np.abs(model(image).astype(int) - draw(made.network, image)).max()) <= 1


def test_it_teaches(saved, photos, tmp_path):
    options = DistillOptions(
        name="student", photos=photos, output=tmp_path / "run", fit=FitOptions(steps=2, device="cpu"), batch=2, crop=32,
        held_out=0.2, config=SMALL["unet-restorer"], teacher=saved("span"), degradation=parse("down:2"),
    )  # fmt: skip
    made = load(distill(options).checkpoint)
    assert (made.network.architecture, made.network.scale) == ("unet-restorer", 2)
    assert made.recipe["teacher"]["recipe"]["foreign"]["architecture"] == "SPAN"


def test_frozen_stages_of_it_stay(saved, restoring):
    path = saved()
    still = load_network(path).stages()[:2]
    options = FitOptions(steps=2, device="cpu", freeze=still, depth_decay=0.9)
    made = train_restorer(restoring(start=path, config={}, degradation=parse("down:2"), fit=options))
    before = load_network(path)
    for name, value in load_network(made.checkpoint).named_parameters():
        frozen = any(name.startswith(stage + ".") for stage in still)
        assert torch.equal(value, dict(before.named_parameters())[name].half().float()) == frozen, name


def test_what_does_not_fit_is_refused(saved, restoring, stylizing, tmp_path):
    with pytest.raises(OptionError, match="asks for a network that enlarges ×1; this one enlarges ×2"):
        train_restorer(restoring(start=saved(), config={}))
    with pytest.raises(OptionError, match="this training wants a"):
        train_style(stylizing(start=saved(), config={}))
    with pytest.raises(CheckpointError, match="from 1 to 1 channels"):
        load(saved(channels=1))
    torch.save({"weight": torch.zeros(2)}, tmp_path / "unknown.pth")
    (tmp_path / "text.pth").write_text("nothing")
    images.write(tmp_path / "picture.png", photo(8, 8))
    for name in ("unknown.pth", "text.pth", "picture.png"):
        with pytest.raises(CheckpointError, match="holds no network that spandrel knows"):
            load(tmp_path / name)


def test_without_spandrel_it_says_what_to_install(saved, monkeypatch):
    path = saved()
    monkeypatch.setitem(sys.modules, "spandrel", None)
    with pytest.raises(MissingDependency, match=re.escape(install("zoo"))):
        load(path)


def test_integers_in_a_checkpoint_stay_integers(tmp_path):
    class Counting(checkpoint.Network):
        architecture, multiple, receptive_field = "counting", 1, 0

        def __init__(self):
            super().__init__()
            self.config = {}
            self.weight = torch.nn.Parameter(torch.rand(3))
            self.register_buffer("index", torch.tensor([5, 100_003]))

    from safetensors.torch import load_file

    checkpoint.save_checkpoint(tmp_path / "c.safetensors", Counting(), name="c", task="restore", recipe={})
    held = load_file(tmp_path / "c.safetensors")
    assert held["index"].tolist() == [5, 100_003]
    assert held["weight"].dtype == torch.float16
