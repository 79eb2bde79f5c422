"""Videos redrawn frame by frame: files at their own times and with their own sound, and Y4M through pipes."""

from .files import CRF, SUFFIXES, WRITTEN, check_suffix, is_video
from .redrawing import Draw, FramesWritten, Redrawn, redraw
from .redrawing import Progress as Progress  # the old name of FramesWritten

__all__ = ["CRF", "SUFFIXES", "WRITTEN", "Draw", "FramesWritten", "Redrawn", "check_suffix", "is_video", "redraw"]
