"""`impasto run` on many pictures: folders below folders, sizes, reports, and results that are written beside the drawing."""

from __future__ import annotations

import json
import os
import threading
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image
from support.command_line import cli, interrupted
from support.small_models import float_graph, picture

import impasto
from impasto import images
from impasto.batch import pictures as picture_run
from impasto.batch.jobs import Job, plan
from impasto.batch.pictures import run_pictures
from impasto.errors import ImpastoWarning, OutputError, PictureError


@pytest.fixture
def album(tmp_path):
    """Pictures in a folder, below it, in a hidden one, and in one that somebody linked to."""
    folder = tmp_path / "album"
    for seed, name in enumerate(("a.png", "day/b.png", "day/night/a.png", ".hidden/c.png")):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture(20, 30, seed)).save(folder / name)
    (folder / "again").symlink_to(folder, target_is_directory=True)
    return folder


def files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


class TestFoldersBelow:
    def test_results_repeat_the_folders(self, make_package, album, tmp_path):
        package = make_package()
        code, stdout, stderr = cli("run", package, album, "--recursive", "--format", "webp", "--quality", 100)
        assert code == 0, stderr
        assert files(tmp_path / "album-tiny") == ["a.webp", "day/b.webp", "day/night/a.webp"]
        assert "3 of 3 files written" in stdout
        cli("run", package, album, "-r", "-o", tmp_path / "out")
        with impasto.load(package) as model:
            for seed, name in enumerate(("a.png", "day/b.png", "day/night/a.png")):
                assert np.array_equal(images.read(tmp_path / "out" / name).rgb, model(picture(20, 30, seed)))

    def test_without_being_asked_only_the_folder_itself(self, make_package, album, tmp_path):
        assert cli("run", make_package(), album, "-o", tmp_path / "out")[0] == 0
        assert files(tmp_path / "out") == ["a.png"]

    def test_results_inside_are_no_sources_of_the_next_run(self, make_package, album):
        package = make_package()
        for _ in range(2):
            assert cli("run", package, album, "-r", "-o", album / "day" / "drawn")[0] == 0
        assert files(album / "day" / "drawn") == ["a.png", "day/b.png", "day/night/a.png"]

    def test_videos_below_are_told(self, album):
        (album / "day" / "clip.mp4").touch()
        with pytest.warns(ImpastoWarning, match=r"day/clip\.mp4 passed over"):
            plan([album], None, "tiny", recursive=True)

    def test_one_below_that_may_not_be_read_is_told(self, album, monkeypatch):
        real = os.scandir

        def refusing(path):
            if Path(path).name == "night":
                raise PermissionError(13, "Permission denied", str(path))
            return real(path)

        monkeypatch.setattr(os, "scandir", refusing)
        with pytest.warns(ImpastoWarning, match="night was passed over: no permission to read it"):
            assert len(plan([album], None, "tiny", recursive=True)) == 2

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
    def test_a_folder_that_may_not_be_read_is_told(self, album):
        album.chmod(0)
        try:
            with pytest.raises(PictureError, match="no permission to read the folder"):
                images.list_folder(album)
        finally:
            album.chmod(0o755)


class TestLongestSide:
    @pytest.mark.parametrize("scale", [1, 2])
    def test_pictures_are_drawn_at_it_with_their_transparency(self, make_package, tmp_path, scale):
        package = make_package(scale=scale)
        rgba = np.dstack([picture(90, 61), np.repeat(np.arange(90, dtype=np.uint8)[:, None], 61, 1)])
        Image.fromarray(rgba).save(tmp_path / "a.png")
        assert cli("run", package, tmp_path / "a.png", "-o", tmp_path / "b.png", "--longest-side", 45)[0] == 0
        small = Image.fromarray(picture(90, 61)).resize((31, 45), Image.Resampling.LANCZOS)
        drawn = images.read(tmp_path / "b.png")
        with impasto.load(package) as model:
            assert np.array_equal(drawn.rgb, model(np.asarray(small)))
        assert drawn.alpha.shape == drawn.rgb.shape[:2] == (45 * scale, 31 * scale)
        assert np.abs(drawn.alpha[::scale, 0] - np.arange(0.5, 90, 2)).max() <= 2

    def test_smaller_pictures_stay_as_they_are(self):
        small = picture(30, 45)
        assert images.within(small, 45) is small
        assert images.within(small, None) is small

    @pytest.mark.parametrize(
        ("size", "wanted"), [((1000, 4), (500, 2)), ((1000, 1), (500, 1)), ((333, 1000), (167, 500))]
    )
    def test_no_side_vanishes(self, size, wanted):
        assert images.within(np.zeros(size, np.uint8), 500).shape == wanted
        assert images.within(np.zeros(size, np.uint8), 500, multiple=2).shape == (wanted[0] // 2 * 2, max(2, wanted[1]))

    def test_wrong_ones_are_refused(self, tmp_path):
        assert cli("run", "denoise", tmp_path / "a.png", "--longest-side", 0)[0] == 2


class TestFoldersOfOtherFiles:
    """What is told must be true of what Impasto reads: arrays and scans where they are named, and no HEIC."""

    def test_files_that_are_read_by_name_are_told_so(self, tmp_path):
        for name in ("a.npy", "b.npy", "c.dcm"):
            (tmp_path / name).touch()
        with pytest.warns(ImpastoWarning) as told, pytest.raises(PictureError, match="no picture files"):
            plan([tmp_path], None, "tiny")
        (note,) = map(str, (each.message for each in told))
        assert "a.npy and 2 more pictures passed over" in note
        assert f"name such files themselves to run them, for example: impasto run MODEL {tmp_path}/*.npy -o" in note
        assert "convert" not in note

    def test_files_that_nothing_reads_are_to_be_converted(self, tmp_path):
        Image.fromarray(picture(8, 8)).save(tmp_path / "a.png")
        (tmp_path / "b.heic").touch()
        with pytest.warns(ImpastoWarning, match=r"b\.heic passed over: .*; convert the others"):
            assert len(plan([tmp_path], None, "tiny")) == 1


def test_a_folder_that_may_not_be_written_is_told_before_anything_is_drawn(make_package, album, tmp_path, monkeypatch):
    """Root may write everywhere, so the question is answered here."""
    (tmp_path / "out").mkdir()
    monkeypatch.setattr("impasto.cli.run.run_pictures", lambda *_, **__: pytest.fail("it was drawn"))
    real = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path / "out" and real(path, mode))
    code, _, stderr = cli("run", make_package(), album, "-r", "-o", tmp_path / "out")
    assert (code, "no permission; choose another place" in stderr) == (1, True)


class TestInputsAreSafe:
    def test_none_is_overwritten_by_anothers_result(self, make_package, album):
        """`impasto run MODEL *.png` twice asks for it."""
        album /= "day"
        Image.fromarray(picture(20, 30, 7)).save(album / "b.tiny.png")
        content = (album / "b.tiny.png").read_bytes()
        package = make_package()
        for inputs in (("b.png", "b.tiny.png"), ("b.tiny.png", "b.png")):
            code, _, stderr = cli("run", package, *(album / name for name in inputs))
            assert code == 1
            assert "b.tiny.png, which is an input too and would be overwritten; give a folder" in " ".join(
                stderr.split()
            )
        assert (album / "b.tiny.png").read_bytes() == content

    def test_one_that_the_model_does_not_take_is_named_and_passed_over(self, album, tmp_path):
        onnx.save(float_graph(side=32), str(tmp_path / "fixed.onnx"))
        Image.fromarray(picture(40, 33)).save(album / "day" / "a.png")
        code, stdout, stderr = cli(
            "run", tmp_path / "fixed.onnx", album / "day", "--layout", "rgb 0..1", "-o", tmp_path / "out"
        )
        assert (code, files(tmp_path / "out")) == (1, ["b.png"])
        assert "day/a.png: the picture is 40 x 33" in " ".join(stderr.split())
        assert "1 of 2 files written" in stdout


class TestReport:
    def test_every_picture_is_in_it_and_every_failure(self, make_package, album, tmp_path):
        (album / "cut.png").write_bytes((album / "a.png").read_bytes()[:200])
        code, _, stderr = cli(
            "run", make_package(scale=2), album, "-r", "-o", tmp_path / "out", "--json", tmp_path / "r.json"
        )
        assert code == 1
        report = json.loads((tmp_path / "r.json").read_text())
        assert [entry["source"] for entry in report["written"]] == [
            str(album / name) for name in ("a.png", "day/b.png", "day/night/a.png")
        ]
        for entry in report["written"]:
            assert images.read(entry["file"]).rgb.shape == (*entry["size"], 3) == (40, 60, 3)
            assert entry["milliseconds"] > 0
        assert [entry["source"] for entry in report["failed"]] == [str(album / "cut.png")]
        assert report["failed"][0]["why"] in stderr
        assert report["model"]["model"]["name"] == "tiny"
        assert report["there_already"] == 0
        assert report["environment"]["libraries"]["numpy"]

    def test_what_was_there_is_counted(self, make_package, album, tmp_path):
        arguments = (
            "run",
            make_package(),
            album,
            "-o",
            tmp_path / "out",
            "--skip-existing",
            "--json",
            tmp_path / "r.json",
        )
        for there in (0, 1):
            assert cli(*arguments)[0] == 0
            report = json.loads((tmp_path / "r.json").read_text())
            assert (len(report["written"]), report["there_already"]) == (1 - there, there)

    def test_a_crowd_of_folders_is_counted_instead_of_named(self, make_package, tmp_path):
        for index in range(5):
            (tmp_path / f"in/{index}").mkdir(parents=True)
            Image.fromarray(picture(8, 8)).save(tmp_path / f"in/{index}/a.png")
        _, stdout, _ = cli("run", make_package(), tmp_path / "in", "-r")
        assert f"written to {tmp_path}/in-tiny/0, {tmp_path}/in-tiny/1 and 3 more folders with" in stdout


class TestWritingBesideDrawing:
    def jobs(self, folder, number):
        for seed in range(number):
            Image.fromarray(picture(16, 16, seed)).save(folder / f"{seed}.png")
        return [Job(folder / f"{seed}.png", folder / f"{seed}.out.png") for seed in range(number)]

    def test_the_next_picture_is_drawn_while_one_is_written_and_order_is_kept(
        self, make_package, tmp_path, monkeypatch
    ):
        jobs, drawn, write = self.jobs(tmp_path, 12), [], images.write_telling
        second_is_drawn = threading.Event()

        def slow(path, *arguments, **options):
            if path == jobs[0].target:  # would wait forever if the second picture waited for it
                assert second_is_drawn.wait(30)
            return write(path, *arguments, **options)

        class Watched:
            def __init__(self, model):
                self.info, self.model = model.info, model

            def __call__(self, image):
                drawn.append(image)
                if len(drawn) == 2:
                    second_is_drawn.set()
                return self.model(image)

        monkeypatch.setattr(images, "write_telling", slow)
        monkeypatch.setattr(picture_run, "_WRITERS", 2)
        with impasto.load(make_package()) as model:
            found = [(job, outcome.result()) for job, outcome in run_pictures(Watched(model), jobs)]
        assert [job for job, _ in found] == jobs
        assert [run.job for _, run in found] == jobs

    @pytest.mark.parametrize(("limit", "most"), [(1 << 28, 2), (16 * 16 * 3, 1), (1, 0)])
    def test_few_pictures_wait(self, make_package, tmp_path, monkeypatch, limit, most):
        """While another is drawn: at most as many as there are writers, and no more bytes than the limit."""
        jobs, counts, lock = self.jobs(tmp_path, 10), [0, 0], threading.Lock()

        def slow(path, *arguments, **options):
            time.sleep(0.02)
            with lock:
                counts[1] += 1

        class Counting:
            def __init__(self, model):
                self.info, self.model = model.info, model

            def __call__(self, image):
                with lock:
                    waiting.append(counts[0] - counts[1])
                    counts[0] += 1
                return self.model(image)

        waiting: list[int] = []
        monkeypatch.setattr(images, "write_telling", slow)
        monkeypatch.setattr(picture_run, "_WRITERS", 2)
        monkeypatch.setattr(picture_run, "_WAITING_BYTES", limit)
        with impasto.load(make_package()) as model:
            assert len(list(run_pictures(Counting(model), jobs))) == 10
        assert max(waiting) == most

    def test_a_picture_that_fails_leaves_the_others(self, make_package, tmp_path):
        jobs = self.jobs(tmp_path, 5)
        jobs[2].source.write_text("no picture")
        with impasto.load(make_package()) as model:
            outcomes = [outcome for _, outcome in run_pictures(model, jobs)]
        assert [outcome.exception() is None for outcome in outcomes] == [True, True, False, True, True]
        assert isinstance(outcomes[2].exception(), PictureError)

    def test_a_disk_that_is_full_ends_the_run(self, make_package, album, tmp_path, monkeypatch):
        def full(path, *arguments, **options):
            raise OutputError(f"cannot write {path}: no space left on the disk")

        monkeypatch.setattr(images, "write_telling", full)
        code, _, stderr = cli("run", make_package(), album, "-r", "-o", tmp_path / "out")
        assert code == 1
        assert stderr.count("no space left on the disk") == 1
        assert files(tmp_path / "out") == []

    def test_what_a_file_cannot_hold_is_said_once_for_each(self, make_package, tmp_path):
        """Warnings of a thread are lost where another reads a picture, in Python before 3.14."""
        (tmp_path / "in").mkdir()
        exif = Image.Exif()
        exif[0x010E] = "a long description " * 4000
        for seed in range(6):
            Image.fromarray(picture(16, 16, seed)).save(tmp_path / "in" / f"{seed}.png", exif=exif)
        code, _, stderr = cli("run", make_package(), tmp_path / "in", "--format", "jpg")
        assert code == 0
        assert stderr.count("is written without the picture's EXIF data") == 6

    def test_ctrl_c_leaves_whole_files(self, make_package, tmp_path):
        (tmp_path / "in").mkdir()
        for seed in range(40):
            Image.fromarray(picture(400, 600, seed)).save(tmp_path / "in" / f"{seed:02}.png")
        out = tmp_path / "in-tiny"
        code, stderr = interrupted(
            tmp_path, lambda: len(list(out.glob("*.png"))) > 3, "run", make_package(), tmp_path / "in"
        )
        assert code == 130
        assert "stopped; nothing half-written is left" in stderr
        left = list(out.iterdir())
        assert 3 < len(left) < 40
        assert all(images.read(path).rgb.shape == (400, 600, 3) for path in left)
        assert not [path for path in left if path.name.startswith(".")]
