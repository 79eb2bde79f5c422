"""The folder of photos, paintings and test sets that recipes and benchmarks read: where it is, and what it holds."""

from __future__ import annotations

import os
from pathlib import Path

from impasto.errors import OptionError

VARIABLE = "IMPASTO_DATA"
"""The environment variable that names the folder."""

_TEST_SET = "test pictures as PNG files; github: testsets of cszn/FFDNet and of cszn/DnCNN"

PARTS = {
    "photos/train": "photographs to train on, of any size, without damage of their own",
    "photos/bsds": "more of them: BSDS500 (github: BIDS/BSDS500) without the test pictures of BSD68 and BSD100",
    "photos/imagenet-half": "more of them: one of each ImageNet class (github: EliSchwartz/imagenet-sample-images), half as large",
    "photos/imagenet": "the same as they are, for stylizers alone",
    "photos/eval": "photographs to look at and to judge by, none of them among the others",
    "styles": "paintings, such as great-wave.jpg",
    "sets/Set5": _TEST_SET,
    "sets/Set14": _TEST_SET,
    "sets/CBSD68": _TEST_SET,
    "sets/McMaster": _TEST_SET,
    "sets/LIVE1": _TEST_SET,
}
"""What lies in the folder, and where to get it. The test sets are never trained on."""


def data_folder(given: Path | None = None) -> Path:
    """The folder named by an option, else by the environment. Raises OptionError where neither names one that is there."""
    named = given or (Path(os.environ[VARIABLE]) if os.environ.get(VARIABLE) else None)
    if named is None:
        raise OptionError(f"no data folder is named; set ${VARIABLE} or give --data: a folder with {', '.join(PARTS)}")
    if not named.is_dir():
        raise OptionError(
            f"the data folder {named} is not there; name one with {', '.join(PARTS)} by --data or ${VARIABLE}"
        )
    return named


def public_path(path: str | os.PathLike[str]) -> str:
    """The path as others may read it, for what is published: no absolute path, and none that leads out of the working folder.

    Below the data folder it is "$IMPASTO_DATA/…", below the working folder relative to that; of another place the last name is left.
    """
    text = os.fspath(path)
    if not text.startswith(("/", "..")):
        return text
    found, data = _absolute(text), os.environ.get(VARIABLE)
    if data and found.is_relative_to(_absolute(data)):
        return "/".join((f"${VARIABLE}", *found.relative_to(_absolute(data)).parts))
    if found.is_relative_to(Path.cwd()):
        return found.relative_to(Path.cwd()).as_posix()
    return found.name


def _absolute(path: str) -> Path:
    """Without following links: what lies in the data folder by a link is named as it lies there."""
    return Path(os.path.normpath(Path(path).absolute()))


def missing(data: Path, parts: list[str]) -> list[str]:
    """One line for each of `parts` that the folder lacks: the path, and what it is to hold."""
    return [f"{data / part} is missing: {PARTS[part]}" for part in parts if not (data / part).is_dir()]
