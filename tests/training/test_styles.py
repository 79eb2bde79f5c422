"""Several styles in one network: shares, training, and the same mixture in torch and in the runtime."""

from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from support.perceptual_networks import write_perceptual
from support.small_training import photo, shaken, style_options

import impasto
from impasto import images
from impasto.errors import OptionError
from impasto.export.checks.against_torch import check_package
from impasto.export.checks.style import StyleReference, check_style
from impasto.export.from_checkpoint import export_checkpoint
from impasto.export.quantization.calibration import read_pictures
from impasto.export.quantization.quality import Budget
from impasto.export.quantization.search import QuantizeOptions, quantize
from impasto.export.quantization.style_distance import paintings_of, style_distance
from impasto.runtime import StyleMeter
from impasto.runtime.loading.source import resolve
from impasto.styles import PHOTO, mixture, parse
from impasto.training import checkpoint
from impasto.training.backbones import load_vgg16
from impasto.training.data.photos import Photos
from impasto.training.inference import draw
from impasto.training.loop.options import FitOptions
from impasto.training.loop.task import TaskOptions
from impasto.training.style import STYLE_WEIGHTS, StyleTask, train_style

pytest_plugins = ("support.training_fixtures",)
STYLES = (PHOTO, "wave", "night")


class TestShares:
    @pytest.mark.parametrize(
        ("wanted", "strength", "expected"),
        [
            (None, 1.0, (0, 1, 0)),
            ("night", 1.0, (0, 0, 1)),
            ("night", 0.25, (0.75, 0, 0.25)),
            ({"wave": 1, "night": 3}, 1.0, (0, 0.25, 0.75)),
            ({"wave": 2, "night": 2}, 0.5, (0.5, 0.25, 0.25)),
            ({"photo": 1, "night": 1}, 0.5, (0.75, 0, 0.25)),
            (None, 0.0, (1, 0, 0)),
        ],
    )
    def test_what_is_asked_for_and_the_photo_for_the_rest(self, wanted, strength, expected):
        shares = mixture(STYLES, wanted, strength)
        assert shares.dtype == np.float32
        np.testing.assert_allclose(shares, expected)

    def test_one_style_alone_has_no_shares(self):
        assert mixture(()).shape == (0,)

    @pytest.mark.parametrize(
        ("known", "wanted", "strength", "said"),
        [
            (STYLES, "waves", 1.0, "unknown style 'waves'; this network knows photo, wave, night"),
            ((), "wave", 1.0, "knows one style alone"),
            ((), None, 0.5, "train it with --with-strength"),
            (("wave",), None, 0.5, "train it with --with-strength"),
            (STYLES, None, 1.5, "strength is 1.5"),
            (STYLES, None, float("nan"), "strength is nan"),
            (STYLES, {"wave": -1, "night": 2}, 1.0, "not all of them 0"),
            (STYLES, {"wave": 0}, 1.0, "not all of them 0"),
            (STYLES, {"wave": float("inf")}, 1.0, "not all of them 0"),
        ],
    )
    def test_nonsense_is_refused(self, known, wanted, strength, said):
        with pytest.raises(OptionError, match=said):
            mixture(known, wanted, strength)

    def test_the_command_line_names_styles_and_shares(self):
        assert parse(["wave=0.5", "night"]) == {"wave": 0.5, "night": 1.0}
        with pytest.raises(OptionError, match="NAME=SHARE"):
            parse(["wave=much"])


@pytest.fixture(scope="module")
def of_two_styles(photos, vgg, tmp_path_factory):
    """A trained network of two styles."""
    output = tmp_path_factory.mktemp("styles") / "run"
    return train_style(style_options(photos, vgg, output, steps=3, paintings=(photos / "0.png", photos / "1.png")))


@pytest.fixture(scope="module")
def trained_package(of_two_styles):
    """Its package; not to be changed."""
    return export_checkpoint(of_two_styles.checkpoint, of_two_styles.checkpoint.parent / "package")


def test_a_network_of_several_styles_is_trained_judged_and_exported(of_two_styles, trained_package):
    made = checkpoint.load(of_two_styles.checkpoint)
    assert made.network.styles == (PHOTO, "0", "1")
    assert made.recipe["paintings"] == ["0.png", "1.png"]
    assert {"objective 0", "objective 1", "photo psnr"} <= set(of_two_styles.quality)
    assert check_package(trained_package).passed
    with impasto.load(trained_package) as model:
        assert model.info.spec.styles == (PHOTO, "0", "1")


def test_the_runtime_mixes_as_torch_does(package_of_two):
    network = shaken("thumbnail-stylizer", styles=list(STYLES))
    checkpoint.round_to_half(network)
    picture = photo(70, 90)
    drawings = {}
    with impasto.load(package_of_two) as model:
        for name, wanted, strength in (
            ("wave", "wave", 1.0),
            ("mix", {"wave": 1, "night": 2}, 0.6),
            ("photo", None, 0.0),
        ):
            model.set_style(wanted, strength=strength)
            drawings[name] = model(picture)
            expected = draw(network, picture, mixture(STYLES, wanted, strength))
            assert np.abs(drawings[name].astype(int) - expected).max() <= 1
            (streamed,) = model.stream([picture])
            np.testing.assert_array_equal(streamed, drawings[name])
        with pytest.raises(OptionError, match="knows photo, wave, night"):
            model.set_style("starry-night")
    assert len({drawing.tobytes() for drawing in drawings.values()}) == 3


def test_a_step_teaches_one_painting_or_the_photo(vgg):
    network = shaken("thumbnail-stylizer", styles=list(STYLES))
    pictures = Photos((photo(72, 104, 0), photo(80, 96, 1)), ("0", "1"), ())
    task = StyleTask(
        network,
        load_vgg16(vgg),
        [photo(48, 64, 9), photo(64, 48, 5)],
        pictures,
        Photos((), (), ()),
        TaskOptions(crop=32, batch=1, seed=0, device=torch.device("cpu"), weights=STYLE_WEIGHTS),
    )
    lessons = [task._lesson(step) for step in range(60)]
    assert [int(number) for _, number in lessons[:4]] == [0, 1, 0, 1]
    for shares, number in lessons:
        assert float(shares.sum()) == pytest.approx(1)
        assert float(shares[2 - int(number)]) == 0  # never the other painting
    strengths = [1 - float(shares[0]) for shares, _ in lessons]
    assert strengths.count(1.0) > 30
    assert 0.0 in strengths
    assert any(0 < strength < 1 for strength in strengths)
    for step, strength in enumerate(strengths):
        if strength in (0.0, 1.0):
            with torch.no_grad():
                terms = task(*task.batch(step))
            assert (float(terms["style"]) == 0) == (strength == 0)
            assert (float(terms["photo"]) == 0) == (strength == 1)


def test_every_style_begins_as_the_one_that_is_lent(stylizing, photos):
    still = FitOptions(steps=1, learning_rate=1e-12, device="cpu")
    alone = train_style(stylizing("alone", steps=2)).checkpoint
    lent = checkpoint.load(alone).network
    several = train_style(stylizing("several", start=alone, config={}, with_strength=True, fit=still)).checkpoint
    made = checkpoint.load(several).network
    assert made.styles == (PHOTO, "0")
    picture = photo(40, 56)
    for shares in ((1, 0), (0, 1), (0.5, 0.5)):
        drawn = draw(made, picture, np.array(shares, np.float32))
        assert np.abs(drawn.astype(int) - draw(lent, picture)).max() <= 1


def test_each_style_begins_as_the_one_of_its_name(stylizing, photos, tmp_path):
    """Whatever their order and number; one that is new begins as an equal mixture of those that paint."""
    lent = shaken("thumbnail-stylizer", styles=[PHOTO, "1", "0"])
    picture = photo(40, 56)

    def begun(*paintings, **changes):
        checkpoint.save_checkpoint(tmp_path / "lent.safetensors", lent, name="two", task="stylize", recipe={})
        options = stylizing(
            "begun",
            start=tmp_path / "lent.safetensors",
            config={},
            paintings=paintings,
            fit=FitOptions(steps=1, learning_rate=1e-12, device="cpu"),
            **changes,
        )
        return checkpoint.load(train_style(options).checkpoint).network

    def alike(network, shares, wanted):
        drawn, expected = draw(network, picture, shares), draw(lent, picture, mixture(lent.styles, wanted))
        return np.abs(drawn.astype(int) - expected).max() <= 1

    strong = begun(photos / "0.png", with_strength=True)
    assert strong.styles == (PHOTO, "0")
    assert alike(strong, mixture(strong.styles), "0")
    assert alike(strong, mixture(strong.styles, strength=0), PHOTO)
    one = begun(photos / "1.png")
    assert one.styles == ()
    assert alike(one, None, "1")
    several = begun(photos / "0.png", photos / "2.png")
    assert alike(several, mixture(several.styles, "0"), "0")
    assert alike(several, mixture(several.styles, "2"), {"0": 1, "1": 1})


def test_options_that_cannot_be_are_refused(stylizing, photos):
    one, two = photos / "0.png", photos / "1.png"
    for changes, said in (
        ({"paintings": ()}, "at least one painting"),
        ({"paintings": (one, one)}, "not all different"),
        ({"paintings": (one, two), "architecture": "classic-stylizer"}, "learns one style"),
        ({"paintings": (one, two), "fit": FitOptions(steps=1, replay=True)}, "cannot change its painting"),
    ):
        with pytest.raises(OptionError, match=said):
            stylizing(**changes)
    with pytest.raises(OptionError, match="leave styles out of --config"):
        train_style(stylizing(config={"styles": ["a", "b"]}))


def test_the_slider_from_the_command_line(trained_package, tmp_path):
    from typer.testing import CliRunner

    from impasto.cli.app import app

    images.write(tmp_path / "a.png", photo(40, 40))

    def run(*options: str) -> tuple[int, bytes]:
        target = tmp_path / "out.png"
        target.unlink(missing_ok=True)
        done = CliRunner().invoke(
            app, ["run", str(trained_package), str(tmp_path / "a.png"), "-o", str(target), *options]
        )
        return done.exit_code, target.read_bytes() if target.exists() else b""

    assert run()[1] == run("--style", "0")[1]
    assert run("--style", "0=1", "--style", "1=1", "--strength", "0.5")[0] == 0
    assert run("--style", "2") == (1, b"")
    assert run("--strength", "2") == (1, b"")


@pytest.fixture(scope="module")
def exported_two(tmp_path_factory):
    folder = tmp_path_factory.mktemp("two")
    network = shaken("thumbnail-stylizer", styles=list(STYLES))
    checkpoint.save_checkpoint(folder / "c.safetensors", network, name="two", task="stylize", recipe={})
    return export_checkpoint(folder / "c.safetensors", folder / "two")


@pytest.fixture
def package_of_two(exported_two, tmp_path):
    """A package of two styles that the test may change."""
    return shutil.copytree(exported_two, tmp_path / "two")


@pytest.fixture
def paintings(tmp_path):
    for index, name in enumerate(("night", "wave")):
        images.write(tmp_path / f"{name}.png", photo(48, 64, 20 + index))
    return tmp_path / "night.png", tmp_path / "wave.png"


def test_every_style_is_calibrated_and_judged(package_of_two, tmp_path):
    (tmp_path / "photos").mkdir()
    for index in range(16):
        images.write(tmp_path / "photos" / f"{index:02}.png", photo(40, 48, index))
    source = resolve(package_of_two)
    pictures = read_pictures(tmp_path / "photos", source.manifest.spec, ["image", "context"], source.context_path)
    assert [picture.style for picture in pictures.whole] == ["wave", "night", "wave", "night"]
    assert [picture.style for picture in pictures.judged] == ["wave", "night", "wave", "night"]
    contexts = {feed["context"].tobytes() for feed in pictures.calibration}
    assert len(contexts) == len(pictures.calibration) == 12
    one, other = (picture.feed["context"] for picture in pictures.whole[:2])
    with impasto.load(package_of_two) as model:
        drawn = []
        for picture in pictures.whole[:2]:
            model.set_style(picture.style)
            drawn.append(model(picture.feed["image"][0]))
    assert not np.array_equal(one, other)
    assert not np.array_equal(*drawn)


def test_each_style_is_measured_against_the_painting_that_is_called_so(package_of_two, paintings, photos, vgg):
    assert paintings_of(STYLES, paintings) == {"night": paintings[0], "wave": paintings[1]}
    assert paintings_of((), paintings[:1]) == {None: paintings[0]}
    assert paintings_of((PHOTO, "mine"), paintings[:1]) == {"mine": paintings[0]}, (
        "a single style may be called otherwise"
    )
    for styles, files, said in (
        (STYLES, paintings[:1], "paints like wave, night; name one --painting for each"),
        (STYLES, (*paintings, paintings[0]), "Given: night.png, wave.png, night.png"),
        ((), paintings, "has one style, and 2 paintings"),
    ):
        with pytest.raises(OptionError, match=said):
            paintings_of(styles, files)
    distance = style_distance(paintings_of(STYLES, paintings), vgg)
    for file in paintings:
        own, *others = (
            distance(images.read(file).rgb, style) for style in (file.stem, *{"night", "wave"} - {file.stem})
        )
        assert own < min(others)
    options = QuantizeOptions(photos, "fp16", budget=Budget(psnr=20, style=0.5), paintings=paintings, vgg=vgg)
    (made,) = quantize(package_of_two, options).made
    assert abs(made.quality.style) < 0.5
    with pytest.raises(OptionError, match="name one --painting for each"):
        quantize(package_of_two, replace(options, paintings=paintings[:1]))


def test_a_check_of_style_draws_in_the_style_of_the_painting(package_of_two, paintings, photos, vgg, tmp_path):
    network = write_perceptual(tmp_path / "small")
    quantize(package_of_two, QuantizeOptions(photos, "fp16", budget=Budget(psnr=20)))
    picture = photo(40, 56, 3)
    images.write(tmp_path / "photo.png", picture)
    found = {
        file.stem: check_style(package_of_two, StyleReference(file, network), [tmp_path / "photo.png"])
        for file in paintings
    }
    for file in paintings:
        with impasto.load(package_of_two, backend="onnxruntime-cpu") as model, StyleMeter(file, network) as meter:
            model.set_style(file.stem)
            assert found[file.stem].reference.mean() == pytest.approx(meter(model(picture)).total)
    images.write(tmp_path / "other.png", picture)
    with pytest.raises(OptionError, match=r"paints like wave, night, and other.png is called like none of them"):
        check_style(package_of_two, StyleReference(tmp_path / "other.png", network))
