"""Picture files of 16 bits and float32: the same rules as of 8 bits, and every value kept."""

from __future__ import annotations

import io
import struct
import sys
import zlib

import numpy as np
import pytest
from PIL import Image
from support.small_models import picture, write_deep_package

import impasto
from impasto import images
from impasto.batch.jobs import plan
from impasto.batch.pictures import run_pictures
from impasto.errors import MissingDependency, OptionError, PictureError, ShapeError

imagecodecs = pytest.importorskip("imagecodecs", reason="reads files of 16 bits: install impasto[deep]")
tifffile = pytest.importorskip("tifffile", reason="reads TIFF of 16 bits: install impasto[deep]")


def noise(*shape: int, dtype: type = np.uint16) -> np.ndarray:
    generator = np.random.default_rng(len(shape))
    return generator.random(shape, np.float32) if dtype == np.float32 else generator.integers(0, 65536, shape, dtype)


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(array: np.ndarray, *chunks: tuple[bytes, bytes]) -> bytes:
    whole = imagecodecs.png_encode(array)
    return whole[:33] + b"".join(chunk(*each) for each in chunks) + whole[33:]


def tiff(array: np.ndarray, **options: object) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, array, **options)
    return file.getvalue()


def read(tmp_path, content: bytes) -> images.Picture:
    (tmp_path / "a.any").write_bytes(content)
    return images.read_deep(tmp_path / "a.any")


@pytest.mark.parametrize("suffix", [".png", ".tif", ".tiff"])
@pytest.mark.parametrize("shape", [(7, 9), (7, 9, 3)])
@pytest.mark.parametrize("transparent", [False, True])
def test_16_bits_and_their_alpha_come_back_as_written(tmp_path, suffix, shape, transparent):
    pixels, alpha = noise(*shape), noise(7, 9) if transparent else None
    images.write(tmp_path / f"a{suffix}", images.Picture(pixels, alpha))
    back = images.read_deep(tmp_path / f"a{suffix}")
    assert back.rgb.dtype == np.uint16 and np.array_equal(back.rgb, pixels)
    assert (back.alpha is None) if alpha is None else np.array_equal(back.alpha, alpha)


@pytest.mark.parametrize("shape", [(7, 9), (7, 9, 3)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_arrays_come_back_as_written(tmp_path, shape, dtype):
    pixels = (noise(*shape) // 257).astype(np.uint8) if dtype == np.uint8 else noise(*shape, dtype=dtype)
    images.write(tmp_path / "a.npy", pixels)
    back = images.read_deep(tmp_path / "a.npy")
    assert back.rgb.dtype == dtype and np.array_equal(back.rgb, pixels) and back.alpha is None
    assert np.array_equal(np.load(tmp_path / "a.npy"), pixels)
    with pytest.raises(OptionError, match=r"transparency.*write a .png"):
        images.write(tmp_path / "b.npy", images.Picture(pixels, pixels[..., 0] if pixels.ndim == 3 else pixels))


def test_float32_is_kept_in_tiff_and_rounded_to_16_bits_in_png(tmp_path):
    pixels = noise(7, 9, 3, dtype=np.float32)
    images.write(tmp_path / "a.tiff", pixels)
    assert np.array_equal(images.read_deep(tmp_path / "a.tiff").rgb, pixels)
    with pytest.warns(UserWarning, match="16 bits a channel, so its float32 values are rounded"):
        images.write(tmp_path / "a.png", pixels)
    assert np.array_equal(images.read_deep(tmp_path / "a.png").rgb, np.rint(pixels * 65535))


@pytest.mark.parametrize("suffix", [".jpg", ".webp", ".bmp"])
def test_files_of_8_bits_say_what_they_do_not_hold(tmp_path, suffix):
    with pytest.warns(UserWarning, match="holds 8 bits a channel of the picture's 16"):
        images.write(tmp_path / f"a{suffix}", noise(8, 8))
    assert images.read(tmp_path / f"a{suffix}").rgb.shape == (8, 8, 3)


@pytest.mark.parametrize(
    "options", [{}, {"byteorder": ">"}, {"compression": "lzw"}, {"compression": "zlib", "predictor": True}]
)
@pytest.mark.parametrize("shape", [(20, 30), (20, 30, 3)])
def test_tiff_of_every_form_is_read(tmp_path, options, shape):
    kind = {"photometric": "rgb" if len(shape) == 3 else "minisblack"}
    assert np.array_equal(read(tmp_path, tiff(noise(*shape), **options, **kind)).rgb, noise(*shape))


def test_tiffs_own_ways_to_say_the_same(tmp_path):
    gray, colour, alpha = noise(8, 8), noise(8, 8, 3), noise(8, 8)
    assert np.array_equal(read(tmp_path, tiff(gray, photometric="miniswhite")).rgb, 65535 - gray)
    planes = tiff(np.moveaxis(colour, -1, 0).copy(), photometric="rgb", planarconfig="separate")
    assert np.array_equal(read(tmp_path, planes).rgb, colour)
    tiled = tiff(np.tile(colour, (4, 4, 1)), photometric="rgb", tile=(16, 16))
    assert np.array_equal(read(tmp_path, tiled).rgb, np.tile(colour, (4, 4, 1)))
    both = np.dstack([colour, alpha])
    straight = read(tmp_path, tiff(both, photometric="rgb", extrasamples=["unassalpha"]))
    assert np.array_equal(straight.rgb, colour) and np.array_equal(straight.alpha, alpha)
    unknown = read(tmp_path, tiff(both, photometric="rgb", extrasamples=["unspecified"]))
    assert np.array_equal(unknown.rgb, colour) and unknown.alpha is None
    multiplied = np.rint(colour * (alpha[..., None] / 65535)).astype(np.uint16)
    divided = read(tmp_path, tiff(np.dstack([multiplied, alpha]), photometric="rgb", extrasamples=["assocalpha"]))
    visible = alpha > 6000
    assert np.abs(divided.rgb[visible].astype(int) - colour[visible]).max() < 8


def test_8_bits_are_read_as_ever(tmp_path):
    for form, mode in (("PNG", "RGB"), ("PNG", "L"), ("TIFF", "RGB"), ("JPEG", "RGB"), ("PNG", "P"), ("TIFF", "1")):
        Image.fromarray(picture(20, 30)).convert(mode).save(tmp_path / "a.any", form)
        one, other = images.read(tmp_path / "a.any"), images.read_deep(tmp_path / "a.any")
        assert np.array_equal(one.rgb, other.rgb) and one.rgb.dtype == np.uint8 and one.rgb.ndim == 3


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientations_are_applied_and_exif_is_kept(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = orientation, "A camera"
    small = picture(6, 9)
    Image.fromarray(small).save(tmp_path / "b.png", exif=exif)
    upright = images.read(tmp_path / "b.png").rgb
    block = exif.tobytes().removeprefix(b"Exif\0\0")
    deep = read(tmp_path, png(small.astype(np.uint16) * 257, (b"eXIf", block)))
    assert np.array_equal(deep.rgb, upright.astype(np.uint16) * 257)
    turned = read(
        tmp_path, tiff(small.astype(np.uint16) * 257, photometric="rgb", extratags=[(274, "H", 1, orientation, True)])
    )
    assert np.array_equal(turned.rgb, deep.rgb)
    images.write(tmp_path / "c.png", deep)
    kept = Image.open(tmp_path / "c.png").getexif()
    assert kept[0x010F] == "A camera" and 0x0112 not in kept
    images.write(tmp_path / "c.tif", deep)  # whose own tags hold it
    assert Image.open(tmp_path / "c.tif").getexif()[0x010F] == "A camera"
    assert np.array_equal(images.read_deep(tmp_path / "c.tif").rgb, deep.rgb)


def test_what_a_tiff_of_16_bits_cannot_hold_is_told(tmp_path):
    exif = Image.Exif()
    exif[282], exif[283], exif[296], exif[305] = 96.0, 48.0, 3, "Some program"
    images.write(tmp_path / "a.tif", images.Picture(noise(8, 8), exif=exif.tobytes()))
    kept = Image.open(tmp_path / "a.tif").getexif()
    assert [float(kept[tag]) if tag < 300 else kept[tag] for tag in (282, 283, 296, 305)] == [96, 48, 3, "Some program"]
    exif.get_ifd(0x8769)[33434] = 0.01
    with pytest.warns(UserWarning, match="without the picture's EXIF data"):
        images.write(tmp_path / "b.tif", images.Picture(noise(8, 8), exif=exif.tobytes()))


COLOURS = {
    "cICP, Display P3": (b"cICP", bytes([12, 13, 0, 1])),
    "gAMA 1.0": (b"gAMA", struct.pack(">I", 100_000)),
    "cHRM": (b"cHRM", struct.pack(">8I", 31270, 32900, 68000, 32000, 26500, 69000, 15000, 6000)),
    "iCCP, Adobe RGB": (b"iCCP", b"Adobe\0\0" + zlib.compress(imagecodecs.cms_profile("adobergb"))),
}


@pytest.mark.parametrize("kind", COLOURS)
@pytest.mark.parametrize("gray", [False, True])
def test_colour_tags_count_as_at_8_bits(tmp_path, kind, gray):
    given = picture(16, 16)[..., 0] if gray else picture(16, 16)
    whole = io.BytesIO()
    Image.fromarray(given).save(whole, "PNG")
    shallow = whole.getvalue()[:33] + chunk(*COLOURS[kind]) + whole.getvalue()[33:]
    wanted = images.decode(shallow).rgb
    deep = read(tmp_path, png(given.astype(np.uint16) * 257, COLOURS[kind])).rgb
    assert np.abs(images.as_bytes(deep).astype(int) - wanted).max() <= 2
    if not (gray and kind in ("cHRM", "cICP, Display P3")):  # primaries say nothing of gray
        assert not np.array_equal(deep, given.astype(np.uint16) * 257)
    assert deep.ndim == given.ndim


def test_profiles_of_tiff_and_float32_count_too(tmp_path):
    profile = imagecodecs.cms_profile("adobergb")
    given = picture(16, 16)
    plain, floats = given.astype(np.uint16) * 257, given.astype(np.float32) / 255
    one = read(tmp_path, tiff(plain, photometric="rgb", iccprofile=profile)).rgb
    other = read(tmp_path, tiff(floats, photometric="rgb", iccprofile=profile)).rgb
    assert np.abs(one / 65535 - other).max() < 1e-4 and np.abs(other - floats).max() > 0.01
    assert other.min() >= 0 and other.max() <= 1
    with pytest.raises(PictureError, match="colour profile for GRAY"):
        read(tmp_path, tiff(plain, photometric="rgb", iccprofile=imagecodecs.cms_profile("gray")))
    with pytest.warns(UserWarning, match="damaged"):
        broken = read(tmp_path, tiff(plain, photometric="rgb", iccprofile=profile[:200]))
    assert np.array_equal(broken.rgb, plain)


def test_damaged_tags_of_a_tiff_are_told(tmp_path, capfd):
    whole = bytearray(tiff(noise(8, 8, 3), photometric="rgb", iccprofile=imagecodecs.cms_profile("adobergb")))
    place = whole.index(struct.pack("<HHI", 34675, 7, 864))
    whole[place + 8 : place + 12] = struct.pack("<I", 1)  # where the profile lies
    with pytest.warns(UserWarning, match="has damaged fields"):
        assert np.array_equal(read(tmp_path, bytes(whole)).rgb, noise(8, 8, 3))
    assert "".join(capfd.readouterr()) == ""


def test_damaged_chunks_beside_the_pixels_print_nothing(tmp_path, capfd, caplog):
    """imagecodecs logs what libpng warns of, and a program without logging has that on standard error."""
    content = PLAIN[:33] + chunk(b"sBIT", b"\x20") + chunk(b"zTXt", b"a\0\0bad") + PLAIN[33:]
    assert np.array_equal(read(tmp_path, content).rgb, noise(8, 8))
    assert "".join(capfd.readouterr()) == "" and not caplog.records


def bomb() -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": (100_000, 100_000)})
    return file.getvalue()


def huge_array() -> bytes:
    """A header without its 180 million pixels, which are as many as are read."""
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": (10_000, 18_000, 3)})
    return file.getvalue()


def _tagged(content: bytes, tag: int, count: int, value: int) -> bytes:
    """A TIFF of whose first picture a tag has another number of values, or another value."""
    changed = bytearray(content)
    (start,) = struct.unpack_from("<I", content, 4)
    for place in range(start + 2, start + 2 + 12 * struct.unpack_from("<H", content, start)[0], 12):
        if struct.unpack_from("<H", content, place)[0] == tag:
            struct.pack_into("<II", changed, place + 4, count, value)
            return bytes(changed)
    raise AssertionError(f"no tag {tag}")


def circle() -> bytes:
    """A TIFF of 200 pictures, the last of which leads to the 50th again."""
    whole = tiff(noise(8, 8), photometric="minisblack")
    places = [len(whole) + 6 * number for number in range(200)]
    chain = b"".join(struct.pack("<HI", 0, place) for place in [*places[1:], places[50]])
    (start,) = struct.unpack_from("<I", whole, 4)
    link = start + 2 + 12 * struct.unpack_from("<H", whole, start)[0]
    return whole[:link] + struct.pack("<I", places[0]) + whole[link + 4 :] + chain


def npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=True)
    return file.getvalue()


PALETTE = tiff(noise(8, 8) % 256, photometric="palette", colormap=noise(3, 65536))
PLAIN = png(noise(8, 8))
STRIPS = tiff(noise(64, 64), photometric="minisblack", rowsperstrip=8, compression="zlib")
STRIPS_PLACE = 8
TILES = tiff(noise(64, 64), photometric="minisblack", tile=(32, 32), compression="zlib")
BAD = {
    "HDR": (png(noise(8, 8, 3), (b"cICP", bytes([9, 16, 0, 1]))), r"high dynamic range \(PQ\)"),
    "palette of 16 bits": (PALETTE, "a palette of 16 bits"),
    "CMYK of 16 bits": (tiff(noise(8, 8, 4), photometric="separated"), "CMYK of 16 bits"),
    "signed": (tiff(noise(8, 8).astype(np.int16), photometric="minisblack"), "holds int16"),
    "float64": (tiff(noise(8, 8).astype(np.float64), photometric="minisblack"), "holds float64"),
    "32 bits": (tiff(noise(8, 8).astype(np.uint32), photometric="minisblack"), "holds uint32"),
    "stack": (tiff(noise(3, 8, 8), photometric="minisblack"), "stack of several pictures"),
    "PNG of no width": (PLAIN[:16] + bytes(4) + PLAIN[20:], "is 0 x 8, so it has no pixels"),
    "PNG of no height": (PLAIN[:20] + bytes(4) + PLAIN[24:], "is 8 x 0, so it has no pixels"),
    "PNG of an unknown kind of colours": (
        PLAIN[:8] + chunk(b"IHDR", PLAIN[16:25] + b"\x05\0\0\0") + PLAIN[33:],
        "is damaged",
    ),
    "cut PNG": (png(noise(64, 64, 3))[:9000], "is damaged"),
    "cut TIFF": (tiff(noise(64, 64, 3), photometric="rgb")[:9000], "1 of its 1 strips or tiles are not whole"),
    "cut array": (npy(noise(64, 64, 3))[:9000], "cut short: 9,000 bytes of 24,704"),
    "array of more than there is": (huge_array(), "cut short: 128 bytes of 2,160,000,128"),
    "strips that are missing": (_tagged(STRIPS, 273, 1, STRIPS_PLACE), "7 of its 8 strips or tiles are not whole"),
    "strips of nothing": (_tagged(STRIPS, 279, 8, 0), "strips or tiles are not whole"),
    "huge tiles": (_tagged(TILES, 322, 1, 1 << 30), "a tile of .* more than 180,000,000 pixels"),
    "volume": (tiff(noise(3, 16, 16), photometric="minisblack", volumetric=True), "a volume of 3 layers"),
    "pages in a circle": (circle(), "stack of several pictures"),
    "big-endian array": (npy(noise(8, 8).astype(">u2")), "this machine's byte order"),
    "float64 array": (npy(noise(8, 8).astype(np.float64)), "holds float64"),
    "array of objects": (npy(np.array([{"a": 1}])), "holds object"),
    "array with alpha": (npy(noise(8, 8, 4)), r"holds uint16 \(8, 8, 4\)"),
    "array of nothing": (npy(noise(0, 8)), r"holds uint16 \(0, 8\)"),
    "array bomb": (bomb(), "more than 180,000,000 pixels"),
    "no array": (b"\x93NUMPY\x09\x09", "is damaged"),
}


@pytest.mark.parametrize("kind", BAD)
def test_what_cannot_be_read_is_one_clear_line(tmp_path, kind, capfd):
    """Codecs in C write to standard error by themselves."""
    content, told = BAD[kind]
    with pytest.raises(PictureError, match=told) as error:
        read(tmp_path, content)
    assert "\n" not in str(error.value) and "a.any" in str(error.value)
    assert "".join(capfd.readouterr()) == ""


def test_a_missing_library_says_which_extra_brings_it(tmp_path, monkeypatch):
    content = png(noise(8, 8))
    monkeypatch.setitem(sys.modules, "imagecodecs", None)
    with pytest.raises(MissingDependency, match=r"16 bits a channel need imagecodecs: .*\[deep\]"):
        read(tmp_path, content)
    assert read(tmp_path, npy(noise(8, 8))).rgb.shape == (8, 8)


@pytest.fixture
def model(tmp_path):
    with impasto.load(write_deep_package(tmp_path / "small"), backend="onnxruntime-cpu") as loaded:
        yield loaded


def run(model, source, target, **options):
    ((_, outcome),) = run_pictures(model, plan([source], str(target), "small"), **options)
    return outcome.result()


@pytest.mark.parametrize("suffix", [".png", ".tiff"])
@pytest.mark.parametrize("shape", [(20, 30), (20, 30, 3)])
def test_files_run_at_their_own_depth(tmp_path, model, suffix, shape):
    pixels, alpha = noise(*shape), noise(20, 30)
    images.write(tmp_path / f"in{suffix}", images.Picture(pixels, alpha))
    result = run(model, tmp_path / f"in{suffix}", tmp_path / f"out{suffix}")
    drawn = images.read_deep(tmp_path / f"out{suffix}")
    assert np.array_equal(drawn.rgb, model(pixels)) and np.array_equal(drawn.alpha, alpha)
    assert result.note is None and result.changed
    assert "8 bits a channel" in str(run(model, tmp_path / f"in{suffix}", tmp_path / "out.webp").note)


def test_larger_pictures_are_scaled_at_their_own_depth(tmp_path, model):
    shallow = picture(60, 90)
    images.write(tmp_path / "in.png", images.Picture(shallow.astype(np.uint16) * 257, noise(60, 90)))
    run(model, tmp_path / "in.png", tmp_path / "out.png", longest_side=30)
    drawn = images.read_deep(tmp_path / "out.png")
    assert drawn.rgb.shape == (20, 30, 3) and drawn.alpha.shape == (20, 30) and drawn.rgb.dtype == np.uint16
    scaled = images.within(shallow.astype(np.uint16) * 257, 30)
    assert np.abs(scaled / 257 - images.within(shallow, 30)).max() < 2
    floats = images.within(shallow.astype(np.float32) / 255, 30)
    assert floats.dtype == np.float32 and np.abs(floats * 65535 - scaled).max() < 1


def test_a_wrong_value_is_told_with_its_file(tmp_path, model):
    np.save(tmp_path / "in.npy", np.full((8, 8), np.nan, np.float32))
    with pytest.raises(ShapeError, match=r"in\.npy: the float32 picture holds NaN"):
        run(model, tmp_path / "in.npy", tmp_path / "out.npy")
