"""The documents and what they hold: links, blocks of code, and the commands in them as a shell reads them."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from support.small_models import REPOSITORY

GUIDES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs" / "guides").glob("*.md"))]
"""Those whose commands and programs are run."""

GENERATED = REPOSITORY / "docs" / "reference"

DOCUMENTS = [
    *(REPOSITORY / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    *sorted(path for path in (REPOSITORY / "docs").rglob("*.md") if GENERATED not in path.parents),
    *sorted((REPOSITORY / "models").glob("*/README.md")),
    *sorted((REPOSITORY / "tests").rglob("README.md")),
]
"""Everything that people wrote."""

_STAND_INS = r"""
impasto() { printf '%s\x1f' impasto "$@"; printf '\x1e'; } >&3
python() { if [ "$1 $2" = "-m impasto" ]; then shift 2; impasto "$@"; else printf '%s\x1f' python "$@"; printf '\x1e'; fi; } >&3
python3() { python "$@"; }
torchrun() { while [ "$1" != "-m" ]; do shift; done; python "$@"; }
.() { :; }; cd() { :; }; source() { :; }; export() { :; }
command_not_found_handle() { :; }
readonly PATH=/nowhere
"""
"""For bash: programs of ours write their arguments to file 3, everything else does nothing: no program is found, and none can be."""


def blocks(document: Path, language: str) -> list[str]:
    """The fenced blocks of a language, also those that are indented below a list."""
    found = re.findall(
        rf"^( *)```{language}\n(.*?)^\1```", document.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    )
    return [re.sub(rf"^{indent}", "", text, flags=re.MULTILINE) for indent, text in found]


def commands(script: str) -> list[list[str]]:
    """The commands `impasto …` and `python …` of a script, as bash splits and expands them. No program is run."""
    bash = shutil.which("bash")
    assert bash
    with tempfile.TemporaryDirectory() as empty:
        done = subprocess.run(
            [bash, "-c", f"exec 3>&1 1>/dev/null\n{_STAND_INS}\n{script}"],
            env={"IMPASTO_DATA": "data", "IMPASTO_VGG": "vgg.safetensors", "HOME": "home"},
            cwd=empty, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
        )  # fmt: skip
    assert "syntax error" not in done.stderr, done.stderr
    return [command.rstrip("\x1f").split("\x1f") for command in done.stdout.split("\x1e") if command]
