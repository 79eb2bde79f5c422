"""The comparison of precisions: what is timed in turn, what is compared with what, and that all draw one picture."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.small_models import picture

from impasto.benchmarks import Latency, precision
from impasto.benchmarks.measurement.measure import TURNS, in_turn
from impasto.benchmarks.precision import CLASSIC, EAGER, Comparison, Result, compare
from impasto.errors import PackageError
from impasto.files import sha256
from impasto.package.manifest import read_manifest

torch = pytest.importorskip("torch", reason="the comparison is with torch")

from impasto.export.from_checkpoint import export_checkpoint  # noqa: E402
from impasto.training.checkpoint import save_checkpoint  # noqa: E402
from impasto.training.networks import build  # noqa: E402


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A stylizer whose INT8 graphs, as the manifest calls them, are its FP32 graph."""
    folder = tmp_path_factory.mktemp("package")
    torch.manual_seed(0)
    network = build("thumbnail-stylizer", {"fine": 16, "coarse": 16, "blocks": 1, "after": 1})
    save_checkpoint(folder / "checkpoint.safetensors", network, name="tiny", task="stylize", recipe={})
    export_checkpoint(folder / "checkpoint.safetensors")
    Image.fromarray(picture(40, 50)).save(folder / "picture.jpg")
    manifest = json.loads((folder / "manifest.json").read_text())
    for target_backend in ("onnxruntime", "openvino"):
        name = f"model.int8-{target_backend}.onnx"
        (folder / name).write_bytes((folder / "model.onnx").read_bytes())
        entry = {"role": "model", "precision": "int8", "family": target_backend, "sha256": sha256(folder / name)}
        manifest["files"][name] = entry
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def test_all_take_turns_and_the_fastest_turn_of_a_round_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    times = iter(range(100, 0, -1))
    monkeypatch.setitem(in_turn.__globals__, "_milliseconds", lambda draw, image: (draw(image), next(times))[1])
    draws = {name: lambda image, name=name: calls.append(name) for name in "ab"}
    samples = in_turn(draws, np.zeros((1, 1, 3), np.uint8), rounds=2)
    assert calls == [*"a" * TURNS, *"b" * TURNS] * 3
    assert samples == {"a": (92, 86), "b": (89, 83)}  # the first round is not counted


def test_faster_is_the_ratio_of_medians() -> None:
    slow, fast = Result("slow", Latency((30.0, 40.0, 90.0)), None), Result("fast", Latency((8.0, 10.0, 11.0)), 41.0)
    assert Comparison("model", 8, 8, (slow, fast)).faster("fast", "slow") == 4


def test_every_way_draws_the_picture_and_the_report_holds_all(
    package: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    precision.main([str(package), "--size", "48x64", "--rounds", "1", "--variants", "--json", str(tmp_path / "r.json")])
    report = json.loads((tmp_path / "r.json").read_text())
    results = {result["name"]: result for result in report["comparisons"][0]["results"]}
    assert set(results) == {
        EAGER,
        CLASSIC,
        "onnxruntime-cpu FP32",
        "onnxruntime-cpu INT8",
        "openvino FP32",
        "openvino FP32, free sizes",
        "openvino FP32, in BF16",
        "openvino INT8",
        "openvino INT8, free sizes",
        "openvino INT8, else float32",
    }
    assert all(r["psnr_db"] > (40 if "BF16" in name else 50) for name, r in results.items() if name != CLASSIC)
    assert results[CLASSIC]["psnr_db"] is None
    assert "tiny, 48 x 64" in capsys.readouterr().out


def test_without_int8_graphs_the_command_that_makes_them_is_named(tmp_path: Path, package: Path) -> None:
    bare = tmp_path / "bare"
    bare.mkdir()
    for file in package.iterdir():
        (bare / file.name).write_bytes(file.read_bytes())
    manifest = json.loads((bare / "manifest.json").read_text())
    manifest["files"] = {name: entry for name, entry in manifest["files"].items() if "int8" not in name}
    (bare / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(PackageError, match="impasto quantize"):
        compare(str(bare), (48, 48), 1)


def test_an_earlier_runs_speed_is_written_into_a_package(
    package: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copied = shutil.copytree(package, tmp_path / "tiny")
    results = [{"name": f"openvino {name}", "median_ms": ms} for name, ms in (("FP32", 60.0), ("INT8", 12.0))]
    report = {"comparisons": [{"model": "wave", "results": results}], "environment": {"processor": "Xeon"}}
    (tmp_path / "run.json").write_text(json.dumps(report))
    for _ in range(2):  # an entry of the same processor is replaced
        precision.main([str(copied), "--record", f"{tmp_path / 'run.json'}=wave"])
    precision.main([str(copied), "--record", f"{tmp_path / 'run.json'}=wave", "--processor", "Xeon with AMX"])
    entry = {"precision": "int8", "backend": "openvino", "times_fp32": 5.0, "processor": "Xeon", "network": "wave"}
    assert read_manifest(copied).quality["speed"] == [entry, {**entry, "processor": "Xeon with AMX"}]


@pytest.mark.parametrize(
    ("argument", "text", "why"),
    [
        ("FILE=wave", "{", "cannot read"),
        ("FILE=wave", "[]", "no times of wave in OpenVINO"),
        ("FILE=wave", '{"comparisons": [{"model": "night", "results": []}]}', "no times of wave in OpenVINO"),
        ("FILE", "{}", "takes FILE=NETWORK"),
    ],
)
def test_a_report_without_the_network_changes_nothing(
    package: Path, tmp_path: Path, argument: str, text: str, why: str
) -> None:
    (tmp_path / "run.json").write_text(text)
    before = (package / "manifest.json").read_bytes()
    with pytest.raises(SystemExit, match=why):
        precision.main([str(package), "--record", argument.replace("FILE", str(tmp_path / "run.json"))])
    assert (package / "manifest.json").read_bytes() == before


def test_no_speed_is_written_into_what_came_with_impasto(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(SystemExit, match="copy its folder first"):
        precision.main(["great-wave", "--record", f"{tmp_path / 'run.json'}=great-wave"])
