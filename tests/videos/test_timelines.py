"""What videos lose, and what their clocks and tracks say: carried, or told."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from support.command_line import cli
from support.videos import moving, read_clip, write_clip

from impasto.videos import redraw
from impasto.videos.timeline import BestTimes


def same(frames):
    yield from frames


def cut(path: Path, share: float) -> Path:
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    return path


def test_what_a_clip_cut_short_lacks_is_told(tmp_path):
    clip = cut(write_clip(tmp_path / "a.mkv", moving(30)), 0.6)
    found = redraw(clip, tmp_path / "b.mp4", same)
    assert 0 < len(found.times_s) < 30
    assert len(found.times_s) + len(found.lost_s) == 30
    assert found.lost_s == pytest.approx([index / 25 for index in range(len(found.times_s), 30)])


@pytest.mark.parametrize("share", [0.5, 0.9])
def test_an_index_tells_what_is_lost_exactly(tmp_path, share):
    frames = [np.random.default_rng(seed).integers(0, 256, (48, 64, 3), np.uint8) for seed in range(20)]
    clip = write_clip(tmp_path / "a.mp4", frames, options={"g": "1"})
    with (
        av.open(str(clip)) as source,
        av.open(str(tmp_path / "f.mp4"), "w", options={"movflags": "+faststart"}) as target,
    ):
        copy = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux():
            if packet.size:
                packet.stream = copy
                target.mux(packet)
    found = redraw(cut(tmp_path / "f.mp4", share), tmp_path / "b.mp4", same)
    assert found.lost_s
    assert len(found.times_s) + len(found.lost_s) == 20


def test_a_packet_that_cannot_be_decoded_loses_its_frame_alone(tmp_path, make_package):
    frames = moving(12)
    with av.open(str(write_clip(tmp_path / "a.mov", frames, codec="png", pix_fmt="rgb24"))) as source:
        packets = [(bytes(packet), packet.pts, packet.duration) for packet in source.demux() if packet.size]
        with av.open(str(tmp_path / "c.mov"), "w") as target:
            copy = target.add_stream_from_template(source.streams.video[0])
            for index, (content, time, duration) in enumerate(packets):
                packet = av.Packet(content if index not in (4, 7) else b"\0" * len(content))
                packet.pts = packet.dts = time
                packet.duration = duration
                packet.time_base, packet.stream = source.streams.video[0].time_base, copy
                target.mux(packet)
    found = redraw(tmp_path / "c.mov", tmp_path / "d.mp4", same)
    assert found.lost_s == pytest.approx((4 / 25, 7 / 25), abs=2e-3)
    assert len(read_clip(tmp_path / "d.mp4")[0]) == 10
    code, _, stderr = cli("run", make_package(), tmp_path / "c.mov", "-o", tmp_path / "e.mp4")
    assert code == 1  # as where one of several files fails
    assert (tmp_path / "e.mp4").exists()
    assert "2 of 12 frames" in stderr and "between 0.16 and 0.28 s" in stderr


def test_whole_clips_lose_nothing(tmp_path):
    uneven = [0, 40, 50, 400, 440, 1000]
    for name, options in {"a.mkv": {}, "b.mp4": {}, "c.avi": {}, "d.mp4": {"bf": "3"}}.items():
        found = redraw(
            write_clip(tmp_path / name, moving(12), options=options, sound="aac"), tmp_path / "out.mp4", same
        )
        assert (found.lost_s, found.hidden, found.restarts_s, len(found.times_s)) == ((), 0, (), 12), name
    for name in ("e.mkv", "f.mp4"):
        clip = write_clip(tmp_path / name, moving(6), times=uneven, time_base=Fraction(1, 1000))
        assert redraw(clip, tmp_path / "out.mp4", same).lost_s == ()


@pytest.mark.parametrize("sound", [None, "aac"])
@pytest.mark.parametrize("target", ["b.mp4", "b.mkv"])
def test_parts_whose_clocks_begin_anew_follow_each_other(tmp_path, sound, target):
    part = write_clip(tmp_path / "a.ts", moving(25), sound=sound, options={"bf": "2"}).read_bytes()
    (tmp_path / "two.mkv").write_bytes(part + part)
    found = redraw(tmp_path / "two.mkv", tmp_path / target, same)
    assert len(found.times_s) == 50
    assert np.diff(found.times_s) == pytest.approx(1 / 25, abs=0.03)
    assert found.times_s[-1] == pytest.approx(49 / 25, abs=0.1)
    assert len(found.restarts_s) == 1
    assert len(read_clip(tmp_path / target)[0]) == 50


def test_transparency_is_told(tmp_path, make_package):
    def clip(name: str, alpha: int) -> Path:
        with av.open(str(tmp_path / name), "w") as container:
            video = container.add_stream("qtrle", rate=25)
            video.width, video.height, video.pix_fmt = 64, 48, "argb"
            for frame in moving(3):
                rgba = np.dstack([frame, np.full(frame.shape[:2], alpha, np.uint8)])
                container.mux(video.encode(av.VideoFrame.from_ndarray(rgba, format="rgba").reformat(format="argb")))
            container.mux(video.encode(None))
        return tmp_path / name

    assert redraw(clip("half.mov", 128), tmp_path / "b.mp4", same).transparent
    assert not redraw(clip("full.mov", 255), tmp_path / "b.mp4", same).transparent
    assert "is transparent in parts" in cli("run", make_package(), tmp_path / "half.mov", "-o", tmp_path / "c.mp4")[2]


def with_tracks(path: Path) -> Path:
    """A clip with a title, and two tracks of sound of which the second is the default one."""
    with av.open(str(path), "w") as container:
        video: Any = container.add_stream("libx264", rate=25)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        sounds: list[Any] = [container.add_stream("aac", rate=48000, layout="mono") for _ in range(2)]
        for sound, (language, title) in zip(sounds, (("jpn", "Original"), ("eng", "Commentary")), strict=True):
            sound.metadata.update(language=language, title=title)
        sounds[0].disposition, sounds[1].disposition = 0, av.stream.Disposition.default
        container.metadata["title"] = "MyFilm"
        for index, frame in enumerate(moving(5)):
            shown = av.VideoFrame.from_ndarray(frame, format="rgb24")
            shown.pts = index
            container.mux(video.encode(shown))
        for sound in sounds:
            silence = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            silence.sample_rate, silence.pts = 48000, 0
            container.mux(sound.encode(silence))
        for stream in (video, *sounds):
            container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize(("source", "suffix"), [(".mkv", ".mkv"), (".mkv", ".mp4"), (".mp4", ".mkv")])
def test_titles_languages_and_the_default_track_stay(tmp_path, source, suffix):
    redraw(with_tracks(tmp_path / f"a{source}"), tmp_path / f"b{suffix}", same)
    with av.open(str(tmp_path / f"b{suffix}")) as container:
        assert container.metadata["title"] == "MyFilm"
        told = [
            (s.metadata["language"], bool(s.disposition & av.stream.Disposition.default))
            for s in container.streams.audio
        ]
        assert told == [("jpn", False), ("eng", True)]
        titles = [s.metadata.get("title", s.metadata.get("name")) for s in container.streams.audio]
        assert titles == ["Original", "Commentary"]


def test_where_no_file_holds_the_sound_none_is_named(tmp_path, make_package):
    package = make_package()
    for codec, told in (
        ("wmav2", "cannot hold; convert it first"),
        ("pcm_u8", "cannot hold; .mkv files do; or convert it first"),
    ):
        clip = write_clip(tmp_path / ("a.wmv" if codec == "wmav2" else "a.mkv"), moving(5), sound=codec)
        code, _, stderr = cli("run", package, clip, "-o", tmp_path / "b.mp4")
        assert code == 0
        assert told in stderr


def test_sound_can_be_left_out(tmp_path, make_package):
    clip = write_clip(tmp_path / "a.mkv", moving(5), sound="pcm_u8")
    assert redraw(clip, tmp_path / "b.mp4", same, sound=False).sounds == 0
    code, _, stderr = cli("run", make_package(), clip, "-o", tmp_path / "c.mp4", "--no-audio")
    assert code == 0, stderr
    with av.open(str(tmp_path / "c.mp4")) as container:
        assert not container.streams.audio


def test_frames_that_an_edit_list_cuts_off_are_told(tmp_path):
    clip = write_clip(tmp_path / "a.mp4", moving(10), times=range(-3, 7))
    found = redraw(clip, tmp_path / "b.mp4", same)
    assert (found.hidden, found.lost_s, len(found.times_s)) == (3, (), 7)


class _Frame:
    def __init__(self, shown: int | None, decoded: int | None) -> None:
        self.pts, self.dts = shown, decoded


def test_the_better_of_two_clocks_is_taken():
    times = BestTimes()
    assert [times.of(_Frame(None, time)) for time in (0, 40, 80)] == [0, 40, 80]
    times = BestTimes()
    assert [times.of(_Frame(shown, 40 * index)) for index, shown in enumerate((0, 40, 20, 30, 10))] == [
        0,
        40,
        80,
        120,
        160,
    ]
    times = BestTimes()
    assert [times.of(_Frame(time, 0)) for time in (0, 40, 80)] == [0, 40, 80]
