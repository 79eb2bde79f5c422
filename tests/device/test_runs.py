"""The runs for a lent GPU, dry: with a driver and a TensorRT made of NumPy, and with programs that only note what they were told."""

from __future__ import annotations

import json
import lzma
import os
import re
import shlex
import stat
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest
from device import build, prepare, reference, refuse
from support.bindings import Bindings, inspected
from support.fake_gpu import FakeDriver, FakeTensorRT
from support.small_models import REPOSITORY

from impasto.benchmarks import engine as benchmark
from impasto.benchmarks import gram as gram_benchmark
from impasto.errors import ExportError
from impasto.export.tensorrt import builder
from impasto.export.tensorrt.options import BuildOptions
from impasto.runtime.backends.tensorrt.api import TensorRT

pytest_plugins = ("support.engine_fixtures",)

HERE = Path(__file__).resolve().parent
SIZES = ((32, 48), (16, 16))


@pytest.fixture
def jobs(make_package: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(prepare, "SIZES", SIZES)
    prepare.main(tmp_path / "jobs", {"tiny": str(make_package())})
    return tmp_path / "jobs"


@pytest.fixture
def strict(driver: FakeDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    """The builder of TensorRT 8.5.3.1, a fresh one each time: what it lacks raises."""

    def made(options: BuildOptions) -> TensorRT:
        bindings = Bindings("8.5.3.1")
        bindings.network.num_inputs = 1
        layer = inspected(
            {"fp16": "Channel major FP16 format", "int8": "Thirty-two wide channel Int8 format"}[options.precision]
        )
        bindings.engine.create_engine_inspector().get_engine_information.side_effect = lambda _: layer
        return bindings.api

    monkeypatch.setattr(builder, "find_builder", made)


def test_jobs_are_built_measured_and_damaged(
    jobs: Path,
    strict: None,
    vendor: FakeTensorRT,
    quick_collections: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reference.main(jobs)
    plans = tmp_path / "plans"
    plans.mkdir()
    report = build.main(jobs, plans, tmp_path / "builds.json")
    assert [line.get("error") for line in report] == [None] * 4
    assert json.loads((tmp_path / "builds.json").read_text()) == json.loads(json.dumps(report))
    for file in jobs.glob("*.npy"):
        (plans / file.name).write_bytes(file.read_bytes())
    vendor.IProfiler = object
    api = TensorRT(vendor, "tensorrt")
    monkeypatch.setattr(benchmark, "tensorrt", lambda: api)
    monkeypatch.setattr(benchmark, "_FRAMES", 3)
    measured = benchmark.measure_folder(plans, tmp_path / "engines.json")["engines"]
    assert len(measured) == 4
    assert all("error" not in entry and "stream_ms" in entry for entry in measured), measured
    refusals = refuse.main(plans, tmp_path / "refusals.json")
    assert {line["exit"] for line in refusals} == {0}, refusals  # no TensorRT is here: our own errors, all of them


def test_where_uint8_is_refused_float_pixels_are_built_and_said(
    jobs: Path, strict: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "plans").mkdir()
    compiled = builder.EngineBuilder.compile

    def refuses_uint8(self: builder.EngineBuilder, *arguments: Any) -> Any:
        if ".float." not in self.graph_path.name:
            raise ExportError("requires uint8 I/O but node can not be handled by Myelin")
        return compiled(self, *arguments)

    monkeypatch.setattr(builder.EngineBuilder, "compile", refuses_uint8)
    for line in build.main(jobs, tmp_path / "plans", tmp_path / "builds.json"):
        assert line["float_pixels"] and "uint8" in line["error_with_uint8"]
        assert "error" not in line


def test_time_that_is_over_is_said(jobs: Path, strict: None, tmp_path: Path) -> None:
    report = build.main(jobs, tmp_path / "plans", tmp_path / "builds.json", 0.0)
    assert ["time for building" in line["error"] for line in report] == [True] * 4


# ---- the scripts ----


def program(folder: Path, name: str, notes: Path) -> None:
    """A program that notes its arguments and succeeds."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(f'#!/bin/sh\nprintf "%s\\n" "{name} $(printf "\'%s\' " "$@")" >> {shlex.quote(str(notes))}\n')
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def run(script: str, *arguments: Path | str, **environment: str) -> str:
    command = ["bash", str(HERE / script), *map(str, arguments)]
    done = subprocess.run(
        command, cwd=REPOSITORY, env=os.environ | environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_run_t_calls_what_is_here(tmp_path: Path) -> None:
    notes, pack = tmp_path / "notes", tmp_path / "pack"
    program(pack / "py310/bin", "python3.10", notes)
    program(tmp_path / "bin", "python3", notes)
    program(tmp_path / "bin", "nvidia-smi", notes)
    for folder in ("site/tensorrt", "jobs", "plans"):
        (pack / folder).mkdir(parents=True)
    (pack / "jobs" / "picture-1x1.npy").touch()
    with tarfile.open(tmp_path / "rest.tar.xz", "w:xz") as archive:
        for folder in ("py310", "site", "jobs", "plans"):
            archive.add(pack / folder, folder)
    (tmp_path / "parts").mkdir()
    with tarfile.open(tmp_path / "whole", "w") as archive:
        archive.add(tmp_path / "rest.tar.xz", "rest.tar.xz")
        for library in ("libnvinfer.so.8.xz", "libnvinfer_builder_resource.so.8.5.3.xz"):
            (tmp_path / library).write_bytes(lzma.compress(b"library"))
            archive.add(tmp_path / library, library)
    whole = (tmp_path / "whole").read_bytes()
    (tmp_path / "parts" / "part0").write_bytes(whole[:1000])
    (tmp_path / "parts" / "part1").write_bytes(whole[1000:])
    path = f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}"
    run("engines.sh", tmp_path / "parts", tmp_path / "out", "7", WORK=str(tmp_path / "work"), PATH=path)
    called = [shlex.split(line) for line in notes.read_text().splitlines()]
    work = tmp_path / "work"
    assert (work / "site/tensorrt/libnvinfer.so.8").read_bytes() == b"library"
    assert (work / "site/impasto/runtime/model.py").is_file()
    assert (work / "plans/picture-1x1.npy").is_file()
    scripts = [argument for words in called for argument in words if argument.endswith(".py")]
    assert {Path(script).name for script in scripts} == {"reference.py", "build.py", "refuse.py"}
    assert all((HERE / script).is_file() for script in scripts)
    assert [words[2] for words in called if "-m" in words] == ["impasto.benchmarks.engine"]


def test_run_k_calls_what_is_here(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    notes = tmp_path / "notes"
    for name in ("python3", "ncu", "compute-sanitizer", "nvidia-smi"):
        program(tmp_path / "bin", name, notes)
    path = f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}"
    run("gram.sh", tmp_path / "out", SITE=str(tmp_path / "site"), PATH=path)
    called = [shlex.split(line) for line in notes.read_text().splitlines()]
    assert [words[0] for words in called].count("compute-sanitizer") == 3
    modules = {words[words.index("-m") + 1]: words[words.index("-m") + 2 :] for words in called if "-m" in words}
    assert set(modules) == {"pytest", "impasto.benchmarks.gram"}
    selections = {words[words.index("-k") + 1] for words in called if "-k" in words}
    assert len(selections) == 3
    for selection in selections:
        assert selects(selection), selection
    for words in called:
        if "impasto.benchmarks.gram" in words:
            with pytest.raises(SystemExit):
                gram_benchmark.main(words[words.index("impasto.benchmarks.gram") + 1 :])
            assert "a CUDA device is needed" in capsys.readouterr().err  # and no option that it does not know


def selects(expression: str) -> bool:
    """Whether a test of the Gram kernel is meant by pytest's -k."""
    source = (REPOSITORY / "tests/kernels/test_gram_gpu.py").read_text()
    names = [f"{name}[f16-as_is]" for name in re.findall(r"^def (test_\w+)", source, re.MULTILINE)]
    words = re.sub(r"\b(?!and\b|or\b|not\b)\w+", lambda word: f"({word[0]!r} in name)", expression)
    return any(eval(words, {"name": name}) for name in names)


def test_the_tree_becomes_light_and_whole_again(tmp_path: Path) -> None:
    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=tmp_path, capture_output=True, text=True, check=True).stdout

    def script(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = ["bash", str(HERE / "light_tree.sh"), *arguments]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    git("init", "-q")
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "large").write_bytes(bytes(3_000_000))
    (tmp_path / "small").write_text("small")
    assert "commit first" in script("off", "models").stdout
    git("add", "-A")
    git("-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "all")
    excluded = (tmp_path / ".git/info/exclude").read_text() if (tmp_path / ".git/info/exclude").exists() else ""
    done = script("off", "models")
    assert "0.0 MB travel" in done.stdout, done.stderr
    assert git("ls-files", "--cached", "--others", "--exclude-standard").split() == ["small"]
    assert script("on").returncode == 0
    assert git("status", "--porcelain") == ""
    assert (tmp_path / ".git/info/exclude").read_text() == excluded
    assert (tmp_path / "models" / "large").stat().st_size == 3_000_000


def test_what_is_packed_is_prepared_by_the_script_that_is_here() -> None:
    text = (HERE / "pack.sh").read_text()
    assert '"$here/prepare.py"' in text
    for model in re.findall(r"=(models/[\w-]+)", text):
        assert (REPOSITORY / model / "manifest.json").is_file()
    for script in sorted(HERE.glob("*.sh")):
        subprocess.run(["bash", "-n", str(script)], check=True)
