"""What all verbs share: where they print, and how failure looks."""

from __future__ import annotations

import errno
import json
import os
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console, ConsoleDimensions, ConsoleOptions, RenderableType
from rich.segment import Segment
from typer import Exit
from typer.core import TyperGroup

from impasto.errors import ImpastoError, ImpastoWarning, missing
from impasto.files import working_folder_is_gone, write_text

if TYPE_CHECKING:
    from impasto.report.page import Report

_WIDE = 1000
"""Characters in a line where nobody's window is to be filled."""


_CONTROL = {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0)) if chr(code) not in "\n\t"}
"""Characters that terminals obey. Names of files and what files say may hold them: they are shown as Python writes them."""


class _Plain(Console):
    """A console to which nothing that is printed gives orders."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            if segment.control or segment.text.isprintable():
                yield segment
            else:
                yield Segment(segment.text.translate(_CONTROL), segment.style)


class _Results(_Plain):
    """The console for results. In a pipe or a file it is wide, since a folded path is of no use to the next program."""

    @property
    def size(self) -> ConsoleDimensions:
        if self.is_terminal or "COLUMNS" in os.environ:
            return super().size
        return ConsoleDimensions(_WIDE, 25)

    @size.setter
    def size(self, dimensions: tuple[int, int]) -> None:
        self._width, self._height = dimensions


out = _Results(highlight=False)
"""Results."""

err = _Plain(stderr=True, highlight=False, soft_wrap=True)
"""Errors, notes and progress, so that results can be piped."""


class Commands(TyperGroup):
    """A group of verbs whose failures are one clear line and an exit code: 1, or 130 after Ctrl-C."""

    def make_context(self, *arguments: Any, **more: Any) -> Any:
        with _failing_clearly():  # --version and --help print in here
            return super().make_context(*arguments, **more)

    def invoke(self, ctx: Any) -> Any:
        with _failing_clearly(), warnings.catch_warnings():
            warnings.showwarning = _show(warnings.showwarning)
            # Of broken fields in picture files, which the decoder skips; what it cannot read is an error of ours.
            warnings.filterwarnings("ignore", module=r"PIL\b")
            return super().invoke(ctx)


@contextmanager
def _failing_clearly() -> Iterator[None]:
    """Raises Exit with its code after one line, in place of what is ours or the user's to mend."""
    try:
        yield
    except ImpastoError as error:
        fail(error)
        _end_if_a_run_was_abandoned(1)
        raise Exit(1) from None
    except ModuleNotFoundError as error:
        told = missing(error)
        if told is None:
            raise
        fail(told)
        raise Exit(1) from None
    except KeyboardInterrupt:
        say_stopped()
        _end_if_a_run_was_abandoned(130)
        raise Exit(130) from None
    except OSError as error:
        if working_folder_is_gone():
            fail("the folder in which this runs has been deleted; go to another one")
            raise Exit(1) from None
        # What reads and writes files turns this into errors of ours; left is what stdout leads to. Typer knows closed pipes.
        if error.filename is not None or error.errno == errno.EPIPE:
            raise
        _forget_stdout()
        fail(f"cannot write the results: {error.strerror or error}; send them elsewhere")
        raise Exit(1) from None
    except MemoryError:
        fail("out of memory; use a smaller picture, or close other programs")
        raise Exit(1) from None


def _end_if_a_run_was_abandoned(code: int) -> None:
    """End the process at once if an abandoned run is still computing. Python's own exit would wait for it."""
    runner = sys.modules.get("impasto.runtime.runner")
    if runner and runner.has_abandoned_runs():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _forget_stdout() -> None:
    """What could not be written is not tried again, with a traceback, when Python ends."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


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


def write_measured(path: Path | None, content: dict[str, Any]) -> None:
    """Write a result with figures: the machine, the libraries and the date are added. Raises OutputError."""
    if path is not None:
        from impasto.benchmarks.measurement.report import describe_machine

        write_json(path, {**content, "environment": describe_machine()})


def write_page(path: Path | None, make: Callable[[str], Report]) -> None:
    """Make a page, of the command that was typed, where the user asked for a file of it, and write it. Raises OutputError."""
    if path is not None:
        from impasto.report.page import this_command

        with err.status("making the page"):
            make(this_command()).write(path)
        err.print(f"wrote {path}", markup=False)
