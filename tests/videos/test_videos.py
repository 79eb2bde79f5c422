"""Video files: frames, times, colours and sound come through, and what cannot be read is refused with a sentence."""

from __future__ import annotations

import re
import sys
from fractions import Fraction
from itertools import islice

import numpy as np
import pytest
from PIL import Image

av = pytest.importorskip("av", reason="PyAV is not installed: pip install 'impasto[video]'")

from support.videos import moving, packets, read_clip, write_clip  # noqa: E402

from impasto.errors import MissingDependency, OptionError, OutputError, PictureError, install  # noqa: E402
from impasto.videos import is_video, redraw  # noqa: E402


def same(frames):
    yield from frames


def mean_difference(one, other):
    return np.abs(one.astype(np.int16) - other).mean()


def test_frames_come_and_go_by_their_colours_and_times(tmp_path):
    frames, seen = moving(12), []

    def draw(given):
        for frame in given:
            seen.append(frame.copy())
            yield 255 - frame

    clip = write_clip(tmp_path / "a.mp4", frames)
    found = redraw(clip, tmp_path / "b.mp4", draw, crf=2)
    assert (found.width, found.height, found.sounds, found.damaged, found.interlaced) == (64, 48, 0, 0, False)
    assert found.times_s == pytest.approx([index / 25 for index in range(12)])
    written, times = read_clip(tmp_path / "b.mp4")
    assert times == pytest.approx(found.times_s)
    assert len(seen) == len(written) == 12
    for frame, given, drawn in zip(frames, seen, written, strict=True):
        assert given.dtype == np.uint8 and given.flags.c_contiguous
        assert mean_difference(given, frame) < 1.5
        assert mean_difference(drawn, 255 - frame) < 2


@pytest.mark.parametrize("matrix", [1, 5])
@pytest.mark.parametrize("limited", [True, False])
@pytest.mark.parametrize(
    ("codec", "pix_fmt"), [("libx264", "yuv420p"), ("libx264", "yuv444p"), ("libx265", "yuv420p10le")]
)
def test_colours_are_those_that_the_file_means(tmp_path, matrix, limited, codec, pix_fmt):
    colour = np.array([200, 30, 60], np.uint8)
    clip = write_clip(
        tmp_path / "a.mkv",
        [np.broadcast_to(colour, (64, 64, 3))] * 2,
        codec=codec,
        pix_fmt=pix_fmt,
        matrix=matrix,
        limited=limited,
        # With B-frames and threads of its own, one in some 450 of x265's clips has times that Matroska refuses.
        options={"x265-params": "log-level=none:qp=2:bframes=0:frame-threads=1:pools=none"}
        if codec == "libx265"
        else {},
    )
    given = []
    redraw(clip, tmp_path / "b.mp4", lambda frames: (given.append(frame) or frame for frame in frames), crf=1)
    assert np.abs(given[0].astype(int) - colour).max() <= 3
    assert np.abs(read_clip(tmp_path / "b.mp4")[0][0].astype(int) - colour).max() <= 3


def test_frames_of_uneven_times_keep_them(tmp_path):
    times = [0, 1, 5, 6, 20, 21]
    clip = write_clip(tmp_path / "a.mkv", moving(6), times=times, time_base=Fraction(1, 50))
    found = redraw(clip, tmp_path / "b.mp4", same)
    assert read_clip(tmp_path / "b.mp4")[1] == pytest.approx([time / 50 for time in times], abs=1e-3)
    assert found.times_s == pytest.approx([time / 50 for time in times], abs=1e-3)


@pytest.mark.parametrize(("rotation", "shape"), [(90, (64, 48)), (-90, (64, 48)), (180, (48, 64))])
def test_a_phone_held_upright_gives_upright_frames(tmp_path, rotation, shape):
    frames, given = moving(3), []
    clip = write_clip(tmp_path / "a.mp4", frames, rotation=rotation, aspect=Fraction(4, 3))
    redraw(clip, tmp_path / "b.mp4", lambda clip: (given.append(frame) or frame for frame in clip))
    assert given[0].shape == (*shape, 3)
    assert mean_difference(given[0], np.rot90(frames[0], rotation // 90)) < 1.5
    with av.open(str(tmp_path / "b.mp4")) as written:
        video = written.streams.video[0]
        assert next(written.decode(video)).rotation == 0
        assert video.sample_aspect_ratio == (Fraction(3, 4) if shape[0] == 64 else Fraction(4, 3))


@pytest.mark.parametrize(
    ("codec", "source", "target"),
    [
        ("aac", "a.mp4", "b.mp4"),
        ("libopus", "a.mkv", "b.mkv"),
        ("flac", "a.mkv", "b.mp4"),
    ],
)
def test_sound_is_carried_bit_by_bit(tmp_path, codec, source, target):
    clip = write_clip(tmp_path / source, moving(40), sound=codec)
    assert redraw(clip, tmp_path / target, same).sounds == 1
    before, after = packets(clip), packets(tmp_path / target)
    assert [content for content, _ in before] == [content for content, _ in after]
    assert [float(time) for _, time in before] == pytest.approx([float(time) for _, time in after], abs=2e-3)


def test_sound_of_unnamed_speakers_is_carried_where_they_must_be_named(tmp_path):
    clip = write_clip(tmp_path / "a.avi", moving(5), sound="pcm_s16le", speakers="stereo")  # .avi names none
    redraw(clip, tmp_path / "b.mp4", same)
    before, after = (b"".join(content for content, _ in packets(path)) for path in (clip, tmp_path / "b.mp4"))
    assert before == after


@pytest.mark.parametrize(
    ("codec", "target"),
    [("pcm_u8", "b.mp4"), ("libopus", "b.mov"), ("flac", "b.mov")],
)
def test_sound_that_the_file_cannot_hold_is_left_out_and_told(tmp_path, codec, target):
    clip = write_clip(tmp_path / "a.mkv", moving(5), sound=codec)
    found = redraw(clip, tmp_path / target, same)
    assert (found.sounds, found.sounds_lost) == (0, 1)
    assert found.sounds_refused == (f"sound track 1 ({codec.removeprefix('lib')})",)
    assert len(read_clip(tmp_path / target)[0]) == 5
    kept = redraw(clip, tmp_path / "b.mkv", same)
    assert (kept.sounds, kept.sounds_refused) == (1, ())


def test_one_track_that_the_file_cannot_hold_costs_no_other(tmp_path):
    """The others stay as they are, bit by bit."""
    aac = write_clip(tmp_path / "aac.mkv", moving(12), sound="aac")
    pcm = write_clip(tmp_path / "pcm.mkv", moving(12), sound="pcm_u8")
    clip = tmp_path / "both.mkv"
    with av.open(str(aac)) as one, av.open(str(pcm)) as other, av.open(str(clip), "w") as both:
        tracks = [(other, other.streams.audio[0]), (one, one.streams.audio[0]), (one, one.streams.video[0])]
        copies = [both.add_stream_from_template(track) for _, track in tracks]
        copies[0].metadata["language"] = "jpn"
        for (container, track), copy in zip(tracks, copies, strict=True):
            container.seek(0)
            for packet in container.demux(track):
                if packet.size:
                    packet.stream = copy
                    both.mux(packet)
    found = redraw(clip, tmp_path / "b.mp4", same)
    assert (found.sounds, found.sounds_refused) == (1, ("sound track 1 (pcm_u8, jpn)",))
    assert [content for content, _ in packets(tmp_path / "b.mp4")] == [content for content, _ in packets(aac)]


@pytest.mark.parametrize(
    ("name", "codec", "sound"),
    [
        ("a.ts", "libx264", "aac"),
        ("A.MTS", "mpeg2video", "mp2"),
        ("a.m2ts", "libx264", "ac3"),
        ("a.mpg", "mpeg1video", "mp2"),
        ("a.mpeg", "mpeg2video", "mp2"),
        ("a.vob", "mpeg2video", "ac3"),
        ("a.wmv", "wmv2", None),
        ("a.asf", "msmpeg4", None),
        ("a.flv", "flv", None),
        ("a.f4v", "libx264", "aac"),
        ("a.3gp", "h263", None),
        ("a.3g2", "libx264", "aac"),
        ("a.ogv", "libvpx", "libopus"),
        ("a.y4m", "wrapped_avframe", None),
        ("a.gif", "gif", None),
    ],
)
def test_files_of_other_kinds_are_read(tmp_path, name, codec, sound):
    frames = moving(8, 144, 176)
    pix_fmt = "rgb8" if codec == "gif" else "yuv420p"
    clip = write_clip(tmp_path / name, frames, codec=codec, pix_fmt=pix_fmt, matrix=5, sound=sound)
    assert is_video(clip)
    found = redraw(clip, tmp_path / "b.mp4", same)
    assert (found.sounds, found.sounds_refused) == (bool(sound), ())
    assert (found.lost_s, found.hidden, found.restarts_s, found.left_out) == ((), 0, (), ())
    assert np.diff(found.times_s) == pytest.approx([0.04] * 7, abs=2e-3)
    for drawn, frame in zip(read_clip(tmp_path / "b.mp4")[0], frames, strict=True):
        assert mean_difference(drawn, frame) < 9  # rgb8 has 256 colours; 3 for the others


def test_pictures_that_move_keep_their_times_and_a_still_one_is_a_picture(tmp_path):
    first, *others = (Image.fromarray(frame) for frame in moving(4, 47, 63))
    first.save(tmp_path / "still.gif")
    first.save(tmp_path / "moving.gif", save_all=True, append_images=others, duration=[100, 20, 300, 50])
    assert is_video(tmp_path / "moving.gif")
    assert not is_video(tmp_path / "still.gif")
    assert redraw(tmp_path / "moving.gif", tmp_path / "b.mp4", same).times_s == pytest.approx([0, 0.1, 0.12, 0.42])


def test_larger_and_odd_results(tmp_path):
    clip = write_clip(tmp_path / "a.mp4", moving(3))
    found = redraw(clip, tmp_path / "b.mp4", lambda frames: (frame.repeat(2, 0).repeat(2, 1) for frame in frames))
    assert (found.height, found.width) == read_clip(tmp_path / "b.mp4")[0][0].shape[:2] == (96, 128)
    cut = [np.ascontiguousarray(frame[:47, :63]) for frame in moving(3)]
    redraw(clip, tmp_path / "c.mp4", lambda frames: (frame[:47, :63] for frame in frames), crf=2)
    assert mean_difference(read_clip(tmp_path / "c.mp4")[0][2], cut[2]) < 2


def test_a_larger_rate_factor_makes_a_smaller_file(tmp_path):
    noise = [np.random.default_rng(seed).integers(0, 256, (48, 64, 3), np.uint8) for seed in range(5)]
    clip = write_clip(tmp_path / "a.mp4", noise)
    sizes = [redraw(clip, tmp_path / f"{crf}.mp4", same, crf=crf).path.stat().st_size for crf in (2, 16, 40)]
    assert sizes == sorted(sizes, reverse=True) and sizes[2] < sizes[0] / 2


def test_progress_says_how_many_there_are(tmp_path):
    told = []
    redraw(
        write_clip(tmp_path / "a.mp4", moving(4)), tmp_path / "b.mp4", same, progress=lambda *step: told.append(step)
    )
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_interlaced_frames_are_told(tmp_path):
    options = {"x264-params": "tff=1:interlaced=1", "flags": "+ilme+ildct"}
    clip = write_clip(tmp_path / "a.mkv", moving(4, 64), options=options)
    assert redraw(clip, tmp_path / "b.mp4", same).interlaced


@pytest.mark.parametrize(("transfer", "name"), [(16, "PQ"), (18, "HLG")])
def test_high_dynamic_range_is_refused(tmp_path, transfer, name):
    clip = write_clip(tmp_path / "a.mkv", moving(2), transfer=transfer)
    with pytest.raises(PictureError, match=rf"high dynamic range \({name}\).*ffmpeg -i a\.mkv"):
        redraw(clip, tmp_path / "b.mp4", same)
    assert not (tmp_path / "b.mp4").exists()


def refused(source, target, error, words):
    before = set(target.parent.iterdir())
    with pytest.raises(error, match=words):
        redraw(source, target, same)
    assert set(target.parent.iterdir()) == before, "nothing is left behind"


def test_what_is_no_video_is_refused(tmp_path):
    target = tmp_path / "b.mp4"
    (tmp_path / "text.mp4").write_text("not a video\n" * 50)
    (tmp_path / "empty.mp4").touch()
    refused(tmp_path / "nowhere.mp4", target, PictureError, "does not exist")
    refused(tmp_path, target, PictureError, "is a folder")
    refused(tmp_path / "text.mp4", target, PictureError, "no video file that can be read")
    refused(tmp_path / "empty.mp4", target, PictureError, "no video file that can be read")
    write_clip(tmp_path / "both.mkv", moving(5), sound="flac")
    with av.open(str(tmp_path / "both.mkv")) as both, av.open(str(tmp_path / "sound.mp4"), "w") as alone:
        sound = alone.add_stream_from_template(both.streams.audio[0])
        for packet in both.demux(audio=0):
            if packet.size:
                packet.stream = sound
                alone.mux(packet)
    refused(tmp_path / "sound.mp4", target, PictureError, "holds no video; it has audio")


def test_a_file_cut_off_or_altered_never_leaves_half_a_result(tmp_path):
    whole = write_clip(tmp_path / "a.mp4", moving(30)).read_bytes()
    (tmp_path / "a.mp4").write_bytes(whole[: len(whole) // 2])  # its index is at its end
    refused(tmp_path / "a.mp4", tmp_path / "b.mp4", PictureError, "no video file that can be read")
    for seed in range(20):
        damaged = np.frombuffer(whole, np.uint8).copy()
        places = np.random.default_rng(seed).integers(0, len(damaged), 40)
        damaged[places] ^= 0xFF
        (tmp_path / "c.mp4").write_bytes(damaged.tobytes())
        try:
            found = redraw(tmp_path / "c.mp4", tmp_path / "d.mp4", same)
        except (PictureError, OutputError, OptionError):
            assert not (tmp_path / "d.mp4").exists()
        else:
            assert len(read_clip(tmp_path / "d.mp4")[0]) == len(found.times_s)
            (tmp_path / "d.mp4").unlink()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.mp4", "c.mp4"]


def test_what_cannot_be_written_is_refused(tmp_path):
    clip = write_clip(tmp_path / "a.mp4", moving(2))
    refused(clip, tmp_path / "b.webm", OptionError, r"cannot write a video to 'b\.webm'.*\.mp4, \.mov")
    with pytest.raises(OutputError, match="does not exist"):
        redraw(clip, tmp_path / "nowhere" / "b.mp4", same)


def test_whatever_the_drawer_raises_comes_through_and_stops_it(tmp_path):
    stopped = []

    def draw(frames):
        try:
            yield next(frames)
            raise ZeroDivisionError
        finally:
            stopped.append(True)

    refused_by = write_clip(tmp_path / "a.mp4", moving(5))
    with pytest.raises(ZeroDivisionError):
        redraw(refused_by, tmp_path / "b.mp4", draw)
    assert stopped and sorted(path.name for path in tmp_path.iterdir()) == ["a.mp4"]


@pytest.mark.parametrize(
    ("draw", "number"),
    [
        (lambda frames: (frame for index, frame in enumerate(frames) if index % 2), "only 2 of"),
        (lambda frames: islice(frames, 3), "only 3 of"),
        (lambda frames: iter(()), "only 0 of"),
        (lambda frames: (frame for frame in frames for _ in range(2)), "more than"),
    ],
)
def test_a_drawer_gives_as_many_frames_as_there_are(tmp_path, draw, number):
    clip = write_clip(tmp_path / "a.mp4", moving(5))
    with pytest.raises(OptionError, match=f"draw gave {number} the frames"):
        redraw(clip, tmp_path / "b.mp4", draw)
    assert not (tmp_path / "b.mp4").exists()


@pytest.mark.parametrize("name", ["a.mp4", "A.MOV", "folder/a.webm"])
def test_videos_are_known_by_their_names(name):
    assert is_video(name)
    assert not is_video(f"{name}.png")


def test_without_pyav(tmp_path, monkeypatch):
    clip = write_clip(tmp_path / "a.mp4", moving(2))
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(MissingDependency, match=re.escape(install("video"))):
        redraw(clip, tmp_path / "b.mp4", same)
