"""`impasto quantize` as users meet it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from support.command_line import cli
from support.precision_graphs import photos

from impasto.package.manifest import read_manifest

MakePackage = Callable[..., Path]


def test_quantize_writes_shows_and_reports(make_package: MakePackage, tmp_path: Path) -> None:
    package, folder = make_package(), photos(tmp_path / "photos")
    report = tmp_path / "report.json"
    common = ("quantize", package, "--calibrate", folder, "--degrade", "none", "--budget", "psnr=25,ssim=0.8")
    code, stdout, stderr = cli(*common, "--for", "openvino", "--json", report, "--sensitivity")
    assert code == 0, stderr
    assert f"wrote {package / 'model.int8-openvino.onnx'}: PSNR" in stdout
    assert "█" in stdout, "each layer has its bar"
    assert "8 pictures" in stderr
    found = json.loads(report.read_text())
    assert found["made"][0]["quality"]["ssim"] >= 0.8
    assert [loss["label"] for loss in found["made"][0]["losses"]] == ["w1", "w2"]
    assert read_manifest(package).precisions() == ("fp32", "int8")
    assert "model.int8-openvino.onnx" in cli("inspect", package)[1]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--to", "int4"), "unknown precision 'int4'; choose one of fp16, int8, auto"),
        (("--for", "coral"), "unknown target backend coral"),
        (("--budget", "lots"), "cannot read the budget 'lots'"),
        (("--calibration", "guess"), "unknown calibration"),
        (("--budget", "style=3%"), "--painting"),
        (("--chart", "chart.png"), "--chart is gone: --sensitivity shows what each layer costs"),
        (("--calibrate", "/nowhere"), "is not a folder"),
        (("--to", "fp16", "--budget", "psnr=99.9", "--degrade", "none"), "no assignment holds the budget"),
    ],
)
def test_a_wrong_wish_is_one_line_and_leaves_the_package(
    make_package: MakePackage, tmp_path: Path, options: tuple[str, ...], words: str
) -> None:
    package, folder = make_package(), photos(tmp_path / "photos", 4)
    before = {path.name: path.read_bytes() for path in package.iterdir()}
    code, _, stderr = cli("quantize", package, "--calibrate", folder, *options)
    lines = [line for line in stderr.splitlines() if line.strip()]
    assert (code, len(lines)) == (1, 1)
    assert words in lines[0]
    assert {path.name: path.read_bytes() for path in package.iterdir()} == before
