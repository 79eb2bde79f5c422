"""No file of the repository names a folder that only one machine has."""

from __future__ import annotations

import re
import subprocess

import pytest
from support.small_models import REPOSITORY

PRIVATE = re.compile(r"\.\./shared\b|(?<![\w.])/root/(?!\.)|(?<![\w.])/work/")


def test_no_file_names_a_private_folder() -> None:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("this is no git checkout")
    wrong = []
    for name in filter(None, listed.stdout.split("\0")):
        path = REPOSITORY / name
        if (
            not path.is_file()
            or path.suffix in (".onnx", ".safetensors", ".jpg", ".png", ".zip")
            or path.name == "test_private_paths.py"
        ):
            continue
        for line, text in enumerate(path.read_text(encoding="utf-8", errors="ignore").splitlines(), 1):
            if found := PRIVATE.search(text):
                wrong.append(f"{name}:{line} names {found.group()}")
    assert not wrong, wrong[:20]
