"""DICOM in and out: what numbers mean, what a derived file says, and that nobody's name is told."""

from __future__ import annotations

import logging
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from support.small_models import write_deep_package

import impasto
from impasto import images, medical
from impasto.batch.jobs import plan
from impasto.batch.scans import run_scan
from impasto.errors import MissingDependency, OptionError, PictureError
from impasto.medical import Window
from impasto.package.spec import ModelSpec

pydicom = pytest.importorskip("pydicom", reason="reads DICOM: install impasto[medical]")
tifffile = pytest.importorskip("tifffile", reason="writes TIFF of 16 bits: install impasto[deep]")

NAME = "Nobody^Shall^Read^This"
FULL = Window.parse("full")


def scan_file(path: Path, stored: np.ndarray, **elements: object) -> Path:
    """A DICOM file of gray (H, W) or (N, H, W), or of RGB (H, W, 3)."""
    from pydicom.dataset import FileMetaDataset

    dataset = pydicom.Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = pydicom.uid.CTImageStorage
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = pydicom.uid.generate_uid()
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = pydicom.uid.generate_uid(), pydicom.uid.generate_uid()
    dataset.PatientName, dataset.PatientID, dataset.ImageType = NAME, "12345", ["ORIGINAL", "PRIMARY", "AXIAL"]
    colour = stored.shape[-1] == 3
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = (3, "RGB") if colour else (1, "MONOCHROME2")
    if colour:
        dataset.PlanarConfiguration = 0
    if stored.ndim == 3 and not colour:
        dataset.NumberOfFrames = len(stored)
    dataset.Rows, dataset.Columns = stored.shape[-3:-1] if colour else stored.shape[-2:]
    dataset.BitsAllocated = dataset.BitsStored = 8 * stored.itemsize
    dataset.HighBit, dataset.PixelRepresentation = dataset.BitsStored - 1, int(stored.dtype.kind == "i")
    for name, value in elements.items():
        setattr(dataset, name, value)
    if "BitsStored" in elements:
        dataset.HighBit = elements["BitsStored"] - 1
    dataset.PixelData = stored.tobytes()
    dataset.save_as(path, enforce_file_format=True)
    return path


def ct(*shape: int) -> np.ndarray:
    """Numbers as of a 12-bit CT with sign."""
    return np.random.default_rng(len(shape)).integers(-1000, 1500, shape).astype(np.int16)


@pytest.fixture
def model(tmp_path):
    with impasto.load(write_deep_package(tmp_path / "small"), backend="onnxruntime-cpu") as loaded:
        yield loaded


def run(model, source, target, window="full"):
    (job,) = plan([source], str(target), "small")
    assert job.is_scan
    return run_scan(model, job, window=Window.parse(window), how="denoise, fp32")


def test_all_values_are_drawn_and_come_back(tmp_path):
    stored = ct(20, 30)
    scan = medical.read_scan(
        scan_file(tmp_path / "a.dcm", stored, RescaleSlope=2, RescaleIntercept=-24, RescaleType="HU"), FULL
    )
    (picture,) = scan.pictures()
    assert picture.dtype == np.float32 and (picture.min(), picture.max()) == (0, 1)
    assert np.array_equal(scan.restored(picture[None])[0], stored)
    assert scan.range_text() == f"black is {2 * stored.min() - 24} and white is {2 * stored.max() - 24} HU"


@pytest.mark.parametrize(("slope", "kind"), [(1, "MONOCHROME1"), (-1, "MONOCHROME2")])
def test_what_is_shown_white_is_drawn_white(tmp_path, slope, kind):
    stored = ct(20, 30)
    path = scan_file(tmp_path / "a.dcm", stored, PhotometricInterpretation=kind, RescaleSlope=slope, RescaleIntercept=0)
    scan = medical.read_scan(path, FULL)
    (picture,) = scan.pictures()
    assert picture[np.unravel_index(stored.argmin(), stored.shape)] == 1
    assert np.array_equal(scan.restored(picture[None])[0], stored)
    ends = (stored.max(), stored.min()) if slope > 0 else (-stored.max(), -stored.min())
    assert scan.range_text() == f"black is {ends[0]} and white is {ends[1]}"


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT"])
def test_windows_are_applied_as_viewers_do(tmp_path, function):
    stored = ct(20, 30)
    rescale = {"RescaleSlope": 2, "RescaleIntercept": -500}
    told = {"WindowCenter": [100, 5], "WindowWidth": [700, 5], "VOILUTFunction": function}
    path = scan_file(tmp_path / "a.dcm", stored, **rescale, **told)
    scan = medical.read_scan(path, Window.parse("file"))
    values = pydicom.pixels.apply_rescale(stored, pydicom.dcmread(path))
    wanted = pydicom.pixels.apply_windowing(values, pydicom.dcmread(path), 0)
    wanted = (wanted - wanted.min()) / (wanted.max() - wanted.min())
    assert np.abs(scan.pictures()[0] - wanted).max() < 1e-5 and scan.cut
    own = medical.read_scan(path, Window.parse("100, 700"))
    assert np.abs(own.pictures()[0] - ((values - 100) / 700 + 0.5).clip(0, 1)).max() < 1e-6


def test_windows_that_are_not_there_are_told(tmp_path):
    with pytest.raises(PictureError, match="names no window"):
        medical.read_scan(scan_file(tmp_path / "a.dcm", ct(4, 4)), Window.parse("file"))
    sigmoid = {"WindowCenter": 1, "WindowWidth": 2, "VOILUTFunction": "SIGMOID"}
    with pytest.raises(PictureError, match="another function than LINEAR and LINEAR_EXACT"):
        medical.read_scan(scan_file(tmp_path / "b.dcm", ct(4, 4), **sigmoid), Window.parse("file"))
    for text in ("", "40", "40,0", "40,-1", "nan,4", "a,b", "1,2,3"):
        with pytest.raises(OptionError, match="CENTER,WIDTH"):
            Window.parse(text)


@pytest.mark.parametrize(
    ("width", "function", "wanted"),
    [
        (0, None, "1 or more"),
        (0.5, "LINEAR", "1 or more"),
        (-4, "LINEAR", "1 or more"),
        (0, "LINEAR_EXACT", "more than 0"),
        (-1, "LINEAR_EXACT", "more than 0"),
    ],
)
def test_a_width_that_dicom_does_not_allow_is_refused(tmp_path, width, function, wanted):
    """PS3.3 C.11.2.1.2 and C.11.2.1.3.2."""
    told = {"WindowCenter": 40, "WindowWidth": width, **({"VOILUTFunction": function} if function else {})}
    with pytest.raises(PictureError, match=f"window of width {width:g}, where DICOM wants {wanted}"):
        medical.read_scan(scan_file(tmp_path / "a.dcm", ct(4, 4), **told), Window.parse("file"))


@pytest.mark.parametrize("slope", [1, -1])
def test_a_width_of_1_is_a_step(tmp_path, slope):
    """PS3.3 C.11.2.1.2.1: what is at most c - 0.5 is black, what is above it white."""
    told = {"WindowCenter": 40.5, "WindowWidth": 1, "RescaleSlope": slope, "RescaleIntercept": 0}
    values = np.array([[39, 40, 41, 42]], np.int16)
    path = scan_file(tmp_path / "a.dcm", slope * values, **told)
    (picture,) = medical.read_scan(path, Window.parse("file")).pictures()
    assert picture.tolist() == [[0, 0, 1, 1]]
    exact = scan_file(tmp_path / "b.dcm", slope * values, **told, VOILUTFunction="LINEAR_EXACT")
    assert medical.read_scan(exact, Window.parse("file")).pictures()[0].tolist() == [[0, 0, 1, 1]]


@pytest.mark.parametrize("kind", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize(("window", "colour"), [("5000,10", "black"), ("-5000,10", "white")])
def test_a_window_beside_all_values_is_told(tmp_path, model, kind, window, colour):
    stored = ct(20, 30)
    stored[0] = -30_000  # which is no part of the picture
    rescale = {"RescaleSlope": 2, "RescaleIntercept": -24, "RescaleType": "HU", "PixelPaddingValue": -30_000}
    source = scan_file(tmp_path / "a.dcm", stored, PhotometricInterpretation=kind, **rescale)
    if kind == "MONOCHROME1":
        colour = {"black": "white", "white": "black"}[colour]
    values = f"from {2 * stored[1:].min() - 24} to {2 * stored.max() - 24} HU"
    for name in ("b.png", "b.dcm"):
        note = run(model, source, tmp_path / name, window).note
        assert f"{tmp_path / 'a.dcm'} reaches from" in note
        assert f"scan's values {values}: all of it is {colour}" in note


def test_a_window_that_holds_a_value_is_not_told(tmp_path, model):
    source = scan_file(tmp_path / "a.dcm", np.full((8, 8), 100, np.int16))
    assert run(model, source, tmp_path / "b.dcm", "100,10").note is None
    assert "all of it" not in run(model, source, tmp_path / "b.png").note
    assert "all of it is white" in run(model, source, tmp_path / "b.png", "95,10").note


@pytest.mark.parametrize(
    "elements",
    [
        {"WindowCenter": "1e300", "WindowWidth": 2},
        {"WindowCenter": 1, "WindowWidth": 2, "RescaleSlope": "1e-320"},
    ],
)
def test_a_window_without_values_is_refused(tmp_path, elements):
    path = scan_file(tmp_path / "a.dcm", ct(4, 4), **elements)
    with pytest.raises(PictureError, match="holds no values by the file's scale"):
        medical.read_scan(path, Window.parse("file"))


def test_a_scan_of_one_large_value_is_drawn(tmp_path):
    """Whose neighbours are further away than 1."""
    stored = np.full((4, 4), np.iinfo(np.int32).max, np.int32)
    (picture,) = medical.read_scan(scan_file(tmp_path / "a.dcm", stored), FULL).pictures()
    assert not picture.any()


def test_padding_does_not_stretch_the_range_and_stays(tmp_path):
    stored = ct(20, 30)
    stored[:4] = -2000
    scan = medical.read_scan(scan_file(tmp_path / "a.dcm", stored, PixelPaddingValue=-2000), FULL)
    assert scan.range.low == stored[4:].min()
    assert np.array_equal(scan.restored(np.full((1, 20, 30), 0.5, np.float32))[0, :4], stored[:4])


def test_a_picture_of_16_bits_is_written_and_says_what_its_levels_are(tmp_path, model):
    stored = ct(20, 30)
    source = scan_file(tmp_path / "a.dcm", stored, RescaleType="HU")
    result = run(model, source, tmp_path / "a.png")
    drawn = images.read_deep(tmp_path / "a.png").rgb
    wanted = model(medical.read_scan(source, FULL).pictures()[0])
    assert drawn.dtype == np.uint16 and np.array_equal(drawn, np.rint(wanted * 65535))
    assert result.note == f"{tmp_path / 'a.png'}: black is {stored.min()} and white is {stored.max()} HU"


def test_frames_are_a_stack_or_a_derived_file(tmp_path, model):
    stored = ct(3, 20, 30)
    source = scan_file(tmp_path / "a.dcm", stored)
    with pytest.raises(OptionError, match="has 3 frames"):
        run(model, source, tmp_path / "a.png")
    assert run(model, source, tmp_path / "a.tif").to_json()["frames"] == 3
    held = tifffile.imread(tmp_path / "a.tif")
    pictures = medical.read_scan(source, FULL).pictures()
    assert np.array_equal(held, [np.rint(model(each) * 65535) for each in pictures])
    run(model, source, tmp_path / "b.dcm")
    assert pydicom.dcmread(tmp_path / "b.dcm").pixel_array.shape == (3, 20, 30)


def test_a_derived_file_says_what_it_is(tmp_path, model):
    stored = ct(20, 30)
    source = scan_file(tmp_path / "a.dcm", stored, RescaleIntercept=-24, RescaleSlope=1, BitsStored=12, SeriesNumber=4)
    before = pydicom.dcmread(source)
    run(model, source, tmp_path / "b.dcm")
    after = pydicom.dcmread(tmp_path / "b.dcm")
    for name in ("SOPInstanceUID", "SeriesInstanceUID"):
        assert after[name].value != before[name].value
    assert after.file_meta.MediaStorageSOPInstanceUID == after.SOPInstanceUID
    for name in (
        "StudyInstanceUID",
        "PatientName",
        "RescaleIntercept",
        "BitsStored",
        "PixelRepresentation",
        "SOPClassUID",
    ):
        assert after[name].value == before[name].value
    assert list(after.ImageType) == ["DERIVED", "PRIMARY", "AXIAL"]
    assert "network small of Impasto" in after.DerivationDescription
    assert "Not trained or approved for diagnosis" in after.DerivationDescription
    assert "not for diagnosis" in after.SeriesDescription
    assert after.SourceImageSequence[0].ReferencedSOPInstanceUID == before.SOPInstanceUID
    assert after.ContributingEquipmentSequence[0].Manufacturer == "Impasto"
    scan = medical.read_scan(source, FULL)
    wanted = scan.restored(model(scan.pictures()[0])[None])[0]
    assert np.array_equal(after.pixel_array, wanted) and after.pixel_array.dtype == np.int16
    assert np.abs(after.pixel_array.astype(int)).max() <= 2048
    run(model, source, tmp_path / "c.dcm", "0,100")
    assert "outside of the window are lost" in pydicom.dcmread(tmp_path / "c.dcm").DerivationDescription


def test_colour_goes_through(tmp_path, model):
    stored = np.random.default_rng(0).integers(0, 256, (20, 30, 3)).astype(np.uint8)
    source = scan_file(tmp_path / "a.dcm", stored)
    run(model, source, tmp_path / "a.png")
    assert np.array_equal(images.read(tmp_path / "a.png").rgb, model(stored))
    run(model, source, tmp_path / "b.dcm")
    assert np.array_equal(pydicom.dcmread(tmp_path / "b.dcm").pixel_array, model(stored))


BAD = {
    "text": (b"no DICOM at all", "is no DICOM file"),
    "empty": (b"", "is no DICOM file"),
    "cut": (None, "is damaged"),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_files_are_one_line_that_names_nobody(tmp_path, kind):
    content, told = BAD[kind]
    path = scan_file(tmp_path / "a.dcm", ct(20, 30))
    path.write_bytes(path.read_bytes()[:-600] if content is None else content)
    with pytest.raises(PictureError, match=told) as error:
        medical.read_scan(path, FULL)
    assert "\n" not in str(error.value) and "Nobody" not in str(error.value)


@pytest.mark.parametrize(
    ("elements", "told"),
    [
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "PALETTE COLOR"),
        ({"NumberOfFrames": 2_000_000}, "too many"),
        ({"BitsAllocated": 1}, "1 bits a number"),
        ({"Rows": 60_000, "Columns": 60_000}, "too many"),
        ({"PixelPaddingValue": [1, 2]}, "is damaged"),
    ],
)
def test_what_is_not_read_is_told(tmp_path, elements, told):
    with pytest.raises(PictureError, match=told):
        medical.read_scan(scan_file(tmp_path / "a.dcm", ct(20, 30), **elements), FULL)


def test_no_name_is_told(tmp_path, model, caplog, capfd):
    """Not where pydicom would quote an element that breaks its rules, either."""
    source = scan_file(tmp_path / "a.dcm", ct(20, 30))
    broken = source.read_bytes().replace(b"12345", b"1\\\\45").replace(b"Nobody", b"Nob\xff\xfe\xfd")
    source.write_bytes(broken)
    caplog.set_level(logging.DEBUG)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        result = run(model, source, tmp_path / "out.dcm")
        report = run(model, source, tmp_path / "out.tif").to_json()
    said = "".join([caplog.text, *map(str, told), str(result), str(report), *capfd.readouterr()])
    assert "Shall" not in said and "1\\\\45" not in said


def test_derived_files_have_the_sources_size_and_are_of_scans(tmp_path, model, monkeypatch):
    folder = write_deep_package(tmp_path / "twice", scale=2)
    source = scan_file(tmp_path / "a.dcm", ct(20, 30))
    with impasto.load(folder, backend="onnxruntime-cpu") as twice:
        drawn = []
        monkeypatch.setattr(impasto.Model, "__call__", lambda *_: drawn.append(1))
        with pytest.raises(OptionError, match="another size"):
            run(twice, source, tmp_path / "b.dcm")
        assert not drawn
        monkeypatch.undo()
        run(twice, source, tmp_path / "b.tif")
    assert images.read_deep(tmp_path / "b.tif").rgb.shape == (40, 60)
    images.write(tmp_path / "photo.png", np.zeros((8, 8, 3), np.uint8))
    with pytest.raises(OptionError, match="none that it could derive from"):
        plan([tmp_path / "photo.png"], str(tmp_path / "c.dcm"), "small")
    (job,) = plan([source], str(tmp_path / "d.png"), "small")
    with pytest.raises(OptionError, match="drawn at its own size"):
        run_scan(model, job, window=FULL, how="", longest_side=10)


def floats(path: Path) -> Path:
    dataset = pydicom.dcmread(scan_file(path, ct(20, 30)))
    del dataset.PixelData
    dataset.FloatPixelData = np.zeros((20, 30), np.float32).tobytes()
    dataset.BitsAllocated = 32
    dataset.save_as(path, enforce_file_format=True)
    return path


def big_endian(path: Path) -> Path:
    dataset = pydicom.dcmread(scan_file(path, ct(20, 30)))
    dataset.PixelData = ct(20, 30).astype(">i2").tobytes()
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRBigEndian
    pydicom.dcmwrite(path, dataset, enforce_file_format=True, little_endian=False, implicit_vr=False)
    return path


def without_its_identifier(path: Path) -> Path:
    dataset = pydicom.dcmread(scan_file(path, ct(20, 30)))
    del dataset.SOPInstanceUID
    dataset.save_as(path, enforce_file_format=False)
    return path


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (floats, "holds floats"),
        (big_endian, "is big-endian"),
        (without_its_identifier, "cannot be written as a derived"),
    ],
)
def test_what_cannot_be_derived_is_refused_before_it_is_drawn(tmp_path, make, told):
    class NeverDraws:
        """A model up to where it draws."""

        info = ModelSpec("never")

        def __call__(self, picture):
            pytest.fail("it was drawn")

    source = make(tmp_path / "a.dcm")
    with pytest.raises((OptionError, PictureError), match=told):
        run(NeverDraws(), source, tmp_path / "b.dcm")
    assert not (tmp_path / "b.dcm").exists()


def test_a_missing_library_says_which_extra_brings_it(tmp_path, monkeypatch):
    path = scan_file(tmp_path / "a.dcm", ct(4, 4))
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(MissingDependency, match=r"DICOM files need pydicom: .*\[medical\]"):
        medical.read_scan(path, FULL)
    with pytest.raises(PictureError, match=r"it is DICOM; let its name end in \.dcm"):
        images.read(path.rename(tmp_path / "IM0001"))


def test_a_width_that_vanishes_beside_the_center_is_no_window():
    """1e300 - 1e-300 and 1e300 + 1e-300 are the same number, and dividing by their difference is a warning and no picture."""
    with pytest.raises(OptionError, match="cannot read the window"):
        Window.parse("1e300,1e-300")
