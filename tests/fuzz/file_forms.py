"""Binary files from descriptions of plain lists and objects, so that a description can be damaged and the file still hang together.

A description may hold anything anywhere: what is no number counts as 0, and numbers lose the bits that do not fit.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from typing import Any

LARGEST_FILE = 1 << 16
"""Bytes of pixels that a description may ask for."""


def number(value: Any, bits: int) -> int:
    """An unsigned number of so many bits."""
    try:
        return int(value) & ((1 << bits) - 1)
    except (TypeError, ValueError, OverflowError):
        return 0


def items(value: Any) -> list[Any]:
    """A list; what is none becomes one of one element."""
    return value if isinstance(value, list) else [value]


def field(value: Any, key: str) -> Any:
    """An object's value; None where there is no such."""
    return value.get(key) if isinstance(value, dict) else None


def characters(value: Any) -> bytes:
    """A text's bytes; of what is no text those of its Python form."""
    return (value if isinstance(value, str) else repr(value)[:1000]).encode("utf-8", "surrogatepass")


def octets(value: Any) -> bytes:
    """The bytes of a list of numbers, or of a text."""
    return characters(value) if isinstance(value, str) else bytes(number(each, 8) for each in items(value))


def filling(value: Any) -> bytes:
    """So many bytes of pixels."""
    length = min(number(value, 32), LARGEST_FILE)
    return (bytes(range(256)) * (length // 256 + 1))[:length]


# PNG


def png(depth: int = 16) -> Any:
    """RGB of 4 x 4 pixels, with all chunks that we read ourselves."""
    return {
        "header": {"width": 4, "height": 4, "bits": depth, "colour": 2, "method": [0, 0], "interlaced": 0},
        "chunks": [
            ["gAMA", list(struct.pack(">I", 100_000))],
            ["cHRM", list(struct.pack(">8I", 31270, 32900, 68000, 32000, 26500, 69000, 15000, 6000))],
            ["iCCP", [*b"profile", 0, 0, *zlib.compress(_profile())]],
            ["eXIf", list(_exif())],
        ],
        "pixels": 4 * (1 + 4 * 3 * depth // 8),
    }


def png_with_code() -> Any:
    """The same, gray, with H.273's numbers and nothing else."""
    changed = png()
    changed["header"]["colour"] = 0
    return changed | {"chunks": [["cICP", [12, 13, 0, 1]]], "pixels": 4 * (1 + 4 * 2)}


def packed_png(value: Any) -> bytes:
    header = field(value, "header")
    sides = struct.pack(">II", number(field(header, "width"), 32), number(field(header, "height"), 32))
    rest = octets([field(header, "bits"), field(header, "colour"), *items(field(header, "method"))])
    chunks = [("IHDR", sides + rest + octets([field(header, "interlaced")]))]
    for chunk in items(field(value, "chunks")):
        kind, *body = [*items(chunk), None, None]
        chunks.append((kind, octets(body[0])))
    # Rows begin with the number of their filter, so they are zeros.
    chunks += [("IDAT", zlib.compress(bytes(len(filling(field(value, "pixels")))))), ("IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(characters(kind)[:4].ljust(4), body) for kind, body in chunks)


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def _exif() -> bytes:
    """A block that says an orientation and a maker."""
    return tiff_bytes("<", [{"271": [2, "Maker"], "274": [3, [6]]}], b"")


def _profile() -> bytes:
    from PIL import ImageCms

    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


# TIFF

DATA, LENGTH = "data", "length"
"""Stand for where the pixels lie, and how many bytes they take."""
_TYPES = {1: "B", 2: "s", 3: "H", 4: "I", 5: "II", 7: "B", 11: "f", 16: "Q"}
"""TIFF 6.0's types, and BigTIFF's number of 64 bits."""


def tiff() -> Any:
    """RGB of 4 x 4 pixels of 16 bits, in one strip."""
    tags = {
        "256": [4, [4]],
        "257": [4, [4]],
        "258": [3, [16, 16, 16]],
        "259": [3, [1]],
        "262": [3, [2]],
        "273": [4, [DATA]],
        "274": [3, [1]],
        "277": [3, [3]],
        "278": [4, [4]],
        "279": [4, [96]],
        "284": [3, [1]],
        "339": [3, [1, 1, 1]],
    }
    return {"order": "<", "big": False, "pages": [tags], "circle": False, "pixels": 96, "zlib": False}


def tiff_of_tiles() -> Any:
    """Gray of float32 in a packed tile."""
    whole = tiff()
    (tags,) = whole["pages"]
    for strips in ("273", "278", "279"):
        del tags[strips]
    tags |= {"258": [3, [32]], "259": [3, [8]], "262": [3, [1]], "277": [3, [1]], "339": [3, [3]]}
    tags |= {"322": [4, [16]], "323": [4, [16]], "324": [4, [DATA]], "325": [4, [LENGTH]]}
    return whole | {"pixels": 1024, "zlib": True}


def tiff_of_planes() -> Any:
    """A BigTIFF of the other byte order: colours that lie apart, with alpha, a profile and EXIF's blocks."""
    whole = tiff()
    (tags,) = whole["pages"]
    tags |= {"258": [3, [16] * 4], "277": [3, [4]], "284": [3, [2]], "338": [3, [1]], "339": [3, [1] * 4]}
    tags |= {"273": [16, [DATA] * 4], "279": [16, [32] * 4]}
    tags |= {"34675": [7, list(_profile()[:132])], "34665": [4, [8]], "282": [5, [72, 1]], "306": [2, "2026:01:01"]}
    return whole | {"order": ">", "big": True}


def packed_tiff(value: Any) -> bytes:
    pixels = filling(field(value, "pixels"))
    order = ">" if field(value, "order") == ">" else "<"
    content = zlib.compress(pixels) if field(value, "zlib") else pixels
    pages, circle = items(field(value, "pages")), bool(field(value, "circle"))
    return tiff_bytes(order, pages * 200 if circle else pages, content, big=bool(field(value, "big")), circle=circle)


def tiff_bytes(order: str, pages: list[Any], pixels: bytes, *, big: bool = False, circle: bool = False) -> bytes:
    """order: struct's. pages: objects of tags, each with its type and its values. circle: whether the first follows the last.

    The pixels lie behind the header.
    """
    word, count = ("Q", "Q") if big else ("I", "H")
    size = struct.calcsize(word)
    content = bytearray(b"II" if order == "<" else b"MM")
    content += struct.pack(order + "HHHQ", 43, 8, 0, 0) if big else struct.pack(order + "HI", 42, 0)
    link, start = len(content) - size, len(content)
    content += pixels + bytes(len(pixels) % 2)
    for page in pages:
        struct.pack_into(order + word, content, link, len(content))
        tags = list(page.items()) if isinstance(page, dict) else []
        content += struct.pack(order + count, number(len(tags), 16))
        place = len(content)
        content += bytes(len(tags) * (4 + 2 * size) + size)
        for tag, entry in tags:
            kind, *values = [*items(entry), None, None]
            body, length = _tag_values(order, number(kind, 16), values[0], {DATA: start, LENGTH: len(pixels)})
            struct.pack_into(order + "HH" + word, content, place, number(tag, 16), number(kind, 16), length)
            inside = body if len(body) <= size else struct.pack(order + word, len(content))
            content[place + 4 + size : place + 4 + 2 * size] = inside.ljust(size, b"\0")
            content += body if len(body) > size else b""
            place += 4 + 2 * size
        link = place
    if circle:
        content[link : link + size] = content[start - size : start]
    return bytes(content)


def _tag_values(order: str, kind: int, values: Any, known: dict[str, int]) -> tuple[bytes, int]:
    """A tag's bytes and the number of its values. known: what DATA and LENGTH stand for."""
    form = _TYPES.get(kind, "B")
    if form == "s" or isinstance(values, str):
        text = characters(values) + b"\0"
        return text, len(text)
    numbers = [known.get(value, 0) if isinstance(value, str) else value for value in items(values)]
    if form == "f":
        return b"".join(struct.pack(order + "f", number(each, 24)) for each in numbers), len(numbers)
    each_form = form[0]
    bits = 8 * struct.calcsize(each_form)
    return b"".join(struct.pack(order + each_form, number(each, bits)) for each in numbers), len(numbers) // len(form)


# NumPy's .npy


def array() -> Any:
    return {
        "version": [1, 0],
        "header": {"descr": "<u2", "fortran_order": False, "shape": [4, 4, 3]},
        "missing": 0,
        "pixels": 96,
    }


def packed_array(value: Any) -> bytes:
    header = field(value, "header")
    if isinstance(header, dict) and isinstance(header.get("shape"), list):
        header = header | {"shape": tuple(header["shape"])}
    text = repr(header).encode("utf-8", "replace") + b"\n"
    version = octets(field(value, "version"))[:2].ljust(2, b"\1")
    length = max(0, len(text) - number(field(value, "missing"), 16))
    form = "<H" if version[0] == 1 else "<I"
    return b"\x93NUMPY" + version + struct.pack(form, number(length, 16)) + text + filling(field(value, "pixels"))


# DICOM (PS3.5: explicit VR, little endian)

_LONG = (b"OB", b"OW", b"OF", b"OD", b"OL", b"OV", b"SQ", b"UC", b"UN", b"UR", b"UT")
"""Value representations whose length takes 32 bits."""
_NUMBERS = {b"US": "H", b"SS": "H", b"UL": "I", b"SL": "I", b"FL": "f", b"FD": "d"}
_EXPLICIT, _DEFLATED, _RUN_LENGTHS = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.5"


def scan() -> Any:
    """Gray of 4 x 4 numbers with sign, a scale, a window and padding."""
    return {
        "syntax": _EXPLICIT,
        "elements": [
            [0x00080016, "UI", "1.2.840.10008.5.1.4.1.1.2"],
            [0x00080018, "UI", "1.2.3.4"],
            [0x00280002, "US", [1]],
            [0x00280004, "CS", "MONOCHROME2"],
            [0x00280010, "US", [4]],
            [0x00280011, "US", [4]],
            [0x00280100, "US", [16]],
            [0x00280101, "US", [12]],
            [0x00280102, "US", [11]],
            [0x00280103, "US", [1]],
            [0x00280120, "SS", [5]],
            [0x00281050, "DS", "40"],
            [0x00281051, "DS", "400"],
            [0x00281052, "DS", "-1024"],
            [0x00281053, "DS", "1"],
            [0x00281054, "LO", "HU"],
            [0x7FE00010, "OW", {"pixels": 32}],
        ],
    }


def scan_of_colours() -> Any:
    """RGB of 8 bits, whose elements are packed."""
    whole = scan()
    kept = [element for element in whole["elements"] if element[0] < 0x00280100]
    for element in kept:
        if element[0] in (0x00280002, 0x00280004):
            element[2] = [3] if element[1] == "US" else "RGB"
    bits = [[0x00280006, "US", [0]], [0x00280100, "US", [8]], [0x00280101, "US", [8]], [0x00280102, "US", [7]]]
    return {"syntax": _DEFLATED, "elements": [*kept, *bits, [0x7FE00010, "OW", {"pixels": 48}]]}


def scan_of_frames() -> Any:
    """Two frames whose scale and window stand in groups, as enhanced files have them, packed by run lengths."""
    whole = scan()
    kept = [element for element in whole["elements"] if element[0] < 0x00280120]
    scale = [[0x00281052, "DS", "1"], [0x00281053, "DS", "2"]]
    window = [[0x00281050, "DS", "1"], [0x00281051, "DS", "2"]]
    groups = [[[0x00289145, "SQ", [scale]], [0x00289132, "SQ", [window]]]]
    packed = [
        *struct.pack("<16I", 2, 64, 66, *[0] * 13),
        241,
        1,
        241,
        2,
    ]  # 16 times the upper bytes, 16 times the lower
    frames = {"fragments": [[], packed, packed]}
    more = [[0x00280008, "IS", "2"], [0x52009229, "SQ", groups], [0x7FE00010, "OB", frames]]
    return {"syntax": _RUN_LENGTHS, "elements": [*kept, *more]}


def packed_scan(value: Any) -> bytes:
    syntax = field(value, "syntax")
    meta = _element([0x00020010, "UI", syntax])
    body = b"".join(_element(element) for element in sorted(items(field(value, "elements")), key=_tag_of))
    if syntax == _DEFLATED:
        packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
        body = packer.compress(body) + packer.flush()
    return bytes(128) + b"DICM" + _element([0x00020000, "UL", [len(meta)]]) + meta + body


def _tag_of(element: Any) -> int:
    return number(items(element)[0] if items(element) else 0, 32)


def _element(element: Any, depth: int = 0) -> bytes:
    tag, kind, value, *_ = [*items(element), None, None, None]
    tag, form = number(tag, 32), characters(kind)[:2].ljust(2)
    body, length = _element_value(form, value, depth)
    start = struct.pack("<HH", tag >> 16, tag & 0xFFFF) + form
    if form in _LONG:
        return start + struct.pack("<HI", 0, length) + body
    return start + struct.pack("<H", number(length, 16)) + body


def _element_value(form: bytes, value: Any, depth: int) -> tuple[bytes, int]:
    """An element's bytes, and the length that it tells."""
    if isinstance(value, dict) and "fragments" in value:
        parts = [_item(octets(part)) for part in items(value["fragments"])]
        return b"".join(parts) + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0), 0xFFFFFFFF
    if isinstance(value, dict):
        body = filling(value.get("pixels"))
    elif form == b"SQ" and depth < 30:
        elements = (b"".join(_element(each, depth + 1) for each in items(entry)) for entry in items(value))
        body = b"".join(_item(each) for each in elements)
    elif form in _NUMBERS:
        kind = _NUMBERS[form]
        bits = 8 * struct.calcsize(kind) if kind in "HI" else 20
        body = b"".join(struct.pack("<" + kind, number(each, bits)) for each in items(value))
    else:
        body = characters(value)
    body += b" " * (len(body) % 2)
    return body, len(body)


def _item(content: bytes) -> bytes:
    return struct.pack("<HHI", 0xFFFE, 0xE000, len(content)) + content


# YUV4MPEG2


def stream() -> Any:
    """Two frames of 4 x 4 pixels."""
    return {
        "magic": "YUV4MPEG2",
        "header": {"W": 4, "H": 4, "F": "25:1", "I": "p", "A": "1:1", "C": "420jpeg", "X": "COLORRANGE=FULL"},
        "frames": [["FRAME", 24], ["FRAME", 24]],
    }


def packed_stream(value: Any) -> bytes:
    header = field(value, "header")
    words = header.items() if isinstance(header, dict) else []
    line = b" ".join([characters(field(value, "magic")), *(characters(key) + _plain(word) for key, word in words)])
    frames = ([*items(frame), None, None] for frame in items(field(value, "frames")))
    return line + b"\n" + b"".join(characters(kind) + b"\n" + filling(length) for kind, length, *_ in frames)


def _plain(value: Any) -> bytes:
    return characters(value if isinstance(value, str) else repr(value)[:1000])


# ONNX, as protobuf has it: lists of a field's number and its value

WEIGHTS = bytes(range(64))
"""What the graph's other file holds."""


def graph() -> Any:
    """A graph that clips and rounds, with a weight in another file whose hash it tells."""
    place = [[[1, "location"], [2, "weights.bin"]], [[1, "offset"], [2, "8"]], [[1, "length"], [2, "16"]]]
    weight = [[1, 4], [2, 1], [8, "w"], *([13, entry] for entry in place), [14, 1]]
    nodes = [
        [[1, "image"], [1, "w"], [2, "x"], [4, "Mul"]],
        [[1, "x"], [2, "y"], [4, "Relu"]],
        [[1, "y"], [2, "z"], [4, "Round"]],
        [[1, "z"], [2, "picture"], [4, "Cast"]],
    ]
    inner = [*([1, node] for node in nodes), [5, weight], [11, [[1, "image"]]], [12, [[1, "picture"]]]]
    told = [[1, "impasto.weights"], [2, hashlib.sha256(WEIGHTS).hexdigest()]]
    return [[1, 10], [7, inner], [8, [[2, 20]]], [14, told]]


def packed_graph(value: Any) -> bytes:
    return _message(value, 0)


def _message(value: Any, depth: int) -> bytes:
    content = b""
    for entry in items(value):
        key, inner, *_ = [*items(entry), None, None]
        key = number(key, 29)
        if isinstance(inner, float):
            content += _varint(key << 3 | 1) + struct.pack("<d", inner)
        elif isinstance(inner, int):
            content += _varint(key << 3) + _varint(number(inner, 64))
        else:
            nested = isinstance(inner, list) and depth < 30
            body = _message(inner, depth + 1) if nested else characters(inner)
            content += _varint(key << 3 | 2) + _varint(len(body)) + body
    return content


def _varint(value: int) -> bytes:
    groups = bytearray()
    while value > 0x7F:
        groups.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*groups, value])
