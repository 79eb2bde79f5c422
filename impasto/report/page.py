"""A report's parts, and the one template that shows them."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from impasto.errors import MissingDependency, install
from impasto.files import write_text

from .charts import Bars, Curves, Distributions, Scatter
from .pictures import Gallery, PictureGroup

TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class Figure:
    """A number to read first."""

    value: str
    label: str


@dataclass(frozen=True)
class Grid:
    """Rows under headings."""

    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    words: int = 1
    """The first so many columns hold words; the others hold numbers, set flush right."""

    kind = "grid"


@dataclass(frozen=True)
class Words:
    """A paragraph."""

    text: str

    kind = "words"


@dataclass(frozen=True)
class Listing:
    """Lines of words."""

    lines: tuple[str, ...]

    kind = "listing"


Part = PictureGroup | Gallery | Grid | Words | Listing | Distributions | Scatter | Bars | Curves


@dataclass(frozen=True)
class Section:
    """What is shown under one heading."""

    title: str
    parts: tuple[Part, ...]
    explanation: str = ""
    """What one sees, in a sentence or two."""


@dataclass(frozen=True)
class Report:
    """A page."""

    title: str
    subtitle: str
    sections: tuple[Section, ...]
    machine: Mapping[str, Any]
    """The machine and its libraries, from `describe_machine`."""
    figures: tuple[Figure, ...] = ()
    command: str = ""
    """What makes the page again; empty where it was not made by the command line."""

    def to_html(self) -> str:
        """One self-contained page, which asks nothing of any server. Raises MissingDependency."""
        return _template().render(
            report=self,
            machine=tuple(_machine_rows(self.machine)),
            sections=[one for one in self.sections if one.parts],
        )

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write the page, whole or not at all. Raises OutputError and MissingDependency."""
        write_text(path, self.to_html())


def require_jinja2() -> None:
    """Raises MissingDependency where pages cannot be made here: for the start of long work."""
    _template()


def this_command() -> str:
    """The command that this process was started with, as one types it."""
    return shlex.join(["impasto", *sys.argv[1:]])


@cache
def _template() -> Any:
    try:
        import jinja2
    except ImportError:
        raise MissingDependency(f"an HTML page is made with jinja2: {install('cli')}") from None
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html")


def _machine_rows(machine: Mapping[str, Any]) -> Sequence[tuple[str, str]]:
    rows = [(name, str(value)) for name, value in machine.items() if name != "libraries"]
    libraries = machine.get("libraries", {})
    return [*rows, ("libraries", ", ".join(f"{name} {version}" for name, version in libraries.items()))]
