"""Packs for a GPU machine: what is in them, how large they are, and that they train elsewhere with nothing but Python."""

from __future__ import annotations

import io
import os
import shlex
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.small_models import picture

from impasto import images
from impasto.errors import OptionError, OutputError, PictureError
from impasto.packing import pack as packing
from impasto.packing import photos as packed_photos
from impasto.packing.photos import PackedPhoto
from impasto.training import zoo

NETWORK = "--config widths=[16,32,32] --config encoder=[1,1] --config middle=1 --config decoder=[1,1]"
TRAINING = f"restore tiny --degrade noise:5-9 --steps 3 --batch 1 --crop 32 --device cpu {NETWORK}".split()


@pytest.fixture
def photos(tmp_path) -> Path:
    """A folder of four photos, two of them JPEG, and of one file that is none."""
    folder = tmp_path / "own" / "photos"
    folder.mkdir(parents=True)
    for index in range(2):
        images.write(folder / f"{index}.png", picture(96, 120, index))
        images.write(folder / f"{index}.jpg", picture(120, 96, index))
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 once")
    return folder


def with_photos(folder: Path) -> list[str]:
    return [*TRAINING, "--photos", str(folder)]


def run(pack: Path, out: Path, minutes: str) -> subprocess.CompletedProcess[str]:
    """run.sh in an environment that holds nothing else."""
    environment = {"PATH": "/usr/bin:/bin", "PYTHON": sys.executable, "OUT": str(out), "MINUTES": minutes}
    return subprocess.run(["sh", str(pack / "run.sh")], env=environment, capture_output=True, text=True, check=False)


def test_a_pack_trains_elsewhere_and_goes_on(photos, tmp_path):
    made = packing.pack(with_photos(photos), tmp_path / "pack.tar", limit_mib=10)
    shutil.rmtree(photos.parent)  # that machine has none
    with tarfile.open(made.path) as tar:
        tar.extractall(tmp_path / "there", filter="data")
    there, first, second = tmp_path / "there" / "pack", tmp_path / "first", tmp_path / "second"
    code = "import impasto.training as t, impasto.kernels as k; print(t.__file__, k.__file__)"
    paths = {"PYTHONPATH": str(there / "code")}
    found = subprocess.run(
        [sys.executable, "-c", code], env=paths, cwd=there, capture_output=True, text=True, check=True
    ).stdout
    assert found.count(str(there)) == 2, "Impasto itself comes from the pack"

    done = run(there, first, "0.00001")
    assert done.returncode == 0, done.stderr
    assert {"checkpoint.safetensors", "state.pt", "log.jsonl"} <= {path.name for path in first.iterdir()}
    shutil.move(first, there / "run")
    done = run(there, second, "9")
    assert done.returncode == 0, done.stderr
    assert "3 steps" in done.stdout
    assert not (second / "state.pt").exists()
    steps = [line for line in (second / "log.jsonl").read_text().splitlines() if '"seconds"' in line]
    assert len(steps) == 2, "the first call's step, and the others"


def test_large_files_come_back_in_parts_and_are_joined(photos, tmp_path):
    pack, first, second = packing.pack(with_photos(photos), tmp_path / "pack").path, tmp_path / "1", tmp_path / "2"
    trains = tmp_path / "python"
    # Stands for Python: what it "trains" is a state of 31 MB, or what it found.
    trains.write_text(
        '#!/bin/sh\n[ "$1" = -c ] && exit 0\n[ -e "$OUT/state.pt" ] || head -c 31000000 /dev/urandom > "$OUT/state.pt"\n'
    )
    trains.chmod(0o755)
    environment = {"PATH": os.environ["PATH"], "PYTHON": str(trains)}
    subprocess.run(["sh", str(pack / "run.sh")], env={**environment, "OUT": str(first)}, check=True)
    parts = sorted(first.iterdir())
    assert [part.name for part in parts] == ["state.pt.part-00", "state.pt.part-01"]
    whole = b"".join(part.read_bytes() for part in parts)
    shutil.move(first, pack / "run")
    subprocess.run(["sh", str(pack / "run.sh")], env={**environment, "OUT": str(second)}, check=True)
    assert b"".join(part.read_bytes() for part in sorted(second.iterdir())) == whole


def test_what_lacks_there_is_named(photos, tmp_path, monkeypatch):
    monkeypatch.setattr(packing, "NEEDED", ("numpy", "no_such_library"))
    done = run(packing.pack(with_photos(photos), tmp_path / "pack").path, tmp_path / "out", "1")
    assert done.returncode == 1
    assert "no_such_library" in done.stderr


def test_a_pack_holds_code_libraries_photos_and_no_more(photos, tmp_path):
    made = packing.pack(with_photos(photos), tmp_path / "pack")
    held = {path.relative_to(made.path) for path in made.path.rglob("*") if path.is_file()}
    assert {path.parts[0] for path in held} == {"code", "carried", "photos", "run.sh"}
    assert Path("code/impasto/training/networks/unet_restorer.py") in held
    assert {path.suffix for path in held if path.parts[0] == "code"} == {".py"}
    assert sum(made.sizes.values()) == sum((made.path / path).stat().st_size for path in held)
    assert sum(made.counts.values()) == len(held)
    said = str(made)
    for word in ("code", "libraries", "photos", "broken.jpg", "left out", "gram.zip"):
        assert word in said
    assert str(photos) not in (made.path / "run.sh").read_text()


def test_options_with_paths_get_their_places(photos, tmp_path, make_package):
    package, vgg, painting = make_package(), tmp_path / "vgg.safetensors", tmp_path / "wave.png"
    vgg.write_bytes(b"weights")
    images.write(painting, picture(64, 64))
    (package / "picture.jpg").write_bytes(b"a picture of the model's")
    words = [
        "style",
        "wave",
        f"--photos={photos}",
        "--painting",
        str(painting),
        f"--vgg={vgg}",
        "--start",
        str(package),
    ]
    made = packing.pack(words, tmp_path / "pack")
    placed = shlex.split(made.command)
    for option, place in (
        ("--photos", "photos/photos"),
        ("--painting", "paintings/wave.png"),
        ("--vgg", "weights/vgg.safetensors"),
        ("--start", f"weights/{package.name}"),
    ):
        assert placed[placed.index(option) + 1] == place
        assert (made.path / place).exists()
    assert not (made.path / "weights" / package.name / "picture.jpg").exists()
    assert (made.path / "weights" / package.name / "model.onnx").exists()
    assert (made.path / "code/impasto/kernels/gram.zip").exists(), "on a GPU, stylizers need it"


def test_folders_of_one_name_stay_apart(photos, tmp_path):
    other = tmp_path / "other" / "photos"
    other.mkdir(parents=True)
    images.write(other / "0.png", picture(64, 64, 9))
    made = packing.pack([*with_photos(photos), "--photos", str(other)], tmp_path / "pack")
    assert "photos/photos --photos photos/2/photos" in made.command
    assert made.counts["photos"] == 5


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "restore NAME"),
        (["export", "x"], "restore NAME"),
        (["nobody"], "restore NAME"),
        ([*TRAINING, "-o", "runs/x"], "-o itself"),
        ([*TRAINING, "--minutes", "3"], "--minutes itself"),
        ([*TRAINING, "--pairs", "a", "b"], "pairs cannot be packed"),
        ([*TRAINING, "--start", "nobody"], "nobody is no file"),
    ],
)
def test_commands_that_cannot_be_packed_are_refused_and_leave_nothing(words, said, tmp_path):
    with pytest.raises(OptionError, match=said):
        packing.pack(words, tmp_path / "pack")
    assert not (tmp_path / "pack").exists()


def test_the_standard_sets_are_never_packed(tmp_path):
    (tmp_path / "sets" / "Set5").mkdir(parents=True)
    for folder in (tmp_path / "sets" / "Set5", tmp_path / "sets"):
        with pytest.raises(OptionError, match="never trained on"):
            packing.pack(with_photos(folder), tmp_path / "pack")


def test_nothing_is_written_over(photos, tmp_path):
    with pytest.raises(OutputError, match="there already"):
        packing.pack(with_photos(photos), tmp_path)
    with pytest.raises(PictureError, match="not a folder"):
        packing.pack(with_photos(tmp_path / "nowhere"), tmp_path / "pack")


def test_the_command_line(photos, tmp_path, capsys):
    packing.main(["-o", str(tmp_path / "pack"), "--limit", "20", "--minutes", "5", *with_photos(photos)])
    assert "photos" in capsys.readouterr().out
    assert "${MINUTES:-5}" in (tmp_path / "pack/run.sh").read_text()
    with pytest.raises(SystemExit, match="error: got"):
        packing.main(["-o", str(tmp_path / "other")])


def test_a_recipe_is_packed_by_its_name_one_run_after_the_other(tmp_path, monkeypatch, photos):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(zoo, "CLEAN", ("photos/train",))
    for part in ("photos/train", zoo.EVAL):
        shutil.copytree(photos, tmp_path / "data" / part)
    stages = ("--steps 1", "--steps 2")
    monkeypatch.setitem(
        zoo.ZOO, "small", zoo.Recipe("", "--batch 1", stages, stages, judged_by=("noise:5",), fresh=True)
    )
    asked = ["--limit", "20", "--data", str(tmp_path / "data"), "small"]
    packing.main(["-o", "first", *asked])
    script = Path("first/run.sh").read_text()
    assert (
        f"train restore small --batch 1 --steps 1 --terms {shlex.quote(zoo._TERMS)} --photos photos/train --minutes"
        in script
    )

    done = zoo.run_folders("small", gpu=True)
    for folder in done:
        folder.mkdir(parents=True)
        (folder / "checkpoint.safetensors").write_bytes(b"weights")
    with pytest.raises(SystemExit, match="all runs of small are finished"):
        packing.main(["-o", "second", *asked])
    (done[1] / "checkpoint.safetensors").unlink()
    packing.main(["-o", "second", *asked])
    said = f"--steps 2 --terms {shlex.quote(zoo._TERMS)} --photos photos/train --start weights/checkpoint.safetensors"
    assert said in Path("second/run.sh").read_text()
    assert Path("second/weights/checkpoint.safetensors").read_bytes() == b"weights"


# ---- photos ----


def coded(folder: Path, room: int, truth: bool = True) -> packed_photos.PackedPhotos:
    files = {Path("in") / file.name: file for file in sorted(folder.iterdir())}
    return packed_photos.packed_photos(files, room, lambda size: size, truth=truth)


def pixels(photo: PackedPhoto) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(photo.content)).convert("RGB")).astype(int)


@pytest.fixture
def large(tmp_path) -> Path:
    """A smooth and a noisy photo of 500 x 700, as JPEG and as PNG."""
    folder = tmp_path / "large"
    folder.mkdir()
    for index in range(2):
        for suffix in ("jpg", "png"):
            images.write(folder / f"{index}.{suffix}", picture(500, 700, index), quality=90)
    return folder


def test_with_room_enough_photos_lose_nothing(large):
    for photo in coded(large, 1 << 30).photos:
        original = images.read(large / photo.place.name.removesuffix(".webp")).rgb
        np.testing.assert_array_equal(pixels(photo), original)
        assert (photo.height, photo.width) == original.shape[:2]


def test_with_less_room_photos_lose_little_and_then_their_margins(large):
    whole = sum(len(photo.content) for photo in coded(large, 1 << 30).photos)
    files = {photo.place.name for photo in coded(large, 1 << 30).photos}
    assert files == {"0.jpg", "1.jpg", "0.png.webp", "1.png.webp"}
    less = coded(large, whole - 1)
    assert "other formats than JPEG as JPEG" in less.how
    assert {photo.place.name for photo in less.photos} == {"0.jpg", "1.jpg", "0.png.jpg", "1.png.jpg"}
    room = sum(len(photo.content) for photo in less.photos) // 2
    cut = coded(large, room)
    assert "in their middle" in cut.how
    assert 0.7 * room < sum(len(photo.content) for photo in cut.photos) <= room
    for photo in cut.photos:
        original = images.read(large / photo.place.name.replace(".png.jpg", ".png")).rgb
        height, width = photo.height, photo.width
        top, left = ((a - b) // 2 // 16 * 16 for a, b in zip(original.shape[:2], (height, width), strict=True))
        middle = original[top : top + height, left : left + width].astype(int)
        assert np.sqrt(np.mean((pixels(photo) - middle) ** 2)) < 3, "levels of 255, of a noisy picture"


def test_a_cut_jpeg_keeps_its_own_quality(large):
    """Coded anew at 97, a JPEG of 90 would be twice as large, and no better."""
    (photo,) = (packed_photos._middle(Path("0.jpg"), large / "0.jpg", 320),)
    original = images.read(large / "0.jpg").rgb[80:400, 176:496].astype(int)
    error = np.mean((pixels(photo) - original) ** 2)
    assert 10 * np.log10(255**2 / max(error, 1e-9)) > 45
    share = len(photo.content) / (large / "0.jpg").stat().st_size
    assert share < 1.1 * 320 * 320 / (500 * 700)


def test_photos_to_paint_are_scaled_and_stay_whole(large):
    as_they_are = sum(len(photo.content) for photo in coded(large, 1 << 30).photos)
    light = coded(large, as_they_are - 1, truth=False)
    assert {(photo.height, photo.width) for photo in light.photos} == {(500, 700)}
    room = sum(len(photo.content) for photo in light.photos) // 2
    scaled = coded(large, room, truth=False)
    assert "scaled to at most" in scaled.how
    assert 0.3 * room < sum(len(photo.content) for photo in scaled.photos) <= room
    for photo in scaled.photos:
        assert photo.width / photo.height == pytest.approx(700 / 500, rel=0.01)
        original = images.read(large / photo.place.name.replace(".png.jpg", ".png")).rgb
        both = [images.thumbnail(drawn.astype(np.uint8), 16).astype(int) for drawn in (pixels(photo), original)]
        assert np.abs(both[0] - both[1]).mean() < 4, "the whole picture, of a noisy one"


def test_photos_that_never_fit_are_told(large):
    with pytest.raises(OptionError, match=r"do not fit into 0\.0 MiB"):
        coded(large, 1000)
