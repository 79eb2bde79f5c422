"""Picture files in and out, their colours and sizes, and contact sheets."""

from .files import (
    MAX_PIXELS,
    PAINTING_SIDE,
    SUFFIXES,
    Picture,
    check_holds,
    check_suffix,
    decode,
    list_folder,
    middle,
    read,
    read_painting,
    read_scaled,
    thumbnail,
    within,
    write,
    write_telling,
)

__all__ = [
    "MAX_PIXELS",
    "PAINTING_SIDE",
    "SUFFIXES",
    "Picture",
    "check_holds",
    "check_suffix",
    "decode",
    "list_folder",
    "middle",
    "read",
    "read_painting",
    "read_scaled",
    "thumbnail",
    "within",
    "write",
    "write_telling",
]
