"""When the frames of a video file are shown, and which of those that it has do not come."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from av import Packet, VideoFrame

_JITTER = Fraction(1, 10)
"""Seconds by which a track's decoding times may run back without being another clock's, as in FFmpeg."""

_LEAST_STEP = Fraction(1, 1000)
"""Seconds: the unit of .mkv files, in which times of sound must differ."""


class Clock:
    """Moves packets so that all tracks go on where a file's clock begins anew, as in recordings of MPEG-TS put one behind the other."""

    def __init__(self, start: Fraction) -> None:
        """start: what the clock shows at the beginning, in seconds."""
        self._offset = -start
        self._last: dict[int, tuple[Fraction, Fraction]] = {}
        """By track: when its last packet is decoded, and when that ends."""
        self.restarts_s: list[float] = []
        """Where the clock ran back."""

    def settle(self, packet: Packet) -> None:
        """Change the packet's times. Those of sound then grow from packet to packet, which files ask for."""
        base = packet.time_base
        if base and packet.dts is not None:
            moment = packet.dts * base + self._offset
            last, end = self._last.get(packet.stream_index, (moment, moment))
            if moment < last - _JITTER:
                self._offset += end - moment
                self.restarts_s.append(float(end))
                moment = end
            if moment <= last and packet.stream_index in self._last and packet.stream.type == "audio":
                moment = last + max(base, _LEAST_STEP)
            self._last[packet.stream_index] = moment, moment + (packet.duration or 0) * base
            shift = round(moment / base) - packet.dts
        else:
            shift = round(self._offset / base) if base else 0
        if shift:
            packet.dts = None if packet.dts is None else packet.dts + shift
            packet.pts = None if packet.pts is None else packet.pts + shift


class BestTimes:
    """A frame's time by presentation or by decoding, whichever went wrong less often (FFmpeg's best-effort timestamp, which PyAV
    does not give). Containers such as .avi have decoding times alone."""

    def __init__(self) -> None:
        self._wrong_shown = self._wrong_decoded = 0
        self._last_shown: int | None = None
        self._last_decoded: int | None = None

    def of(self, frame: VideoFrame) -> int | None:
        """In units of the track's time base; None where the frame has no time."""
        shown, decoded = frame.pts, frame.dts
        if decoded is not None:
            self._wrong_decoded += self._last_decoded is not None and decoded <= self._last_decoded
            self._last_decoded = decoded
        elif shown is not None:
            self._last_decoded = shown
        if shown is not None:
            self._wrong_shown += self._last_shown is not None and shown <= self._last_shown
            self._last_shown = shown
        elif decoded is not None:
            self._last_shown = decoded
        best = decoded if shown is None or self._wrong_shown > self._wrong_decoded else shown
        return None if best is None else int(best)


class Losses:
    """Compares the packets that came with the frames made of them, and both with what the file announces."""

    def __init__(self, codec: str) -> None:
        self._codec = codec
        self._packets = self._shown = self._frames = 0
        self.hidden = 0
        """Frames that the file's edit list cuts off."""
        self._open: dict[int, None] = {}
        """Times of packets whose frames have not come."""

    def packet(self, packet: Packet) -> None:
        if packet.dts is None and packet.pts is None and not packet.size:  # the sign that the track has ended
            return
        self._packets += 1
        self.hidden += packet.is_discard
        if packet.size and not packet.is_discard and not (self._codec == "vp8" and not bytes(packet)[0] & 0x10):
            self._shown += 1  # neither cut off by an edit list nor one of VP8's frames that only others are made of
            if packet.pts is not None:
                self._open[packet.pts] = None

    def frame(self, frame: VideoFrame) -> None:
        self._frames += 1
        if frame.pts is not None:
            self._open.pop(frame.pts, None)

    def undrawn(self) -> tuple[int, list[int]]:
        """How many packets gave no frame, and the times of these where they are known, in units of the track's time base."""
        lost = max(0, self._shown - self._frames)
        return lost, sorted(self._open) if len(self._open) == lost else []

    def missing(self, announced: int) -> int:
        """How many packets of a track that announces so many did not come."""
        return max(0, announced - self._packets)
