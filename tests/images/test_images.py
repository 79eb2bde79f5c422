"""Picture files: what is read, how, and what is refused."""

from __future__ import annotations

import errno
import io
import os
import sys
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, ImageCms, features
from support.small_models import picture

from impasto import files, images
from impasto.errors import ImpastoWarning, OptionError, OutputError, PictureError
from impasto.images import colour_tags


def save(path: Path, array: np.ndarray, **options: object) -> Path:
    Image.fromarray(array).save(path, **options)
    return path


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".webp"])
def test_lossless_files_survive_the_round_trip(tmp_path, suffix):
    image = picture(31, 17)
    path = tmp_path / f"a{suffix}"
    if suffix == ".webp":
        save(path, image, lossless=True)
    else:
        images.write(path, image)
    assert np.array_equal(images.read(path).rgb, image)


def test_jpeg_is_written_at_high_quality(tmp_path):
    image = np.asarray(Image.fromarray(picture(8, 8)).resize((64, 64)))
    images.write(tmp_path / "a.jpg", image)
    assert np.abs(images.read(tmp_path / "a.jpg").rgb.astype(int) - image).mean() < 2


def test_grayscale_palette_and_one_bit_become_rgb(tmp_path):
    grey = picture(9, 9)[..., 0]
    assert np.array_equal(images.read(save(tmp_path / "g.png", grey)).rgb, np.repeat(grey[..., None], 3, -1))
    for mode in ("P", "1", "CMYK"):
        path = tmp_path / f"{mode}.tif"
        Image.fromarray(picture(9, 9)).convert(mode).save(path)
        assert images.read(path).rgb.shape == (9, 9, 3)


MODES = {
    "RGB": {},
    "L": {},
    "LA": {},
    "P": {},
    "CMYK": {},
    "1": {"compression": "group4"},
    "RGBA": {"compression": "tiff_lzw"},
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("target", [".tif", ".png"])
def test_results_take_no_layout_from_their_source(tmp_path, mode, target):
    rgb = Image.fromarray(picture(9, 14))
    image = rgb.convert(mode) if mode != "LA" else rgb.convert("L").convert("LA")
    layout = {} if mode == "1" else {"tiffinfo": {274: 6, 278: 3, 317: 1}}
    image.save(tmp_path / "a.tif", **MODES[mode], **layout)
    found = images.read(tmp_path / "a.tif")
    larger = images.Picture(
        found.rgb.repeat(2, 0).repeat(2, 1),
        None if found.alpha is None else found.alpha.repeat(2, 0).repeat(2, 1),
        found.exif,
    )
    images.write(tmp_path / f"b{target}", larger)
    again = images.read(tmp_path / f"b{target}")
    assert np.array_equal(again.rgb, larger.rgb)
    assert (again.alpha is None) == (larger.alpha is None)
    if target == ".tif":
        assert np.array_equal(cv2.imread(str(tmp_path / "b.tif"))[..., ::-1], larger.rgb)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif"])
def test_of_exif_what_is_true_of_the_result_survives(tmp_path, suffix):
    exif = Image.Exif()
    exif[0x0100], exif[0x0101], exif[0x0112], exif[0x010F], exif[0x013B] = 4000, 3000, 3, "Cam", "Anna"
    exif[0x8769] = {0x9003: "2024:05:06 07:08:09", 0xA002: 4000, 0xA003: 3000, 0xA001: 0xFFFF}
    exif[0x8825] = {1: "N", 2: (48.0, 8.0, 14.0)}
    Image.fromarray(picture(8, 12)).save(tmp_path / "a.jpg", exif=exif)
    images.write(tmp_path / f"b{suffix}", images.read(tmp_path / "a.jpg"))
    with Image.open(tmp_path / f"b{suffix}") as image:
        image.load()
        found = image.getexif()
        assert (found[0x010F], found[0x013B]) == ("Cam", "Anna")
        assert 0x0112 not in found
        if suffix != ".tif":
            assert not {0x0100, 0x0101} & set(found)
        assert dict(found.get_ifd(0x8769)) == {0x9003: "2024:05:06 07:08:09", 0xA001: 1}
        assert found.get_ifd(0x8825)[1] == "N"
        assert image.size == (12, 8)


def test_alpha_is_carried(tmp_path):
    rgba = np.dstack([picture(9, 9), np.arange(81, dtype=np.uint8).reshape(9, 9)])
    found = images.read(save(tmp_path / "a.png", rgba))
    assert np.array_equal(found.rgb, rgba[..., :3])
    assert np.array_equal(found.alpha, rgba[..., 3])
    images.write(tmp_path / "b.png", found)
    assert np.array_equal(np.asarray(Image.open(tmp_path / "b.png")), rgba)
    with pytest.raises(OptionError, match=r"write a \.png"):
        images.write(tmp_path / "b.jpg", found)
    assert not (tmp_path / "b.jpg").exists()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied_once(tmp_path, orientation):
    upright = picture(6, 10)
    stored = Image.fromarray(upright)
    undo = {
        2: [Image.Transpose.FLIP_LEFT_RIGHT],
        3: [Image.Transpose.ROTATE_180],
        4: [Image.Transpose.FLIP_TOP_BOTTOM],
        5: [Image.Transpose.TRANSPOSE],
        6: [Image.Transpose.ROTATE_90],
        7: [Image.Transpose.TRANSVERSE],
        8: [Image.Transpose.ROTATE_270],
    }
    for operation in undo.get(orientation, []):
        stored = stored.transpose(operation)
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif[0x010F] = "a camera"
    stored.save(tmp_path / "a.png", exif=exif)
    found = images.read(tmp_path / "a.png")
    assert np.array_equal(found.rgb, upright)
    images.write(tmp_path / "b.png", found)
    again = Image.open(tmp_path / "b.png")
    assert 0x0112 not in again.getexif()
    assert again.getexif()[0x010F] == "a camera"


def test_colours_of_another_profile_become_srgb(tmp_path):
    lab_grey = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
    image = picture(8, 8)
    same = images.read(save(tmp_path / "s.png", image, icc_profile=lab_grey.tobytes())).rgb
    assert np.abs(same.astype(int) - image).max() <= 1
    wide = _linear_profile()
    converted = images.read(save(tmp_path / "w.png", np.full((4, 4, 3), 128, np.uint8), icc_profile=wide)).rgb
    assert (converted > 170).all()  # linear half is a much lighter sRGB value (188)


def _linear_profile() -> bytes:
    """sRGB with its tone curves replaced by the identity ("curv" with no entries)."""
    data = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    for index in range(int.from_bytes(data[128:132], "big")):
        entry = 132 + 12 * index
        if data[entry : entry + 4] in (b"rTRC", b"gTRC", b"bTRC"):
            offset = int.from_bytes(data[entry + 4 : entry + 8], "big")
            data[offset : offset + 12] = b"curv" + bytes(8)
    return bytes(data)


def test_a_broken_profile_is_ignored_and_told(tmp_path):
    image = picture(8, 8)
    path = save(tmp_path / "a.png", image, icc_profile=b"nonsense")
    with pytest.warns(ImpastoWarning, match=r"profile of .*a\.png is damaged"):
        assert np.array_equal(images.read(path).rgb, image)


def bomb() -> bytes:
    """A PNG header that promises 60000 x 60000 pixels."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return len(body).to_bytes(4, "big") + kind + body + zlib.crc32(kind + body).to_bytes(4, "big")

    header = (60000).to_bytes(4, "big") * 2 + bytes([8, 2, 0, 0, 0])
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    )


def _bytes(array: np.ndarray, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, kind, **options)
    return buffer.getvalue()


def _animation() -> bytes:
    frames = [Image.fromarray(picture(8, 8, seed)) for seed in range(3)]
    buffer = io.BytesIO()
    frames[0].save(buffer, "GIF", save_all=True, append_images=frames[1:])
    return buffer.getvalue()


def _rgb16() -> bytes:
    """A 16-bit RGB PNG, which Pillow can read (to 8 bits) but not write."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return len(body).to_bytes(4, "big") + kind + body + zlib.crc32(kind + body).to_bytes(4, "big")

    header = (2).to_bytes(4, "big") * 2 + bytes([16, 2, 0, 0, 0])
    rows = (b"\0" + bytes(12)) * 2
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def _wrong_exif(tag: int, orientation: int = 6) -> bytes:
    """An EXIF block with letters where numbers belong, as some cameras and editors write them."""
    entries = [(0x0112, 3, 1, orientation.to_bytes(2, "little") + bytes(2)), (tag, 2, 4, b"abc\0")]
    body = b"".join(
        kind.to_bytes(2, "little") + form.to_bytes(2, "little") + count.to_bytes(4, "little") + value
        for kind, form, count, value in sorted(entries)
    )
    return b"Exif\0\0II*\0" + (8).to_bytes(4, "little") + len(entries).to_bytes(2, "little") + body + bytes(4)


@pytest.mark.parametrize("tag", [0x0100, 0x0128, 0x0213])
def test_a_wrong_exif_field_costs_the_exif_block_at_most(tmp_path, tag):
    upright = np.asarray(Image.fromarray(picture(4, 8)).resize((80, 40)))
    turned = Image.fromarray(upright).transpose(Image.Transpose.ROTATE_90)
    turned.save(tmp_path / "a.jpg", exif=_wrong_exif(tag), quality=95)
    found = images.read(tmp_path / "a.jpg")
    assert found.rgb.shape == upright.shape, "the orientation is applied all the same"
    assert np.abs(found.rgb.astype(int) - upright).mean() < 3
    for suffix in (".png", ".jpg", ".tif", ".webp"):
        images.write(tmp_path / f"b{suffix}", found)


def test_of_a_cameras_jpeg_with_previews_the_photo_is_read(tmp_path):
    photo, preview = (Image.fromarray(picture(size, size)) for size in (32, 16))
    photo.save(tmp_path / "a.jpg", "MPO", save_all=True, append_images=[preview])
    assert Image.open(tmp_path / "a.jpg").n_frames == 2
    assert images.read(tmp_path / "a.jpg").rgb.shape == (32, 32, 3)


def test_exif_data_that_a_format_cannot_hold_is_left_out_with_a_note(tmp_path):
    image = images.Picture(picture(8, 8), exif=b"Exif\0\0" + bytes(70_000))
    with pytest.warns(ImpastoWarning, match="without the picture's EXIF data .* 64 kB"):
        images.write(tmp_path / "a.jpg", image)
    assert images.read(tmp_path / "a.jpg").exif is None
    with pytest.warns(ImpastoWarning, match="without the picture's EXIF data"):
        images.write(tmp_path / "a.tif", images.Picture(picture(8, 8), exif=b"Exif\0\0nonsense"))
    assert np.array_equal(images.read(tmp_path / "a.tif").rgb, picture(8, 8))


@pytest.mark.parametrize(("suffix", "side"), [(".webp", 16_383), (".jpg", 65_500)])
def test_a_picture_too_large_for_its_format_is_refused(tmp_path, suffix, side):
    images.write(tmp_path / f"a{suffix}", np.zeros((1, side, 3), np.uint8))
    with pytest.raises(OptionError, match=f"no {suffix} file holds sides above {side:,}; write a .png"):
        images.write(tmp_path / f"b{suffix}", np.zeros((1, side + 1, 3), np.uint8))
    assert [path.name for path in tmp_path.iterdir()] == [f"a{suffix}"]


def test_damaged_files_are_picture_errors_whatever_pillow_stumbles_over():
    random = np.random.default_rng(0)
    exif = Image.Exif()
    exif[0x010F], exif[0x0112], exif[0x011A] = "a camera", 6, 72.5
    kinds = ("JPEG", "PNG", "TIFF", "WEBP", "BMP", "GIF")
    sound = [_bytes(picture(12, 9), kind, exif=exif.tobytes()) for kind in kinds]
    read = 0
    for _ in range(600):
        content = bytearray(sound[random.integers(len(sound))])
        for place in random.integers(min(len(content), 400), size=random.integers(1, 9)):
            content[place] = random.choice((0, 255, random.integers(256)))
        try:
            read += images.decode(bytes(content)).rgb.size > 0
        except PictureError as error:
            assert "\n" not in str(error)
    assert read > 50


def test_hidden_files_are_no_pictures(tmp_path):
    save(tmp_path / "a.png", picture(4, 4))
    (tmp_path / "._a.png").write_bytes(b"what macOS knows of a.png")
    assert images.list_folder(tmp_path) == [tmp_path / "a.png"]


BAD = {
    "text": (b"hello, I am no picture", "is not a picture file"),
    "empty": (b"", "is not a picture file that can be read: it is empty"),
    "HEIC": (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "it is HEIC, .*; convert it first"),
    "truncated JPEG": (_bytes(picture(64, 64), "JPEG")[:900], "is damaged"),
    "truncated PNG": (_bytes(picture(64, 64), "PNG")[:2000], "is damaged"),
    "animated GIF": (_animation(), "animation"),
    "16-bit grey": (_bytes((picture(8, 8)[..., 0].astype(np.uint16) * 257), "PNG"), "16 or more bits"),
    "16-bit RGB": (_rgb16(), "16 or more bits"),
    "bomb": (bomb(), "says that it has 3,600,000,000 pixels, more than 180,000,000; scale"),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_files_are_one_clear_line(tmp_path, kind):
    content, message = BAD[kind]
    path = tmp_path / "a.png"
    path.write_bytes(content)
    with pytest.raises(PictureError, match=message) as error:
        images.read(path)
    assert "\n" not in str(error.value)
    assert "a.png" in str(error.value)


def test_missing_files_and_folders_are_named(tmp_path):
    with pytest.raises(PictureError, match="does not exist"):
        images.read(tmp_path / "none.png")
    with pytest.raises(PictureError, match="is a folder"):
        images.read(tmp_path)
    with pytest.raises(PictureError, match="no picture files"):
        images.list_folder(tmp_path)
    with pytest.raises(PictureError, match="is not a folder"):
        images.list_folder(tmp_path / "none")


def test_a_device_without_an_end_is_no_picture(monkeypatch):
    monkeypatch.setattr("impasto.images.decoding.MAX_BYTES", 1 << 20)
    with pytest.raises(PictureError, match="/dev/zero has more than 1,048,576 bytes"):
        images.read("/dev/zero")


def test_an_unknown_suffix_is_refused_before_writing(tmp_path):
    with pytest.raises(OptionError, match="picture format"):
        images.write(tmp_path / "a.xyz", picture(4, 4))
    assert not list(tmp_path.iterdir())


def test_nothing_half_written_is_left(tmp_path, monkeypatch):
    target = tmp_path / "a.png"
    images.write(target, picture(4, 4))
    before = target.read_bytes()

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(OutputError, match="no space left"):
        images.write(target, picture(8, 8))
    assert target.read_bytes() == before
    assert list(tmp_path.iterdir()) == [target]


def test_a_file_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    target, calls = tmp_path / "a.bin", []
    monkeypatch.setattr(os, "fsync", lambda _: calls.append(target.exists()))
    files.write_bytes(target, b"content")
    assert calls[0] is False


def test_ctrl_c_leaves_nothing_behind(tmp_path):
    with pytest.raises(KeyboardInterrupt), files.atomic_path(tmp_path / "a.txt") as temporary:
        temporary.write_text("half")
        raise KeyboardInterrupt
    assert not list(tmp_path.iterdir())


def test_ctrl_c_while_the_file_is_made_leaves_nothing_behind(tmp_path):
    """At whichever line, of ours or of the standard library."""

    def interrupted(at: int) -> bool:
        lines = iter(range(1, at + 1))

        def trace(frame: object, event: str, _: object) -> object:
            if event == "line" and next(lines, at) == at:
                sys.settrace(None)
                raise KeyboardInterrupt
            return trace

        manager = files.atomic_path(tmp_path / "a.txt")
        sys.settrace(trace)
        try:
            manager.__enter__()
        except KeyboardInterrupt:
            return True
        finally:
            sys.settrace(None)
        manager.__exit__(None, None, None)
        return False

    places = 0
    while interrupted(places + 1):
        places += 1
        assert not list(tmp_path.iterdir()), f"at line {places}"
    assert places > 5
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_a_folder_that_is_a_file_is_told(tmp_path):
    (tmp_path / "a").touch()
    with pytest.raises(OutputError):
        files.write_text(tmp_path / "a" / "b.txt", "text")
    with pytest.raises(OutputError):
        files.write_text("/", "text")


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(OutputError, match="does not exist; make it first"):
        files.write_text(tmp_path / "none" / "a.txt", "text")
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot make the folder"):
        files.make_folder(tmp_path / "file" / "below")


def test_what_a_link_leads_to_is_replaced_and_the_link_stays(tmp_path):
    (tmp_path / "real").mkdir()
    for name in ("there.txt", "not yet.txt"):
        link = tmp_path / name
        link.symlink_to(tmp_path / "real" / name)
        files.write_text(link, "new")
        assert link.is_symlink()
        assert (tmp_path / "real" / name).read_text() == "new"
        files.write_text(link, "newer")
        assert link.read_text() == "newer"
    assert len(list(tmp_path.rglob("*.txt"))) == 4, "no temporary file is left"


def test_a_pipe_is_written_into_and_stays(tmp_path):
    """As a device is; a test of that, run by root with the rule broken, would take /dev/null from the machine."""
    pipe = tmp_path / "pipe.json"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        files.check_writable(pipe)
        files.write_text(pipe, "text")
        assert os.read(reader, 100) == b"text"
    finally:
        os.close(reader)
    assert pipe.is_fifo()
    assert list(tmp_path.iterdir()) == [pipe]


def test_whether_a_file_can_be_written_is_known_beforehand(tmp_path):
    files.check_writable(tmp_path / "a.json")
    with pytest.raises(OutputError, match="does not exist; make it first"):
        files.check_writable(tmp_path / "none" / "a.json")
    with pytest.raises(OutputError, match="is a folder; name a file in it"):
        files.check_writable(tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["a" * 251 + ".png", "ä" * 125 + ".png"])
def test_the_longest_names_are_written(tmp_path, name):
    images.write(tmp_path / name, picture(4, 4))
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("mode", [0o600, 0o664, 0o444])
def test_a_file_that_is_replaced_keeps_its_permissions(tmp_path, mode):
    path = tmp_path / "a.txt"
    path.touch(mode)
    path.chmod(mode)
    files.write_text(path, "new")
    assert path.stat().st_mode & 0o777 == mode | 0o200
    assert path.read_text() == "new"


def test_threads_leave_pillow_and_pythons_warnings_as_they_are(monkeypatch):
    """Pillow's limit and the filters of warnings are the whole program's."""
    content = _bytes(picture(30, 30), "PNG")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    before = list(warnings.filters)
    with ThreadPoolExecutor(6) as threads:
        list(threads.map(images.decode, [content] * 300))
    assert warnings.filters == before
    assert Image.MAX_IMAGE_PIXELS == 1000
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert images.decode(content).rgb.shape == (30, 30, 3)


def with_chunk(png: bytes, kind: bytes, body: bytes) -> bytes:
    return png[:33] + len(body).to_bytes(4, "big") + kind + body + zlib.crc32(kind + body).to_bytes(4, "big") + png[33:]


CHROMATICITIES = {
    "sRGB": (0.3127, 0.329, 0.64, 0.33, 0.3, 0.6, 0.15, 0.06),
    "P3": (0.3127, 0.329, 0.68, 0.32, 0.265, 0.69, 0.15, 0.06),
}


def _chromaticities(name: str) -> bytes:
    return b"".join(round(value * 100_000).to_bytes(4, "big") for value in CHROMATICITIES[name])


class TestColourTags:
    """PNG's chunks and AVIF's boxes, which Pillow leaves out."""

    def test_linear_light_becomes_srgb(self):
        grey = _bytes(np.full((4, 4, 3), 128, np.uint8), "PNG")
        for chunk in ((b"gAMA", (100_000).to_bytes(4, "big")), (b"cICP", bytes([1, 8, 0, 1]))):
            assert (images.decode(with_chunk(grey, *chunk)).rgb == 188).all()

    def test_display_p3_becomes_srgb(self):
        # Display P3's (0.5, 0.3, 0.2) in sRGB, by ColorSync's matrix and W3C's CSS Color 4 example code.
        level = _bytes(np.array([[[128, 77, 51]]], np.uint8), "PNG")
        by_code = images.decode(with_chunk(level, b"cICP", bytes([12, 13, 0, 1]))).rgb
        by_points = images.decode(with_chunk(level, b"cHRM", _chromaticities("P3"))).rgb
        assert np.array_equal(by_code, by_points)
        red, green, blue = by_code[0, 0].astype(int)
        assert red > 128 and green < 77 and blue < 51
        grey = _bytes(np.full((1, 1, 3), 90, np.uint8), "PNG")
        assert (images.decode(with_chunk(grey, b"cICP", bytes([12, 13, 0, 1]))).rgb == 90).all()

    @pytest.mark.parametrize(
        "chunk",
        [
            (b"gAMA", (45_455).to_bytes(4, "big")),
            (b"cICP", bytes([1, 13, 0, 1])),
            (b"sRGB", b"\0"),
            (b"cHRM", _chromaticities("sRGB")),
        ],
    )
    def test_srgb_in_other_words_stays_as_it_is(self, chunk):
        image = picture(8, 8)
        assert np.array_equal(images.decode(with_chunk(_bytes(image, "PNG"), *chunk)).rgb, image)

    def test_srgb_counts_more_than_gamma(self):
        image = picture(8, 8)
        png = with_chunk(with_chunk(_bytes(image, "PNG"), b"gAMA", (100_000).to_bytes(4, "big")), b"sRGB", b"\0")
        assert np.array_equal(images.decode(png).rgb, image)

    @pytest.mark.parametrize(
        ("chunk", "words"),
        [
            ((b"cICP", bytes([9, 16, 0, 1])), r"high dynamic range \(PQ\)"),
            ((b"cICP", bytes([9, 18, 0, 1])), r"high dynamic range \(HLG\)"),
            ((b"cICP", bytes([1, 13, 1, 1])), "YCbCr"),
            ((b"cICP", bytes([200, 13, 0, 1])), "primaries 200"),
            ((b"cHRM", bytes(32)), "impossible primaries"),
        ],
    )
    def test_what_cannot_be_converted_is_refused(self, chunk, words):
        with pytest.raises(PictureError, match=words):
            images.decode(with_chunk(_bytes(picture(8, 8), "PNG"), *chunk))

    def test_more_than_eight_bits_are_seen_behind_any_mode(self):
        deep = np.zeros((4, 4, 3), ">u2").tobytes()
        with pytest.raises(PictureError, match="16 bits a channel"):
            images.decode(b"P6 4 4 65535\n" + deep)
        codestream = _bytes(picture(16, 16), "JPEG2000", no_jp2=True)
        place = codestream.index(b"\xff\x4f\xff\x51") + 42
        with pytest.raises(PictureError, match="12 bits a channel"):
            images.decode(codestream[:place] + bytes([11]) + codestream[place + 1 :])

    @pytest.mark.skipif(not features.check("avif"), reason="this Pillow reads no AVIF")
    def test_boxes_of_avif(self):
        avif = _bytes(picture(16, 16), "AVIF")
        assert images.decode(avif).rgb.shape == (16, 16, 3)
        assert colour_tags.of_avif(avif)[1] == 8
        place = avif.index(b"pixi") + 9
        assert colour_tags.of_avif(avif[:place] + bytes([10, 10, 10]) + avif[place + 3 :])[1] == 10
        place = avif.index(b"nclx") + 4
        tags, _ = colour_tags.of_avif(avif[:place] + bytes([0, 9, 0, 16]) + avif[place + 4 :])
        assert tags and tags.unknown == "high dynamic range (PQ)"
        for end in range(0, len(avif), 7):
            colour_tags.of_avif(avif[:end])

    @pytest.mark.parametrize("mode", ["L", "LA", "P", "1", "RGB", "RGBA"])
    def test_profiles_count_in_every_mode(self, mode):
        image = Image.fromarray(np.full((4, 4, 3), 128, np.uint8)).convert("L" if mode == "LA" else "RGB").convert(mode)
        plain, tagged = io.BytesIO(), io.BytesIO()
        image.save(plain, "TIFF")
        image.save(tagged, "TIFF", icc_profile=_linear_profile())
        if mode == "1":  # black and white are the same everywhere
            assert np.array_equal(images.decode(plain.getvalue()).rgb, images.decode(tagged.getvalue()).rgb)
        else:
            assert images.decode(tagged.getvalue()).rgb.mean() > 170

    def test_a_profile_of_another_kind_of_picture_is_refused(self):
        buffer = io.BytesIO()
        Image.new("CMYK", (4, 4)).save(buffer, "TIFF", icc_profile=_linear_profile())
        with pytest.raises(PictureError, match="profile for RGB, and the picture is CMYK"):
            images.decode(buffer.getvalue())
