"""A derived DICOM file: another's picture, processed, under new identifiers, in the same study.

DICOM PS3.3, C.7.6.1 (ImageType, derivation), C.12.1 (identifiers), C.7.6.16 (enhanced files).
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from impasto._version import __version__
from impasto.errors import ImpastoError, OptionError, PictureError
from impasto.files import write_bytes
from impasto.images.decoding import content_of

from .library import in_silence, pydicom
from .scan import Scan

_STALE = (
    "SmallestImagePixelValue",
    "LargestImagePixelValue",
    "IconImageSequence",
    "DigitalSignaturesSequence",
    "MACParametersSequence",
    "ExtendedOffsetTable",
    "ExtendedOffsetTableLengths",
    "SeriesNumber",
    "DerivationCodeSequence",
)
"""What is true of the source's pixels alone."""
_SOURCE_IMAGE, _MODIFYING = ("121322", "Source image for image processing operation"), ("109103", "Modifying Equipment")
"""Codes of DICOM's own vocabulary (DCM), PS3.16."""


@dataclass(frozen=True)
class Processing:
    """How a scan was processed."""

    model: str
    """The model's name."""
    how: str
    """In words: task, strength."""


def check_derivable(path: Path, scan: Scan, scale: int) -> None:
    """Raises what `write_derived` would raise, as far as all but the pixels tell: for the start of long work.

    scale: side of what will be drawn / side of the scan.
    """
    _require_same_size(path, scan, scale == 1)
    with _one_line(scan):
        held = _derived(scan, Processing("rehearsed", "rehearsed"), pixels=False)
        held.save_as(io.BytesIO(), enforce_file_format=True)


def write_derived(path: Path, scan: Scan, drawn: np.ndarray, processing: Processing) -> None:
    """Write a derived file of drawn frames, uncompressed.

    drawn: float32 (N, H, W) from 0 to 1, or RGB as `Scan.stored`, of the scan's size. Raises OptionError where the size is another,
    PictureError where the source cannot be read any more, and OutputError.
    """
    _require_same_size(path, scan, drawn.shape == scan.stored.shape)
    with _one_line(scan):
        held = _derived(scan, processing)
        _put_pixels(held, scan, scan.restored(drawn))
        file = io.BytesIO()
        held.save_as(file, enforce_file_format=True)
    write_bytes(path, file.getvalue())


def _require_same_size(path: Path, scan: Scan, same: bool) -> None:
    """Raises OptionError."""
    if not same:
        raise OptionError(
            f"{path} cannot be a derived DICOM file: the drawing has another size than {scan.path}; write a .tif or .png instead"
        )


@contextmanager
def _one_line(scan: Scan) -> Iterator[None]:
    """A block in which pydicom says nothing, and its errors become ours, without their words, which may quote the file."""
    try:
        with in_silence():
            yield
    except ImpastoError:
        raise
    except Exception as error:
        raise PictureError(f"{scan.path} cannot be written as a derived DICOM file ({type(error).__name__})") from None


def _derived(scan: Scan, processing: Processing, *, pixels: bool = True) -> Any:
    """The source as pydicom reads it, with all that a derived file says in place of it but the pixels. Raises OptionError.

    pixels: whether the source's are read too.
    """
    if scan.stored.dtype.kind == "f":
        raise OptionError(f"{scan.path} holds floats, of which no derived DICOM file is written; write a .tif instead")
    dicom = pydicom()
    held = dicom.dcmread(io.BytesIO(content_of(scan.path)), stop_before_pixels=not pixels)
    if held.original_encoding[1] is False:  # other elements than the pixels hold words in that order too
        raise OptionError(
            f"{scan.path} is big-endian, which DICOM has retired; convert it first: dcmconv +te in.dcm out.dcm"
        )
    for name in _STALE:
        if name in held:
            delattr(held, name)
    held.file_meta.TransferSyntaxUID = dicom.uid.ExplicitVRLittleEndian
    _put_identity(held, dicom)
    _put_derivation(held, scan, processing, dicom)
    return held


def _put_pixels(held: Any, scan: Scan, numbers: np.ndarray) -> None:
    numbers = numbers.astype(numbers.dtype.newbyteorder("<"), copy=False)
    content = numbers.tobytes()
    held.PixelData = content + b"\0" * (len(content) % 2)
    held["PixelData"].VR = "OB" if numbers.dtype.itemsize == 1 else "OW"
    held["PixelData"].is_undefined_length = False
    held.BitsAllocated = 8 * numbers.dtype.itemsize
    held.HighBit = int(held.get("BitsStored") or held.BitsAllocated) - 1
    if not scan.is_gray:
        held.PhotometricInterpretation, held.PlanarConfiguration = "RGB", 0


def _put_identity(held: Any, dicom: Any) -> None:
    """New identifiers for the picture and its series. Study and patient stay."""
    source = dicom.dataset.Dataset()
    source.ReferencedSOPClassUID, source.ReferencedSOPInstanceUID = held.SOPClassUID, held.SOPInstanceUID
    source.PurposeOfReferenceCodeSequence = [_code(dicom, *_SOURCE_IMAGE)]
    held.SourceImageSequence = [source]
    held.SOPInstanceUID, held.SeriesInstanceUID = dicom.uid.generate_uid(), dicom.uid.generate_uid()
    held.SeriesNumber = None
    held.file_meta.MediaStorageSOPInstanceUID = held.SOPInstanceUID
    held.file_meta.MediaStorageSOPClassUID = held.SOPClassUID
    now = datetime.now()
    held.InstanceCreationDate = held.ContentDate = held.SeriesDate = now.strftime("%Y%m%d")
    held.InstanceCreationTime = held.ContentTime = held.SeriesTime = now.strftime("%H%M%S")


def _put_derivation(held: Any, scan: Scan, processing: Processing, dicom: Any) -> None:
    """Say that the pixels are processed, by what, and that nobody approved them for diagnosis."""
    given = [str(part) for part in held.get("ImageType") or []]
    held.ImageType = ["DERIVED", *(given[1:] or ["SECONDARY"])]
    lost = "; values outside of the window are lost" if scan.cut else ""
    held.DerivationDescription = (
        f"Processed by the network {processing.model} of Impasto {__version__}: {processing.how}{lost}. Not trained or approved for "
        "diagnosis."
    )
    held.SeriesDescription = f"{processing.model[:32]} (Impasto), not for diagnosis"
    tool = dicom.dataset.Dataset()
    tool.PurposeOfReferenceCodeSequence = [_code(dicom, *_MODIFYING)]
    tool.Manufacturer, tool.ManufacturerModelName, tool.SoftwareVersions = "Impasto", processing.model[:64], __version__
    tool.ContributionDescription = processing.how[:1024]
    held.ContributingEquipmentSequence = [*(held.get("ContributingEquipmentSequence") or []), tool]
    for group in [
        *(held.get("SharedFunctionalGroupsSequence") or []),
        *(held.get("PerFrameFunctionalGroupsSequence") or []),
    ]:
        for sequence in (element for element in group if element.VR == "SQ"):
            for item in sequence.value:
                if "FrameType" in item:
                    item.FrameType = ["DERIVED", *list(item.FrameType)[1:]]


def _code(dicom: Any, value: str, meaning: str) -> Any:
    code = dicom.dataset.Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = value, "DCM", meaning
    return code
