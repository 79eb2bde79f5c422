"""The command line as a user meets it: results, one-line errors, exit codes, nothing half-written."""

from __future__ import annotations

import json
import os
import platform
import warnings
from pathlib import Path

import jsonschema
import numpy as np
import onnx
import pytest
from command_line import cli, interrupted
from PIL import Image

import impasto
from conftest import REPOSITORY, float_graph, picture
from impasto.cli.options import located
from impasto.doctor import examine
from impasto.runtime.resolve import shipped_models


def fails(*arguments: object) -> str:
    """The one line that a failing command says."""
    code, _, stderr = cli(*arguments)
    lines = [line for line in stderr.splitlines() if line.strip()]
    assert code == 1
    assert lines[-1].startswith("error: "), stderr
    assert "Traceback" not in stderr
    return lines[-1]


@pytest.fixture
def photo(tmp_path) -> Path:
    path = tmp_path / "photo.png"
    Image.fromarray(picture(40, 60)).save(path)
    return path


def test_version_and_help():
    assert cli("--version")[1].strip() == f"impasto {impasto.__version__}"
    code, out, _ = cli("--help")
    assert code == 0
    for verb in ("train", "export", "build", "run", "check", "eval", "bench", "inspect", "models", "doctor"):
        assert verb in out


class TestRun:
    def test_one_picture(self, make_package, photo):
        folder = make_package()
        assert cli("run", folder, photo, "-o", photo.parent / "out.png")[0] == 0
        with impasto.load(folder) as model:
            assert np.array_equal(np.asarray(Image.open(photo.parent / "out.png")), model(picture(40, 60)))

    def test_a_picture_without_a_hole_is_said_to_have_none(self, photo):
        code, _, stderr = cli("run", "inpaint", photo)
        assert code == 0
        assert "nothing to fill in: missing pixels are exactly magenta (255, 0, 255)" in stderr
        assert np.array_equal(np.asarray(Image.open(photo.parent / "photo.inpaint.png")), picture(40, 60))
        holed = picture(40, 60)
        holed[10:14, 20:30] = (255, 0, 255)
        Image.fromarray(holed).save(photo)
        assert "nothing to fill in" not in cli("run", "inpaint", photo)[2]

    def test_by_default_beside_the_picture(self, make_package, photo):
        assert cli("run", make_package(), photo)[0] == 0
        assert (photo.parent / "photo.tiny.png").exists()

    def test_a_folder(self, make_package, tmp_path):
        (tmp_path / "in").mkdir()
        for seed in range(3):
            Image.fromarray(picture(20, 20, seed)).save(tmp_path / "in" / f"{seed}.jpg")
        code, out, _ = cli("run", make_package(scale=2), tmp_path / "in", "-o", tmp_path / "results")
        assert code == 0
        assert "3 of 3" in out
        assert sorted(p.name for p in (tmp_path / "results").iterdir()) == ["0.png", "1.png", "2.png"]
        assert Image.open(tmp_path / "results" / "1.png").size == (40, 40)

    def test_several_files_pass_over_a_damaged_one_and_say_so(self, make_package, photo, tmp_path):
        bad = tmp_path / "bad.jpg"
        bad.write_text("no picture")
        code, out, stderr = cli("run", make_package(), bad, photo, "-o", tmp_path / "results")
        assert code == 1
        assert "1 of 2" in out
        assert "bad.jpg is not a picture file" in stderr
        assert [p.name for p in (tmp_path / "results").iterdir()] == ["photo.tiny.png"]

    def test_alpha_is_scaled_with_the_picture(self, make_package, tmp_path):
        rgba = np.dstack([picture(8, 8), np.arange(64, dtype=np.uint8).reshape(8, 8)])
        Image.fromarray(rgba).save(tmp_path / "a.png")
        assert cli("run", make_package(scale=2), tmp_path / "a.png", "-o", tmp_path / "b.png")[0] == 0
        alpha = np.asarray(Image.open(tmp_path / "b.png"))[..., 3]
        assert np.array_equal(alpha[::2, ::2], rgba[..., 3])

    def test_one_pixel(self, make_package, tmp_path):
        Image.fromarray(picture(1, 1)).save(tmp_path / "a.png")
        assert cli("run", make_package(border=8), tmp_path / "a.png", "-o", tmp_path / "b.png")[0] == 0
        assert Image.open(tmp_path / "b.png").size == (1, 1)

    def test_a_strangers_graph(self, photo, tmp_path):
        onnx.save(float_graph(), str(tmp_path / "s.onnx"))
        assert "layout" in fails("run", tmp_path / "s.onnx", photo)
        assert cli("run", tmp_path / "s.onnx", photo, "--layout", "rgb 0..1")[0] == 0

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["none.png"], "does not exist"),
            (["photo.png", "-o", "out.xyz"], "picture format"),
            (["photo.png", "-o", "none/out.png"], "does not exist; make it first"),
            (["photo.png", "-o", "photo.png"], "would be overwritten"),
            (["photo.png", "photo.png", "-o", "results"], "would both be written"),
            (["empty"], "no picture files"),
            (["photo.png", "--backend", "tpu"], "unknown backend 'tpu'"),
            (["photo.png", "--precision", "int8"], "holds no int8"),
        ],
    )
    def test_what_cannot_work_is_one_line_and_writes_nothing(
        self, make_package, photo, monkeypatch, arguments, message
    ):
        monkeypatch.chdir(photo.parent)
        (photo.parent / "empty").mkdir()
        folder = make_package()
        before = {path for path in photo.parent.rglob("*") if path.is_file()}
        assert message in fails("run", folder, *arguments)
        assert {path for path in photo.parent.rglob("*") if path.is_file()} == before

    def test_an_unknown_model(self, photo):
        assert "no model is called 'grate-wave'" in fails("run", "grate-wave", photo)

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
    def test_an_unwritable_folder(self, make_package, photo, tmp_path):
        (tmp_path / "locked").mkdir(mode=0o500)
        assert "no permission" in fails("run", make_package(), photo, "-o", tmp_path / "locked" / "a.png")


def test_a_wrong_usage_is_exit_code_two(make_package):
    assert cli("run", make_package())[0] == 2
    assert cli("paint")[0] == 2


def test_bench_writes_json_of_its_schema(make_package, tmp_path):
    path = tmp_path / "bench.json"
    code, out, _ = cli(
        "bench", make_package(), "-s", "32x48", "-s", "64x64", "--iterations", 4, "--warmup", 1, "--json", path
    )
    assert code == 0
    assert "end to end" in out
    report = json.loads(path.read_text())
    jsonschema.validate(report, json.loads((REPOSITORY / "benchmarks" / "report.schema.json").read_text()))
    assert [(r["height"], r["width"]) for r in report["results"]] == [(32, 48), (64, 64)]
    assert "cannot read the size" in fails("bench", make_package("other"), "-s", "large")


def test_inspect_shows_a_package_and_refuses_an_altered_one(make_package, tmp_path):
    folder = make_package()
    code, out, _ = cli("inspect", folder, "--json", tmp_path / "i.json")
    assert code == 0
    assert "SpaceToDepth" in out
    assert json.loads((tmp_path / "i.json").read_text())["files"][0]["intact"]
    onnx.save(float_graph(), str(folder / "model.onnx"))
    assert "altered or missing" in fails("inspect", folder)


def test_inspect_reads_bare_graphs_and_refuses_what_is_none(tmp_path):
    onnx.save(float_graph(), str(tmp_path / "s.onnx"))
    assert "Mul" in cli("inspect", tmp_path / "s.onnx")[1]
    (tmp_path / "t.onnx").write_text("hello")
    assert "no ONNX file" in fails("inspect", tmp_path / "t.onnx")
    (tmp_path / "c.safetensors").write_bytes(b"\xff" * 40)
    assert "no safetensors file" in fails("inspect", tmp_path / "c.safetensors")


def test_check_and_export_name_what_they_lack(make_package, tmp_path):
    pytest.importorskip("torch", reason="torch is not installed: pip install 'impasto[train]'")
    package = make_package()
    assert "does not say which network" in fails("check", package)
    assert "single graph" in fails("check", package / "model.onnx")
    assert "does not exist" in fails("export", tmp_path / "none.safetensors")
    (tmp_path / "c.safetensors").write_bytes(b"\xff" * 40)
    fails("export", tmp_path / "c.safetensors", "-o", tmp_path / "package")
    assert not (tmp_path / "package" / "manifest.json").exists()


def test_a_strangers_graph_becomes_a_package(photo, tmp_path):
    path = tmp_path / "other.onnx"
    onnx.save(float_graph(), str(path))
    assert "--layout 'rgb 0..1'" in fails("export", path)
    assert "are for a stranger's .onnx" in fails("export", "denoise", "--layout", "rgb 0..1")
    assert "--backbone-weights is for a backbone" in fails("export", path, "--backbone-weights", path)
    code, stdout, stderr = cli("export", path, "--layout", "rgb 0..1", "--task", "denoise")
    assert code == 0, stderr
    assert f"wrote the package {tmp_path / 'other'}: ×1, any size, tiles overlap by 0" in stdout
    assert f"next: impasto quantize {tmp_path / 'other'}" in stdout
    code, stdout, _ = cli("run", tmp_path / "other", photo, "-o", tmp_path / "out.png")
    assert code == 0
    assert np.asarray(Image.open(tmp_path / "out.png")).shape == (40, 60, 3)
    assert "other.onnx" in cli("inspect", tmp_path / "other")[1]


def test_models_lists_what_run_knows(make_package, monkeypatch):
    monkeypatch.setenv("IMPASTO_MODELS", str(make_package("own").parent))
    out = cli("models")[1]
    for name in ("own", "great-wave", "denoise"):
        assert name in out


def test_what_may_not_be_wanted_is_a_note_of_one_line(monkeypatch):
    def warned() -> dict[str, Path]:
        warnings.warn("look [here]: impasto doctor", impasto.errors.ImpastoWarning, stacklevel=2)
        return {}

    monkeypatch.setattr("impasto.runtime.resolve.known_names", warned)
    code, _, stderr = cli("models")
    assert code == 0
    assert stderr.strip() == "note: look [here]: impasto doctor"


def test_doctor_says_what_runs_here(tmp_path):
    code, out, _ = cli("doctor", "--json", tmp_path / "d.json")
    assert code == 0
    assert "run models on the CPU" in out
    assert "impasto[gpu]" in out  # square brackets are not markup here
    findings = {f["what"]: f for f in json.loads((tmp_path / "d.json").read_text())["findings"]}
    assert findings["ONNX Runtime"]["works"]
    assert all(f["works"] or f["advice"] for f in findings.values())


def test_doctor_tells_a_jetson_where_onnx_runtime_for_cuda_comes_from(monkeypatch):
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    advice = {f.what: f.advice for f in examine().findings}["ONNX Runtime on CUDA"]
    assert "JetPack 6" in advice
    assert "CUDA 13" in advice


def test_ctrl_c_stops_with_one_line_and_leaves_nothing_half_written(make_package, tmp_path):
    (tmp_path / "in").mkdir()
    for seed in range(400):
        Image.fromarray(picture(200, 200, seed)).save(tmp_path / "in" / f"{seed}.png")
    out = tmp_path / "out"
    code, stderr = interrupted(
        tmp_path, lambda: list(out.glob("[0-9]*.png")), "run", make_package(), tmp_path / "in", "-o", out
    )
    assert code == 130
    assert "stopped" in stderr
    assert "Traceback" not in stderr
    written = list((tmp_path / "out").iterdir())
    assert 0 < len(written) < 400
    for path in written:
        assert not path.name.startswith(".")
        Image.open(path).load()


def test_training_and_export_know_models_by_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert located(None) is None
    assert located(Path("nobody")) == Path("nobody")
    assert located(Path("denoise")) == shipped_models() / "denoise"
    Path("denoise").mkdir()
    assert located(Path("denoise")) == Path("denoise"), "what lies here comes first"


def test_a_model_that_is_exported_by_name_goes_into_a_folder_of_its_own(tmp_path, monkeypatch):
    pytest.importorskip("torch", reason="torch is not installed: pip install 'impasto[train]'")
    monkeypatch.chdir(tmp_path)
    before = {path.name: path.stat().st_mtime_ns for path in (shipped_models() / "denoise").iterdir()}
    code, stdout, stderr = cli("export", "denoise")
    assert code == 0, stderr
    assert f"wrote the package {tmp_path / 'denoise'}" in stdout
    assert (tmp_path / "denoise/model.onnx").read_bytes() == (shipped_models() / "denoise/model.onnx").read_bytes()
    assert before == {path.name: path.stat().st_mtime_ns for path in (shipped_models() / "denoise").iterdir()}
