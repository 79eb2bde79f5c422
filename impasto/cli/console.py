"""What all verbs share: where they print, and how failure looks."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from typer import Exit
from typer.core import TyperGroup

from impasto.errors import ImpastoError, ImpastoWarning
from impasto.files import write_text

out = Console(highlight=False)
"""Results."""

err = Console(stderr=True, highlight=False, soft_wrap=True)
"""Errors, notes and progress, so that results can be piped."""


class Commands(TyperGroup):
    """A group of verbs whose failures are one clear line and an exit code: 1, or 130 after Ctrl-C."""

    def invoke(self, ctx: Any) -> Any:
        try:
            with warnings.catch_warnings():
                warnings.showwarning = _show(warnings.showwarning)
                return super().invoke(ctx)
        except ImpastoError as error:
            fail(error)
            raise Exit(1) from None
        except KeyboardInterrupt:
            say_stopped()
            raise Exit(130) from None
        except MemoryError:
            fail("out of memory; use a smaller picture, or close other programs")
            raise Exit(1) from None


def _show(others: Callable[..., None]) -> Callable[..., None]:
    """Impasto's own warnings as one line each; those of libraries as Python shows them."""

    def show(message: Warning | str, category: type[Warning], *place: Any, **more: Any) -> None:
        if issubclass(category, ImpastoWarning):
            err.print("[bold yellow]note:[/] ", end="")
            err.print(str(message), markup=False)
        else:
            others(message, category, *place, **more)

    return show


def say_stopped() -> None:
    """Print the one line that follows Ctrl-C."""
    err.print("stopped; nothing half-written is left")


def fail(message: object) -> None:
    """Print one error line."""
    err.print("[bold red]error:[/] ", end="")
    err.print(str(message), markup=False)


def write_json(path: Path | None, content: dict[str, Any]) -> None:
    """Write a result where the user asked for a file of it. Raises OutputError."""
    if path is not None:
        write_text(path, json.dumps(content, indent=1) + "\n")
        err.print(f"wrote {path}", markup=False)
