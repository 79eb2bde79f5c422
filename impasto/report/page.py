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
    """A number at the top of the page."""

    value: str
    label: str


@dataclass(frozen=True)
class Grid:
    """A table."""

    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    words: int = 1
    """The number of leading columns that hold text. The others hold numbers, aligned right."""

    kind = "grid"


@dataclass(frozen=True)
class Words:
    """A paragraph of text."""

    text: str

    kind = "words"


@dataclass(frozen=True)
class Listing:
    """A list of lines."""

    lines: tuple[str, ...]

    kind = "listing"


Part = PictureGroup | Gallery | Grid | Words | Listing | Distributions | Scatter | Bars | Curves


@dataclass(frozen=True)
class Section:
    """What is shown under one heading."""

    title: str
    parts: tuple[Part, ...]
    explanation: str = ""
    """One or two sentences that explain the section."""


@dataclass(frozen=True)
class Report:
    """The content of an HTML page."""

    title: str
    subtitle: str
    sections: tuple[Section, ...]
    machine: Mapping[str, Any]
    """The machine and its libraries, from `describe_machine`."""
    figures: tuple[Figure, ...] = ()
    command: str = ""
    """The command that makes the page; empty if the command line did not make it."""

    def to_html(self) -> str:
        """One self-contained HTML page, which loads nothing from the network. Raises MissingDependency without jinja2."""
        return _template().render(
            report=self,
            machine=tuple(_machine_rows(self.machine)),
            sections=[one for one in self.sections if one.parts],
        )

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write the page, whole or not at all. Raises OutputError and MissingDependency."""
        write_text(path, self.to_html())


def require_jinja2() -> None:
    """Raises MissingDependency without jinja2. Call it before long work."""
    _template()


def this_command() -> str:
    """The command that started this process, as a user would type it."""
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
