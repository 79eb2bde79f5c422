"""Y4M through pipes: what FFmpeg writes is read and the other way round, frames come out as they go in, and what is none is refused."""

from __future__ import annotations

import io
import os
import threading
from fractions import Fraction

import numpy as np
import pytest

av = pytest.importorskip("av", reason="PyAV is not installed: pip install 'impasto[video]'")

from support.videos import moving, read_clip, write_clip  # noqa: E402

from impasto.errors import OutputError, PictureError  # noqa: E402
from impasto.videos import redraw  # noqa: E402
from impasto.videos.y4m import Header  # noqa: E402

RATE = Fraction(30000, 1001)


def same(frames):
    yield from frames


def mean_difference(one, other):
    return np.abs(one.astype(np.int16) - other).mean()


def written_by_ffmpeg(frames, pix_fmt="yuv420p", matrix=5, full=False):
    """The bytes of a Y4M stream."""
    stream = io.BytesIO()
    height, width = frames[0].shape[:2]
    with av.open(stream, "w", format="yuv4mpegpipe", options={"strict": "-1"}) as container:
        video = container.add_stream("rawvideo", rate=RATE)
        video.width, video.height, video.pix_fmt = width, height, pix_fmt
        video.codec_context.color_range = 2 if full else 1
        for frame in frames:
            made = av.VideoFrame.from_ndarray(frame, format="rgb24").reformat(
                format=pix_fmt,
                dst_colorspace=matrix,
                dst_color_range=2 if full else 1,
                interpolation=0x40000 | 0x2000 | 4,
            )
            container.mux(video.encode(made))
        container.mux(video.encode(None))
    return stream.getvalue()


def read_by_ffmpeg(content):
    """The frames as RGB, by the matrix of small ones, and width, height and rate of the stream that holds them."""
    with av.open(io.BytesIO(content), format="yuv4mpegpipe") as container:
        video = container.streams.video[0]
        frames = [
            frame.reformat(format="rgb24", src_colorspace=5, src_color_range=1, interpolation=0x40000 | 0x2000 | 4)
            for frame in container.decode(video)
        ]
        return [frame.to_ndarray() for frame in frames], (video.width, video.height, video.average_rate)


def drawn(content, draw=same):
    """What `redraw` says, and the bytes that it writes."""
    target = io.BytesIO()
    return redraw(io.BytesIO(content), target, draw), target.getvalue()


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize(
    "pix_fmt", ["yuv420p", "yuv422p", "yuv444p", "yuv411p", "yuv420p10le", "yuv422p12le", "yuv444p16le", "gray"]
)
def test_what_ffmpeg_writes_is_read(pix_fmt, full):
    frames, seen = moving(3), []
    if pix_fmt == "gray":
        frames = [np.repeat(frame[..., :1], 3, 2) for frame in frames]
    content = written_by_ffmpeg(frames, pix_fmt, full=full or pix_fmt == "gray")
    found, _ = drawn(content, lambda given: (seen.append(frame) or frame for frame in given))
    assert len(seen) == len(found.times_s) == 3
    for frame, given in zip(frames, seen, strict=True):
        assert mean_difference(given, frame) < (3 if pix_fmt == "yuv411p" else 1.5)


@pytest.mark.parametrize(("height", "width"), [(48, 64), (47, 63), (48, 63), (2, 2), (1, 1)])
def test_what_is_written_ffmpeg_reads(height, width):
    frames = [np.ascontiguousarray(frame[:height, :width]) for frame in moving(4)]
    found, content = drawn(written_by_ffmpeg(moving(4)), lambda given: (frames.pop(0) for _ in given))
    assert (found.height, found.width, found.path) == (height, width, None)
    read, video = read_by_ffmpeg(content)
    assert video == (width, height, RATE)
    assert len(read) == 4
    wanted = [np.ascontiguousarray(frame[:height, :width]) for frame in moving(4)]
    assert all(mean_difference(one, other) < 1.5 for one, other in zip(read, wanted, strict=True))


def test_colours_follow_the_rule_of_players():
    """Y4M names no matrix: BT.601 up to 576 rows, BT.709 above, on both sides."""
    for height, matrix in ((576, 5), (578, 1)):
        colour = np.broadcast_to(np.array([200, 30, 60], np.uint8), (height, 16, 3))
        seen = []
        _, content = drawn(
            written_by_ffmpeg([colour], matrix=matrix),
            lambda given, seen=seen: (seen.append(frame) or frame for frame in given),
        )
        assert np.abs(seen[0].astype(int) - colour).max() <= 3
        again = []
        drawn(content, lambda given, again=again: (again.append(frame) or frame for frame in given))
        assert np.abs(again[0].astype(int) - colour).max() <= 3


def test_from_a_file_and_to_a_file(tmp_path):
    clip = write_clip(tmp_path / "a.mp4", moving(6), sound="aac", aspect=Fraction(4, 3))
    stream = io.BytesIO()
    found = redraw(clip, stream, same)
    assert (found.sounds, found.sounds_lost, found.uneven) == (0, 1, False)
    header = Header.parse(stream.getvalue().split(b"\n")[0].decode())
    assert header == Header(64, 48, Fraction(25), Fraction(4, 3))
    stream.seek(0)
    again = redraw(stream, tmp_path / "b.mp4", same, crf=2)
    assert again.times_s == pytest.approx([index / 25 for index in range(6)])
    frames, times = read_clip(tmp_path / "b.mp4")
    assert times == pytest.approx(again.times_s)
    assert all(mean_difference(one, other) < 3 for one, other in zip(frames, moving(6), strict=True))
    with av.open(str(tmp_path / "b.mp4")) as written:
        assert written.streams.video[0].sample_aspect_ratio == Fraction(4, 3)


def test_uneven_times_are_told(tmp_path):
    clip = write_clip(tmp_path / "a.mkv", moving(6), times=[0, 1, 5, 6, 20, 21], time_base=Fraction(1, 50))
    assert redraw(clip, io.BytesIO(), same).uneven
    assert not redraw(write_clip(tmp_path / "b.mkv", moving(1)), io.BytesIO(), same).uneven


def test_a_frame_comes_out_before_the_next_goes_in():
    """A camera's pictures may not wait for each other."""
    content = written_by_ffmpeg(moving(3))
    header, rest = content.split(b"\n", 1)
    size = len(rest) // 3
    into, out_of = (os.pipe() for _ in range(2))
    with (
        os.fdopen(into[0], "rb") as given, os.fdopen(into[1], "wb", buffering=0) as send,
        os.fdopen(out_of[0], "rb") as receive, os.fdopen(out_of[1], "wb", buffering=0) as made,
    ):  # fmt: skip
        thread = threading.Thread(target=lambda: redraw(given, made, same), daemon=True)
        thread.start()
        send.write(header + b"\n")
        for index in range(3):
            send.write(rest[index * size : (index + 1) * size])
            if index == 0:
                receive.readline()
            assert receive.readline() == b"FRAME\n"
            assert len(receive.read(size - 6)) == size - 6
        send.close()
        thread.join(20)
        assert not thread.is_alive()


class Trickle(io.BytesIO):
    """Takes and gives a few bytes at a time, as unbuffered pipes may."""

    def write(self, content):
        return super().write(bytes(content)[:1000])

    def read(self, size=-1):
        return super().read(min(size, 700))


def test_streams_that_take_and_give_a_little_at_a_time():
    content = written_by_ffmpeg(moving(3))
    target = Trickle()
    redraw(Trickle(content), target, same)
    assert target.getvalue() == drawn(content)[1]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "no Y4M stream comes in: it is empty"),
        (b"hello\n", r"it begins with b'hello"),
        (b"YUV4MPEG2\n", r"it begins with b'YUV4MPEG2"),
        (b"YUV4MPEG2 W64\n", "header cannot be read"),
        (b"YUV4MPEG2 Wx H48\n", "header cannot be read"),
        (b"YUV4MPEG2 W64 H48 F30\n", "header cannot be read"),
        (b"YUV4MPEG2 W0 H48 F30:1\n", "makes no sense"),
        (b"YUV4MPEG2 W64 H48 F-30:1\n", "makes no sense"),
        (b"YUV4MPEG2 W64 H99999999 F30:1\n", "makes no sense"),
        (b"YUV4MPEG2 W64 H48 F9999999999:1\n", "makes no sense"),
        (b"YUV4MPEG2 W64 H48 A1:9999999999\n", "makes no sense"),
        (b"YUV4MPEG2 W32000 H32000\n", "32000 x 32000, more than 180,000,000 pixels"),
        (b"YUV4MPEG2 W64 H48 C444alpha\n", "holds '444alpha', and this reads 4:2:0"),
        (b"YUV4MPEG2 W64 H48\n", "holds no frame"),
        (b"YUV4MPEG2 W4 H4\nFRAME\n" + bytes(24) + b"FRAM", "has b'FRAM' where frame 1 should begin"),
        (b"YUV4MPEG2 W4 H4\nFRAME\n" + bytes(23), "ends within frame 0"),
        (b"YUV4MPEG2 W4 H4\nFRAME" + b" " * 2000, "where frame 0 should begin"),
        (b"YUV4MPEG2 " + bytes(5000), "header cannot be read"),
    ],
)
def test_what_is_no_stream_is_refused(tmp_path, content, words):
    with pytest.raises(PictureError, match=words):
        redraw(io.BytesIO(content), tmp_path / "b.mp4", same)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("scan", ["t", "b", "m"])
def test_interlaced_streams_are_told(scan):
    content = b"YUV4MPEG2 W4 H4 F25:1 I%s A0:0\nFRAME It\n" % scan.encode() + bytes(24)
    assert drawn(content)[0].interlaced
    assert not drawn(content.replace(b" I%s " % scan.encode(), b" Ip "))[0].interlaced


def test_a_reader_that_stops_is_an_error_of_one_line():
    into = os.pipe()
    os.close(into[0])
    with (
        os.fdopen(into[1], "wb", buffering=0) as made,
        pytest.raises(OutputError, match="the program that reads the Y4M stream has stopped"),
    ):
        redraw(io.BytesIO(written_by_ffmpeg(moving(3))), made, same)
