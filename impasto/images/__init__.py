"""Picture files in and out, their colours and sizes, and contact sheets."""

from .decoding import MAX_BYTES, MAX_PIXELS, Picture, decode, decode_at_own_depth, is_animated, read, read_deep
from .deep import as_bytes
from .encoding import write, write_telling
from .formats import ARRAYS, PASSED_OVER, READ_BY_NAME, SUFFIXES, check_holds, check_suffix, list_folder
from .scaling import PAINTING_SIDE, read_painting, read_scaled, within
from .thumbnails import middle, thumbnail

__all__ = [
    "ARRAYS",
    "MAX_BYTES",
    "MAX_PIXELS",
    "PAINTING_SIDE",
    "PASSED_OVER",
    "READ_BY_NAME",
    "SUFFIXES",
    "Picture",
    "as_bytes",
    "check_holds",
    "check_suffix",
    "decode",
    "decode_at_own_depth",
    "is_animated",
    "list_folder",
    "middle",
    "read",
    "read_deep",
    "read_painting",
    "read_scaled",
    "thumbnail",
    "within",
    "write",
    "write_telling",
]
