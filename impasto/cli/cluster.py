"""`impasto run --ray`: folders of pictures on a Ray cluster."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer
from rich.markup import escape
from rich.table import Table

from impasto.errors import ImpastoWarning, OptionError

from .console import err, fail, out, write_measured
from .progress import Bar

if TYPE_CHECKING:
    from impasto.batch.ray import Cluster, Drawing, Failure, MappedPictures

_MOST_ROWS = 20
"""Most failures that are shown; --json keeps all."""


def run_on_cluster(
    drawing: Drawing,
    inputs: Sequence[str],
    output: str | None,
    cluster: Cluster,
    *,
    format: str | None,
    recursive: bool,
    json: Path | None,
) -> None:
    """Draw one folder and print what became of it. Raises OptionError, Exit with code 1 where pictures failed."""
    from impasto.batch.ray import map_pictures
    from impasto.batch.stores import without_secret

    if len(inputs) != 1 or not ("://" in inputs[0] or Path(inputs[0]).is_dir()):
        raise OptionError(
            "--ray takes one folder of pictures, or a URI such as s3://bucket/prefix; run single files without it"
        )
    if output is None:
        raise OptionError("--ray needs to know where the results go; add -o FOLDER, or -o s3://bucket/prefix")
    shown = without_secret(output)
    with Bar(unit="pictures") as bar:
        bar.say("starting Ray")
        done = map_pictures(
            drawing,
            inputs[0],
            output,
            format=format or "png",
            recursive=recursive,
            cluster=cluster,
            progress=lambda number, total: bar.say(shown, number, total),
        )
    _tell(done)
    write_measured(json, done.to_json())
    if done.failed:
        raise typer.Exit(1)


def _tell(done: MappedPictures) -> None:
    if done.there_already:
        total = done.there_already + done.written + len(done.failed)
        err.print(f"{done.there_already} of {total} results were there already")
    if len(done.how) > 1:
        warnings.warn(
            f"machines drew in {len(done.how)} ways, so results may differ in their last bits; name a --backend",
            ImpastoWarning,
            stacklevel=2,
        )
    if done.written or done.failed:
        out.print(str(done), markup=False, soft_wrap=True)
    if done.failed:
        err.print(_table(done.failed))
        fail(f"{len(done.failed)} pictures failed; mend them and run the same again, which draws only what is missing")


def _table(failed: Sequence[Failure]) -> Table:
    table = Table("picture", "why", title="Failed", title_justify="left", caption_justify="left")
    for failure in failed[:_MOST_ROWS]:
        table.add_row(escape(failure.source), escape(failure.why))
    if len(failed) > _MOST_ROWS:
        table.caption = f"and {len(failed) - _MOST_ROWS} more; --json FILE keeps all"
    return table
