"""Options of a verb as fields of a dataclass."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import typer
from typer.testing import CliRunner

from impasto.cli.flags import takes


@dataclass(kw_only=True)
class Common:
    name: Annotated[str, typer.Argument()]
    seed: Annotated[int, typer.Option(min=0)] = 3


@dataclass(kw_only=True)
class Own(Common):
    size: Annotated[int, typer.Option(help="Pixels.")]


def run(*arguments):
    app = typer.Typer()

    @app.command()
    @takes(Own)
    def verb(flags: Own) -> None:
        """Do it."""
        typer.echo(repr(flags))

    return CliRunner().invoke(app, list(arguments))


def test_fields_become_arguments_and_options():
    assert run("waves", "--size", "5").stdout.strip() == "Own(name='waves', seed=3, size=5)"
    assert run("waves", "--size", "5", "--seed", "7").stdout.strip() == "Own(name='waves', seed=7, size=5)"


def test_a_field_without_a_default_is_required():
    assert run("waves").exit_code == 2


def test_the_help_shows_a_class_before_its_bases():
    shown = run("--help").stdout
    assert "Do it." in shown
    assert shown.index("--size") < shown.index("--seed")
