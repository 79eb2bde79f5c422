"""mypy on Impasto as a user has it: built into a wheel, installed, and checked by package name.

Type checkers do not see through the folder mapping of pyproject.toml; and a file that the wheel forgot shows here.
usage: python tests/check_types.py
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent


def main() -> int:
    """Returns mypy's exit status."""
    shutil.rmtree(REPOSITORY / "build" / "lib", ignore_errors=True)  # setuptools would pack files that are long gone
    with tempfile.TemporaryDirectory() as folder:
        install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--disable-pip-version-check"]
        subprocess.run([*install, "--target", folder, str(REPOSITORY)], check=True)
        return check(Path(folder)).returncode


def check(folder: Path, **options: bool) -> subprocess.CompletedProcess[str]:
    """Run mypy on the package `impasto` in this folder. options: as `subprocess.run` takes them."""
    # The folder comes first on the path, so that mypy reads it and not the editable install.
    environment = {**os.environ, "PYTHONPATH": str(folder), "MYPYPATH": str(folder)}
    command = [sys.executable, "-m", "mypy", "--config-file", str(REPOSITORY / "pyproject.toml")]
    command += ["--cache-dir", str(REPOSITORY / ".mypy_cache"), "--package", "impasto"]
    return subprocess.run(command, env=environment, cwd=folder, check=False, text=True, **options)


if __name__ == "__main__":
    sys.exit(main())
