"""`impasto run` on videos: what a model draws of each frame, the style that the frames keep, and what is refused."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.command_line import cli, interrupted
from support.perceptual_networks import LAYERS, write_perceptual

pytest.importorskip("av", reason="PyAV is not installed: pip install 'impasto[video]'")

from support.small_models import picture
from support.videos import moving, packets, read_clip, write_clip

import impasto
from impasto.batch.jobs import Job
from impasto.batch.videos import run_video
from impasto.runtime import StyleMeter
from impasto.videos import redraw


@pytest.fixture
def clip(tmp_path):
    return write_clip(tmp_path / "clip.mp4", moving(10), sound="aac")


def test_every_frame_is_what_the_model_streams(make_package, clip, tmp_path):
    package = make_package(border=3)
    code, stdout, _ = cli("run", package, clip, "-o", tmp_path / "out.mkv", "--crf", 0)
    assert code == 0
    assert "10 frames of 64x48" in stdout
    assert "frames/s from file to file" in stdout
    frames, times = read_clip(tmp_path / "out.mkv")
    with impasto.load(package) as model:
        wanted = write_clip(tmp_path / "wanted.mkv", list(model.stream(_given(clip))), options={"crf": "0"})
    assert len(frames) == 10
    assert np.array_equal(frames, read_clip(wanted)[0]), (
        "rate factor 0 loses nothing but 4:2:0's colours, here as there"
    )
    # AAC begins before its first sample, and Matroska counts from the first packet of all.
    assert np.diff(times) == pytest.approx(np.full(9, 1 / 25), abs=2e-3)
    assert [content for content, _ in packets(tmp_path / "out.mkv")] == [content for content, _ in packets(clip)]


def test_by_default_beside_the_clip_and_larger_where_the_model_enlarges(make_package, clip, tmp_path):
    code, _, stderr = cli("run", make_package(scale=2), clip)
    assert code == 0, stderr
    assert read_clip(tmp_path / "clip.tiny.mp4")[0][0].shape == (96, 128, 3)


def test_pictures_and_videos_together_and_a_damaged_one_passed_over(make_package, clip, tmp_path):
    Image.fromarray(picture(20, 30)).save(tmp_path / "a.png")
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    code, stdout, stderr = cli(
        "run", make_package(), tmp_path / "a.png", tmp_path / "broken.mp4", clip, "-o", tmp_path / "out"
    )
    assert code == 1
    assert "2 of 3 files written" in stdout
    assert "broken.mp4 is no video file" in stderr
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.tiny.png", "clip.tiny.mp4"]


def test_the_style_of_every_frame_is_measured(make_package, clip, tmp_path):
    package, network = make_package(), write_perceptual(tmp_path / "small")
    Image.fromarray(picture(64, 64, 3)).save(tmp_path / "painting.png")
    code, stdout, stderr = cli(
        "run", package, clip, "-o", tmp_path / "out.mp4", "--painting", tmp_path / "painting.png",
        "--network", network, "--json", tmp_path / "run.json",
    )  # fmt: skip
    assert code == 0, stderr
    report = json.loads((tmp_path / "run.json").read_text())
    (told,) = report["written"]
    assert (told["source"], told["file"]) == (str(clip), str(tmp_path / "out.mp4"))
    assert told["size"] == [48, 64]
    assert report["model"]["model"]["name"] == "tiny"
    with impasto.load(package) as model, StyleMeter(tmp_path / "painting.png", network) as meter:
        wanted = [meter(frame) for frame in model.stream(_given(clip))]
    assert len(told["frames"]) == len(wanted) == 10
    for index, (entry, distance) in enumerate(zip(told["frames"], wanted, strict=True)):
        assert entry["time_s"] == pytest.approx(index / 25)
        assert entry["total"] == pytest.approx(distance.total, rel=1e-5)
        assert set(entry["layers"]) == set(LAYERS)
    totals = [entry["total"] for entry in told["frames"]]
    assert f"{min(totals):.4g} at {totals.index(min(totals)) / 25:.2f} s" in stdout
    assert f"largest change from frame to frame {np.abs(np.diff(totals)).max():.2g}" in stdout


def test_large_frames_are_drawn_small_with_even_sides(make_package, clip, tmp_path):
    code, stdout, stderr = cli("run", make_package(), clip, "-o", tmp_path / "out.mp4", "--longest-side", 33)
    assert code == 0, stderr
    assert "10 frames of 32x24" in stdout
    assert [frame.shape for frame in read_clip(tmp_path / "out.mp4")[0]] == [(24, 32, 3)] * 10


def test_through_pipes(make_package, clip, tmp_path):
    """Standard output holds the video and nothing else; what is to be said goes to standard error."""
    package, given = make_package(), io.BytesIO()
    redraw(clip, given, lambda frames: frames)
    done = piped(package, "-", "-o", "-", content=given.getvalue())
    assert done.returncode == 0, done.stderr
    assert b"wrote a Y4M stream, 10 frames of 64x48" in done.stderr
    wanted = io.BytesIO()
    with impasto.load(package) as model:
        redraw(io.BytesIO(given.getvalue()), wanted, model.stream)
    assert done.stdout == wanted.getvalue()
    from_file = piped(package, clip, "-o", "-")
    assert len(from_file.stdout) == len(wanted.getvalue())
    assert b"Y4M holds no sound" in from_file.stderr
    to_file = piped(package, "-", "-o", tmp_path / "out.mp4", content=given.getvalue())
    assert b"wrote" in to_file.stdout
    assert len(read_clip(tmp_path / "out.mp4")[0]) == 10


def test_sound_that_is_left_out_is_told_with_its_track(make_package, tmp_path):
    package, clip = make_package(), write_clip(tmp_path / "a.mkv", moving(3), sound="pcm_u8")
    code, _, stderr = cli("run", package, clip, "-o", tmp_path / "b.mp4", "--json", tmp_path / "run.json")
    assert code == 0
    assert (
        f"left out of {clip}: sound track 1 (pcm_u8), which .mp4 files cannot hold; .mkv files do; or convert it first"
        in stderr
    )
    written = json.loads((tmp_path / "run.json").read_text())["written"][0]
    assert written["left_out"] == ["sound track 1 (pcm_u8)"]
    assert "left out" not in cli("run", package, clip, "-o", tmp_path / "b.mkv")[2]
    assert "left out" not in cli("run", package, clip, "-o", tmp_path / "c.mp4", "--no-audio")[2]


def test_a_reader_that_stops_ends_the_run_with_one_line(make_package, clip):
    command = [*RUN, str(make_package()), str(clip), "-o", "-"]
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=Path(__file__).parent, env=buffered
    )
    process.stdout.close()
    stderr = process.stderr.read().decode()
    assert process.wait(60) == 1
    assert stderr == "error: the program that reads the Y4M stream has stopped; look there for why\n"


RUN = [sys.executable, "-m", "impasto", "run"]


def piped(*arguments, content=b""):
    command = [*RUN, *(str(argument) for argument in arguments)]
    return subprocess.run(command, input=content, capture_output=True, timeout=60, cwd=Path(__file__).parent)


def test_ctrl_c_while_nothing_comes_in(make_package, tmp_path):
    package, (read, write) = make_package(), os.pipe()
    os.write(write, b"YUV4MPEG2 W64 H48 F25:1\n")
    code, stderr = interrupted(
        tmp_path,
        lambda: list(tmp_path.glob(".out-*.mp4")),
        *("run", package, "-", "-o", tmp_path / "out.mp4"),
        stdin=read,
    )
    assert code == 130
    assert "Traceback" not in stderr and "Exception" not in stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tiny"]
    os.close(read)
    os.close(write)


def _given(clip):
    """The frames as `run` sees them."""
    seen: list[np.ndarray] = []

    class Looking:
        info = type("Info", (), {"to_json": staticmethod(dict)})

        def stream(self, frames):
            for frame in frames:
                seen.append(frame)
                yield frame

    run_video(Looking(), Job(clip, clip.with_name("looking.mkv")))
    return seen


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("{clip}", "-o", "{folder}/out.png"), "cannot write a video to 'out.png'"),
        (("{clip}", "-o", "{clip}"), "is the video itself and would be overwritten"),
        (("{photo}", "-o", "{folder}/out.mp4"), "is a picture, and 'out.mp4' is a video's name"),
        (("{folder}/x.rm", "-o", "{folder}/out.mp4"), "x.rm: .rm is no video file type that is read (.mp4, .mov,"),
        (("{photo}", "--painting", "{photo}"), "--painting is for one video"),
        (("{clip}", "{photo}", "--painting", "{photo}"), "--painting is for one video"),
        (("{clip}", "--painting", "{folder}/nothing.png"), "nothing.png does not exist"),
        (("{clip}", "--painting", "{photo}", "--network", "{folder}/none"), "no perceptual network at"),
        (("{folder}/nothing.mp4",), "nothing.mp4 does not exist"),
        (("-",), "add -o FILE, or -o - for standard output"),
        (("-", "{clip}", "-o", "{folder}/out.mp4"), "- is one video"),
        (("-", "-o", "{folder}/out.png"), "cannot write a video to 'out.png'"),
        (("{photo}", "-o", "-"), "standard output carries video alone"),
        (("-", "-o", "{folder}/out.mp4"), "no Y4M stream comes in: it is empty"),
    ],
)
def test_what_cannot_work_is_one_line_and_writes_nothing(make_package, clip, tmp_path, arguments, words):
    package, photo = make_package(), tmp_path / "photo.png"
    Image.fromarray(picture(40, 60)).save(photo)
    before = sorted(tmp_path.rglob("*"))
    filled = [argument.format(clip=clip, photo=photo, folder=tmp_path) for argument in arguments]
    code, _, stderr = cli("run", package, *filled)
    assert code == 1
    assert words in stderr.splitlines()[-1]
    assert sorted(tmp_path.rglob("*")) == before


def test_ctrl_c_leaves_no_half_video(make_package, tmp_path):
    long = write_clip(tmp_path / "long.mp4", moving(20, 480, 640) * 20)
    code, stderr = interrupted(
        tmp_path,
        lambda: any(path.stat().st_size for path in tmp_path.glob(".out-*.mp4")),
        *("run", make_package(), long, "-o", tmp_path / "out.mp4"),
    )
    assert code == 130
    assert "stopped; nothing half-written is left" in stderr
    assert "Traceback" not in stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["long.mp4", "tiny"]
