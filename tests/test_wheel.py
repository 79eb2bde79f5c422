"""The wheel in an empty environment: no torch, no repository, only NumPy, one backend, and a model that ships."""

from __future__ import annotations

import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest
from check_types import check
from support.small_models import REPOSITORY


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    shutil.rmtree(REPOSITORY / "build" / "lib", ignore_errors=True)
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "-q",
        "--no-deps",
        "--disable-pip-version-check",
        "-w",
        str(folder),
    ]
    subprocess.run([*command, str(REPOSITORY)], check=True)
    return next(folder.glob("*.whl"))


def test_the_wheel_holds_every_module_and_every_model(wheel):
    held = set(zipfile.ZipFile(wheel).namelist())
    for room in ("training", "export", "runtime", "kernels", "benchmarks"):
        for path in (REPOSITORY / room).rglob("*.py"):
            assert f"impasto/{path.relative_to(REPOSITORY).as_posix()}" in held
    for manifest in (REPOSITORY / "models").glob("*/manifest.json"):
        for path in manifest.parent.iterdir():
            assert f"impasto/models/{manifest.parent.name}/{path.name}" in held
    for path in (REPOSITORY / "impasto").rglob("*"):
        if path.is_file() and path.suffix not in (".pyc", ".pyo"):
            assert path.relative_to(REPOSITORY).as_posix() in held
    assert "impasto/kernels/gram.cu" in held
    assert "impasto/benchmarks/results/peers.json" in held
    assert not [name for name in held if name.startswith(("tests/", "impasto/tests"))]


@pytest.mark.timeout(900)
def test_its_types_are_right(wheel, tmp_path):
    """`make types`, on this wheel."""
    zipfile.ZipFile(wheel).extractall(tmp_path)
    done = check(tmp_path, capture_output=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_wheel_runs_a_shipped_model_without_torch(wheel, tmp_path):
    environment = tmp_path / "environment"
    venv.create(environment, with_pip=True)
    python = environment / "bin" / "python"
    install = [str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check"]
    subprocess.run([*install, "-c", str(REPOSITORY / "constraints.txt"), f"{wheel}[cpu]"], check=True)
    code = (
        "import numpy, impasto, importlib.util as u\n"
        "assert not any(u.find_spec(m) for m in ('torch', 'onnx', 'PIL', 'typer'))\n"
        "image = numpy.random.default_rng(0).integers(0, 256, (75, 101, 3), numpy.uint8)\n"
        "for name in ('great-wave', 'denoise'):\n"
        "    with impasto.load(name) as model:\n"
        "        drawn = model(image)\n"
        "    assert drawn.shape == image.shape and drawn.std() > 1\n"
        "print(model.info.path)\n"
    )
    done = subprocess.run([str(python), "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert str(environment) in done.stdout
    # The command line says what it lacks in one line.
    bare = subprocess.run(
        [str(python), "-m", "impasto", "doctor"], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert bare.returncode == 1
    assert "pip install 'impasto[cli]'" in bare.stderr
    assert "Traceback" not in bare.stderr
