"""The command line as tests run it: in this process, or in one of its own that Ctrl-C reaches."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from typer.testing import CliRunner

from impasto.cli.app import app


def cli(*arguments: object) -> tuple[int, str, str]:
    """Exit code, stdout, stderr. On a terminal wide enough that no line is wrapped."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "300"})
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr


def interrupted(
    folder: Path,
    begun: Callable[[], object],
    *arguments: object,
    stdin: int | None = None,
    environment: dict[str, str] | None = None,
) -> tuple[int, str]:
    """Exit code and stderr of a command in `folder` that gets Ctrl-C when `begun` is true. environment: what is added to ours."""
    command = [sys.executable, "-m", "impasto", *(str(argument) for argument in arguments)]
    process = subprocess.Popen(
        command, stdin=stdin, stderr=subprocess.PIPE, text=True, cwd=folder, env=os.environ | (environment or {})
    )
    deadline = time.monotonic() + 60
    while not begun() and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    return process.returncode, stderr
