"""What a picture file says of its colours besides an ICC profile: bits, primaries and transfer function, which Pillow leaves out.

PNG's chunks: the PNG specification, third edition, 4.3 and 11.3.2. Numbers of primaries and transfer functions: ITU-T H.273.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

Chromaticities = tuple[tuple[float, float], tuple[float, float], tuple[float, float], tuple[float, float]]
"""x and y of red, green, blue and white."""

_D65 = (0.3127, 0.3290)
_PRIMARIES: dict[int, Chromaticities] = {
    1: ((0.640, 0.330), (0.300, 0.600), (0.150, 0.060), _D65),
    5: ((0.640, 0.330), (0.290, 0.600), (0.150, 0.060), _D65),
    6: ((0.630, 0.340), (0.310, 0.595), (0.155, 0.070), _D65),
    9: ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046), _D65),
    12: ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060), _D65),
}
SRGB_PRIMARIES = _PRIMARIES[1]
_UNSPECIFIED = 2
_SRGB_TRANSFERS = (1, 6, 13, 14, 15, _UNSPECIFIED)
"""sRGB's own, and those of video, whose pictures are meant for the same screens."""
_GAMMAS = {4: 2.2, 5: 2.8, 8: 1.0}
HDR = {16: "PQ", 18: "HLG"}


@dataclass(frozen=True)
class ColourTags:
    """How the levels of RGB are meant."""

    primaries: Chromaticities = SRGB_PRIMARIES
    gamma: float | None = None
    """Light is level ** gamma; None for sRGB's own curve."""
    unknown: str | None = None
    """What cannot be converted, in words; None where everything can."""
    stronger_than_profile: bool = False
    """Whether they count where there is an ICC profile too."""

    @property
    def is_srgb(self) -> bool:
        return self.gamma is None and bool(np.allclose(self.primaries, SRGB_PRIMARIES, atol=0.002))

    def to_srgb(self, rgb: np.ndarray) -> np.ndarray:
        """RGB, (H, W, 3), or gray, (H, W), of these colours to the same in sRGB, clipped to what that has.

        rgb: uint8, uint16, or float32 from 0 to 1; so is the result. Gray has no primaries.
        """
        if self.is_srgb or (rgb.ndim == 2 and self.gamma is None):
            return rgb
        most = 1 if rgb.dtype == np.float32 else np.iinfo(rgb.dtype).max
        light = (np.linalg.inv(_to_xyz(SRGB_PRIMARIES)) @ _to_xyz(self.primaries)).astype(np.float32)
        curve = None if most == 1 else self._to_light(np.arange(most + 1, dtype=np.float32) / most)
        converted = np.empty_like(rgb)
        for row in range(0, len(rgb), 64):  # in bands, since light takes four times the memory
            band = rgb[row : row + 64]
            linear = self._to_light(band) if curve is None else curve[band]
            drawn = _to_srgb(np.clip(linear if rgb.ndim == 2 else linear @ light.T, 0, 1))
            converted[row : row + 64] = drawn if curve is None else np.rint(most * drawn)
        return converted

    def _to_light(self, levels: np.ndarray) -> np.ndarray:
        return _from_srgb(levels) if self.gamma is None else levels**self.gamma


def of_png(content: bytes) -> ColourTags | None:
    """By the strongest chunk: cICP, then sRGB, then gAMA and cHRM. None where there is none. iCCP is between the first two."""
    chunks = dict(png_chunks(content))
    if len(code := chunks.get(b"cICP", b"")) == 4:
        primaries, transfer, matrix, full_range = code
        tags = _coded(primaries, transfer)
        return ColourTags(unknown="YCbCr or limited range in cICP") if matrix or full_range != 1 else tags
    if b"sRGB" in chunks:
        return ColourTags()
    gamma, primaries_told = chunks.get(b"gAMA", b""), chunks.get(b"cHRM", b"")
    if len(gamma) != 4 and len(primaries_told) != 32:
        return None
    exponent = struct.unpack(">I", gamma)[0] / 100_000 if len(gamma) == 4 else 0
    # 1/2.2 is what programs write for sRGB.
    usual = not exponent or abs(exponent * 2.2 - 1) < 0.05
    told = SRGB_PRIMARIES
    if len(primaries_told) == 32:
        x = [value / 100_000 for value in struct.unpack(">8I", primaries_told)]
        told = ((x[2], x[3]), (x[4], x[5]), (x[6], x[7]), (x[0], x[1]))  # white comes first
        if not _possible(told):
            return ColourTags(unknown="impossible primaries in cHRM")
    return ColourTags(told, None if usual else 1 / exponent)


def of_avif(content: bytes) -> tuple[ColourTags | None, int]:
    """By the colour information (nclx) of its items; and the bits of a channel: 8, 10 or 12."""
    tags, bits = None, 8
    for kind, body in _boxes(content, (b"meta", b"iprp", b"ipco")):
        if kind == b"pixi" and len(body) > 4:
            bits = max([bits, *body[5 : 5 + body[4]]])
        elif kind == b"av1C" and len(body) >= 4 and body[2] & 0x40:
            bits = max(bits, 12 if body[2] & 0x20 else 10)
        elif kind == b"colr" and body[:4] == b"nclx" and len(body) >= 10 and tags is None:
            tags = _coded(*struct.unpack(">HH", body[4:8]))
    return tags, bits


def bits_of_jpeg2000(content: bytes) -> int:
    """The most bits of a channel, by the codestream's SIZ marker (ISO/IEC 15444-1, A.5.1), whose components have a byte each."""
    place = content.find(b"\xff\x4f\xff\x51")
    if place < 0 or len(content) < place + 42:
        return 8
    count = struct.unpack(">H", content[place + 40 : place + 42])[0]
    return max([8, *((depth & 0x7F) + 1 for depth in content[place + 42 : place + 42 + 3 * count : 3])])


def _coded(primaries: int, transfer: int) -> ColourTags:
    """By H.273's numbers."""
    if transfer in HDR:
        return ColourTags(unknown=f"high dynamic range ({HDR[transfer]})")
    if primaries not in (*_PRIMARIES, _UNSPECIFIED) or transfer not in (*_SRGB_TRANSFERS, *_GAMMAS):
        return ColourTags(unknown=f"colours of another kind (primaries {primaries}, transfer {transfer} of H.273)")
    return ColourTags(_PRIMARIES.get(primaries, SRGB_PRIMARIES), _GAMMAS.get(transfer), stronger_than_profile=True)


def png_chunks(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Those before the pixels."""
    place = 8
    while place + 8 <= len(content):
        length, kind = struct.unpack(">I4s", content[place : place + 8])
        if kind == b"IDAT":
            return
        yield kind, content[place + 8 : place + 8 + length]
        place += 12 + length


def _boxes(content: bytes, path: tuple[bytes, ...]) -> Iterator[tuple[bytes, bytes]]:
    """The boxes inside of a path of boxes (ISO/IEC 14496-12, 4.2)."""
    place = 0
    while place + 8 <= len(content):
        length, kind = struct.unpack(">I4s", content[place : place + 8])
        start = 8
        if length == 1 and place + 16 <= len(content):
            length, start = struct.unpack(">Q", content[place + 8 : place + 16])[0], 16
        end = len(content) if length == 0 else place + length
        if end < place + start:
            return
        body = content[place + start : end]
        if not path:
            yield kind, body
        elif kind == path[0]:
            yield from _boxes(body[4:] if kind == b"meta" else body, path[1:])  # meta begins with a version
        place = end


def _possible(primaries: Chromaticities) -> bool:
    points = np.array(primaries)
    return bool((points[:, 1] > 0).all() and np.linalg.matrix_rank(np.c_[points[:3], np.ones(3)], tol=1e-3) == 3)


def _to_xyz(primaries: Chromaticities) -> np.ndarray:
    """The matrix from light in RGB to XYZ whose white is brightness 1."""
    x, y = np.array(primaries).T
    columns = np.stack([x / y, np.ones(4), (1 - x - y) / y])
    red_green_blue = columns[:, :3]
    return red_green_blue * np.linalg.solve(red_green_blue, columns[:, 3])


def _from_srgb(levels: np.ndarray) -> np.ndarray:
    """sRGB's curve (IEC 61966-2-1): levels to light, both 0..1."""
    return np.where(levels <= 0.04045, levels / 12.92, ((levels + 0.055) / 1.055) ** 2.4)


def _to_srgb(light: np.ndarray) -> np.ndarray:
    return np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)
