"""Laws of `impasto eval`: what changes nothing scores like the damage, figures are training's own, errors are one line."""

from __future__ import annotations

import json
import math
import shutil

import numpy as np
import pytest
import torch
import typer
from skimage.metrics import structural_similarity
from support.small_training import SMALL, photo, shaken
from torchmetrics.functional.image import structural_similarity_index_measure
from typer.testing import CliRunner

from impasto import evaluation, images
from impasto.cli.console import Commands
from impasto.cli.eval import evaluate as eval_verb
from impasto.errors import OptionError
from impasto.evaluation import Score, evaluate, evaluate_restorer, evaluate_stylizer
from impasto.export.from_checkpoint import export_checkpoint
from impasto.export.quantization.search import QuantizeOptions, quantize
from impasto.images import read_painting
from impasto.metrics import EQUAL_PSNR, ssim_rgb
from impasto.training import validation as metrics
from impasto.training.backbones import load_vgg16
from impasto.training.checkpoint import round_to_half, save_checkpoint
from impasto.training.degrade import parse
from impasto.training.losses import StyleTarget
from impasto.training.networks import build

pytest_plugins = ("support.training_fixtures",)


@pytest.fixture(scope="module")
def clean(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clean")
    for index in range(3):
        images.write(folder / f"{index}.png", photo(50 + 8 * index, 68, index))
    return folder


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A function that makes a package of a network."""

    def make(network, task):
        round_to_half(network)
        folder = tmp_path_factory.mktemp(task)
        save_checkpoint(folder / "checkpoint.safetensors", network, name=task, task=task, recipe={})
        return export_checkpoint(folder / "checkpoint.safetensors")

    return make


def identity(**config):
    network = build("unet-restorer", {**SMALL["unet-restorer"], **config}).eval()
    with torch.no_grad():
        network.head.weight.zero_()
    return network


@pytest.fixture(scope="module")
def doing_nothing(exported):
    return exported(identity(), "denoise")


@pytest.fixture(scope="module")
def stylizer(exported):
    return exported(shaken("thumbnail-stylizer"), "stylize")


def test_a_restorer_that_changes_nothing_scores_what_the_damage_scores(doing_nothing, clean, vgg):
    result = evaluate_restorer(doing_nothing, clean, ["noise:0-40", "missing:20"], vgg=vgg)
    assert [row.name for row in result.conditions] == [
        *(f"noise:{s}-{s}" for s in (0, 10, 20, 30, 40)),
        *(f"missing:{s}-{s}" for s in (0, 5, 10, 15, 20)),
    ]
    for row in result.conditions:
        for name in ("PSNR", "SSIM", "VGG"):
            assert row.scores[name].values == pytest.approx(row.scores[f"damaged {name}"].values)
    perfect = result.conditions[0].scores
    assert (perfect["PSNR"].mean, perfect["SSIM"].mean) == (EQUAL_PSNR, pytest.approx(1))
    noisy = [row.scores["PSNR"].mean for row in result.conditions[:5]]
    assert noisy == sorted(noisy, reverse=True)
    assert noisy[2] == pytest.approx(20 * np.log10(255 / 20), abs=0.6)
    assert len(result.panels) == 6


def test_figures_of_a_restorer_are_those_of_training(exported, clean):
    network = shaken("unet-restorer")
    damage = parse("shake:9+noise:0-5")
    result = evaluate_restorer(exported(network, "deblur"), clean, [str(damage)])
    pictures = [images.read(file).rgb for file in images.list_folder(clean)]
    trained = metrics.restore_psnr(network, pictures, damage)
    judged = {f"psnr_{row.name}": row.scores["PSNR"].mean for row in result.conditions}
    assert {name: judged[name] for name in trained} == pytest.approx(trained, abs=0.05)


def test_figures_of_a_stylizer_are_those_of_training(stylizer, clean, vgg):
    painting = clean / "0.png"
    result = evaluate_stylizer(stylizer, clean, painting, vgg=vgg)
    backbone = load_vgg16(vgg)
    network = shaken("thumbnail-stylizer")
    round_to_half(network)
    target = StyleTarget(evaluation._features(backbone, read_painting(painting)))
    pictures = [images.read(file).rgb for file in images.list_folder(clean)]
    trained = metrics.style_objective(network, pictures, backbone, target)
    scores = result.conditions[0].scores
    for name in ("content", "style", "objective"):
        assert scores[name].mean == pytest.approx(trained[name], rel=0.02)


def test_upscaling_is_compared_with_bicubic(exported, clean):
    result = evaluate_restorer(exported(identity(scale=2), "upscale"), clean, ["down:2"])
    (row,) = result.conditions
    assert row.scores["damaged PSNR"].mean > row.scores["PSNR"].mean > 15, "bicubic beats repeated pixels"


def test_ssim_is_scikit_images():
    one, other = photo(64, 80, 0), photo(64, 80, 0) // 2 + 40
    theirs = structural_similarity(
        one, other, channel_axis=2, data_range=255, gaussian_weights=True, use_sample_covariance=False
    )
    assert ssim_rgb(one, other) == pytest.approx(theirs, abs=5e-3)


def test_ssim_is_torchmetrics():
    generator = np.random.default_rng(0)
    one = photo(61, 83, 0)
    for other in (one, photo(61, 83, 1), np.clip(one + generator.normal(0, 9, one.shape), 0, 255).astype(np.uint8)):
        pair = (torch.from_numpy(picture).permute(2, 0, 1)[None].double() / 255 for picture in (one, other))
        assert ssim_rgb(one, other) == pytest.approx(
            float(structural_similarity_index_measure(*pair, data_range=1.0)), abs=1e-6
        )


def test_evaluate_takes_damages_or_a_painting(photos, tmp_path):
    with pytest.raises(OptionError, match="style is a stylizer's"):
        evaluate(tmp_path, photos, ["noise:25-25"], style="waves")
    with pytest.raises(OptionError, match="no damage"):
        evaluate(tmp_path, photos, [])


def test_confidence_intervals():
    score = Score((1.0, 2.0, 3.0))
    assert score.mean == 2
    assert score.interval == pytest.approx(4.303 / math.sqrt(3))
    assert math.isnan(Score((1.0,)).interval)
    assert Score((1.0,)).to_json()["confidence_95"] is None
    generator = np.random.default_rng(0)
    inside = [abs((s := Score(tuple(generator.normal(0, 1, 5)))).mean) < s.interval for _ in range(2000)]
    assert np.mean(inside) == pytest.approx(0.95, abs=0.015)


def cli(*arguments):
    app = typer.Typer(cls=Commands)
    app.callback()(lambda: None)
    app.command("eval")(eval_verb)
    return CliRunner().invoke(app, ["eval", *map(str, arguments)], env={"COLUMNS": "200"})


def test_the_verb_writes_table_json_and_sheet(doing_nothing, clean, tmp_path):
    report, sheet = tmp_path / "report.json", tmp_path / "sheet.png"
    result = cli(doing_nothing, "--photos", clean, "--degrade", "jpeg:10-40", "--json", report, "--sheet", sheet)
    assert result.exit_code == 0, result.output
    assert "jpeg:25-25" in result.output
    found = json.loads(report.read_text())
    assert found["pictures"] == ["0.png", "1.png", "2.png"]
    assert len(found["conditions"][0]["scores"]["PSNR"]["values"]) == 3
    assert images.read(sheet).rgb.shape[0] > 300


def test_every_precision_of_a_package_is_judged(doing_nothing, clean, tmp_path):
    copy = tmp_path / "copy"
    few = tmp_path / "few"
    few.mkdir()
    for index in range(4):
        images.write(few / f"{index}.png", photo(40, 48, index))
    for to in ("fp16", "int8"):
        quantize(doing_nothing, QuantizeOptions(few, to, ("openvino",) if to == "int8" else (), output=copy))
    report = tmp_path / "report.json"
    result = cli(copy, "--photos", clean, "--degrade", "noise:20-20", "--every-precision", "--json", report)
    assert result.exit_code == 0, result.output
    found = json.loads(report.read_text())
    assert list(found) == ["fp32", "fp16", "int8 openvino"]
    assert {graph["model"]["precision"] for graph in found.values()} == {"fp32", "fp16", "int8"}
    for name, graph in found.items():
        mean = graph["conditions"][0]["scores"]["PSNR"]["mean"]
        assert mean == pytest.approx(found["fp32"]["conditions"][0]["scores"]["PSNR"]["mean"], abs=0.5)
        assert f"{name} " in result.output
    bare = cli(copy / "model.onnx", "--photos", clean, "--degrade", "noise:20", "--every-precision")
    assert (bare.exit_code, "name the package folder" in " ".join(bare.output.split())) == (1, True)
    both = cli(copy, "--photos", clean, "--degrade", "noise:20", "--every-precision", "--precision", "int8")
    assert (both.exit_code, "--every-precision takes no --precision" in " ".join(both.output.split())) == (1, True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "--degrade DAMAGE"),
        (("--degrade", "fog:3"), "cannot read the damage"),
        (("--degrade", "down:2"), "leave out down:"),
        (("--degrade", "noise:25", "--painting", "x.png"), "--degrade DAMAGE"),
        (("--degrade", "noise:25", "--style", "wave"), "--style is a stylizer's"),
        (("--degrade", "noise:25", "--strength", "0.5"), "takes no strength"),
        (("--degrade", "noise:25", "--sheet", "sheet.doc"), "picture format"),
        (("--painting", "missing.png"), "missing.png does not exist"),
        (("--degrade", "noise:25", "--vgg", "missing.safetensors"), "no VGG16 weights"),
    ],
)
def test_what_cannot_be_judged_is_one_line(arguments, message, doing_nothing, clean):
    result = cli(doing_nothing, "--photos", clean, *arguments)
    assert result.exit_code == 1
    (line,) = [line for line in result.stderr.splitlines() if line.strip()]
    assert line.startswith("error: ")
    assert message in line


def test_a_restorer_is_no_stylizer(doing_nothing, clean):
    refused = cli(doing_nothing, "--photos", clean, "--painting", clean / "0.png")
    assert "is a network for denoise; judge it with --degrade" in refused.stderr


def test_of_several_styles_the_painting_s_is_named(exported, clean):
    several = exported(shaken("thumbnail-stylizer", styles=["photo", "wave", "night"]), "stylize")
    with pytest.raises(OptionError, match="draws wave, night; say with --style"):
        evaluate_stylizer(several, clean, clean / "0.png")


def test_what_cannot_be_read_is_left_out_and_said(doing_nothing, clean, tmp_path):
    mixed = tmp_path / "mixed"
    shutil.copytree(clean, mixed)
    (mixed / "1a.jpg").write_bytes(b"this was a photo once")
    images.write(mixed / "tiny.png", photo(12, 40))
    report = tmp_path / "report.json"
    done = cli(doing_nothing, "--photos", mixed, "--degrade", "noise:25", "--json", report)
    assert done.exit_code == 0, done.output
    said = " ".join(done.stderr.split())
    assert "1a.jpg" in said
    assert "tiny.png is 12 x 40" in said
    found = json.loads(report.read_text())
    assert (found["pictures"], len(found["skipped"])) == (["0.png", "1.png", "2.png"], 2)
    alone = evaluate_restorer(doing_nothing, clean, ["noise:25"])
    assert found["conditions"] == alone.to_json()["conditions"]


def test_a_stylizer_is_no_restorer_and_small_pictures_are_refused(stylizer, doing_nothing, clean, tmp_path):
    assert "judge it with --painting" in cli(stylizer, "--photos", clean, "--degrade", "noise:25").stderr
    images.write(tmp_path / "small.png", photo(12, 40))
    assert "judging needs 16" in cli(doing_nothing, "--photos", tmp_path, "--degrade", "noise:25").stderr
    assert "is not a folder" in cli(doing_nothing, "--photos", tmp_path / "x", "--degrade", "noise:25").stderr
