"""The command line's door: `impasto …` and `python -m impasto …`."""

from __future__ import annotations

import io
import signal
import sys
from typing import Any

from impasto.errors import install


def main() -> None:
    """Run the command line; where its libraries are missing, say how to get them."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # an encoding that lacks … or a file's name prints ? instead
            stream.reconfigure(errors="replace")
    for name in (
        "SIGTERM",
        "SIGHUP",
    ):  # end like Ctrl-C, so that nothing half-written is left; nohup has the second one ignored
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) == signal.SIG_DFL:
            signal.signal(number, signal.default_int_handler)
    try:
        _command_line()(prog_name="impasto")
    except KeyboardInterrupt:  # before the verbs' own handler was there
        print("stopped; nothing was begun", file=sys.stderr)
        sys.exit(130)
    finally:
        # CPython remembers a Ctrl-C that ended `exec` of a string, as dataclasses use it, and at the end of `python -m`
        # kills the process by SIGINT in place of our exit code. The next `exec` of a string makes it forget.
        exec("")


def _command_line() -> Any:
    try:
        from impasto.cli.app import app
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] not in ("typer", "rich", "PIL"):
            raise
        sys.exit(f"impasto: the command line needs {error.name}: {install('cli')}")
    return app


if __name__ == "__main__":
    main()
