"""Names of any bytes and lengths, folders that are shut or gone, and what killed runs leave behind."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import av  # noqa: F401 (before nobody may read it)
import numpy as np
import pytest
from PIL import Image
from support.command_line import cli
from support.small_models import picture

import impasto
from impasto import files, images, medical
from impasto.batch.jobs import plan
from impasto.errors import OptionError, OutputError, PackageError, PictureError
from impasto.export.inspection import inspect_path
from impasto.videos import redraw

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="names are bytes and processes are told by /proc on Linux"
)


def draw(folder: Path, *arguments: str, **environment: str) -> tuple[int, str]:
    command = [sys.executable, "-m", "impasto", "run", *arguments]
    ended = subprocess.run(
        command, cwd=folder, env=os.environ | environment, capture_output=True, text=True, errors="replace"
    )
    return ended.returncode, ended.stderr


@pytest.mark.parametrize(
    "locale", [{"LC_ALL": "C.UTF-8"}, {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}]
)
def test_any_name_is_drawn_in_any_locale(make_package, tmp_path, locale):
    package, pictures = make_package(), tmp_path / "pictures"
    pictures.mkdir()
    names = ["写真".encode(), "café".encode(), b"caf\xe9", b"n" * 251, "写".encode() * 83, b"a b", b"-x"]
    for name in names:
        with (pictures / os.fsdecode(name + b".png")).open("wb") as file:
            Image.fromarray(picture(8, 8)).save(file, "PNG")
    code, stderr = draw(tmp_path, str(package), "pictures", "-o", "out", **locale)
    assert (code, stderr) == (0, "")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(
        os.fsdecode(name + b".png") for name in names
    )


def test_a_name_that_becomes_too_long_stops_no_other(make_package, tmp_path):
    for name in ("n" * 251, "a"):
        Image.fromarray(picture(8, 8)).save(tmp_path / f"{name}.png")
    code, _, stderr = cli(
        "run", make_package(), tmp_path / f"{'n' * 251}.png", tmp_path / "a.png", "-o", tmp_path / "out"
    )
    assert code == 1
    assert "has 260 bytes, and file names there have at most 255" in stderr
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["a.tiny.png"]
    code, _, stderr = cli("run", make_package("other"), tmp_path / f"{'n' * 251}.png")
    assert code == 1 and "at most 255" in stderr
    assert "too long" in cli("run", tmp_path / "tiny", tmp_path / ("a" * 300 + ".png"))[2]


def test_the_longest_name_is_written(tmp_path):
    for name in ("n" * 251 + ".png", "写" * 83 + "ab.png"):
        images.write(tmp_path / name, picture(4, 4))
    files.write_text(tmp_path / ("a." + "s" * 253), "text")
    assert len(list(tmp_path.iterdir())) == 3
    with pytest.raises(OptionError, match="256 bytes"):
        images.write(tmp_path / ("n" * 252 + ".png"), picture(4, 4))


def test_a_working_folder_that_is_gone_is_told(make_package, tmp_path):
    package = make_package()
    gone = tmp_path / "gone"
    gone.mkdir()
    Image.fromarray(picture(8, 8)).save(tmp_path / "a.png")
    command = [
        "sh",
        "-c",
        'rmdir "$PWD" && exec "$@"',
        "sh",
        sys.executable,
        "-m",
        "impasto",
        "run",
        package,
        tmp_path / "a.png",
        "-o",
    ]
    ended = subprocess.run([*command, "b.png"], cwd=gone, capture_output=True, text=True)
    assert ended.returncode == 1
    assert ended.stderr.splitlines()[-1].endswith("the folder in which this runs has been deleted; go to another one")
    gone.mkdir()
    ended = subprocess.run([*command, tmp_path / "b.png"], cwd=gone, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr


def test_a_working_folder_deeper_than_paths_may_be(make_package, tmp_path):
    package = make_package()
    Image.fromarray(picture(8, 8)).save(tmp_path / "a.png")
    code = (
        "import os, runpy, shutil, sys\n"
        "for _ in range(25): os.mkdir('d' * 200); os.chdir('d' * 200)\n"
        f"shutil.copy({str(tmp_path / 'a.png')!r}, 'a.png')\n"
        f"sys.argv = ['impasto', 'run', {str(package)!r}, 'a.png', '-o', 'b.png']\n"
        "runpy.run_module('impasto', run_name='__main__')"
    )
    ended = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr


@contextlib.contextmanager
def as_nobody() -> Iterator[None]:
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_what_may_not_be_looked_at_is_told(tmp_path):
    shut = tmp_path / "shut"
    shut.mkdir()
    Image.fromarray(picture(8, 8)).save(shut / "a.png")
    shut.chmod(0)
    try:
        with as_nobody():
            with pytest.raises(PictureError, match=r"cannot read .*a\.png: Permission denied"):
                images.read(shut / "a.png")
            with pytest.raises(PictureError, match="may not be looked at"):
                redraw(shut / "a.mp4", tmp_path / "b.mp4", iter)
            assert plan([shut / "a.png"], shut / "b.png", "tiny")
            with pytest.raises(OutputError, match="no permission"):
                files.write_text(shut / "a.txt", "text")
    finally:
        shut.chmod(0o700)


def test_files_that_may_not_be_read_are_told(make_package):
    pytest.importorskip("pydicom")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)  # pytest's own folder is shut for others
        package = shutil.copytree(make_package(), folder / "package")
        shut = [folder / "a.mp4", folder / "a.dcm", folder / "a.png"]
        for path in shut:
            path.write_bytes(b"whatever")
        uses = (
            lambda: impasto.load(package),
            lambda: inspect_path(str(package)),
            lambda: redraw(folder / "a.mp4", folder / "b.mp4", iter),
            lambda: medical.read_scan(folder / "a.dcm", medical.Window()),
            lambda: images.read_deep(folder / "a.png"),
        )
        for use in uses:  # before nobody may read the libraries
            with contextlib.suppress(PictureError):
                use()
        for path in (*shut, package / "model.onnx"):
            path.chmod(0)
        with as_nobody():
            for use in uses:
                with pytest.raises((PackageError, PictureError), match=r"cannot read .*: Permission denied"):
                    use()


def test_nul_in_a_path_is_an_error_of_ours(tmp_path):
    with pytest.raises(PictureError, match="null"):
        images.read("a\0b.png")


WRITING = "import sys, time; from impasto.files import atomic_path\nwith atomic_path(sys.argv[1]) as path: path.touch(); time.sleep(60)"


def hidden(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.name.startswith(".")]


def test_what_killed_runs_left_is_swept_and_nothing_else(tmp_path):
    processes = [subprocess.Popen([sys.executable, "-c", WRITING, str(tmp_path / "a.png")]) for _ in range(2)]
    try:
        deadline = time.monotonic() + 30
        while len(hidden(tmp_path)) < 2 and time.monotonic() < deadline:
            time.sleep(0.05)
        before = set(hidden(tmp_path))
        assert len(before) == 2
        processes[0].kill()
        processes[0].wait()
        theirs = [
            tmp_path / ".a-0123456789abcdef.png",
            tmp_path / ".bashrc",
            tmp_path / ".a-00000000-1-1-0123456789abcdef.png",
        ]
        for path in theirs:
            path.touch()
        subprocess.run(
            [
                sys.executable,
                "-c",
                f"from impasto.files import write_text; write_text({str(tmp_path / 'b.txt')!r}, '')",
            ],
            check=True,
        )
        left = set(hidden(tmp_path))
        assert left.issuperset(theirs)
        assert len(left & before) == 1
        assert str(processes[1].pid) in (left & before).pop().name
    finally:
        for process in processes:
            process.kill()
            process.wait()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_what_is_asked_to_end_leaves_nothing_half_written(make_package, tmp_path, number):
    package, folder = make_package(), tmp_path / "pictures"
    folder.mkdir()
    Image.fromarray(np.zeros((6000, 9000, 3), np.uint8)).save(folder / "a.png", compress_level=1)
    command = [sys.executable, "-m", "impasto", "run", str(package), str(folder), "-o", str(tmp_path / "out")]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not (tmp_path / "out").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(number)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "stopped; nothing half-written is left" in stderr
    assert not hidden(tmp_path / "out")


@pytest.mark.parametrize("where", ["raise KeyboardInterrupt", "exec('raise KeyboardInterrupt')"])
def test_a_ctrl_c_that_ended_an_exec_leaves_our_exit_code(tmp_path, where):
    (tmp_path / "door.py").write_text(
        "import impasto.__main__ as door\n"
        "from impasto.cli.console import Commands, Exit\n"
        "import typer\n"
        "app = typer.Typer(cls=Commands)\n"
        "@app.command()\n"
        "@app.command('other')\n"
        f"def verb(): {where}\n"
        "door._command_line = lambda: app\n"
        "import sys; sys.argv[1:] = ['other']\n"
        "door.main()\n"
    )
    ended = subprocess.run([sys.executable, "-m", "door"], cwd=tmp_path, capture_output=True, text=True)
    assert ended.returncode == 130, ended.stderr
    assert "stopped" in ended.stderr


def test_a_hang_up_that_is_ignored_stays_so(tmp_path):
    code = (
        "import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
        "import impasto.__main__ as door\n"
        "def told(**_): print([signal.getsignal(n) for n in (signal.SIGHUP, signal.SIGTERM)])\n"
        "door._command_line = lambda: told\n"
        "door.main()"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path).stdout
    assert "SIG_IGN" in told and "default_int_handler" in told
