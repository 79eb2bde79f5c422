"""The command line as a user meets it: results, one-line errors, exit codes, nothing half-written."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import onnx
import pytest
from PIL import Image
from support.command_line import cli, interrupted
from support.small_models import REPOSITORY, float_graph, picture
from typer.testing import CliRunner

import impasto
from impasto import errors
from impasto.cli.app import app
from impasto.cli.options import located
from impasto.doctor import examine
from impasto.errors import install
from impasto.runtime.loading.source import shipped_models


def fails(*arguments: object) -> str:
    """The one line that a failing command says."""
    code, _, stderr = cli(*arguments)
    lines = [line for line in stderr.splitlines() if line.strip()]
    assert code == 1
    assert lines[-1].startswith("error: "), stderr
    assert "Traceback" not in stderr
    return lines[-1]


def files_of(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


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

    def test_an_external_graph(self, photo, tmp_path):
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

    @pytest.mark.parametrize(
        ("given", "wanted"),
        [(".", "pictures-tiny"), ("..", "in-tiny"), ("../pictures", "pictures-tiny"), ("", "pictures-tiny")],
    )
    def test_a_folders_results_lie_beside_it_however_it_is_called(
        self, make_package, tmp_path, monkeypatch, given, wanted
    ):
        package = make_package()
        folder = tmp_path / "in" / "pictures"
        folder.mkdir(parents=True)
        for place in (folder, folder.parent):
            Image.fromarray(picture(8, 8)).save(place / "a.png")
        monkeypatch.chdir(folder)
        assert cli("run", package, given)[0] == 0
        (made,) = tmp_path.rglob(f"{wanted}/a.png")
        assert made.parent.parent == (tmp_path if given == ".." else tmp_path / "in")
        assert sorted(path.name for path in folder.iterdir()) == ["a.png"]

    def test_the_root_has_no_place_beside_it(self, make_package):
        assert "say where the results go: -o FOLDER" in fails("run", make_package(), "/")

    def test_what_is_refused_leaves_no_folder_behind(self, make_package, photo, tmp_path):
        (tmp_path / "empty").mkdir()
        before = sorted(tmp_path.rglob("*"))
        package = make_package()
        after = sorted([*before, *(path for path in tmp_path.rglob("*") if path not in before)])
        fails("run", package, tmp_path / "empty")
        fails("run", package, photo, photo, "-o", tmp_path / "new")
        assert sorted(tmp_path.rglob("*")) == after

    def test_a_slash_at_the_end_means_a_folder(self, make_package, photo, tmp_path):
        package = make_package()
        assert cli("run", package, photo, "-o", f"{tmp_path}/results.v2/")[0] == 0
        assert cli("run", package, photo, "-o", tmp_path / "results.v2", "--format", "jpg")[0] == 0
        assert sorted(path.name for path in (tmp_path / "results.v2").iterdir()) == ["photo.tiny.jpg", "photo.tiny.png"]

    def test_a_folder_passes_over_videos_and_hidden_files_and_says_so(self, make_package, photo, tmp_path):
        for name in ("b.mp4", "c.mov", "._photo.png", "._b.mp4"):
            (tmp_path / name).write_bytes(b"")
        code, _, stderr = cli("run", make_package(), tmp_path, "-o", tmp_path / "out")
        assert code == 0
        assert f"note: {tmp_path}/b.mp4 and 1 more video passed over: a folder stands for its pictures" in stderr
        assert [path.name for path in (tmp_path / "out").iterdir()] == ["photo.png"]

    def test_a_damaged_picture_stops_no_folder(self, make_package, photo, tmp_path):
        Image.fromarray(picture(9, 9)).save(tmp_path / "a.tif")
        damaged = bytearray((tmp_path / "a.tif").read_bytes())
        after = 10 + 12 * damaged[8]  # its fields; there it says where the next picture's are
        damaged[after : after + 4] = (len(damaged) - 3).to_bytes(4, "little")
        (tmp_path / "a.tif").write_bytes(damaged)
        code, out, stderr = cli("run", make_package(), tmp_path, "-o", tmp_path / "out")
        assert code == 1
        assert "1 of 2 files" in out
        assert "a.tif is damaged" in stderr

    def test_a_folder_says_of_each_file_what_became_of_it(self, make_package, photo, tmp_path):
        """Of links that lead nowhere, folders that are called like pictures, and kinds of pictures that are not read, too."""
        folder = tmp_path / "album"
        folder.mkdir()
        photo.rename(folder / "a.png")
        (folder / "gone.png").symlink_to("nowhere.png")
        (folder / "loop.png").symlink_to("loop.png")
        (folder / "x.png").mkdir()
        os.mkfifo(folder / "pipe.png")  # whoever opened it would wait for ever
        for name in ("phone.heic", "raw.CR2"):
            (folder / name).write_bytes(b"x")
        code, out, stderr = cli("run", make_package(), folder, "-o", tmp_path / "out")
        assert code == 1
        assert "1 of 4 files written" in out
        for told in (
            "phone.heic and 1 more picture passed over: of a folder .png, .jpg,",
            "gone.png does not exist",
            "loop.png: Too many levels of symbolic links",
            "x.png is a folder",
        ):
            assert told in stderr
        assert files_of(tmp_path / "out") == ["a.png"]

    def test_two_pictures_of_one_name_stop_no_folder(self, make_package, photo, tmp_path):
        Image.open(photo).convert("RGB").save(tmp_path / "photo.jpg")
        Image.open(photo).save(tmp_path / "other.png")
        assert cli("run", make_package(), tmp_path, "-o", tmp_path / "out")[0] == 0
        assert files_of(tmp_path / "out") == ["other.png", "photo.jpg.png", "photo.png.png"]

    @pytest.mark.parametrize("format", ["png", "jpg", "webp", "tiff"])
    def test_a_folders_results_in_another_format(self, make_package, photo, tmp_path, format):
        assert cli("run", make_package(), tmp_path, "-o", tmp_path / "out", "--format", format)[0] == 0
        assert Image.open(tmp_path / "out" / f"photo.{format}").size == (60, 40)

    def test_a_format_is_one_that_is_known_and_not_said_twice(self, make_package, photo):
        package = make_package()
        assert "choose one of png, jpg, webp, tiff" in fails("run", package, photo, "--format", "gif")
        said = fails("run", package, photo, "-o", photo.with_name("a.png"), "--format", "jpg")
        assert "leave --format out" in said

    def test_what_is_there_already_is_left_alone(self, make_package, photo, tmp_path):
        Image.fromarray(picture(8, 8)).save(tmp_path / "other.png")
        done = tmp_path / "out" / "other.png"
        done.parent.mkdir()
        done.write_text("drawn before")
        command = ("run", make_package(), tmp_path, "-o", tmp_path / "out", "--skip-existing")
        code, out, stderr = cli(*command)
        assert code == 0
        assert "1 of 2 results were there already" in stderr
        assert f"wrote {tmp_path / 'out' / 'photo.png'}" in out
        assert done.read_text() == "drawn before"
        code, out, stderr = cli(*command)
        assert (code, out) == (0, "")
        assert "2 of 2 results were there already" in stderr

    def test_what_the_format_cannot_hold_is_refused_before_it_is_drawn(self, make_package, tmp_path, monkeypatch):
        Image.fromarray(np.dstack([picture(8, 8), picture(8, 8)[..., 0]])).save(tmp_path / "a.png")
        Image.fromarray(np.zeros((1, 8200, 3), np.uint8)).save(tmp_path / "b.png")
        package = make_package(scale=2)
        monkeypatch.setattr(impasto.Model, "__call__", lambda *_: pytest.fail("it was drawn"))
        assert "transparency" in fails("run", package, tmp_path / "a.png", "-o", tmp_path / "a.jpg")
        assert "2 x 16400 pixels" in fails("run", package, tmp_path / "b.png", "-o", tmp_path / "b.webp")

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


def test_an_external_graph_becomes_a_package(photo, tmp_path):
    path = tmp_path / "other.onnx"
    onnx.save(float_graph(), str(path))
    assert "--layout 'rgb 0..1'" in fails("export", path)
    assert "are for an external ONNX file" in fails("export", "denoise", "--layout", "rgb 0..1")
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


def test_models_says_what_the_pictures_owners_allow(make_package, monkeypatch):
    folder = make_package("own")
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["recipe"]["terms"] = "for non-commercial research"
    (folder / "manifest.json").write_text(json.dumps(manifest))
    monkeypatch.setenv("IMPASTO_MODELS", str(folder.parent))
    assert "own: trained on pictures with these terms: for non-commercial research" in cli("models")[1]


def test_models_fits_eighty_columns_and_folds_nothing_away(monkeypatch):
    monkeypatch.setattr("impasto.runtime.loading.source.search_path", lambda: [shipped_models()])
    said = CliRunner().invoke(app, ["models"], env={"COLUMNS": "80"}).stdout
    assert max(map(len, said.splitlines())) <= 80
    for name in ("composition-viii", "four-styles", "upscale-x2"):
        assert name in said
    # Folded or not, every word of a cell is there.
    assert {"stylize", "denoise", "fp32,", "fp16,", "int8", "28.9", "objective"} <= set(said.split())


def test_models_shows_a_card(tmp_path):
    code, said, _ = cli("models", "great-wave", "--json", tmp_path / "m.json")
    assert code == 0
    assert "Great Wave off Kanagawa" in said and "# great-wave" not in said  # drawn, not as it is written
    found = json.loads((tmp_path / "m.json").read_text())
    assert found["summary"]["style"] == "great-wave" and found["summary"]["kmac_per_pixel"] == 28.9


def test_a_package_without_a_card_says_what_else_to_read(make_package):
    code, _, stderr = cli("models", make_package())
    assert code == 1 and "has no card" in stderr and "impasto inspect tiny" in stderr


def test_a_broken_package_does_not_hide_the_others(make_package, monkeypatch, tmp_path):
    folder = make_package("own")
    (folder / "manifest.json").write_text("no JSON")
    monkeypatch.setenv("IMPASTO_MODELS", str(folder.parent))
    code, out, _ = cli("models", "--json", tmp_path / "m.json")
    assert code == 0
    assert "unreadable" in next(line for line in out.splitlines() if " own " in line)
    assert "great-wave" in out
    found = json.loads((tmp_path / "m.json").read_text())
    assert "manifest.json" in found["own"]["error"]
    assert found["denoise"]["path"].endswith("denoise")


@pytest.mark.parametrize(
    "command",
    [
        ("bench", "denoise", "--json"),
        ("compare", "denoise", "inpaint", "--photo", "photo.png", "--json"),
        ("compare", "denoise", "inpaint", "--photo", "photo.png", "--sheet"),
        ("compare", "denoise", "inpaint", "--photo", "photo.png", "--html"),
        ("bench", "denoise", "--html"),
        ("quantize", "denoise", "--calibrate", ".", "--html"),
        ("eval", "denoise", "--photos", ".", "--degrade", "noise:25", "--json"),
        ("eval", "denoise", "--photos", ".", "--degrade", "noise:25", "--sheet"),
        ("build", "denoise", "--json"),
        ("check", "denoise", "--json"),
        ("inspect", "denoise", "--json"),
        ("models", "--json"),
        ("cache", "list", "--json"),
        ("run", "denoise", "clip.mp4", "--json"),
    ],
)
def test_where_results_cannot_go_is_told_before_any_work(command, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    for begun in (
        "runtime.loading.source._locate",
        "runtime.loading.source.known_names",
        "export.tensorrt.cache.EngineCache.entries",
    ):
        monkeypatch.setattr(f"impasto.{begun}", lambda *_, **__: pytest.fail("it had begun"))
    assert "cannot write none/a.png: the folder none does not exist; make it first" in fails(*command, "none/a.png")


def _in_a_process(*arguments: object, **more: Any) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **more.pop("env", {})}
    environment.pop("COLUMNS", None)
    command = [sys.executable, "-m", "impasto", *map(str, arguments)]
    more |= {"stderr": subprocess.PIPE, "text": True, "errors": "replace", "env": environment}
    return subprocess.run(
        command, cwd=Path(__file__).parent, check=False, **more
    )  # there is no impasto but the installed one


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no full device")
@pytest.mark.parametrize("asked", ["models", "--version"])
def test_a_full_disk_behind_stdout_is_one_line(asked):
    with Path("/dev/full").open("w") as full:
        found = _in_a_process(asked, stdout=full)
    assert found.returncode == 1
    assert found.stderr == "error: cannot write the results: No space left on device; send them elsewhere\n"


@pytest.mark.parametrize("encoding", ["latin-1", "ascii"])
def test_an_encoding_that_lacks_a_character_prints_another(encoding):
    found = _in_a_process("models", stdout=subprocess.PIPE, env={"PYTHONIOENCODING": encoding})
    assert found.returncode == 0, found.stderr
    assert "great-wave" in found.stdout


def test_tables_in_a_pipe_keep_their_words_whole(make_package, tmp_path):
    folder = make_package("a" * 60)
    found = _in_a_process("models", stdout=subprocess.PIPE, env={"IMPASTO_MODELS": str(folder.parent)})
    assert str(folder) in found.stdout


def test_narrow_tables_fold_and_cut_nothing(monkeypatch, make_package):
    folder = make_package("a" * 60)
    result = CliRunner().invoke(app, ["models"], env={"COLUMNS": "80", "IMPASTO_MODELS": str(folder.parent)})
    assert "…" not in result.stdout
    assert "fp32" in result.stdout


def test_ctrl_c_while_libraries_are_imported_is_one_line(tmp_path):
    code = (
        "import sys, builtins, impasto.__main__ as door\n"
        "real = builtins.__import__\n"
        "def interrupted(name, *rest):\n"
        "    if name.startswith('rich'): raise KeyboardInterrupt\n"
        "    return real(name, *rest)\n"
        "builtins.__import__ = interrupted\n"
        "door.main()\n"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (found.returncode, found.stderr) == (130, "stopped; nothing was begun\n")


def test_what_may_not_be_wanted_is_a_note_of_one_line(monkeypatch):
    def warned() -> dict[str, Path]:
        warnings.warn("look [here]: impasto doctor", impasto.errors.ImpastoWarning, stacklevel=2)
        return {}

    monkeypatch.setattr("impasto.runtime.loading.source.known_names", warned)
    code, _, stderr = cli("models")
    assert code == 0
    assert stderr.strip() == "note: look [here]: impasto doctor"


@pytest.mark.parametrize(
    ("module", "extra", "verb"),
    [
        ("onnx", "export", ("quantize", "denoise", "--to", "fp16", "--calibrate", "photos")),
        ("onnx", "export", ("export", "denoise")),
        ("torch", "train", ("train", "style", "wave", "--painting", "a.png", "--photos", "photos")),
    ],
)
def test_a_library_that_is_not_there_is_one_line_with_its_extra(tmp_path, module, extra, verb):
    code = f"import sys; sys.modules[{module!r}] = None; sys.argv = ['impasto', *{verb!r}]; from impasto.__main__ import main; main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert f"[{extra}]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_doctor_says_what_runs_here(tmp_path):
    code, out, _ = cli("doctor", "--json", tmp_path / "d.json")
    assert code == 0
    assert "run models on the CPU" in out
    assert "[gpu]" in out  # square brackets are not markup here
    findings = {f["what"]: f for f in json.loads((tmp_path / "d.json").read_text())["findings"]}
    assert findings["ONNX Runtime"]["works"]
    assert all(f["works"] or f["advice"] for f in findings.values())


def test_commands_that_install_extras_work_where_they_are_read(monkeypatch, tmp_path):
    """In a checkout no index is asked for Impasto, and elsewhere no folder is."""
    monkeypatch.setattr(errors, "__file__", str(tmp_path / "impasto" / "errors.py"))
    assert install("video") == "pip install 'impasto[video]'"
    (tmp_path / "pyproject.toml").touch()
    assert install("video") == f"pip install -e '{tmp_path}[video]'"
    monkeypatch.chdir(tmp_path)
    assert install("video") == "pip install -e '.[video]'"
    assert install("cpu", "cli") == "pip install -e '.[cpu,cli]'"
    advice = {f.what: f.advice for f in examine().findings}["PyCUDA"]
    assert advice.startswith("pip install -e '.[gpu]'")


def test_a_window_without_a_scan_is_refused(make_package, photo, tmp_path):
    code, _, stderr = cli("run", make_package(), photo, "-o", tmp_path / "out.png", "--window", "40,400")
    assert (code, (tmp_path / "out.png").exists()) == (1, False)
    assert "--window is for DICOM files, and none is among the inputs; leave it out" in stderr


def test_a_run_without_inputs_shows_an_example(tmp_path):
    code, _, stderr = cli("run", "denoise")
    assert code == 2
    assert stderr.startswith("error: no picture or video to run denoise on; name one, for example: ")
    assert stderr.endswith("impasto run denoise photo.jpg -o result.png\n")


def test_a_run_of_a_picture_without_a_model_shows_an_example(photo):
    code, _, stderr = cli("run", photo)
    assert code == 2
    assert f"photo.png is no model, which comes first; for example: impasto run denoise {photo} -o result.png" in stderr


def test_a_network_of_several_styles_says_which_it_drew(photo, tmp_path):
    run = "run", "four-styles", photo, "-o", tmp_path / "out.png"
    assert cli(*run)[1].endswith("; style: great-wave\n")
    code, out, _ = cli(
        *run, "--style", "ejiri=3", "--style", "starry-night", "--strength", "0.8", "--json", tmp_path / "j"
    )
    assert code == 0
    assert out.endswith("; style: ejiri 60 %, photo 20 %, starry-night 20 %\n")
    assert json.loads((tmp_path / "j").read_text())["style"] == "ejiri 60 %, photo 20 %, starry-night 20 %"


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


class TestWhatFilesSay:
    """Whatever a package's maker wrote into it."""

    def altered(self, package: Path, **model: object) -> Path:
        manifest = package / "manifest.json"
        data = json.loads(manifest.read_text())
        data["model"] |= model
        manifest.write_text(json.dumps(data))
        return package

    def test_a_models_name_leads_nowhere(self, make_package, tmp_path):
        theirs, photo = tmp_path / "theirs.png", tmp_path / "photo.png"
        for file in (theirs, photo):
            Image.fromarray(picture(8, 8)).save(file)
        before = theirs.read_bytes()
        package = self.altered(make_package(), name="x/../../theirs")
        assert "'name' is 'x/../../theirs'" in fails("run", package, photo, "-o", f"{tmp_path}/out/")
        assert theirs.read_bytes() == before
        assert not (tmp_path / "out").exists()

    @pytest.mark.parametrize("model", [{"border": 10**9}, {"scale": 10**6}, {"size": {"minimum": 10**12}}])
    def test_sizes_that_nobody_has_memory_for_are_refused(self, make_package, tmp_path, model):
        photo = tmp_path / "photo.png"
        Image.fromarray(picture(8, 8)).save(photo)
        assert "expected at most" in fails("run", self.altered(make_package(), **model), photo)

    def test_nothing_that_is_shown_gives_orders_to_the_terminal(self, make_package, tmp_path):
        package = make_package()
        manifest = package / "manifest.json"
        data = json.loads(manifest.read_text())
        data["recipe"] = {"command": "\x1b]0;title\x07", "\x1b[2J": 1}
        data["files"]["b.onnx"] = data["files"]["model.onnx"] | {"role": "[/]"}
        (package / "b.onnx").write_bytes((package / "model.onnx").read_bytes())
        manifest.write_text(json.dumps(data))
        code, stdout, _ = cli("inspect", package)
        assert code == 0
        assert "\\x1b]0;title" in stdout
        assert not {"\x1b", "\x07", "\x9b"} & set(stdout)

    def test_names_of_pictures_neither(self, make_package, tmp_path):
        photo = tmp_path / "a\x1b[2Jb.png"
        photo.write_bytes(b"none")
        assert "a\\x1b[2Jb.png" in fails("run", make_package(), photo)
