"""`impasto doctor`."""

from __future__ import annotations

from rich.markup import escape
from rich.table import Table

from . import options
from .console import out, write_json


def doctor(json: options.Json = None) -> None:
    """Say what is installed, what can run here, and what to install for the rest."""
    from impasto.doctor import examine

    diagnosis = examine()
    table = Table()
    for heading in ("what", "", "found", "how to get it"):
        table.add_column(heading, overflow="fold")
    for finding in diagnosis.findings:
        works = "[green]yes[/]" if finding.works else "[yellow]no[/]"
        table.add_row(finding.what, works, escape(finding.found), escape(finding.advice))
    out.print(table)
    out.print(f"Runs here: {', '.join(diagnosis.can) or 'nothing yet'}", markup=False)
    write_json(json, diagnosis.to_json())
