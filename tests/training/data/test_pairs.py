"""Pairs of pictures, and the split of files into what is learnt, looked at, and judged once."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from support.small_training import SMALL, photo
from typer.testing import CliRunner

from impasto import images
from impasto.errors import OptionError, PictureError, TrainingError
from impasto.training import checkpoint
from impasto.training import validation as metrics
from impasto.training.data.crops import CropSampler
from impasto.training.data.pairs import read_pairs
from impasto.training.data.photos import Photos, read_photos
from impasto.training.degrade import parse
from impasto.training.loop import state
from impasto.training.loop.options import FitOptions
from impasto.training.loop.processes import Processes
from impasto.training.networks import build
from impasto.training.restoration import train_restorer
from impasto.training.style import train_style

pytest_plugins = ("support.training_fixtures",)
CPU = torch.device("cpu")


def write_pairs(folder, scale=1, count=6, side=40):
    """Sources are darker and of another format; targets are `scale` times as large."""
    sources, targets = folder / "sources", folder / "targets"
    sources.mkdir()
    targets.mkdir()
    for index in range(count):
        target = photo(scale * (side + 8 * index), scale * 56, index)
        small = Image.fromarray(target).resize((56, side + 8 * index), Image.Resampling.BOX)
        images.write(sources / f"{index}.bmp", (np.asarray(small) * 0.8).astype(np.uint8))
        images.write(targets / f"{index}.png", target)
    return sources, targets


def test_partners_are_found_by_their_stems(tmp_path):
    sources, targets = write_pairs(tmp_path, scale=2)
    pairs = read_pairs(sources, targets, smallest=32)
    assert pairs.scale == 2
    assert pairs.names == tuple(f"{index}.bmp" for index in range(6))
    for source, target in zip(pairs.pictures, pairs.targets, strict=True):
        assert target.shape[:2] == (2 * source.shape[0], 2 * source.shape[1])


@pytest.mark.parametrize("scale", [1, 2, 3])
@pytest.mark.parametrize("turns", [False, True])
def test_crops_of_both_show_the_same_place(scale, turns):
    """Each source pixel holds its own number, and so do the scale x scale pixels of its target."""
    numbers = np.arange(40 * 48 * 3, dtype=np.int64).reshape(40, 48, 3) * 37 % 251
    source = numbers.astype(np.uint8)
    pairs = Photos(
        (source, source[:36]), ("a", "b"), (), tuple(p.repeat(scale, 0).repeat(scale, 1) for p in (source, source[:36]))
    )
    batch = CropSampler(pairs, 32, 8, CPU, seed=0, turns=turns).batch(0)
    assert batch.targets.shape == (8, 3, 32 * scale, 32 * scale)
    assert torch.equal(batch.targets, batch.crops.repeat_interleave(scale, 2).repeat_interleave(scale, 3))
    lone = CropSampler(replace(pairs, targets=()), 32, 8, CPU, seed=0, turns=turns).batch(0)
    assert torch.equal(lone.crops, batch.crops), "targets change nothing about sources"
    assert lone.targets is None
    halves = [CropSampler(pairs, 32, 8, CPU, seed=0, turns=turns, processes=Processes(r, 2)).batch(0) for r in range(2)]
    assert torch.equal(torch.cat([half.targets for half in halves]), batch.targets)


def test_names_without_a_partner_are_refused_and_counted(tmp_path):
    sources, targets = write_pairs(tmp_path)
    (sources / "3.bmp").unlink()
    (sources / "4.bmp").unlink()
    (targets / "0.png").unlink()
    with pytest.raises(TrainingError) as caught:
        read_pairs(sources, targets, smallest=32)
    assert f"1 of {sources} (such as 0.bmp) without a partner in {targets}" in str(caught.value)
    assert f"2 of {targets} (such as 3.png) without a partner in {sources}" in str(caught.value)


def test_two_files_for_one_name_are_refused(tmp_path):
    sources, targets = write_pairs(tmp_path)
    images.write(targets / "3.bmp", photo(64, 56))
    with pytest.raises(TrainingError, match="same name but for its ending"):
        read_pairs(sources, targets, smallest=32)


@pytest.mark.parametrize("size", [(64, 57), (63, 56), (32, 28), (128, 56)])
def test_sizes_that_do_not_fit_are_refused(tmp_path, size):
    sources, targets = write_pairs(tmp_path)
    images.write(targets / "3.png", photo(*size))
    with pytest.raises(TrainingError, match="has its source's size or a multiple"):
        read_pairs(sources, targets, smallest=24)


def test_one_scale_for_all(tmp_path):
    sources, targets = write_pairs(tmp_path)
    images.write(targets / "3.png", photo(128, 112))
    with pytest.raises(TrainingError, match=r"3\.png is 2 times the size"):
        read_pairs(sources, targets, smallest=24)


def test_broken_and_small_pairs_are_left_out_as_a_whole(tmp_path):
    sources, targets = write_pairs(tmp_path)
    (targets / "1.png").write_bytes(b"\x89PNG this was a picture once")
    images.write(sources / "2.bmp", photo(20, 56))
    images.write(targets / "2.png", photo(20, 56))
    pairs = read_pairs(sources, targets, smallest=24)
    assert pairs.names == ("0.bmp", "3.bmp", "4.bmp", "5.bmp")
    assert len(pairs.targets) == 4
    assert len(pairs.skipped) == 2
    with pytest.raises(TrainingError, match="none of the 6 pairs"):
        read_pairs(sources, targets, smallest=500)
    with pytest.raises(PictureError, match="not a folder"):
        read_pairs(sources, tmp_path / "missing", smallest=24)


def test_pairs_are_learnt_and_told(tmp_path, restoring):
    pairs = write_pairs(tmp_path)
    options = restoring(
        photos=None, pairs=pairs, steps=60, batch=4, test_share=0.25,
        fit=FitOptions(steps=60, device="cpu", learning_rate=3e-3, averaging=0.9),
    )  # fmt: skip
    result = train_restorer(options)
    assert result.quality["psnr"] > result.quality["psnr_before"] + 3, "a darkening by 0.8 is soon undone"
    made = checkpoint.load(result.checkpoint)
    assert (made.task, made.network.scale) == ("restore", 1)
    assert made.recipe["data"]["folder"] == pairs[0].name
    assert made.recipe["data"]["targets"] == pairs[1].name
    assert "degradation" not in made.recipe
    names = made.recipe["split"]
    assert sorted(names["train"] + names["validation"] + names["test"]) == [f"{i}.bmp" for i in range(6)]
    assert made.quality["test"] == result.test
    preview = images.read(result.checkpoint.parent / "preview.png").rgb
    assert preview.shape[1] == 3 * 56


def test_pairs_unlearn_an_inpainter_s_marker(tmp_path, restoring):
    inpainter = train_restorer(restoring("inpaint", steps=1, degradation=parse("missing:30"))).checkpoint
    options = restoring(photos=None, pairs=write_pairs(tmp_path), steps=1, start=inpainter, config={})
    assert checkpoint.load(train_restorer(options).checkpoint).network.config["marker"] is None


def test_pairs_show_their_own_damage(tmp_path):
    from impasto.cli.app import app

    command = ["train", "restore", "a", "--pairs", str(tmp_path), str(tmp_path), "--degrade", "noise:5"]
    done = CliRunner().invoke(app, command)
    assert "leave --degrade out" in str(done.exception) + done.output


def test_large_pairs_are_judged_in_their_middle():
    target = photo(90, 2200)
    source = target[::2, ::2].copy()
    found = metrics.middle_of_pair(source, target)
    assert [part.shape for part in found] == [(45, 512, 3), (90, 1024, 3)]
    np.testing.assert_array_equal(found[0], found[1][::2, ::2])
    small = metrics.middle_of_pair(source[:, :100], target[:, :200])
    assert [part.shape for part in small] == [(45, 100, 3), (90, 200, 3)]


def test_larger_targets_make_an_upscaler(tmp_path, restoring):
    options = restoring(photos=None, pairs=write_pairs(tmp_path, scale=2), steps=1)
    made = checkpoint.load(train_restorer(options).checkpoint)
    assert (made.task, made.network.scale) == ("upscale", 2)
    assert set(made.quality["validation"]) == {"psnr"}
    with pytest.raises(OptionError, match="these pairs ask for a network that enlarges ×2"):
        train_restorer(replace(options, config={**SMALL["unet-restorer"], "scale": 1}))


def test_photos_or_pairs(restoring, stylizing, tmp_path):
    with pytest.raises(OptionError, match="name one of the two"):
        restoring(photos=None)
    with pytest.raises(OptionError, match="name one of the two"):
        restoring(pairs=(tmp_path, tmp_path))
    with pytest.raises(OptionError, match="judged by pairs"):
        restoring(photos=None, pairs=(tmp_path, tmp_path), validation=tmp_path)
    with pytest.raises(OptionError, match="folder of photos"):
        stylizing(photos=None)
    for wrong in ({"test_share": 0.6}, {"test_share": 0.1, "test": tmp_path}):
        with pytest.raises(OptionError, match="test share"):
            restoring(**wrong)


def test_no_file_is_for_two_purposes(photos, restoring):
    result = train_restorer(restoring(steps=1, test_share=0.3))
    made = checkpoint.load(result.checkpoint)
    split = made.recipe["split"]
    assert sorted(split["train"] + split["validation"] + split["test"]) == [f"{i}.png" for i in range(6)]
    assert all(split.values())
    kept = {name: picture for name, picture in zip(*_named(photos), strict=True) if name in split["test"]}
    assert metrics.denoise_psnr(made.network, list(kept.values())) == pytest.approx(result.test)
    assert "test set: psnr_sigma_15" in str(result)
    assert "2 broken or small files were left out" in str(result)


def _named(folder):
    read = read_photos(folder, smallest=16)
    return read.names, read.pictures


def test_a_folder_of_its_own_for_the_test_set(others, stylizing):
    result = train_style(stylizing(test=others))
    made = checkpoint.load(result.checkpoint)
    assert len(made.recipe["split"]["test"]) == 6
    assert made.recipe["data"]["test"]["folder"] == others.name
    assert set(made.quality["test"]) == set(made.quality["validation"])


def test_what_two_runs_differ_in_is_said():
    def made(network=None, steps=1, **recipe):
        network = network or build("unet-restorer", SMALL["unet-restorer"])
        return state.fingerprint(
            {"data": {"photos": 4}, "split": {"train": ["a"]}, **recipe}, FitOptions(steps=steps), network
        )

    assert state.differences(made(), made(command="another")) == []
    assert state.differences(made(), made(steps=2)) == ["steps was 1 and is 2"]
    assert state.differences(made(), made(data={"photos": 5})) == ["data: photos was 4 and is 5"]
    assert state.differences(made(), made(split={"train": ["b"]})) == ["split: train was ['a'] and is ['b']"]
    upscaler = build("unet-restorer", {**SMALL["unet-restorer"], "scale": 2})
    assert state.differences(made(), made(upscaler)) == ["network: scale was 1 and is 2"]


def test_runs_that_began_before_fingerprints_told_so_much_can_be_gone_on_with():
    own = state.fingerprint({"split": {"train": ["a"]}, "digests": {}}, FitOptions(steps=1), build("unet-restorer", {}))
    _, mathematics = json.loads(own)
    assert state.differences(json.dumps([{"command": ""}, mathematics]), own) == []
    assert state.differences(json.dumps([{"command": "", "crop": 3}, mathematics]), own) == ["crop was 3 and is None"]
