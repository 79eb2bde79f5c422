"""`impasto models`."""

from __future__ import annotations

from typing import Annotated, Any, Optional

import typer
from rich.box import SIMPLE_HEAD
from rich.markdown import Markdown
from rich.markup import escape
from rich.table import Table

from impasto.errors import PackageError

from . import options
from .console import out, write_json


def models(
    name: Annotated[
        Optional[str],  # noqa: UP045 (Typer on Python 3.10 evaluates it)
        typer.Argument(help="A model's name or package: show its card.", show_default=False),
    ] = None,
    json: options.Json = None,
) -> None:
    """List the models that `run` and `load` know by name, or show one's card."""
    if name is None:
        _list(json)
    else:
        _show(name, json)


def _list(json: options.Json) -> None:
    from impasto.package.manifest import read_manifest
    from impasto.package.summary import UNSTATED, summary_of
    from impasto.runtime.loading.source import is_shipped, known_names

    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("name", no_wrap=True)
    for heading in ("task, style", "precisions", "kMAC", "quality", "licence of photos"):
        # Beside a long name the others fold, but no precision is torn: "fp32" has four letters.
        table.add_column(heading, overflow="fold", min_width=4 if heading == "precisions" else None)
    found: dict[str, Any] = {}
    terms: dict[str, list[str]] = {}
    elsewhere = []
    for name, path in known_names().items():
        if not is_shipped(path):
            elsewhere.append(f"{name} is {path}")
        try:
            manifest = read_manifest(path)
        except PackageError as error:  # the others can be run all the same
            found[name] = {"path": str(path), "error": str(error)}
            table.add_row(escape(name), "[red]unreadable[/]", "", "", "", escape(str(error)))
            continue
        short = summary_of(manifest)
        found[name] = {"path": str(path), "summary": short.to_json(), **manifest.to_json()}
        if short.licence != UNSTATED:
            terms.setdefault(short.licence, []).append(name)
        styles = len(short.style.split(", "))
        style = "" if short.style in ("", name) else f", {styles} styles" if styles > 1 else f", {short.style}"
        licence = UNSTATED if short.licence == UNSTATED else f"terms {list(terms).index(short.licence) + 1}"
        cost = "" if short.kmac_per_pixel is None else f"{short.kmac_per_pixel:g}"
        row = (name, short.task + style, ", ".join(short.precisions), cost, short.quality, licence)
        table.add_row(*map(escape, row))
    out.print(table)
    for number, (said, names) in enumerate(terms.items()):
        line = f"terms {number + 1}, {', '.join(names)}: trained on pictures with these terms: {said}"
        out.print(line, markup=False)
    for line in elsewhere:
        out.print(line, markup=False, soft_wrap=True)
    out.print(
        "kMAC: thousands of multiplications for a pixel. Quality: on the pictures that training kept for validation. The card of one: "
        "impasto models NAME",
        markup=False,
    )
    write_json(json, found)


def _show(name: str, json: options.Json) -> None:
    from impasto.package.manifest import read_manifest
    from impasto.package.summary import read_card, summary_of
    from impasto.runtime.loading.source import resolve

    folder = resolve(name, trust=True).path
    manifest = read_manifest(folder)
    out.print(Markdown(read_card(folder), hyperlinks=False), width=min(out.width, 120))
    out.print(f"package {folder}", markup=False, soft_wrap=True)
    write_json(json, {"path": str(folder), "summary": summary_of(manifest).to_json(), **manifest.to_json()})
