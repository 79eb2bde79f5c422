"""Small video files, made with PyAV: a square that moves over a still picture, with or without a tone."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

SAMPLE_RATE = 48000


def moving(count: int, height: int = 48, width: int = 64) -> list[np.ndarray]:
    """Frames, uint8 (height, width, 3): smooth colours, and a white square that goes right by 2 pixels a frame."""
    y, x = np.mgrid[0:height, 0:width]
    still = np.stack([40 + x * 150 // width, 60 + y * 120 // height, 200 - x * 100 // width], -1).astype(np.uint8)
    frames = [still.copy() for _ in range(count)]
    for index, frame in enumerate(frames):
        frame[8:24, 2 * index : 2 * index + 16] = 250
    return frames


def write_clip(
    path: Path,
    frames: Sequence[np.ndarray],
    *,
    times: Sequence[int] | None = None,
    time_base: Fraction = Fraction(1, 25),
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    sound: str | None = None,
    speakers: str = "mono",
    rotation: int = 0,
    matrix: int = 1,
    limited: bool = True,
    transfer: int | None = None,
    aspect: Fraction | None = None,
    options: dict[str, str] | None = None,
) -> Path:
    """Write frames, nearly without loss. times: when each is shown, in units of time_base. sound: a codec's name.
    speakers: "mono" or "stereo".

    rotation: counterclockwise, by which players turn the frames. matrix: 1 BT.709, 5 BT.601. transfer: AVCOL_TRC_*.
    """
    height, width = frames[0].shape[:2]
    quality = {"crf": "4"} if codec == "libx264" else {}
    with av.open(str(path), "w") as container:
        video = container.add_stream(codec, rate=25, options=quality | (options or {}))
        video.width, video.height, video.pix_fmt = width, height, pix_fmt
        context = video.codec_context
        context.time_base, context.colorspace, context.color_range = time_base, matrix, 1 if limited else 2
        if transfer:
            context.color_trc = transfer
        if aspect:
            context.sample_aspect_ratio = aspect
        if rotation:
            video.set_display_rotation(rotation)
        tone = container.add_stream(sound, rate=SAMPLE_RATE, layout=speakers) if sound else None
        if tone and str(sound).startswith("wma"):
            tone.bit_rate = 64_000  # the usual one is more than it takes for one channel
        for index, frame in enumerate(frames):
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24").reformat(
                format=pix_fmt,
                dst_colorspace=matrix,
                dst_color_range=1 if limited else 2,
                interpolation=0x40000 | 0x2000 | 4,
            )
            picture.pts, picture.time_base = (times or range(len(frames)))[index], time_base
            container.mux(video.encode(picture))
            if tone:
                _play(container, tone, index, speakers)
        for stream in (video, tone):
            if stream:
                container.mux(stream.encode(None))
    return path


def _play(container: Any, tone: Any, index: int, speakers: str) -> None:
    """A frame's length of 440 Hz."""
    count = SAMPLE_RATE // 25
    moments = (np.arange(count) + index * count) / SAMPLE_RATE
    samples = (np.sin(2 * np.pi * 440 * moments) * 8000).astype(np.int16).repeat(2 if speakers == "stereo" else 1)
    frame = av.AudioFrame.from_ndarray(samples[None], format="s16", layout=speakers)
    frame.sample_rate, frame.pts, frame.time_base = SAMPLE_RATE, index * count, Fraction(1, SAMPLE_RATE)
    container.mux(tone.encode(frame))


def read_clip(path: Path) -> tuple[list[np.ndarray], list[float]]:
    """The frames as they are stored, uint8 (H, W, 3), by the colours that the file names; and when they are shown, in seconds."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        found = list(container.decode(stream))
        matrix = {6: 5}.get(stream.codec_context.colorspace, stream.codec_context.colorspace)
        pictures = [
            frame.reformat(
                format="rgb24",
                src_colorspace=matrix,
                src_color_range=frame.color_range,
                interpolation=0x40000 | 0x2000 | 4,
            ).to_ndarray()
            for frame in found
        ]
    return pictures, [frame.time for frame in found]


def packets(path: Path) -> list[tuple[bytes, Fraction]]:
    """What a file's sound consists of: the bytes of each packet, and when it is heard."""
    with av.open(str(path)) as container:
        sound = container.streams.audio[0]
        return [(bytes(packet), packet.pts * packet.time_base) for packet in container.demux(sound) if packet.size]
