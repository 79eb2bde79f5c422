"""Picture files by name: which formats are read and written, and what each can hold."""

from __future__ import annotations

import os
from pathlib import Path

from impasto.errors import OptionError, PictureError
from impasto.files import check_name, is_folder, list_files

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
"""The file types read from folders and written, in lower case."""

PNG = b"\x89PNG\r\n\x1a\n"
"""What every PNG file begins with."""

PNG_LEVEL = 4
"""zlib's, of PNG files that are written. Pillow's own 6 takes twice as long on photos, for files that are hardly smaller."""

ARRAYS = (".npy",)
"""Files of arrays, which are read and written too where they are named."""

READ_BY_NAME = (*ARRAYS, ".dcm", ".dicom")
"""File types, in lower case, that `impasto run` reads where the file itself is named, and not where its folder is."""

PASSED_OVER = (
    *(".heic", ".heif", ".avif", ".jxl", ".jp2", ".gif", ".psd", ".xcf", ".svg"),
    *(".dng", ".cr2", ".cr3", ".nef", ".nrw", ".arw", ".raf", ".orf", ".rw2", ".pef", ".srw", ".raw"),
)
"""Other file types of pictures, in lower case, which are not read: whoever has them in a folder should hear that."""

MAX_SIDES = {".jpg": 65_500, ".jpeg": 65_500, ".webp": 16_383}
"""The longest side that a format can hold, in pixels, where there is one that a picture may exceed."""


def check_suffix(path: Path) -> None:
    """Raises OptionError unless the path ends in one of SUFFIXES or ARRAYS."""
    if path.suffix.lower() not in (*SUFFIXES, *ARRAYS):
        raise OptionError(
            f"cannot tell the picture format of {path.name!r}; let its name end in one of {', '.join((*SUFFIXES, *ARRAYS))}"
        )


def check_holds(path: Path, height: int, width: int, *, alpha: bool) -> None:
    """Raises OptionError for a name that is too long or ends in none of SUFFIXES, and for a size or transparency that its format cannot
    hold."""
    check_suffix(path)
    check_name(path)
    suffix = path.suffix.lower()
    if alpha and suffix in (".jpg", ".jpeg", ".bmp", *ARRAYS):
        raise OptionError(
            f"{path} cannot hold this picture's transparency, no {path.suffix} file can; write a .png instead"
        )
    if max(height, width) > MAX_SIDES.get(suffix, max(height, width)):
        raise OptionError(
            f"{path} cannot hold {height} x {width} pixels, no {path.suffix} file holds sides above {MAX_SIDES[suffix]:,}; "
            "write a .png instead"
        )


def list_folder(
    folder: str | os.PathLike[str],
    *,
    recursive: bool = False,
    leaving_out: str | os.PathLike[str] | None = None,
    everything: bool = False,
) -> list[Path]:
    """The picture files in a folder, as `files.list_files` lists them; everything: and what else is named so.

    Raises PictureError without any.
    """
    folder = Path(folder)
    if not is_folder(folder):
        raise PictureError(f"{folder} is not a folder; give a folder of pictures")
    if not os.access(folder, os.R_OK | os.X_OK):
        raise PictureError(f"no permission to read the folder {folder}; change its permissions")
    files = list_files(folder, recursive=recursive, leaving_out=leaving_out, everything=everything)
    pictures = [file for file in files if file.suffix.lower() in SUFFIXES]
    if not pictures:
        where = f"in {folder} or below it" if recursive else f"in {folder}"
        raise PictureError(f"no picture files {where}; looked for {', '.join(SUFFIXES)}")
    return pictures
