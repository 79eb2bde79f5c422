"""A DICOM file's frames, and what their numbers mean.

Nothing that names a patient is read: only the elements in `_READ` are, and no message quotes any other.
Formulas: DICOM PS3.3, C.11.1 (rescale) and C.11.2 (window).
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from impasto.errors import MissingDependency, PictureError
from impasto.images import MAX_PIXELS
from impasto.images.decoding import content_of

from .library import in_silence, pydicom
from .window import Window

_GRAY, _WHITE_IS_LOW = ("MONOCHROME1", "MONOCHROME2"), "MONOCHROME1"
_COLOURS = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")
_MOST_VALUES = 1 << 30
"""Most numbers in all frames together."""
_READ = [
    "SOPClassUID",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "PlanarConfiguration",
    "NumberOfFrames",
    "Rows",
    "Columns",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
    "PixelData",
    "FloatPixelData",
    "DoubleFloatPixelData",
    "RescaleSlope",
    "RescaleIntercept",
    "RescaleType",
    "ModalityLUTSequence",
    "PixelPaddingValue",
    "PixelPaddingRangeLimit",
    "WindowCenter",
    "WindowWidth",
    "VOILUTFunction",
    "VOILUTSequence",
    "ExtendedOffsetTable",
    "ExtendedOffsetTableLengths",
    "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
    "LossyImageCompression",
]


@dataclass(frozen=True)
class Range:
    """Values that become black and white."""

    low: float
    high: float
    """Above `low`. Both in stored numbers."""

    def to_share(self, stored: np.ndarray) -> np.ndarray:
        """Stored numbers to float32 from 0 (low, and below) to 1 (high, and above)."""
        share = (stored.astype(np.float64) - self.low) / (self.high - self.low)
        clipped: np.ndarray = share.clip(0, 1).astype(np.float32)
        return clipped

    def to_stored(self, share: np.ndarray) -> np.ndarray:
        """The reverse, not rounded: float64."""
        stored: np.ndarray = share.astype(np.float64) * (self.high - self.low) + self.low
        return stored


@dataclass(frozen=True)
class Scan:
    """What a DICOM file shows."""

    path: Path
    stored: np.ndarray
    """The numbers as the file holds them: (N, H, W) gray, of any integer type or float32; or (N, H, W, 3) RGB, uint8 or uint16."""
    range: Range
    """Stored numbers of a gray scan that are drawn black and white."""
    inverted: bool
    """Whether low numbers of a gray scan are white, as in MONOCHROME1."""
    padding: np.ndarray | None
    """bool (N, H, W): where the file holds no picture; None where it says nothing of that."""
    bits_stored: int
    slope: float
    intercept: float
    """Slope and intercept of a gray scan: the value of a stored number is slope * number + intercept."""
    unit: str
    """Unit of the values, such as "HU"; empty where the file does not say."""
    cut: bool
    """Whether values outside of a window are lost."""

    @property
    def is_gray(self) -> bool:
        return self.stored.ndim == 3

    def pictures(self) -> list[np.ndarray]:
        """Each frame as a model takes it, shown as a viewer shows it: float32 (H, W) from 0 to 1, or RGB as it is stored."""
        if not self.is_gray:
            return list(self.stored)
        return [self._turned(self.range.to_share(frame)) for frame in self.stored]

    def restored(self, drawn: np.ndarray) -> np.ndarray:
        """Drawn frames as numbers that the file can hold in place of its own. drawn: all frames, as `pictures` gives each."""
        if not self.is_gray:
            return drawn
        numbers = self.range.to_stored(self._turned(drawn))
        kind = self.stored.dtype
        if kind.kind == "i":
            most = 2 ** (self.bits_stored - 1)
            numbers = np.rint(numbers).clip(-most, most - 1)
        elif kind.kind == "u":
            numbers = np.rint(numbers).clip(0, 2**self.bits_stored - 1)
        numbers = numbers.astype(kind)
        return numbers if self.padding is None else np.where(self.padding, self.stored, numbers)

    def range_text(self) -> str:
        """What black and white of a written picture are, in the scan's units."""
        ends = self._values(self.range.low, self.range.high)
        black, white = ends[::-1] if self.inverted else ends
        return f"black is {black} and white is {white}{f' {self.unit}' if self.unit else ''}"

    def flat_text(self) -> str | None:
        """A sentence where a window holds none of the scan's values, so that all are drawn black, or all white; None otherwise."""
        if not self.cut:
            return None
        shown = _shown(self.stored, self.padding)
        low, high = float(shown.min()), float(shown.max())
        below, above = high <= self.range.low, low >= self.range.high
        if not below and not above:
            return None
        (first, last), (least, most) = (
            sorted(self._values(*ends), key=float) for ends in ((self.range.low, self.range.high), (low, high))
        )
        colour = "black" if below != self.inverted else "white"
        return (
            f"the window of {self.path} reaches from {first} to {last}, and the scan's values from {least} to {most}"
            f"{f' {self.unit}' if self.unit else ''}: all of it is {colour}; choose another window (--window)"
        )

    def _values(self, *stored: float) -> list[str]:
        """Stored numbers in the scan's units."""
        return [f"{self.slope * number + self.intercept:.6g}" for number in stored]

    def _turned(self, share: np.ndarray) -> np.ndarray:
        return 1 - share if self.inverted else share


def is_dicom(path: Path) -> bool:
    """Whether a file is called so that it is taken for DICOM."""
    return path.suffix.lower() in (".dcm", ".dicom")


def read_scan(path: Path, window: Window) -> Scan:
    """Read a DICOM file's frames.

    window: what is drawn. Raises PictureError for a file that is no DICOM, holds no picture, or one of a kind that is not read, and
    MissingDependency.
    """
    dicom = pydicom()
    content = content_of(path)
    try:
        with in_silence():
            # In memory, since of a file pydicom would allocate whatever length an element tells.
            return _scan(dicom, dicom.dcmread(io.BytesIO(content), specific_tags=_READ), window, path)
    except (PictureError, MissingDependency):
        raise
    except dicom.errors.InvalidDicomError:
        raise PictureError(f"{path} is no DICOM file; give one, or let its name end in what it is") from None
    except (
        Exception
    ) as error:  # what pydicom raises has no common base; its words may quote the file, so they are left out
        raise PictureError(
            f"{path} is damaged, or packed in a way that is not read here ({type(error).__name__}); unpack it first, for example: "
            "gdcmconv --raw in.dcm out.dcm"
        ) from None


def _scan(dicom: Any, held: Any, window: Window, path: Path) -> Scan:
    """Raises PictureError, and whatever pydicom and arithmetic raise of elements that make no sense."""
    _require_readable(dicom, held, path)
    stored = _frames(dicom, held)
    padding = _padding(held, stored) if stored.ndim == 3 else None
    slope, intercept = (
        _number(_element(held, name), usual) for name, usual in (("RescaleSlope", 1), ("RescaleIntercept", 0))
    )
    drawn = _range(held, stored, padding, window, slope, intercept, path) if stored.ndim == 3 else Range(0, 1)
    return Scan(
        path,
        stored,
        drawn,
        (held.PhotometricInterpretation == _WHITE_IS_LOW) != (slope < 0),
        padding,
        int(held.get("BitsStored") or held.BitsAllocated),
        slope,
        intercept,
        str(_element(held, "RescaleType") or ""),
        cut=stored.ndim == 3 and not window.keeps_all,
    )


def _require_readable(dicom: Any, held: Any, path: Path) -> None:
    """Raises PictureError for what the header already tells."""
    if not {"PixelData", "FloatPixelData", "DoubleFloatPixelData"}.intersection(held.dir()) or "Rows" not in held:
        raise PictureError(f"{path} holds no picture (it is a report, a plan or the like); give a file with pixels")
    kind = str(held.get("PhotometricInterpretation", ""))
    if kind not in (*_GRAY, *_COLOURS):
        raise PictureError(f"{path} has {kind or 'unknown colours'}; gray and RGB are read: convert it first")
    if int(held.BitsAllocated) not in (8, 16, 32) or (kind in _COLOURS and held.get("BitsStored") not in (8, 16)):
        raise PictureError(
            f"{path} has {held.BitsAllocated} bits a number; gray of 8, 16 or 32 is read, and RGB of 8 or 16"
        )
    frames = int(held.get("NumberOfFrames") or 1)
    pixels = int(held.Rows) * int(held.Columns)
    if pixels > MAX_PIXELS or frames * pixels * int(held.get("SamplesPerPixel", 1)) > _MOST_VALUES:
        raise PictureError(
            f"{path} says that it has {frames} frames of {held.Columns} x {held.Rows} pixels, too many; cut it first"
        )
    if "ModalityLUTSequence" in held:
        raise PictureError(
            f"{path} says by a table what its numbers mean, which is not read; apply it first, for example with dcmtk"
        )
    syntax = held.file_meta.get("TransferSyntaxUID")
    if syntax is not None and syntax.is_encapsulated and not dicom.pixels.get_decoder(syntax).is_available:
        raise PictureError(
            f"{path} is packed as {syntax.name}, which needs another library: pip install pylibjpeg[all]; or unpack it first: "
            " gdcmconv --raw in.dcm out.dcm"
        )


def _frames(dicom: Any, held: Any) -> np.ndarray:
    """(N, H, W) or (N, H, W, 3)."""
    array = np.asarray(dicom.pixels.pixel_array(held))
    array = array.astype(array.dtype.newbyteorder("="), copy=False)
    colour = int(held.get("SamplesPerPixel", 1)) == 3
    return np.ascontiguousarray(array if array.ndim == (4 if colour else 3) else array[None])


def _padding(held: Any, stored: np.ndarray) -> np.ndarray | None:
    value = held.get("PixelPaddingValue")
    if value is None:
        return None
    ends = sorted((int(value), int(held.get("PixelPaddingRangeLimit", value))))
    inside: np.ndarray = (stored >= ends[0]) & (stored <= ends[1])
    return inside


def _range(
    held: Any,
    stored: np.ndarray,
    padding: np.ndarray | None,
    window: Window,
    slope: float,
    intercept: float,
    path: Path,
) -> Range:
    """In stored numbers. Raises PictureError where the file's own window is wanted, and there is none that can be applied."""
    if window.keeps_all:
        shown = _shown(stored, padding)
        low, high = float(shown.min()), float(shown.max())
        if not (np.isfinite(low) and np.isfinite(high)):
            raise PictureError(f"{path} holds NaN or infinite values; a picture has numbers alone")
        return Range(low, high if high > low else low + max(1.0, abs(low)))
    if window.of_file:
        middle, half = _window_of_file(held, path)
    else:
        assert window.center is not None and window.width is not None
        middle, half = window.center, window.width / 2
    low, high = sorted(((middle - half - intercept) / slope, (middle + half - intercept) / slope))
    if not (np.isfinite(low) and np.isfinite(high)) or (low == high and half > 0):
        raise PictureError(
            f"{path}: the window from {middle - half:g} to {middle + half:g} holds no values by the file's scale (slope {slope:g}, "
            f"intercept {intercept:g}); choose full (--window)"
        )
    if low < high:
        return Range(low, high)
    # A step, as LINEAR's window of width 1 is: its middle is black, and the least above it white.
    beside = float(np.nextafter(low, np.inf if slope > 0 else -np.inf))
    return Range(min(low, beside), max(low, beside))


def _shown(stored: np.ndarray, padding: np.ndarray | None) -> np.ndarray:
    """The numbers that are part of the picture; all where nothing else is there."""
    return stored if padding is None or padding.all() else stored[~padding]


def _window_of_file(held: Any, path: Path) -> tuple[float, float]:
    """Middle and half width of the file's own window, in its units: PS3.3 C.11.2.1.2 and C.11.2.1.3. Raises PictureError."""
    center, width = (_number(_element(held, name), None) for name in ("WindowCenter", "WindowWidth"))
    function = str(_element(held, "VOILUTFunction") or "LINEAR")
    instead = "choose full, or a window of your own, such as 40,400 (--window)"
    if center is None or width is None:
        raise PictureError(f"{path} names no window; {instead}")
    if function not in ("LINEAR", "LINEAR_EXACT"):  # which is not quoted: a broken file may hold anything there
        raise PictureError(
            f"{path} wants its window applied by another function than LINEAR and LINEAR_EXACT, which are all that are known here; "
            f"{instead}"
        )
    exact = function == "LINEAR_EXACT"
    if width <= 0 or (width < 1 and not exact):
        least = "more than 0" if exact else "1 or more"
        raise PictureError(f"{path} has a window of width {width:g}, where DICOM wants {least} ({function}); {instead}")
    # LINEAR's window of integers reaches from c - 0.5 - (w - 1) / 2 to c - 0.5 + (w - 1) / 2.
    return (center, width / 2) if exact else (center - 0.5, (width - 1) / 2)


def _element(held: Any, name: str) -> Any:
    """The first value of an element, which enhanced files keep in their functional groups; None without one."""
    value = held.get(name)
    if value is None:
        groups = [
            *(held.get("SharedFunctionalGroupsSequence") or []),
            *(held.get("PerFrameFunctionalGroupsSequence") or []),
        ]
        inner = (item for group in groups[:2] for sequence in group if sequence.VR == "SQ" for item in sequence.value)
        value = next((item.get(name) for item in inner if name in item), None)
    return (
        value[0]
        if value is not None and not isinstance(value, str) and hasattr(value, "__len__") and len(value)
        else value
    )


def _number(value: Any, usual: float | None) -> Any:
    """A finite number; `usual` where there is none. A slope of 0 is none."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return usual
    return number if np.isfinite(number) and not (usual == 1 and number == 0) else usual
