"""DICOM files in and out. No network of Impasto was trained or approved for diagnosis."""

from .derived import check_derivable, write_derived
from .scan import Range, Scan, is_dicom, read_scan
from .window import Window

__all__ = ["Range", "Scan", "Window", "check_derivable", "is_dicom", "read_scan", "write_derived"]
