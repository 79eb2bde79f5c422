"""The command line's door: `impasto …` and `python -m impasto …`."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line; where its libraries are missing, say how to get them."""
    try:
        from impasto.cli.app import app
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] not in ("typer", "rich", "PIL"):
            raise
        sys.exit(f"impasto: the command line needs {error.name}: pip install 'impasto[cli]'")
    app(prog_name="impasto")


if __name__ == "__main__":
    main()
